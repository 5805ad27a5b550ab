"""One process with a fixed number of CPU threads, for ptsdk."""
