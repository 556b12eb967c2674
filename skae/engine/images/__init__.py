"""Linear maps and stages for images."""
