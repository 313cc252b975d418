"""`hearsay doctor`: what a run would meet on this machine, before it starts."""
