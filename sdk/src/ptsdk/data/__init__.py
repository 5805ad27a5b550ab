"""From rows to examples, and the order they are read in."""
