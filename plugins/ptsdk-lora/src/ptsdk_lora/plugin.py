"""What ptsdk-lora contributes."""

PTSDK_API = 1
