"""ptsdk-phi."""
