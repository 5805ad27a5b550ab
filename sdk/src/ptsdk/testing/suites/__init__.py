"""One module a kind: what a component of it has to do, as tests."""
