"""ptsdk-gguf."""
