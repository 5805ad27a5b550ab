"""Paragraphs of a plain text file, every token supervised, for ptsdk."""
