"""A text file with a line every so many steps, for ptsdk."""
