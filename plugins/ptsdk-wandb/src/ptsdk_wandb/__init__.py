"""Runs of ptsdk in Weights & Biases."""
