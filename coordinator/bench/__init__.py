"""What a round takes on this host: `hearsay bench`."""
