"""ptsdk-lora."""
