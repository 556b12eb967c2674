"""Images to learn from: a benchmark of variations, the digits behind it, endless deformations."""

from skae.datasets.digits import load_larochelle, load_mnist, make_digit_variation
from skae.datasets.images import DeformedDigits, deform_images
from skae.datasets.shapes import make_convex, make_rectangles, make_rectangles_image

__all__ = [
    "DeformedDigits",
    "deform_images",
    "load_larochelle",
    "load_mnist",
    "make_convex",
    "make_digit_variation",
    "make_rectangles",
    "make_rectangles_image",
]
