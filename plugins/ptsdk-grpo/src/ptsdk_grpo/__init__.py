"""Group relative policy optimisation for ptsdk: the method, its losses, some rewards."""
