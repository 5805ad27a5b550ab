"""Generation without a cache: slow, and short enough to check others against, for ptsdk."""
