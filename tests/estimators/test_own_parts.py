"""Parts of users' own, such as corruptions: they work, or are refused with what they lack."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skae import (
    AutoEncoder,
    ContractiveAutoEncoder,
    ManifoldTangentClassifier,
    TangentDistanceClassifier,
)
from skae.engine.networks.corruptions import CORRUPTIONS, Masking, corruption
from skae.engine.networks.penalties import SPARSITY_PENALTIES, CodeL1, sparsity_penalty

QUICK = {"n_components": 4, "max_iter": 3, "batch_size": 20, "random_state": 0, "device": "cpu"}
QUICK |= {"loss": "bernoulli"}


class Swap:
    """Each column takes, with a probability, the values of other rows."""

    def __init__(self, level):
        self.level = level

    def __call__(self, x, generator):
        """The corrupted batch, and what was swapped."""
        other = x[torch.randperm(len(x), generator=generator)]
        mask = torch.rand(x.shape, generator=generator) < self.level
        return torch.where(mask, other, x), mask


def halve(x, generator):
    """A function does as well as an object; it has no mask."""
    return x / 2, None


class Squares:
    """The mean square of the code."""

    def __init__(self, weight):
        self.weight = weight

    def value(self, theta, forward):
        """The penalty."""
        return forward.mean(forward.code.square().sum(1))


class SquaresInClosedForm(Squares):
    """The same with its gradient by hand."""

    def add_gradient_(self, theta, forward, gradient):
        """Add 2 h s'(p)."""
        change = forward.weighted_(forward.code * forward.slope)
        forward.delta.add_(change, alpha=2 * self.weight)
        return self.value(theta, forward)


class NotSummed(Squares):
    """Forgets to sum over units and to average over rows."""

    def value(self, theta, forward):
        """No scalar."""
        return forward.code.square()


class Detached(Squares):
    """A number has no gradient."""

    def value(self, theta, forward):
        """No tensor."""
        return float(super().value(theta, forward).detach())


class NothingReturned(SquaresInClosedForm):
    """A gradient without its value."""

    def add_gradient_(self, theta, forward, gradient):
        """Add nothing."""


class WrongValue:
    """Takes no `forward`."""

    weight = 1.0

    def value(self, theta):
        """A value of the parameters."""
        return theta["weight_0"].sum()


class WrongGradient(Squares):
    """Takes no `gradient`."""

    def add_gradient_(self, theta, forward):
        """Add nothing."""


@pytest.fixture
def table():
    return np.random.default_rng(0).random((60, 5))


def assert_same_weights(model, other):
    for name, weight in model.weights_.items():
        np.testing.assert_allclose(other.weights_[name], weight, rtol=1e-10, atol=1e-12)


# They work


def test_an_object_is_what_its_name_stands_for(table):
    named = AutoEncoder(corruption="masking", corruption_level=0.3, **QUICK).fit(table)
    given = AutoEncoder(corruption=Masking(0.3), **QUICK).fit(table)
    # The level is the object's own.
    assert_same_weights(named, given)
    named = AutoEncoder(sparsity=0.2, sparsity_penalty="l1", **QUICK).fit(table)
    given = AutoEncoder(penalties=[CodeL1(0.2)], **QUICK).fit(table)
    assert_same_weights(named, given)


@pytest.mark.parametrize("own", [Swap(0.4), halve])
def test_a_corruption_of_ones_own(own, table):
    plain = AutoEncoder(**QUICK).fit(table)
    model = AutoEncoder(corruption=own, **QUICK).fit(table)
    again = AutoEncoder(corruption=own, **QUICK).fit(table)
    assert model.loss_curve_ != plain.loss_curve_
    # It draws from the generator that it is given: the same seed, the same bits.
    assert model.loss_curve_ == again.loss_curve_
    # Codes and scores are those of clean rows.
    np.testing.assert_array_equal(model.transform(table), again.transform(table))


def test_emphasis_reads_the_mask_of_ones_own_corruption(table):
    plain = AutoEncoder(corruption=Swap(0.4), **QUICK).fit(table)
    alike = AutoEncoder(corruption=Swap(0.4), emphasis=(1.0, 1.0), **QUICK).fit(table)
    assert_same_weights(plain, alike)
    other = AutoEncoder(corruption=Swap(0.4), emphasis=(1.0, 0.0), **QUICK).fit(table)
    assert not np.allclose(other.weights_["weight_0"], plain.weights_["weight_0"])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tied_weights", [False, True])
def test_a_penalty_with_and_without_a_gradient_of_its_own(tied_weights, weighted, table):
    weight = np.random.default_rng(1).random(len(table)) if weighted else None
    settings = {**QUICK, "tied_weights": tied_weights, "contraction": 0.1, "learning_rate": 0.03}
    plain = AutoEncoder(**settings).fit(table, sample_weight=weight)
    differentiated = AutoEncoder(penalties=[Squares(30.0)], **settings)
    closed = AutoEncoder(penalties=(SquaresInClosedForm(30.0),), **settings)
    # Autograd and the closed form beside the others' closed forms are the same training.
    assert_same_weights(
        differentiated.fit(table, sample_weight=weight), closed.fit(table, sample_weight=weight)
    )
    assert np.square(closed.transform(table)).sum() < 0.99 * np.square(plain.transform(table)).sum()


def test_several_layers_take_any_penalty(table):
    model = AutoEncoder(hidden_layer_sizes=(6,), penalties=[SquaresInClosedForm(0.3)], **QUICK)
    same = AutoEncoder(hidden_layer_sizes=(6,), penalties=[Squares(0.3)], **QUICK)
    # A closed form is for one layer; the value serves for more.
    assert_same_weights(model.fit(table), same.fit(table))


def test_own_parts_are_cloned_searched_and_pickled(table):
    model = AutoEncoder(corruption=Swap(0.4), penalties=[Squares(0.3)], **QUICK)
    twin = clone(model)
    # Parameters of a clone are copies, which share nothing with the first.
    assert twin.corruption is not model.corruption
    assert twin.penalties[0] is not model.penalties[0]
    assert_same_weights(model.fit(table), twin.fit(table))
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(restored.transform(table), model.transform(table))
    grid = {"corruption": [None, "masking", Swap(0.4), halve], "penalties": [(), (Squares(0.3),)]}
    search = GridSearchCV(AutoEncoder(**QUICK), grid, cv=2, error_score="raise").fit(table)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(set(search.cv_results_["mean_test_score"])) == 8


def test_what_is_registered_at_run_time_has_a_name(table, monkeypatch):
    @corruption
    class Shuffle(Swap):
        name = "shuffle"
        summary = "values of other rows"

    @sparsity_penalty
    class CodeL2(Squares):
        name = "l2"
        summary = "squares of the code"

        def __init__(self, weight, target):
            super().__init__(weight)

    monkeypatch.delitem(CORRUPTIONS, "shuffle")  # and put back what is taken off at the end
    monkeypatch.delitem(SPARSITY_PENALTIES, "l2")
    monkeypatch.setitem(CORRUPTIONS, "shuffle", Shuffle)
    monkeypatch.setitem(SPARSITY_PENALTIES, "l2", CodeL2)
    settings = {"sparsity": 0.3, "sparsity_penalty": "l2", "emphasis": (1.0, 0.5)}
    named = AutoEncoder(corruption="shuffle", corruption_level=0.4, **settings, **QUICK).fit(table)
    settings = {"penalties": [Squares(0.3)], "emphasis": (1.0, 0.5)}
    given = AutoEncoder(corruption=Swap(0.4), **settings, **QUICK).fit(table)
    assert_same_weights(named, given)


# They are refused


def returning(*results):
    def own(x, generator):
        return tuple(result(x) for result in results)

    return own


def same(x):
    return x.clone()


def touched(x):
    return x > 0.5


def in_place(x, generator):
    x.zero_()
    return x, None


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (lambda x: (x, None), r"cannot be called as corruption\(x, generator\)"),
        (Swap, r"cannot be called as corruption\(x, generator\)"),
        (lambda x, generator: x, "has to return two things, .* not a Tensor"),
        (returning(same), "has to return two things, .* not a tuple"),
        (lambda x, generator: None, "has to return two things, .* not a NoneType"),
        (returning(lambda x: x[:, :3], touched), r"like the one .*\(20, 5\); not .*\(20, 3\)"),
        (returning(lambda x: x[:3], touched), r"like the one .*\(20, 5\); not .*\(3, 5\)"),
        (returning(lambda x: x.float(), touched), "tensor of torch.float64 .* of torch.float32"),
        (returning(lambda x: x.numpy(), touched), "not a ndarray"),
        (returning(same, lambda x: x[0] > 0.5), r"The mask .* shape \(20, 5\), .*shape \(5,\)"),
        (returning(same, same), "The mask .* of torch.bool .* not a tensor of torch.float64"),
        (returning(same, lambda x: 1), "The mask .* not a int"),
        (in_place, "changed the batch in place: it has to return a corrupted copy"),
    ],
)
@pytest.mark.parametrize("layers", [(), (6,)])
def test_a_corruption_that_is_none(layers, own, message, table):
    model = AutoEncoder(corruption=own, hidden_layer_sizes=layers, **QUICK)
    with pytest.raises(ValueError, match=message):
        model.fit(table)
    # Nothing is left of the attempt; and so at the first rows of a stream.
    assert not hasattr(model, "weights_")
    with pytest.raises(ValueError, match=message):
        model.partial_fit(table)
    assert not hasattr(model, "weights_")


def test_a_fitted_model_survives_a_corruption_that_is_none(table):
    model = AutoEncoder(**QUICK).fit(table)
    codes = model.transform(table)
    with pytest.raises(ValueError, match="The mask"):
        model.set_params(corruption=returning(same, same), warm_start=True).fit(table)
    np.testing.assert_array_equal(model.transform(table), codes)


@pytest.mark.parametrize("layers", [(), (6,)])
def test_emphasis_needs_a_mask(layers, table):
    model = AutoEncoder(corruption=halve, emphasis=(1.0, 0.5), hidden_layer_sizes=layers, **QUICK)
    with pytest.raises(
        ValueError, match=r"the corruption returns no mask of them\. Return one, or"
    ):
        model.fit(table)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (WrongValue(), r"is no penalty: .* a method value\(theta, forward\) that returns a scalar"),
        (WrongGradient(0.1), r"is no penalty: .* add_gradient_\(theta, forward, gradient\)"),
        (Squares, r"is no penalty"),
        (Squares("0.1"), r"is no penalty: it has to have a finite number, weight"),
        (Squares(np.nan), r"is no penalty: it has to have a finite number, weight"),
        ("l1", r"penalties='l1' is no penalty"),
        (None, r"penalties=None is no penalty"),
        (NotSummed(0.1), r"NotSummed.value has to .* scalar tensor, .* shape \(20, 4\)"),
        (Detached(0.1), r"Detached.value has to return a scalar tensor, .* not a float"),
    ],
)
@pytest.mark.parametrize("layers", [(), (6,)])
def test_a_penalty_that_is_none(layers, own, message, table):
    # One that the parameters name comes before it.
    model = AutoEncoder(penalties=[own], weight_decay=0.1, hidden_layer_sizes=layers, **QUICK)
    with pytest.raises(ValueError, match=message):
        model.fit(table)
    assert not hasattr(model, "weights_")
    with pytest.raises(ValueError, match=message):
        model.partial_fit(table)


def test_a_gradient_without_a_value_is_refused(table):
    model = ContractiveAutoEncoder(penalties=[NothingReturned(0.1)], **QUICK)
    with pytest.raises(ValueError, match=r"NothingReturned.add_gradient_ has to .* a NoneType"):
        model.fit(table)


def test_errors_of_own_parts_are_their_own(table):
    def broken(x, generator):
        raise ZeroDivisionError("of the user's own")

    # What goes wrong inside is not dressed up as something else.
    with pytest.raises(ZeroDivisionError, match="of the user's own"):
        AutoEncoder(corruption=broken, **QUICK).fit(table)


def test_noise_that_is_not_finite_is_divergence(table):
    def explosive(x, generator):
        return x / 0, None

    with pytest.raises(ValueError, match=r"diverged by epoch 1.*Nothing was learned"):
        AutoEncoder(corruption=explosive, **QUICK).fit(table)
    calls = []

    def later(x, generator):
        calls.append(1)
        return (x / 0 if len(calls) > 12 else x), None

    with pytest.warns(ConvergenceWarning, match="The best finite weights were kept"):
        AutoEncoder(corruption=later, **QUICK).fit(table)


# Functions of one's own that make something else than noise


def takes_nothing():
    """Of no use as any part."""


def returns_nothing(*given):
    """Neither."""


@pytest.mark.parametrize(
    "model",
    [ManifoldTangentClassifier((3,), max_iter=1), TangentDistanceClassifier()],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize(
    ("own", "message"),
    [
        (takes_nothing, r"tangent_source=.*takes_nothing.* called as tangent_source\(X\)"),
        (returns_nothing, r"tangent_source returned .* but numbers of shape"),
    ],
)
def test_tangents_that_are_none(model, own, message, table):
    with pytest.raises(ValueError, match=message):
        clone(model).set_params(tangent_source=own).fit(table[:30], np.arange(30) % 2)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (takes_nothing, r"method=.*takes_nothing.* called as method\(denoiser, generator\)"),
        (returns_nothing, r"no chain: it returned None"),
    ],
)
def test_a_chain_that_is_none(own, message, table):
    model = AutoEncoder(**QUICK, corruption="masking").fit(table)
    with pytest.raises(ValueError, match=message):
        model.sample(2, method=own)
