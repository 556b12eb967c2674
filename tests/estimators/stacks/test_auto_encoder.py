"""A stack is its layers one after the other, however they are trained, and then one whole."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from skae import (
    PSD,
    RBM,
    AutoEncoder,
    CollapsedCodeWarning,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
)
from skae.engine.optimisation.optimizers import OPTIMIZERS, SGD
from skae.estimators.stacks.auto_encoder import unrolled

SMALL = {"max_iter": 3, "batch_size": 50, "random_state": 0}
# So that nothing but the weights and the batches decides.
PLAIN = {**SMALL, "n_iter_no_change": None}

KINDS = {
    "auto": AutoEncoder(8, **SMALL),
    "relu": AutoEncoder(8, activation="relu", **SMALL),
    "untied": AutoEncoder(8, tied_weights=False, **SMALL),
    "deep": AutoEncoder(8, hidden_layer_sizes=(12, 10), **SMALL),
    "denoising": DenoisingAutoEncoder(8, **SMALL),
    "contractive": ContractiveAutoEncoder(8, **SMALL),
    "rbm": RBM(8, **SMALL),
    "gaussian rbm": RBM(8, visible="gaussian", **SMALL),
    "psd": PSD(8, **SMALL),
    "sparse coder": SparseCoder(8, **SMALL),
}


@pytest.fixture
def images(digits):
    """Two hundred digits in [0, 1]."""
    return digits[0][:200]


@pytest.fixture
def classes(digits):
    """Their classes."""
    return digits[1][:200]


@pytest.fixture
def wine():
    """178 rows of 13 columns in raw units."""
    return load_wine(return_X_y=True)[0]


def small_stack(**parameters):
    return StackedAutoEncoder((8, 4), **{"layer": "auto", **SMALL, **parameters})


def assert_same_weights(model, other):
    assert model.weights_.keys() == other.weights_.keys()
    for name, weight in model.weights_.items():
        assert_array_equal(weight, other.weights_[name])


def upwards(layers, data):
    for layer in layers:
        data = layer.transform(data)
    return data


def downwards(layers, codes):
    for layer in reversed(layers):
        codes = layer.inverse_transform(codes)
    return codes


# One layer


@pytest.mark.parametrize(
    ("kind", "weighted"), [*((kind, False) for kind in KINDS), ("denoising", True), ("rbm", True)]
)
def test_a_stack_of_one_layer_is_that_layer(images, kind, weighted):
    weight = np.arange(200) % 3 if weighted else None
    stack = StackedAutoEncoder(layers=[KINDS[kind]]).fit(images, sample_weight=weight)
    layer = clone(KINDS[kind]).fit(images, sample_weight=weight)
    codes = layer.transform(images)
    # There is nothing else in the stack, so that every bit is the layer's.
    assert_array_equal(stack.transform(images), codes)
    assert_array_equal(stack.inverse_transform(codes), layer.inverse_transform(codes))
    assert_array_equal(stack.reconstruct(images), layer.reconstruct(images))
    assert stack.layer_loss_curves_ == [layer.loss_curve_]
    assert stack.n_iter_ == layer.n_iter_
    if not isinstance(layer, RBM):
        assert_array_equal(stack.score_samples(images), layer.score_samples(images))


def test_score_of_a_machine_in_a_stack(images):
    stack = StackedAutoEncoder(layers=[KINDS["rbm"]]).fit(images)
    r = stack.reconstruct(images)
    # A machine alone scores by its own distribution, a stack by the reconstruction: the
    # Bernoulli log-likelihood of x given r(x), written out.
    expected = (images * np.log(r) + (1 - images) * np.log1p(-r)).sum(1)
    assert_allclose(stack.score_samples(images), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "layer_class"),
    [
        ("auto", AutoEncoder),
        ("denoising", DenoisingAutoEncoder),
        ("contractive", ContractiveAutoEncoder),
        ("rbm", RBM),
        ("psd", PSD),
    ],
)
def test_layers_by_name(images, name, layer_class):
    stack = StackedAutoEncoder((8, 4), layer=name, **SMALL).fit(images)
    below, above = stack.layers_
    assert type(below) is type(above) is layer_class
    for layer in (below, above):
        # The class's defaults, but for what the stack hands on.
        changed = {"n_components", "random_state", "batch_size", "max_iter"}
        # Codes of sigmoid units are Bernoulli whatever they are; numbers alone would not tell.
        is_told = layer is above and issubclass(layer_class, AutoEncoder)
        expected = layer_class().get_params() | ({"loss": "bernoulli"} if is_told else {})
        assert {k: v for k, v in layer.get_params().items() if k not in changed} == {
            k: v for k, v in expected.items() if k not in changed
        }
        assert (layer.batch_size, layer.max_iter) == (50, 3)
    # Every layer is what its class learns on the codes below.
    alone = clone(above).fit(clone(below).fit(images).transform(images))
    assert_same_weights(above, alone)
    # One seed for all would give layers of one size the same first weights.
    assert below.random_state != above.random_state


def test_layer_as_a_prototype(images):
    prototype = ContractiveAutoEncoder(99, contraction=0.7, **SMALL)
    stack = StackedAutoEncoder((8, 4), layer=prototype).fit(images)
    # Copies with the sizes of the stack; the prototype is a parameter, which fit never changes.
    assert [layer.n_components for layer in stack.layers_] == [8, 4]
    assert all(layer.contraction == 0.7 for layer in stack.layers_)
    assert prototype.n_components == 99
    assert not hasattr(prototype, "weights_")


# Several layers

STACKS = {
    "auto": ["auto", "auto"],
    "relu": ["relu", "relu", "auto"],
    "untied": ["untied", "auto"],
    "deep": ["deep", "deep"],
    "rbm": ["rbm", "rbm"],
    "gaussian rbm": ["gaussian rbm", "rbm"],
    "psd": ["psd", "psd"],
    "mixed": ["gaussian rbm", "psd", "relu", "contractive"],
    "dictionary on top": ["denoising", "sparse coder"],
    "dictionary below": ["sparse coder", "auto"],
}
UNROLLED = [name for name in STACKS if "dictionary" not in name]


_FITTED = {}


def fitted(name, data):
    """A stack that has learned from the rows, which several tests ask for: a copy of its own."""
    if (name, data.shape) not in _FITTED:
        layers = [clone(KINDS[kind]) for kind in STACKS[name]]
        _FITTED[name, data.shape] = StackedAutoEncoder(layers=layers).fit(data)
    return copy.deepcopy(_FITTED[name, data.shape])


@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
@pytest.mark.parametrize(
    ("name", "raw"),
    [*((name, False) for name in STACKS), ("mixed", True), ("dictionary below", True)],
)
def test_a_stack_is_its_layers_one_after_another(images, wine, name, raw):
    data = wine if raw else images
    stack = fitted(name, data)
    # Definition of h_l, with every layer's own standardisation of what it sees.
    for number in range(len(stack.layers_)):
        stack.set_params(code_layer=number)
        below = stack.layers_[: number + 1]
        codes = stack.transform(data)
        assert_allclose(codes, upwards(below, data), rtol=1e-12, atol=1e-12)
        assert_allclose(
            stack.inverse_transform(codes), downwards(below, codes), rtol=1e-10, atol=1e-12
        )


@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sparse coder"])
def test_unrolled_layer_is_the_layer(images, wine, kind):
    data = wine if "gaussian" in kind or kind == "deep" else images
    layer = clone(KINDS[kind]).fit(data)
    before = {name: weight.copy() for name, weight in layer.weights_.items()}
    free = unrolled(layer)
    codes = layer.transform(data)
    # The same maps: for machines the mean field, with the precisions inside the weights.
    assert_allclose(free.transform(data), codes, rtol=1e-10, atol=1e-12)
    assert_allclose(
        free.inverse_transform(codes), layer.inverse_transform(codes), rtol=1e-10, atol=1e-12
    )
    for weight in free.weights_.values():
        weight += 1.0
    # A copy, if fine-tuning is not to change what it was made of. (PSD's arrays are its own
    # decoder's already, and training replaces them.)
    if kind not in ("psd", "untied"):
        assert any("decoder" in name for name in free.weights_)
        encoder = free.weights_["weight_0"]
        assert not np.shares_memory(encoder, free.weights_["decoder_weight_0"])
    if kind in ("auto", "relu", "deep", "denoising", "contractive"):
        for name, weight in before.items():
            assert_array_equal(layer.weights_[name], weight)


@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
@pytest.mark.parametrize(("name", "raw"), [*((name, False) for name in UNROLLED), ("mixed", True)])
def test_unrolled_stack_reconstructs_as_its_layers_do(images, wine, name, raw):
    data = wine if raw else images
    stack = fitted(name, data)
    layers = [copy.copy(layer) for layer in stack.layers_]
    expected = downwards(layers, upwards(layers, data))
    still = StackedAutoEncoder(
        layers=layers, pretraining="prefit", fine_tuning=True, learning_rate=1e-300, max_iter=1
    ).fit(data)
    # Fine-tuning starts where pre-training ended: steps of 1e-300 show the start.
    assert_allclose(still.reconstruct(data), expected, rtol=1e-9, atol=1e-10)
    assert_allclose(still.transform(data), upwards(layers, data), rtol=1e-9, atol=1e-10)
    # The first epoch's objective is that of these reconstructions.
    assert_allclose(still.loss_curve_[0], -still.score(data), rtol=1e-10)


def test_codes_that_may_leave_the_unit_interval_are_standardised(images):
    small = images / 50
    stack = fitted("relu", small)
    codes = stack.layers_[0].transform(small)
    # Rectified codes are no probabilities, even where all of them happen to lie below 1.
    assert codes.max() < 1
    units = [layer.columns_.parts[0][0] for layer in stack.layers_]
    assert units == ["bernoulli", "gaussian", "gaussian"]


# Pre-training


def test_unsupervised_pretraining_is_greedy(images):
    stack = fitted("mixed", images)
    codes = images
    for kind, layer in zip(STACKS["mixed"], stack.layers_, strict=True):
        alone = clone(KINDS[kind])
        units = "visible" if isinstance(layer, RBM) else "loss"
        alone.set_params(**{units: getattr(layer, units)})
        # Layer by layer with the codes of the trained ones below: nothing comes back down.
        assert_same_weights(layer, alone.fit(codes))
        codes = alone.transform(codes)


def accuracy(codes, y):
    return cross_val_score(LogisticRegression(max_iter=2000), codes, y, cv=3).mean()


@pytest.mark.parametrize("kind", ["auto", "rbm", "psd"])
def test_supervised_pretraining_learns_about_the_classes(images, classes, kind):
    layers = [clone(KINDS[kind]).set_params(max_iter=30) for _ in range(2)]
    for layer in layers:
        layer.set_params(optimizer="adam", learning_rate=0.02, n_iter_no_change=None)
    supervised = StackedAutoEncoder(layers=layers, pretraining="supervised").fit(images, classes)
    random = StackedAutoEncoder(layers=layers, pretraining=None).fit(images)
    # Labels were seen by these rows' codes, so that classes must be easy to tell by them.
    assert accuracy(supervised.transform(images), classes) > 0.9
    assert accuracy(supervised.transform(images), classes) > 0.1 + accuracy(
        random.transform(images), classes
    )
    for curve in supervised.layer_loss_curves_:
        assert len(curve) == 30
        # -log P(y) starts at that of the classes' frequencies, near log 10.
        assert curve[-1] < 0.5 * curve[0] < 0.5 * np.log(10) * 1.1


def test_supervised_pretraining_leaves_decoders_as_they_were(images, classes):
    def stack(mode):
        layer = AutoEncoder(8, tied_weights=False, **SMALL)
        return StackedAutoEncoder(layers=[layer], pretraining=mode).fit(images, classes)

    supervised, random, both = stack("supervised"), stack(None), stack("partly_supervised")
    # The class criterion knows nothing of the decoder, the sum of both does.
    for name in ("0.decoder_weight_0", "0.visible_bias_0"):
        assert_array_equal(supervised.weights_[name], random.weights_[name])
        assert (both.weights_[name] != random.weights_[name]).any()
    assert (supervised.weights_["0.weight_0"] != random.weights_["0.weight_0"]).any()


def test_partly_supervised_tends_to_unsupervised(images, classes):
    def weights(mode, supervision=1.0):
        # One batch: the two draw their batches from different places of the stream.
        whole = {**PLAIN, "batch_size": 200, "max_iter": 20, "learning_rate": 0.02}
        layers = [AutoEncoder(8, **whole) for _ in range(2)]
        stack = StackedAutoEncoder(layers=layers, pretraining=mode, supervision=supervision)
        return np.concatenate([w.ravel() for w in stack.fit(images, classes).weights_.values()])

    limit = weights("unsupervised")

    def distance(supervision):
        return np.linalg.norm(weights("partly_supervised", supervision) - limit)

    # A term of weight s moves the weights by O(s).
    assert distance(1.0) > 0.1
    assert distance(1e-5) < 1e-3 * distance(1.0)
    assert distance(1e-8) < 1e-6 * distance(1.0)


@pytest.mark.parametrize("mode", ["supervised", "partly_supervised"])
def test_rows_without_a_class_in_supervised_pretraining(images, classes, mode):
    some = np.where(np.arange(200) < 60, classes, -1)
    layer = AutoEncoder(8, **PLAIN)
    stack = StackedAutoEncoder(layers=[layer], pretraining=mode, random_state=0)
    weights = clone(stack).fit(images, some).weights_["0.weight_0"]
    # Other rows without classes; their columns' means, at which the biases begin, are the same.
    other = images.copy()
    other[60:] = np.random.default_rng(0).permuted(images[60:], axis=0)
    changed = clone(stack).fit(other, some).weights_["0.weight_0"]
    # Unlabelled rows teach by the layer's own criterion and by nothing else.
    assert np.allclose(weights, changed, rtol=1e-9, atol=1e-9) == (mode == "supervised")


@pytest.mark.parametrize(
    "y",
    [
        np.where(np.arange(200) % 3, "yes", "no"),
        np.where(np.arange(200) % 5, np.random.default_rng(0).normal(size=200), np.nan),
        np.stack([np.arange(200) % 2, np.arange(200) % 3], axis=1),
    ],
    ids=["text", "some NaN", "several classes"],
)
def test_kinds_of_targets(images, y):
    stack = small_stack(pretraining="supervised").fit(images, y)
    # What y is shows in what it is: all of these can be predicted from.
    assert all(len(curve) == 3 for curve in stack.layer_loss_curves_)
    assert np.isfinite(stack.transform(images)).all()


def test_a_list_of_modes(images, classes):
    modes = ["unsupervised", None, "supervised"]
    stack = StackedAutoEncoder((8, 6, 4), layer="auto", pretraining=modes, **SMALL)
    stack.fit(images, classes)
    all_unsupervised = clone(stack).set_params(pretraining="unsupervised").fit(images)
    # Each layer is trained in its own way, and the lowest does not know of the others.
    assert_same_weights(stack.layers_[0], all_unsupervised.layers_[0])
    assert [layer.stopping_reason_ for layer in stack.layers_] == [
        "max_iter",
        "untrained",
        "max_iter",
    ]
    assert [len(curve) for curve in stack.layer_loss_curves_] == [3, 0, 3]
    assert stack.n_iter_ == 6


def test_no_pretraining_is_random(images):
    stack = small_stack(pretraining=None).fit(images)
    assert stack.n_iter_ == 0
    assert stack.stopping_reason_ == "untrained"
    # Weights that were learned from nothing but the seed are the same for other rows ...
    other = small_stack(pretraining=None).fit(1 - images)
    assert_array_equal(stack.weights_["0.weight_0"], other.weights_["0.weight_0"])
    assert_array_equal(stack.weights_["1.weight_0"], other.weights_["1.weight_0"])
    # ... and other weights for another seed.
    other = small_stack(pretraining=None, random_state=1).fit(images)
    assert (stack.weights_["0.weight_0"] != other.weights_["0.weight_0"]).all()
    # A signal comes through.
    assert stack.transform(images).std(0).min() > 1e-3


@pytest.mark.parametrize("kind", ["auto", "contractive", "relu"])
def test_simultaneous_layers_do_not_learn_from_those_above(images, kind):
    def stack(n_layers, **parameters):
        layers = [clone(KINDS[kind]) for _ in range(n_layers)]
        return StackedAutoEncoder(
            layers=layers, pretraining="simultaneous", **PLAIN, **parameters
        ).fit(images)

    two, three = stack(2), stack(3)
    # Codes are constants in the gradient of the layer above: not one bit comes down.
    for low, high in zip(two.layers_, three.layers_[:2], strict=True):
        assert_same_weights(low, high)
        assert low.loss_curve_ == high.loss_curve_
    assert [len(curve) for curve in three.layer_loss_curves_] == [3, 3, 3]


def test_simultaneous_criteria(images):
    stack = small_stack(pretraining="simultaneous", **{**PLAIN, "max_iter": 8}).fit(images)
    below, above = stack.layers_
    # The curve's last entry is the layer's own criterion, on the codes of that time.
    assert_allclose(below.loss_curve_[-1], -below.score(images), rtol=1e-10)
    codes = below.transform(images)
    assert_allclose(above.loss_curve_[-1], -above.score(codes), rtol=1e-10)
    # The lower layer learns; what it gives to the upper one is then another task every time.
    assert below.loss_curve_[-1] < below.loss_curve_[0]
    assert len(stack.loss_curve_) == stack.n_iter_ // 2 == 8


def test_simultaneous_layers_have_their_own_steps(images):
    layers = [AutoEncoder(8, learning_rate=1e-300, **SMALL), AutoEncoder(4, **SMALL)]
    stack = StackedAutoEncoder(layers=layers, pretraining="simultaneous", **SMALL).fit(images)
    start = clone(stack).set_params(pretraining=None).fit(images)
    # A layer whose learning rate is next to zero stays, and the other goes.
    assert_array_equal(stack.weights_["0.weight_0"], start.weights_["0.weight_0"])
    assert (stack.weights_["1.weight_0"] != start.weights_["1.weight_0"]).any()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("fine_tuning", [False, True])
def test_prefit_layers(images, frozen, fine_tuning):
    below = AutoEncoder(8, activation="tanh", **SMALL).fit(images)
    above = AutoEncoder(4, **SMALL).fit(below.transform(images))
    expected = above.transform(below.transform(images))
    before = [pickle.dumps(layer) for layer in (below, above)]
    layers = [FrozenEstimator(layer) if frozen else layer for layer in (below, above)]
    stack = StackedAutoEncoder(
        layers=layers, pretraining="prefit", fine_tuning=fine_tuning, **SMALL
    ).fit(images)
    assert (stack.transform(images) == expected).all() == (not fine_tuning)
    assert stack.n_iter_ == below.n_iter_ + above.n_iter_ + (3 if fine_tuning else 0)
    # They belong to the user: neither weights nor parameters change, fine-tuned or not.
    assert [pickle.dumps(layer) for layer in (below, above)] == before


def test_prefit_layers_in_a_grid_search(images, classes):
    below = AutoEncoder(8, **SMALL).fit(images)
    above = AutoEncoder(4, **SMALL).fit(below.transform(images))
    layers = [FrozenEstimator(layer) for layer in (below, above)]
    stack = StackedAutoEncoder(layers=layers, pretraining="prefit")
    pipeline = make_pipeline(stack, LogisticRegression(max_iter=1000))
    grid = {"stackedautoencoder__code_layer": [0, 1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(images, classes)
    # Clones are fitted layers still, and as good as these.
    alone = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [1.0]}, cv=2)
    alone.fit(below.transform(images), classes)
    assert_allclose(
        search.cv_results_["mean_test_score"][0], alone.cv_results_["mean_test_score"][0]
    )


# The whole


@pytest.mark.parametrize("layer", ["auto", "rbm", "psd"])
def test_fine_tuning_reconstructs_better(images, layer):
    before = StackedAutoEncoder((16, 8), layer=layer, **SMALL).fit(images)
    after = clone(before).set_params(fine_tuning=True, max_iter=10, n_iter_no_change=None)
    layer_epochs = {
        "layers": [clone(x).set_params(random_state=i) for i, x in enumerate(before.layers_)]
    }
    after.set_params(layer_sizes=None, **layer_epochs).fit(images)
    start = clone(after).set_params(fine_tuning=False).fit(images)
    # Its own criterion, on the rows that it was trained on.
    assert after.score(images) > start.score(images)
    assert len(after.loss_curve_) == 10
    assert after.loss_curve_[-1] < after.loss_curve_[0]
    # The objective is the score's negative, so that a curve and a score can be compared.
    assert after.loss_curve_[0] > -after.score(images)
    assert start.loss_curve_ == []
    # Encoder and decoder went separate ways.
    for fitted_layer in after.layers_:
        if not isinstance(fitted_layer, PSD):
            weights = fitted_layer.weights_
            assert (weights["weight_0"] != weights["decoder_weight_0"]).any()


def test_fine_tuning_with_weights(images):
    weight = np.arange(200) % 3
    stack = small_stack(fine_tuning=True, **{**PLAIN, "batch_size": 1000})
    weighted = clone(stack).fit(images, sample_weight=weight)
    repeated = clone(stack).fit(np.repeat(images, weight, axis=0))
    # A row of weight 2 is two rows, one of weight 0 is none.
    assert_allclose(weighted.transform(images), repeated.transform(images), rtol=1e-8)


def test_fine_tuning_with_early_stopping(images):
    stack = small_stack(fine_tuning=True, early_stopping=True, max_iter=10).fit(images)
    # One entry for each epoch, on rows that were held out of the whole's training.
    assert len(stack.validation_curve_) == len(stack.loss_curve_)


@pytest.mark.parametrize("layer", ["denoising", "rbm", "psd"])
def test_linear_code(images, layer):
    stack = StackedAutoEncoder(
        (8, 3), layer=layer, code_activation="linear", fine_tuning=True, **SMALL
    ).fit(images)
    # Hinton & Salakhutdinov's code: an affine map of the last hidden layer.
    top = stack.layers_[-1]
    below = upwards(stack.layers_[:-1], images)
    seen = (below - top.columns_.shift) / top.columns_.scale
    expected = seen @ top.weights_["weight_0"].T + top.weights_["hidden_bias_0"]
    assert_allclose(stack.transform(images), expected, rtol=1e-9, atol=1e-12)
    # Machines and predictive codes have no such units: an auto-encoder stands in their place.
    assert isinstance(top, AutoEncoder)
    assert top.activation == "linear"


@pytest.mark.parametrize("fine_tuning", [False, True])
def test_code_layer(images, fine_tuning):
    stack = small_stack(fine_tuning=fine_tuning).fit(images)
    assert stack.transform(images).shape == (200, 4)
    stack.set_params(code_layer=0)
    codes = stack.transform(images)
    # The lowest layer's codes, from which its decoder alone leads back.
    assert_array_equal(codes, stack.layers_[0].transform(images))
    assert_allclose(stack.inverse_transform(codes), stack.layers_[0].inverse_transform(codes))
    names = [f"stackedautoencoder{i}" for i in range(8)]
    assert stack.get_feature_names_out().tolist() == names
    frame = stack.set_output(transform="pandas").transform(images)
    assert frame.columns.tolist() == names
    assert_array_equal(frame.to_numpy(), codes)
    stack.set_params(code_layer=-1)
    assert stack.transform(images).shape == (200, 4)
    with pytest.raises(ValueError, match="have 4"):
        stack.inverse_transform(codes)
    with pytest.raises(ValueError, match="code_layer=2, but there are 2 layers"):
        stack.set_params(code_layer=2).transform(images)


# Parameters of parameters


def test_nested_parameters():
    layers = [ContractiveAutoEncoder(8, contraction=0.3), AutoEncoder(4)]
    stack = StackedAutoEncoder(layers=layers)
    params = stack.get_params()
    assert params["layers__0__contraction"] == 0.3
    assert params["layers__1"] is layers[1]
    assert "layers__0" not in stack.get_params(deep=False)
    stack.set_params(layers__0__contraction=0.7, layers__1=RBM(5), layers__1__n_gibbs_steps=2)
    # A layer is replaced before its own parameters are set.
    assert stack.layers[0].contraction == 0.7
    assert isinstance(stack.layers[1], RBM)
    assert stack.layers[1].n_gibbs_steps == 2
    new = [AutoEncoder(3)]
    assert stack.set_params(layers=new, layers__0__weight_decay=0.5).layers[0].weight_decay == 0.5


def test_nested_parameters_of_a_prototype():
    stack = StackedAutoEncoder((4, 3), layer=DenoisingAutoEncoder())
    assert stack.get_params()["layer__corruption_level"] == 0.25
    assert stack.set_params(layer__corruption_level=0.5).layer.corruption_level == 0.5


def test_clone_is_deep():
    stack = StackedAutoEncoder(layers=[AutoEncoder(8), AutoEncoder(4)], layer=PSD())
    copied = clone(stack).set_params(layers__0__weight_decay=0.5, layer__n_components=3)
    # Searches set parameters of clones at will.
    assert stack.layers[0].weight_decay == 0.0
    assert stack.layer.n_components == PSD().n_components
    assert copied.layers[0].weight_decay == 0.5


@pytest.mark.parametrize(
    "name", ["layers__2__weight_decay", "layers__-1", "layers__x__weight_decay", "layers__"]
)
def test_layers_that_are_not_there(name):
    stack = StackedAutoEncoder(layers=[AutoEncoder(8), AutoEncoder(4)])
    with pytest.raises(ValueError, match=f"'{name}' is no parameter.*2 estimators in"):
        stack.set_params(**{name: 1.0})
    with pytest.raises(ValueError, match="0 estimators"):
        StackedAutoEncoder().set_params(**{name: 1.0})


def test_parameters_that_are_not_there():
    stack = StackedAutoEncoder(layers=[AutoEncoder(8)])
    # scikit-learn's own message, for the layer and for the stack.
    with pytest.raises(ValueError, match="'typo' for estimator AutoEncoder"):
        stack.set_params(layers__0__typo=1)
    with pytest.raises(ValueError, match="'typo' for estimator StackedAutoEncoder"):
        stack.set_params(typo=1)


@pytest.mark.parametrize(
    ("stack", "grid"),
    [
        (
            StackedAutoEncoder(layers=[ContractiveAutoEncoder(8, **SMALL), RBM(4, **SMALL)]),
            {"layers__0__contraction": [0.0, 50.0]},
        ),
        (small_stack(), {"layer_sizes": [(8, 4), (3,)]}),
        (small_stack(), {"layer": ["auto", PSD(**SMALL)]}),
    ],
    ids=["layers", "sizes", "kinds"],
)
def test_grid_search(images, classes, stack, grid):
    pipeline = make_pipeline(stack, LogisticRegression(max_iter=1000))
    steps = {f"stackedautoencoder__{name}": values for name, values in grid.items()}
    # Accuracies of two models may be equal by chance, likelihoods are not.
    search = GridSearchCV(pipeline, steps, cv=2, scoring="neg_log_loss").fit(images, classes)
    scores = search.cv_results_["mean_test_score"]
    # Each setting arrives: two different models came out.
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]


# Fitted state


FITS = {
    "unsupervised": {},
    "supervised": {"pretraining": "supervised"},
    "simultaneous": {"pretraining": "simultaneous"},
    "random": {"pretraining": None},
    "fine-tuned": {"fine_tuning": True},
    "machines": {"layer": "rbm", "fine_tuning": True},
    "predictive": {"layer": "psd", "fine_tuning": True},
}


def test_pickles_hold_the_model_alone(images):
    stack = StackedAutoEncoder((64, 32), layer="rbm", fine_tuning=True, **SMALL).fit(images)
    data = pickle.dumps(stack)
    assert_array_equal(pickle.loads(data).transform(images), stack.transform(images))
    # Nothing of training is kept: no second copy of the weights, no moments of optimisers.
    assert len(data) <= 1.1 * sum(weight.nbytes for weight in stack.weights_.values()) + 50_000


@pytest.mark.parametrize("name", ["supervised", "simultaneous", "machines"])
def test_float32(images, classes, name):
    data = images.astype(np.float32)
    stack = small_stack(**FITS[name]).fit(data, classes)
    # All arithmetic is in the dtype of the data, weights included.
    for found in (stack.transform(data), stack.reconstruct(data), stack.score_samples(data)):
        assert found.dtype == np.float32
    assert all(weight.dtype == np.float32 for weight in stack.weights_.values())
    assert stack.transform(images).dtype == np.float64


@pytest.mark.parametrize("name", ["supervised", "simultaneous", "machines"])
def test_same_seed_same_bits(images, classes, name):
    stack = small_stack(**FITS[name])
    first = clone(stack).fit(images, classes)
    second = clone(stack).fit(images, classes)
    assert_same_weights(first, second)
    # Whatever ran before, in this object too.
    second.set_params(random_state=1).fit(images[:100], classes[:100])
    assert_same_weights(second.set_params(random_state=0).fit(images, classes), first)
    assert second.layer_loss_curves_ == first.layer_loss_curves_
    other = clone(stack).set_params(random_state=1).fit(images, classes)
    assert (other.weights_["0.weight_0"] != first.weights_["0.weight_0"]).any()


def test_a_layers_own_seed_is_kept(images):
    layers = [AutoEncoder(8, max_iter=2, random_state=5), AutoEncoder(4, max_iter=2)]
    one, two = (StackedAutoEncoder(layers=layers, random_state=seed).fit(images) for seed in (0, 1))
    assert_same_weights(one.layers_[0], two.layers_[0])
    assert (one.weights_["1.weight_0"] != two.weights_["1.weight_0"]).any()


# Continued


def test_partial_fit_is_that_of_the_layers(images):
    stack = small_stack()
    below, above = (clone(layer) for layer in small_stack().fit(images).layers_)
    for rows in (images[:100], images[100:], images[50:150]):
        stack.partial_fit(rows)
        below.partial_fit(rows)
        above.partial_fit(below.transform(rows))
        # One pass for each layer, on the codes that those below have by then.
        assert_same_weights(stack.layers_[0], below)
        assert_same_weights(stack.layers_[1], above)
    assert [len(curve) for curve in stack.layer_loss_curves_] == [3, 3]
    assert stack.n_iter_ == 6


def test_partial_fit_after_fit_goes_on(images):
    stack = small_stack().fit(images)
    n_iter, score = stack.n_iter_, stack.score(images)
    for _ in range(3):
        stack.partial_fit(images)
    assert stack.n_iter_ == n_iter + 6
    assert stack.score(images) != score


@pytest.mark.parametrize("pretraining", ["unsupervised", None])
def test_partial_fit_with_fine_tuning(images, pretraining):
    stack = small_stack(fine_tuning=True, pretraining=pretraining, learning_rate=0.01)
    scores = [stack.partial_fit(images).score(images) for _ in range(6)]
    # Passes of the unrolled whole, by its own criterion.
    assert len(stack.loss_curve_) == 6
    assert scores[-1] > scores[0]
    assert stack.n_iter_ == 6 + (2 if pretraining else 0)
    # Once unrolled, layers learn no more by themselves.
    assert [len(curve) for curve in stack.layer_loss_curves_] == ([1, 1] if pretraining else [0, 0])


def test_partial_fit_without_pretraining_starts_as_fit_does(images):
    assert_same_weights(
        small_stack(pretraining=None).partial_fit(images),
        small_stack(pretraining=None).fit(images),
    )


@pytest.mark.parametrize("fine_tuning", [False, True])
def test_fit_forgets_earlier_parts(images, fine_tuning):
    stack = small_stack(fine_tuning=fine_tuning).partial_fit(images[::-1]).partial_fit(images)
    fresh = small_stack(fine_tuning=fine_tuning).fit(images).partial_fit(images)
    # Moments of an optimiser that came before the fit are those of another model.
    assert_same_weights(stack.fit(images).partial_fit(images), fresh)


def test_warm_start(images):
    stack = small_stack(warm_start=True).fit(images).fit(images)
    below, above = (
        clone(layer).set_params(warm_start=True) for layer in small_stack().fit(images).layers_
    )
    for _ in range(2):
        above.fit(below.fit(images).transform(images))
    # Each layer goes on from its last weights, on the codes below as they are now.
    assert_same_weights(stack.layers_[0], below)
    assert_same_weights(stack.layers_[1], above)


@pytest.mark.parametrize("name", FITS)
def test_warm_start_goes_on(images, classes, name):
    stack = small_stack(**FITS[name], warm_start=True).fit(images, classes)
    assert_same_weights(stack, small_stack(**FITS[name]).fit(images, classes))
    before = {key: weight.copy() for key, weight in stack.weights_.items()}
    stack.set_params(learning_rate=1e-300, max_iter=1)
    if name in ("unsupervised", "supervised", "simultaneous"):
        # The layers go on with what the stack's parameters say of them now.
        slow = clone(stack.layers_[0]).set_params(learning_rate=1e-300, random_state=None)
        stack.set_params(layer=slow)
    stack.fit(images, classes)
    # Steps of nothing leave the model where it was: it began there.
    for key, weight in stack.weights_.items():
        assert_allclose(weight, before[key], rtol=1e-12)


# Data


def test_frame_with_losses_by_name():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"size": generator.normal(5, 3, 80), "old": generator.random(80) < 0.5})
    loss = [("gaussian", ["size"]), ("bernoulli", ["old"])]
    for pretraining in ("unsupervised", None, "simultaneous"):
        stack = StackedAutoEncoder(
            layers=[AutoEncoder(4, loss=loss, **SMALL), AutoEncoder(2, **SMALL)],
            pretraining=pretraining,
            fine_tuning=True,
            **SMALL,
        ).fit(frame)
        # The lowest layer sees the user's columns, and the whole reconstructs them.
        assert stack.reconstruct(frame).shape == (80, 2)
        assert stack.feature_names_in_.tolist() == ["size", "old"]
    with pytest.raises(ValueError, match="feature names"):
        stack.transform(frame.rename(columns={"old": "new"}))


# Bad input


@pytest.fixture
def no_training(monkeypatch):
    """Any step of a training fails the test."""

    class Refusing(SGD):
        def update_(self, *args):
            raise AssertionError("training started")

    for name in OPTIMIZERS:
        monkeypatch.setitem(OPTIMIZERS, name, Refusing)


def state_of(model):
    return pickle.dumps({k: v for k, v in vars(model).items() if k.endswith("_")})


UNFITTED = [AutoEncoder(8), AutoEncoder(4)]
TANH = AutoEncoder(8, activation="tanh")
REFUSED = [
    ({"layer_sizes": ()}, r"layer_sizes=\(\)"),
    ({"layer_sizes": (8, 0)}, r"layer_sizes=\(8, 0\).*at least 1"),
    ({"layer_sizes": (8, 2.5)}, r"layer_sizes=\(8, 2.5\).*integers"),
    ({"layer_sizes": -3}, "layer_sizes"),
    ({"layers": []}, "needs at least one"),
    ({"layers": [AutoEncoder]}, r"layers\[0\]=.*is a class: pass an instance of it"),
    ({"layers": [AutoEncoder(8), PCA()]}, r"layers\[1\] is PCA\(\).*instances of AutoEncoder"),
    ({"layers": [AutoEncoder(8), "rbm"]}, r"layers\[1\] is 'rbm'"),
    ({"layers": [None]}, r"layers\[0\] is None"),
    ({"layer": PCA()}, r"layer is PCA\(\)"),
    ({"layer": AutoEncoder}, "layer=.*is a class: pass an instance of it"),
    ({"layer": "gan"}, "'layer' parameter"),
    ({"layers": UNFITTED, "layer_sizes": (8, 5)}, r"\(8, 5\) contradicts.*\(8, 4\)"),
    ({"layers": UNFITTED, "layer_sizes": (8,)}, r"\(8,\) contradicts.*\(8, 4\)"),
    ({"layers": [AutoEncoder(8), AutoEncoder(0)]}, "n_components"),
    ({"layers": [AutoEncoder(8), AutoEncoder(4, activation="no")]}, "activation"),
    ({"layers": [AutoEncoder(8), RBM(4, learning_rate=-1)]}, "learning_rate"),
    (
        {"layers": [TANH, AutoEncoder(4, loss="bernoulli")]},
        r"Layer 1 \(AutoEncoder\) has loss='bernoulli'.*layer 0 .*not bound.*loss='gaussian'",
    ),
    (
        {"layers": [PSD(8), RBM(4, visible="bernoulli")]},
        r"Layer 1 \(RBM\) has visible='bernoulli'.*visible='gaussian'.*sigmoid",
    ),
    (
        {"layers": [AutoEncoder(8), AutoEncoder(4, loss=[("gaussian", slice(None))])]},
        r"Layer 1 .*columns of data.*loss='auto'",
    ),
    ({"layers": [AutoEncoder(8), AutoEncoder(4, loss="multinomial")]}, "Layer 1 .*loss='auto'"),
    (
        {"layers": [AutoEncoder(8), SparseCoder(4)], "fine_tuning": True},
        r"Layer 1 \(SparseCoder\) has no part in fine-tuning.*PSD",
    ),
    (
        {"layers": [PSD(8, inference="optimal"), PSD(4)], "fine_tuning": True},
        r"Layer 0 \(PSD\).*inference='encoder'",
    ),
    (
        {"layers": [AutoEncoder(8), SparseCoder(4)], "pretraining": "simultaneous"},
        "Layer 1 is a SparseCoder.*'unsupervised'",
    ),
    (
        {"layers": [SparseCoder(4)], "pretraining": "supervised", "y": "classes"},
        "Layer 0 is a SparseCoder.*supervised",
    ),
    (
        {"layers": [SparseCoder(4)], "pretraining": "partly_supervised", "y": "classes"},
        "Layer 0 is a SparseCoder",
    ),
    ({"layers": [SparseCoder(4)], "pretraining": None}, "Layer 0 is a SparseCoder"),
    (
        {"layers": [AutoEncoder(8), SparseCoder(4, dictionary=np.ones((4, 9)))]},
        "Layer 1: The dictionary has atoms of 9 features, but X has 8",
    ),
    ({"layer_sizes": (8, 4), "code_layer": 2}, "code_layer=2.*2 layers"),
    ({"layer_sizes": (8, 4), "code_layer": -3}, "code_layer=-3.*2 layers"),
    ({"layer_sizes": (8, 4), "pretraining": ["unsupervised"]}, "each of the 2 layers"),
    ({"layer_sizes": (8, 4), "pretraining": ["unsupervised", "prefit"]}, "each of the 2 layers"),
    ({"layer_sizes": (8, 4), "pretraining": ["simultaneous", None]}, "each of the 2 layers"),
    ({"layer_sizes": (8, 4), "pretraining": "greedy"}, "'pretraining' parameter"),
    ({"pretraining": "prefit"}, r"prefit.*layers=\[...\]"),
    (
        {"layers": UNFITTED, "pretraining": "prefit"},
        r"layer 0 \(AutoEncoder\) is not fitted.*FrozenEstimator",
    ),
    ({"supervision": 0.0}, "'supervision' parameter"),
    ({"pretraining": "supervised"}, "requires y to be passed, but the target y is None"),
    ({"pretraining": ["supervised", None]}, "the target y is None"),
    (
        {"pretraining": "supervised", "y": np.zeros(3)},
        "inconsistent numbers of samples",
    ),
    ({"pretraining": "supervised", "y": np.full(200, -1)}, "All labels are -1"),
    ({"pretraining": "supervised", "y": np.full(200, 2)}, "one class only"),
    ({"code_activation": "linear", "layer": AutoEncoder(sparsity=0.1)}, "sparsity_penalty='l1'"),
]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("parameters", "match"),
    REFUSED,
    ids=lambda value: str(value)[:60],
)
def test_refused_before_any_layer_trains(images, classes, parameters, match):
    parameters = dict(parameters)
    y = parameters.pop("y", None)
    y = classes if isinstance(y, str) else y
    stack = StackedAutoEncoder(**parameters)
    with pytest.raises((ValueError, TypeError), match=match):
        stack.fit(images, y)
    # Not half a model.
    with pytest.raises(NotFittedError):
        stack.transform(images)
    assert not [name for name in vars(stack) if name.endswith("_")]


@pytest.mark.usefixtures("no_training")
def test_domain_of_the_lowest_layer(images):
    stack = StackedAutoEncoder(layers=[AutoEncoder(8, loss="bernoulli"), AutoEncoder(4)])
    with pytest.raises(ValueError, match=r"Layer 0.*loss='gaussian'.*MinMaxScaler"):
        stack.fit(16 * images)


def test_prefit_layers_that_do_not_fit_each_other(images):
    layers = [AutoEncoder(8, **SMALL).fit(images), AutoEncoder(4, **SMALL).fit(images)]
    stack = StackedAutoEncoder(layers=layers, pretraining="prefit")
    with pytest.raises(ValueError, match="Layer 1 was fitted on 64 features, but layer 0 gives 8"):
        stack.fit(images)


def test_prefit_layers_and_other_data(images, wine):
    stack = StackedAutoEncoder(layers=[AutoEncoder(8, **SMALL).fit(images)], pretraining="prefit")
    # The lowest layer was fitted on other columns.
    with pytest.raises(ValueError, match=r"13 features.*64"):
        stack.fit(wine)
    with pytest.raises(NotFittedError):
        stack.transform(wine)


def test_partial_fit_of_supervised_layers(images, classes):
    stack = small_stack(pretraining="supervised")
    # scikit-learn's way of saying that a method is not there, with the reason as its cause.
    assert not hasattr(stack, "partial_fit")
    with pytest.raises(AttributeError) as caught:
        stack.partial_fit(images, classes)
    assert "pretraining='unsupervised', or call fit" in str(caught.value.__cause__)
    assert hasattr(stack.set_params(pretraining=None), "partial_fit")


# Failures


# How many trainings each way of learning is made of: a layer each, all together, and the whole.
TRAININGS = {
    "layers": ({}, {"fit": 2, "partial_fit": 2, "warm fit": 2}),
    "fine_tuning": ({"fine_tuning": True}, {"fit": 3, "partial_fit": 1, "warm fit": 1}),
    "simultaneous": (
        {"pretraining": "simultaneous"}, {"fit": 1, "partial_fit": 2, "warm fit": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", TRAININGS)
@pytest.mark.parametrize("method", ["fit", "partial_fit", "warm fit"])
def test_failure_leaves_the_earlier_model(images, fail_in_training, way, method):
    parameters, n_trainings = TRAININGS[way]
    stack = small_stack(**parameters, verbose=1).fit(images)
    before, codes = state_of(stack), stack.transform(images)
    stack.set_params(warm_start=method == "warm fit")
    call = stack.partial_fit if method == "partial_fit" else stack.fit
    for training in range(1, n_trainings[method] + 1):
        fail_in_training(RuntimeError("out of memory"), training, epoch=1)
        with pytest.raises(RuntimeError, match="out of memory"):
            call(images[::-1] ** 2)
        # All or nothing, whichever layer failed: not the lower layers without the upper ones.
        assert state_of(stack) == before
        assert_array_equal(stack.transform(images), codes)
    fail_in_training(RuntimeError("out of memory"), training + 1, epoch=1)
    call(images[::-1] ** 2)


@pytest.mark.filterwarnings("ignore:.*interrupted after 2 epochs")
@pytest.mark.parametrize("pretraining", ["unsupervised", "supervised"])
def test_interruption_of_a_lower_layer(images, classes, interrupt, pretraining):
    stack = small_stack(verbose=1, max_iter=5, pretraining=pretraining).fit(images, classes)
    before = state_of(stack)
    interrupt(1)
    with pytest.raises(KeyboardInterrupt):
        stack.fit(images**2, classes)
    # The layers above would have learned nothing: half a stack is no model.
    assert state_of(stack) == before
    fresh = clone(stack)
    interrupt(1)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(images, classes)
    with pytest.raises(NotFittedError):
        fresh.transform(images)


def test_interruption_of_fine_tuning(images, interrupt):
    settings = {"fine_tuning": True, "n_iter_no_change": None, "verbose": 1}
    interrupt(3)
    stack = small_stack(max_iter=5, **settings)
    with pytest.warns(ConvergenceWarning, match="StackedAutoEncoder was interrupted after 2"):
        stack.fit(images)
    # What was learned until then is kept, and said.
    assert stack.stopping_reason_ == "interrupted"
    assert len(stack.loss_curve_) == 2
    assert stack.transform(images).shape == (200, 4)


def test_divergence_names_the_layer(images):
    layers = [
        AutoEncoder(8, **SMALL),
        AutoEncoder(4, activation="linear", optimizer="sgd", learning_rate=1e28, **SMALL),
    ]
    stack = StackedAutoEncoder(layers=layers)
    # Of many layers of one class, the user has to know which one to change.
    with pytest.raises(ValueError, match=r"Layer 1.*diverged.*smaller learning_rate"):
        stack.fit(images)


# Codes that say something


def test_constant_codes_are_reported(images):
    layers = [
        ContractiveAutoEncoder(
            8, contraction=1e6, learning_rate=0.05, max_iter=60, n_iter_no_change=None
        ),
        AutoEncoder(4, max_iter=3),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        StackedAutoEncoder(layers=layers, random_state=0).fit(images)
    messages = [str(w.message) for w in caught if w.category is CollapsedCodeWarning]
    # The first layer's penalty crushed its codes; what stands on them cannot be better.
    assert any("next to nothing" in m and "weaker penalties" in m for m in messages)


def test_constant_codes_of_the_whole_are_reported(images):
    layer = AutoEncoder(8, activation="relu", max_iter=1, random_state=0).fit(images)
    layer.weights_["hidden_bias_0"] -= 1e3
    stack = StackedAutoEncoder(
        layers=[layer], pretraining="prefit", fine_tuning=True, max_iter=2, learning_rate=1e-5
    )
    # No gradient revives rectifiers that are never positive.
    with pytest.warns(CollapsedCodeWarning, match=r"8 of 8 code units.*layers_"):
        stack.fit(images)


@pytest.mark.parametrize(
    ("load", "pretraining"), [(load_breast_cancer, "unsupervised"), (load_wine, "simultaneous")]
)
def test_defaults_do_not_collapse(load, pretraining):
    data, y = load(return_X_y=True)
    stack = StackedAutoEncoder(max_iter=4, pretraining=pretraining, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapsedCodeWarning)
        codes = stack.fit_transform(data)
    # Raw tables of any units, untouched defaults: the top units vary ...
    assert np.median(codes.std(0)) > 1e-3
    # ... with the classes, which they were never told.
    scaled = (codes - codes.mean(0)) / codes.std(0)
    majority = np.bincount(y).max() / len(y)
    assert accuracy(scaled, y) > majority + 0.2


def test_layers_go_on_with_the_parameters_of_today(images):
    stack = StackedAutoEncoder((8,), layer=AutoEncoder(max_iter=2), random_state=0).fit(images)
    stack.set_params(warm_start=True, layer__max_iter=5).fit(images)
    # The second fit ran as many epochs as the layer's parameter says by then.
    assert [len(curve) for curve in stack.layer_loss_curves_] == [5]
    stack.set_params(layer_sizes=(4,))
    with pytest.raises(ValueError, match=r"\[8\] components.*\[4\] now"):
        stack.fit(images)


def test_fine_tuning_that_is_asked_for_later(images):
    stack = StackedAutoEncoder((8,), layer="rbm", max_iter=2, random_state=0).fit(images)
    stack.set_params(warm_start=True, fine_tuning=True).fit(images)
    # Fine-tuned layers have decoder weights of their own.
    assert "decoder_weight_0" in stack.layers_[0].weights_


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("pretraining", ["simultaneous", "supervised", "partly_supervised"])
def test_codes_that_are_solved_for_cannot_be_trained_through(images, classes, pretraining):
    layers = [PSD(8, inference="optimal"), AutoEncoder(4)]
    # Training would go through the encoder, and `transform` would not.
    with pytest.raises(ValueError, match=r"Layer 0.*inference='encoder'"):
        StackedAutoEncoder(layers=layers, pretraining=pretraining).fit(images, classes)


@pytest.mark.usefixtures("no_training")
def test_code_activation_is_not_for_given_layers(images):
    with pytest.raises(ValueError, match="set the activation of the last one"):
        StackedAutoEncoder(layers=[AutoEncoder(4)], code_activation="linear").fit(images)


def test_errors_of_parts_name_the_layer(images):
    stack = small_stack().partial_fit(images)
    # The units of the lowest layer were chosen for pixels in [0, 1].
    with pytest.raises(ValueError, match=r"^Layer 0: loss='bernoulli' needs values in \[0, 1\]"):
        stack.partial_fit(3 * images)


CHANGES = {
    "sizes": {"layer_sizes": (7,)},
    "number": {"layer_sizes": (6, 6)},
    "kind": {"layer": "rbm"},
    "depth": {"layer__hidden_layer_sizes": (5,)},
    "units": {"layer__loss": "gaussian"},
    "ties": {"layer__tied_weights": False},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("make", [StackedAutoEncoder, StackedClassifier])
def test_structure_that_changes_while_learning_goes_on(digits, make, changes):
    X, y = digits[0][:50], digits[1][:50] % 3
    layer = DenoisingAutoEncoder(max_iter=1)
    model = make((6,), layer=layer, max_iter=1, warm_start=True, random_state=0).fit(X, y)
    before = pickle.dumps(vars(model))
    model.set_params(**changes)
    for method in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="warm_start=False"):
            # Nothing is ignored in silence, in stacks as in single layers.
            method(X, y)
    model.set_params(**{"layer_sizes": (6,), "layer": DenoisingAutoEncoder(max_iter=1)})
    for method in (model.fit, model.partial_fit):
        assert pickle.dumps(vars(method(X, y))) != before
        before = pickle.dumps(vars(model))


@pytest.mark.parametrize("pretraining", [3, "unsupervized", {"supervised": 1}])
def test_partial_fit_names_a_parameter_that_is_wrong(digits, pretraining):
    stack = StackedAutoEncoder((3,), pretraining=pretraining)
    # The method is there; what is wrong with it is the parameter.
    with pytest.raises(ValueError, match="'pretraining' parameter"):
        stack.partial_fit(digits[0])
