"""Who is told to do what, and what came of it: the `hearsay` command."""
