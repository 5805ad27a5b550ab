"""ptsdk-llama."""
