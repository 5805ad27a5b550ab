"""Template packages, one a kind, and what makes a package of one's own of them."""
