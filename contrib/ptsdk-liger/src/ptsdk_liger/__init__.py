"""Kernels of Liger Kernel, for ptsdk."""
