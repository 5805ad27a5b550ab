"""Where the runs below a folder ended, for ptsdk."""
