"""`hearsay reproduce`: the comparisons of the two papers, run again, on one page."""
