"""ptsdk-gemma."""
