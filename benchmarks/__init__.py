"""Wall-clock benchmarks, each a ratio against a limit or a rival measured in the same run."""
