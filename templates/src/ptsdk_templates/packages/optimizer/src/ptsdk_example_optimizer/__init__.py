"""The sign of the momentum (Signum, arXiv:1802.04434), for ptsdk."""
