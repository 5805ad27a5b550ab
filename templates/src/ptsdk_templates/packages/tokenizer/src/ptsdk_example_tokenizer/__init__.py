"""One id a character of an alphabet, for ptsdk."""
