"""Knowledge distillation for ptsdk: the method, its losses, and the projection of both models at once."""
