"""Direct preference optimisation for ptsdk: the method, its losses, its reference."""
