"""Supervised fine-tuning in which every document counts alike, for ptsdk."""
