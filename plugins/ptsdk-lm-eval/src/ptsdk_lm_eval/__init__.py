"""Tasks of EleutherAI's lm-evaluation-harness for ptsdk."""
