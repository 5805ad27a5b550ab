"""Loading a model to use it, and sampling from it."""
