"""Singular values of Jacobians, how many matter, and what is wrong with some."""

import numpy as np
import pytest

from skae import AutoEncoder
from skae.diagnostics import jacobian_norms, jacobian_spectrum, local_rank, tangent_defects


@pytest.fixture(name="X")
def data(skewed_columns):
    return skewed_columns


def test_spectra_agree_with_decompositions_of_autograd(fitted, of, X, jacobians_by_autograd):
    expected = np.linalg.svd(jacobians_by_autograd(fitted, X, of), compute_uv=False)
    values = jacobian_spectrum(fitted, X, of=of)
    # The decomposition of the matrix of all partial derivatives, however it was computed.
    np.testing.assert_allclose(values, expected, rtol=1e-7, atol=1e-12 * expected.max())
    leading = jacobian_spectrum(fitted, X, 3, of=of)
    # The three largest are the first three of all.
    np.testing.assert_allclose(leading, values[:, :3], rtol=1e-7)


def test_leading_values_of_a_large_jacobian_are_the_first_of_all(digits):
    X = digits[0][:20].repeat(3, axis=1)  # 192 columns: too many for a decomposition at once
    model = AutoEncoder(150, activation="tanh", max_iter=5, random_state=0).fit(X)
    whole = jacobian_spectrum(model, X)
    leading = jacobian_spectrum(model, X, 4)
    # The iteration stops when its error is about the square of its tolerance.
    np.testing.assert_allclose(leading, whole[:, :4], rtol=1e-4)
    squares = np.square(whole).sum(axis=1)
    # The squares of all singular values sum to the squared Frobenius norm.
    np.testing.assert_allclose(squares, jacobian_norms(model, X) ** 2, rtol=1e-10)


def test_spectra_keep_the_dtype(X):
    model = AutoEncoder(4, max_iter=2, random_state=0).fit(X)
    for n_values in (None, 2):
        # float32 data ask for float32 arithmetic.
        assert jacobian_spectrum(model, X.astype(np.float32), n_values).dtype == np.float32
        # float64 data need float64.
        assert jacobian_spectrum(model, X, n_values).dtype == np.float64


@pytest.mark.parametrize("n_values", [0, 5, 2.0])
def test_values_that_are_not_there_are_refused(X, n_values):
    model = AutoEncoder(4, max_iter=1, random_state=0).fit(X)
    # Four code units have at most four singular values.
    with pytest.raises(ValueError, match=f"n_values={n_values}"):
        jacobian_spectrum(model, X, n_values)


def test_reconstructions_have_as_many_values_as_features(X):
    model = AutoEncoder(2, max_iter=2, random_state=0).fit(X)
    values = jacobian_spectrum(model, X, of="reconstruction")
    # Their Jacobian is square, and its rank is that of the code at most.
    assert values.shape == (30, 6)
    np.testing.assert_allclose(values[:, 2:], 0, atol=1e-12)


def test_local_rank_counts_what_holds_the_share():
    values = np.array([[2.0, 1.0, 1.0, 0.0], [5.0, 0.1, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    # 4 of 6 are two thirds, 5 of 6 are 83 %; nothing is held where there is nothing.
    np.testing.assert_array_equal(local_rank(values, share=0.6), [1, 1, 0])
    np.testing.assert_array_equal(local_rank(values, share=0.8), [2, 1, 0])
    np.testing.assert_array_equal(local_rank(values, share=0.9), [3, 1, 0])
    # All of it needs every value but those that are 0.
    np.testing.assert_array_equal(local_rank(values, share=1), [3, 2, 0])
    # A share has no units, even where squares underflow or overflow.
    for factor in (1e-200, 1e200):
        np.testing.assert_array_equal(local_rank(factor * values, share=0.8), [2, 1, 0])


def test_local_rank_of_a_linear_code_is_the_rank_of_its_weights(X):
    model = AutoEncoder(5, activation="linear", loss="squared_error", max_iter=1).fit(X)
    model.weights_["weight_0"][2:] = model.weights_["weight_0"][0]
    # Five filters, two of them different: two directions hold everything at every row.
    np.testing.assert_array_equal(local_rank(jacobian_spectrum(model, X), 1 - 1e-9), 2)


@pytest.mark.parametrize("share", [0, 1.1, np.nan])
def test_shares_outside_of_the_unit_interval_are_refused(share):
    # A share of nothing, or of more than all, has no rank.
    with pytest.raises(ValueError, match="share="):
        local_rank([[1.0, 0.5]], share)


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [[1.0, -1.0]]])
def test_what_are_no_singular_values_is_refused(values):
    for function in (local_rank, tangent_defects):
        # They are at least 0 and decrease; anything else is another array.
        with pytest.raises(ValueError, match="Singular values are at least 0 and decrease"):
            function(values)


def test_defects_of_spectra_with_known_shape():
    values = np.array([[3.0, 2.0, 1.0], [3.0, 3.0, 2.9], [3.0, 3.0, 0.0], [0.0, 0.0, 0.0]])
    zero, flat = tangent_defects(values)
    # Nothing responds at the last row alone.
    np.testing.assert_array_equal(zero, [False, False, False, True])
    # The second does not fall to 0.9 of its first value; two equal tangents beside nothing
    # are a plane, and a row of zeros has a defect already.
    np.testing.assert_array_equal(flat, [False, True, False, False])
    # A response of 3 is none for codes of millions.
    assert tangent_defects(values, scale=1e6).zero.all()
    # Whether one direction stands out cannot be told from its value alone.
    assert not tangent_defects(values[:, :1]).flat.any()


def test_collapsed_encoders_are_recognised(X):
    model = AutoEncoder(5, activation="relu", max_iter=1, random_state=0).fit(X)
    model.weights_["hidden_bias_0"][:] = -1e6
    # Units that are off at every row respond to nothing.
    assert tangent_defects(jacobian_spectrum(model, X)).zero.all()
    model = AutoEncoder(6, activation="linear", max_iter=1, random_state=0).fit(X)
    model.weights_["weight_0"][:] = np.eye(6)
    # A code that is a copy of the input responds alike in all directions.
    assert tangent_defects(jacobian_spectrum(model, X)).flat.all()
