"""Metrics as CSV, for ptsdk."""
