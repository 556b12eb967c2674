"""How long training is, what its steps are, and what it says where it was too short."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from skae import (
    RBM,
    AutoEncoder,
    CollapsedCodeWarning,
    ContractiveAutoEncoder,
    StackedAutoEncoder,
)
from skae.engine.optimisation.runs import epochs_for


def warnings_of(model, X):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        warnings.simplefilter("ignore", CollapsedCodeWarning)  # as far as that, it may not get
        model.fit(X)
    return [str(w.message) for w in caught if w.category is ConvergenceWarning]


@pytest.fixture(name="X")
def rows():
    """Two hundred rows of six columns that vary in two dimensions."""
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(200, 2))
    return hidden @ generator.normal(size=(2, 6)) + 0.1 * generator.normal(size=(200, 6))


def test_epochs_by_rows_and_columns(X):
    settings = {"n_iter_no_change": None, "random_state": 0, "learning_rate": 0.01}
    n_epochs = epochs_for(200, 6, 50)
    # 400 + 100 sqrt(6) steps, four in an epoch, are the default of auto-encoders; each layer of a
    # stack has its own columns.
    assert AutoEncoder(3, batch_size=50, **settings).fit(X).n_iter_ == n_epochs == 162
    assert RBM(3, batch_size=50, max_iter="auto", **settings).fit(X).n_iter_ == n_epochs
    stack = StackedAutoEncoder(
        layers=[AutoEncoder(k, batch_size=50, **settings) for k in (4, 2)], random_state=0
    ).fit(X)
    assert [layer.n_iter_ for layer in stack.layers_] == [n_epochs, epochs_for(200, 4, 50)]
    # Of held-out rows none is trained on, so the epochs are a few more.
    held_out = AutoEncoder(3, batch_size=50, early_stopping=True, **settings).fit(X)
    assert held_out.n_iter_ == epochs_for(180, 6, 50)


def test_a_training_that_was_too_short_says_so(X):
    short = AutoEncoder(2, learning_rate=1e-4, max_iter=40, random_state=0)
    (message,) = warnings_of(short, X)
    # It names what was reached, how much was still to come, and the remedies.
    assert "max_iter=40" in message
    assert "max_iter='auto'" in message
    assert "learning_rate" in message
    # Enough of it is silent, and so are a schedule and a training of a few epochs.
    enough = AutoEncoder(2, learning_rate=0.01, max_iter=200, random_state=0)
    scheduled = AutoEncoder(
        2, learning_rate=1e-4, learning_rate_schedule="linear", max_iter=40, random_state=0
    )
    trial = AutoEncoder(2, learning_rate=1e-4, max_iter=29, random_state=0)
    for model in (enough, scheduled, trial):
        assert warnings_of(model, X) == []


@pytest.mark.parametrize("model_class", [AutoEncoder, ContractiveAutoEncoder])
def test_defaults_are_long_enough_for_digits(model_class, digits):
    # No warning where nothing is wrong.
    assert warnings_of(model_class(64, random_state=0), digits[0][:500]) == []


def test_decoupled_decay_is_no_part_of_the_objective(X):
    settings = {"max_iter": 60, "learning_rate": 0.01, "random_state": 0}
    plain = AutoEncoder(3, **settings).fit(X)
    coupled = AutoEncoder(3, weight_decay=0.5, **settings).fit(X)
    decoupled = AutoEncoder(3, weight_decay=0.5, optimizer="adamw", **settings).fit(X)
    size = [np.square(model.components_).sum() for model in (plain, coupled, decoupled)]
    # Both make weights smaller ...
    assert max(size[1:]) < 0.9 * size[0]
    # ... but only the one is counted in the loss, which starts from the same weights.
    one_step = {"max_iter": 1, "batch_size": 200, "random_state": 0}
    first = [
        AutoEncoder(3, **of, **one_step).fit(X).loss_curve_[0]
        for of in ({}, {"weight_decay": 0.5}, {"weight_decay": 0.5, "optimizer": "adamw"})
    ]
    assert first[1] > first[0] + 0.01
    assert_allclose(first[2], first[0])


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_one_step_of_decay(optimizer, X):
    # A learning rate of next to nothing but a decay that makes up for it: 1 - rate * decay is left.
    settings = {"max_iter": 1, "batch_size": 200, "learning_rate": 1e-9, "random_state": 0}
    start = AutoEncoder(3, optimizer=optimizer, **settings).fit(X).components_
    decayed = AutoEncoder(3, optimizer=optimizer, weight_decay=5e8, **settings)
    if optimizer == "adamw":
        assert_allclose(decayed.fit(X).components_, 0.5 * start, rtol=1e-4)
    else:
        assert_allclose(decayed.fit(X).components_, start, atol=1e-6)


def test_a_linear_decoder_of_a_deep_encoder(X):
    model = AutoEncoder(
        2, hidden_layer_sizes=(8,), activation="tanh", decoder="linear", learning_rate=0.01,
        max_iter=200, random_state=0,
    ).fit(X)  # fmt: skip
    codes = model.transform(X)
    weights = model.weights_
    # Reconstructions are affine in the code, in standardised columns ...
    expected = codes @ weights["decoder_weight_0"] + weights["visible_bias_0"]
    expected = expected * model.columns_.scale + model.columns_.shift
    assert_allclose(model.reconstruct(X), expected, rtol=1e-5)
    # ... and good: two numbers tell most of six.
    residual = np.square(X - model.reconstruct(X)).sum() / np.square(X - X.mean(axis=0)).sum()
    assert residual < 0.1
    # One layer has the same map either way.
    one = [AutoEncoder(3, decoder=d, max_iter=3, random_state=0) for d in ("mirrored", "linear")]
    assert_allclose(*(m.fit(X).transform(X) for m in one))
