"""Models as averages over draws of their parameters."""
