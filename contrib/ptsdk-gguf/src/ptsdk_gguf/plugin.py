"""What ptsdk-gguf contributes."""

PTSDK_API = 1
