"""A checkpoint source for ptsdk."""
