"""`hearsay link`: one link on the bench, measured and held against theory."""
