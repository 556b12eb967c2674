"""Images to learn from: a benchmark of variations, the digits behind it, endless deformations."""

from skae.datasets._deformations import DeformedDigits, deform_images
from skae.datasets._digits import load_mnist, make_digit_variation
from skae.datasets._generators import make_convex, make_rectangles, make_rectangles_image
from skae.datasets._larochelle import load_larochelle

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
