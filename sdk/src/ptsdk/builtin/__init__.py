"""What core itself contributes, through the same hooks as any other dist."""
