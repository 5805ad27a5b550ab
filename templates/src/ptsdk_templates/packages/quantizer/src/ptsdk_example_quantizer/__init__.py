"""Training with weights rounded to a few bits a row, for ptsdk."""
