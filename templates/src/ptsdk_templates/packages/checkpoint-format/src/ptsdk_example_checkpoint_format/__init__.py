"""A NumPy archive of weights beside its config, for ptsdk."""
