"""Codes that carry nothing are reported, and defaults do not make such codes."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from registry import GRADIENT_LEARNERS, LEARNERS
from scipy import sparse
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoder, CollapsedCodeWarning, ContractiveAutoEncoder, DenoisingAutoEncoder
from skae.estimators.face.outcomes import explained

LOADERS = {
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": lambda return_X_y: load_diabetes(return_X_y=return_X_y, scaled=False),
}
CLASSES = [AutoEncoder, DenoisingAutoEncoder, ContractiveAutoEncoder]


def collapses(model, data, **fit_parameters):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapsedCodeWarning)
        model.fit(data, **fit_parameters)
    return [str(w.message) for w in caught if w.category is CollapsedCodeWarning]


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("model_class", CLASSES)
def test_defaults_do_not_collapse(model_class, name):
    data, _ = LOADERS[name](return_X_y=True)
    model = model_class(max_iter=4, random_state=0)
    # Raw tables of any units, untouched defaults: every unit says something.
    assert collapses(model, data) == []
    codes = model.transform(data)
    assert codes.std(axis=0).min() > 1e-3
    # And training beats the same network untrained.
    untrained = model_class(max_iter=1, learning_rate=1e-12, random_state=0).fit(data)
    assert model.score(data) > untrained.score(data)


def test_contraction_that_crushes_the_code(X):
    model = ContractiveAutoEncoder(
        3, contraction=1e6, learning_rate=0.05, max_iter=300, n_iter_no_change=None, random_state=0
    )
    (message,) = collapses(model, X)
    # A penalty a million times the reconstruction leaves constant codes; say so.
    assert "code units are constant" in message
    assert "weaker penalties" in message


DEAD = {
    "activation": "relu",
    "sparsity": 1e3,
    "sparsity_penalty": "l1",
    "learning_rate": 0.02,
    "max_iter": 60,
}


def test_dead_rectifiers(counts):
    # Positive inputs, and a price on every response: the weights go below zero for good.
    model = AutoEncoder(3, random_state=0, **DEAD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(counts.astype(float))
    codes = model.transform(counts.astype(float))
    n_dead = int((np.ptp(codes, axis=0) == 0).sum())
    assert n_dead > 0
    (message,) = collapses(model, counts.astype(float))
    # The number of units and a way out.
    assert message.startswith(f"{n_dead} of 3 code units are constant")
    assert "another activation" in message


def test_warning_points_at_the_call(counts):
    model = AutoEncoder(3, random_state=0, **DEAD)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(counts.astype(float))
    (collapsed,) = [w for w in caught if w.category is CollapsedCodeWarning]
    assert collapsed.filename == __file__


@pytest.mark.parametrize(
    ("sizes", "load", "max_iter"),
    [
        ((128, 64, 32), load_wine, 200),
        ((128, 64), load_digits, 20),
    ],
)
def test_deep_defaults_learn_more_than_the_mean(sizes, load, max_iter):
    X = load().data
    # A few seeds begin with a plateau, on which training would end.
    settings = {"max_iter": max_iter, "n_iter_no_change": None, "random_state": 0}
    model = AutoEncoder(16, hidden_layer_sizes=sizes, **settings).fit(X)
    # Sigmoid layers pass on a quarter of a signal: weights that do not make up for it leave
    # deep codes constant and reconstructions at the mean.
    assert explained(model, X) > 0.15


def test_a_model_of_the_mean_is_reported(X):
    crushed = ContractiveAutoEncoder(
        3, contraction=1e3, learning_rate=0.05, max_iter=100, n_iter_no_change=None, random_state=0
    )
    (message,) = collapses(crushed, X)
    # The codes vary a little, but what they say of the rows is next to nothing.
    assert "hardly better than the mean" in message or "units are constant" in message


def test_a_learning_rate_that_ruins_the_model_is_reported():
    X = load_wine().data
    for settings in ({}, {"early_stopping": True}):
        # Finite all along, but a million times worse than the start: there is no model.
        with pytest.raises(ValueError, match="learning_rate"):
            AutoEncoder(32, learning_rate=1000, random_state=0, **settings).fit(X)


def test_early_stopping_keeps_a_model_that_no_epoch_improves():
    X = load_wine().data
    model = AutoEncoder(32, warm_start=True, early_stopping=True, random_state=0).fit(X)
    before = model.score(X)
    with pytest.warns(ConvergenceWarning, match="which was kept"):
        model.set_params(learning_rate=10, max_iter=3).fit(X)
    assert model.score(X) == before


@pytest.mark.parametrize("case", LEARNERS, ids=str)
def test_right_codes_are_no_collapse(case):
    width = case.X.shape[1]
    # Constant codes of constant rows are right.
    assert collapses(case.make(), np.ones((20, width))) == []
    assert collapses(case.make(), np.arange(float(width))[np.newaxis]) == []
    # The first half of the rows are the same; that says nothing about the units.
    data = np.repeat(case.X, 50, axis=0)
    data[:1000] = 0
    for convert in (np.asarray, sparse.csr_array):
        assert collapses(case.make(batch_size=500, max_iter=1), convert(data)) == []
    # Nor do rows that do not count.
    data = np.vstack([np.zeros((2000, width)), case.X])
    weight = np.r_[np.zeros(2000), np.ones(40)]
    assert collapses(case.make(), data, sample_weight=weight) == []


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("shape", [{}, {"hidden_layer_sizes": (7,), "tied_weights": False}])
def test_a_raw_table_needs_no_scaler(model_class, name, shape):
    data, _ = LOADERS[name](return_X_y=True)
    scaled = StandardScaler().fit_transform(data)
    model = model_class(8, max_iter=3, loss="gaussian", random_state=0, **shape)
    raw = model.fit(data).transform(data)
    raw_score = model.score(data)
    # Gaussian units standardise by themselves: the network sees the same numbers.
    assert_allclose(raw, model.fit(scaled).transform(scaled), rtol=1e-6, atol=1e-8)
    # The likelihoods differ by the change of units alone.
    constant = np.log(data.std(axis=0)).sum()
    assert_allclose(raw_score, model.score(scaled) - constant, rtol=1e-6)


# Images have one scale for all of their pixels.
@pytest.mark.parametrize(
    "case", [c for c in GRADIENT_LEARNERS if not c.takes("image_shape")], ids=str
)
def test_units_of_a_column_do_not_matter(case):
    gaussian = {"visible" if case.takes("visible") else "loss": "gaussian"}
    if case.takes("layer_sizes"):
        gaussian = {}
    codes = []
    for scale in (1.0, 1e-6, 1e3, -2.0):
        other = case.X.copy()
        other[:, 1] = scale * case.X[:, 1] - 5
        codes.append(case.output(case.fit(other, **gaussian), other))
    # Kilometres or metres: the same standardised column.
    assert_allclose(codes[1], codes[0], rtol=1e-6, atol=1e-8)
    assert_allclose(codes[2], codes[0], rtol=1e-6, atol=1e-8)
    if not case.takes("dictionary"):
        # A sign is another direction, which random weights do not see as the same.
        assert np.abs(codes[3] - codes[0]).max() > 1e-6
