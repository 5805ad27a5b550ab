"""Warm-up, then the inverse square root of the step, for ptsdk."""
