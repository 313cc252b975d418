"""What a run would be: local rounds, aggregation and bounds, worked out before anything runs."""
