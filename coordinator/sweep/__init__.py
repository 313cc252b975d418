"""`hearsay sweep`: a grid of runs, and what they have in common over seeds."""
