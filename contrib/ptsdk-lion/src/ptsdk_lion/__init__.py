"""The Lion optimizer, for ptsdk."""
