"""A decoder with squared ReLU in its feed-forward layers, for ptsdk."""
