"""One loop for every method, and the one place that knows in which order a run is made."""
