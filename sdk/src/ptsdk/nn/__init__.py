"""Building blocks of models, and what they read and return."""
