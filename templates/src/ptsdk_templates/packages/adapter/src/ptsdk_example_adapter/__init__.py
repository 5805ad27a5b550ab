"""A learned factor for each output of some layers (IA3, arXiv:2205.05638), for ptsdk."""
