"""Only norms and biases train (BitFit, arXiv:2106.10199), for ptsdk."""
