"""`hearsay render`: an experiment as a file that another program starts it from."""
