"""ptsdk-mistral."""
