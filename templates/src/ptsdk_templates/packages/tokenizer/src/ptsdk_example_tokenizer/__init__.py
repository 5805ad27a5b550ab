"""Byte pairs learned from a text file, for ptsdk."""
