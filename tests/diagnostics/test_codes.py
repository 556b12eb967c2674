"""What codes are like: constant and saturated units."""

import numpy as np

from skae.diagnostics import constant_units, saturation


def test_constant_units():
    codes = np.array([[0.0, 5.0, 1.0], [1e-9, 5.0, 2.0]])
    # The first moves by rounding alone, the second not at all.
    np.testing.assert_array_equal(constant_units(codes), [True, True, False])


def test_saturation_counts_both_ends():
    codes = np.array([[0.01, 0.99, 0.5, 0.5], [0.2, 0.8, 0.3, 0.96]])
    # Two entries of the first row are within 0.05 of an end, and one of the second.
    np.testing.assert_array_equal(saturation(codes), [0.5, 0.25])
