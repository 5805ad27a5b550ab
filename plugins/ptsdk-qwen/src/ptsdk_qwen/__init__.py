"""ptsdk-qwen."""
