"""What tables ask for: features, odd rows, gaps."""
