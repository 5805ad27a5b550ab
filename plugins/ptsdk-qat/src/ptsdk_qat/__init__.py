"""Quantization-aware training for ptsdk, by torchao."""
