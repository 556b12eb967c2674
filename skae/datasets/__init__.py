"""Data to learn from: a benchmark of images, endless deformations of digits, a mixed table."""

from skae.datasets.digits import load_larochelle, load_mnist, make_digit_variation
from skae.datasets.images import DeformedDigits, deform_images
from skae.datasets.shapes import make_convex, make_rectangles, make_rectangles_image
from skae.datasets.tables import make_mixed_table

__all__ = [
    "DeformedDigits",
    "deform_images",
    "load_larochelle",
    "load_mnist",
    "make_convex",
    "make_digit_variation",
    "make_mixed_table",
    "make_rectangles",
    "make_rectangles_image",
]
