"""Frozen bases in 4 and 8 bits, and optimizers with small state, for ptsdk, by torchao."""
