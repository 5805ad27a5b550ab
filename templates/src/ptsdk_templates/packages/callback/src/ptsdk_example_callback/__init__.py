"""Stop once the loss is low enough, for ptsdk."""
