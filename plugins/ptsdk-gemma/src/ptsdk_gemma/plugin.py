"""What ptsdk-gemma contributes."""

PTSDK_API = 1
