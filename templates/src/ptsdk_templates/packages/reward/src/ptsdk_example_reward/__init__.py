"""The share of wanted words that a completion has, for ptsdk."""
