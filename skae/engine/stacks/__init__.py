"""Models one on the other, and an output layer on top."""
