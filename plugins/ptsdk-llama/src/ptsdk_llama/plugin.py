"""What ptsdk-llama contributes."""

PTSDK_API = 1
