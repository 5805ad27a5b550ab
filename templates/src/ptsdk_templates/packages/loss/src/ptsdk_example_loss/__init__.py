"""Cross-entropy plus a term that presses on hard tokens (arXiv:2204.12511), for ptsdk."""
