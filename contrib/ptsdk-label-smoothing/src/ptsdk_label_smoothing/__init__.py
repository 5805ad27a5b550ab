"""Label smoothing, for ptsdk."""
