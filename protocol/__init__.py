"""What devices say to each other, and what the air does to it: pure functions and frozen models."""
