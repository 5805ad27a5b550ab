"""Checkpoints: where they come from, how they are read, and how a run writes its own."""
