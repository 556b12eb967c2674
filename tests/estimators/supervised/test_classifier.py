"""Stacks that predict classes: the output, the labels, and what fine-tuning does with them."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.class_weight import compute_sample_weight

from skae import (
    PSD,
    RBM,
    AutoEncoder,
    CollapsedCodeWarning,
    ContractiveAutoEncoder,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
)
from skae._warnings import of_layer, warn
from skae.estimators.supervised.tasks import held_out_rows
from skae.estimators.targets import Classes

SMALL = {"max_iter": 3, "batch_size": 50, "random_state": 0}
# One batch holds all rows: no order of rows, no noise.
WHOLE = {"max_iter": 4, "batch_size": 1000, "n_iter_no_change": None, "random_state": 0}


# Layers that are hardly trained, however long fine-tuning takes.
SHORT = AutoEncoder(max_iter=3, batch_size=50)
BRIEF = pytest.mark.filterwarnings("ignore:.*reached max_iter")  # more epochs teach more


@pytest.fixture
def images(digits):
    """Two hundred digits in [0, 1]."""
    return digits[0][:200]


@pytest.fixture
def y(digits):
    """Their classes."""
    return digits[1][:200]


def split_labelled(model, y):
    """The rows that a fit would train on, and those that it would hold out."""
    kind = Classes(model.unlabelled)
    table = kind.checked(y)
    kind = kind.described(table)
    return held_out_rows(model, table, kind.encoded(table))


def small_classifier(**parameters):
    return StackedClassifier((10, 6), **{"layer": "auto", **SMALL, **parameters})


def assert_same_model(model, other):
    assert_array_equal(model.output_weights_, other.output_weights_)
    assert_array_equal(model.output_bias_, other.output_bias_)
    for name, weight in model.stack_.weights_.items():
        assert_array_equal(weight, other.stack_.weights_[name])


def centred(coef):
    """Weights of a softmax without the part that moves all logits alike."""
    return coef - coef.mean(0)


# The output alone


@pytest.mark.parametrize(("penalty", "weighted"), [(0.1, True), (1.0, False), (10.0, True)])
def test_nothing_but_the_output_is_logistic_regression(images, y, penalty, weighted):
    weight = np.random.default_rng(0).random(200) * 3 if weighted else None
    model = small_classifier(n_fine_tuned_layers=0, output_penalty=penalty).fit(images, y, weight)
    codes = model.stack_.transform(images)
    expected = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=5000)
    expected.fit(codes, y, sample_weight=weight)
    # The same convex problem, also with the user's weights as they are.
    assert_allclose(model.predict_proba(images), expected.predict_proba(codes), atol=2e-4)
    assert_allclose(centred(model.output_weights_), centred(expected.coef_), atol=2e-3 / penalty)
    # The layers are those of the stack alone.
    stack = StackedAutoEncoder((10, 6), layer="auto", **SMALL)
    assert_array_equal(codes, stack.fit(images, sample_weight=weight).transform(images))
    assert model.loss_curve_ == []
    assert model.stopping_reason_ == "converged"


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_two_classes_are_logistic_regression(images, y, penalty):
    some = y < 2
    model = small_classifier(n_fine_tuned_layers=0, output_penalty=penalty).fit(
        images[some], y[some]
    )
    codes = model.stack_.transform(images[some])
    # Two weight vectors u and -u cost twice what their difference 2u costs by itself over 4:
    # penalty / 2 (|u|^2 + |u|^2) = penalty / 4 |2u|^2.
    expected = LogisticRegression(C=2 / penalty, tol=1e-8, max_iter=5000).fit(codes, y[some])
    assert_allclose(
        model.output_weights_[1] - model.output_weights_[0], expected.coef_[0], rtol=2e-3, atol=2e-4
    )
    assert_allclose(
        model.decision_function(images[some]), expected.decision_function(codes), atol=2e-3
    )


@pytest.mark.parametrize("n_classes", [2, 4])
def test_gradient_steps_tend_to_logistic_regression(images, y, n_classes):
    some = y < n_classes
    X, y = images[some], y[some]
    layers = [FrozenEstimator(AutoEncoder(6, **SMALL).fit(X))]
    settings = {"layers": layers, "pretraining": "prefit", "n_fine_tuned_layers": 0}
    best = StackedClassifier(**settings).fit(X, y)
    model = StackedClassifier(**settings, learning_rate=0.1, batch_size=1000, random_state=0)
    model.partial_fit(X, y, classes=np.unique(y))
    model.output_weights_, model.output_bias_ = (
        np.zeros_like(model.output_weights_),
        np.zeros_like(model.output_bias_),
    )
    n_rows = model.n_labelled_
    for _ in range(100):
        model.partial_fit(X, y)
    # From zero, by another way, to the optimum of the same criterion.
    assert n_rows == len(y)
    assert_allclose(model.predict_proba(X), best.predict_proba(X), atol=2e-3)
    assert_allclose(centred(model.output_weights_), centred(best.output_weights_), atol=0.02)


def test_output_starts_at_the_optimum_of_pretraining(images, y):
    tuned = small_classifier(learning_rate=1e-300, max_iter=2).fit(images, y)
    frozen = small_classifier(n_fine_tuned_layers=0, max_iter=2).fit(images, y)
    # Fine-tuning begins where the linear model on pre-trained codes ended.
    assert_allclose(tuned.predict_proba(images), frozen.predict_proba(images), atol=0.01)


# Fine-tuning


@pytest.mark.parametrize("layer", ["auto", "rbm", "psd"])
def test_fine_tuning_learns(images, y, layer):
    model = StackedClassifier((16, 12), layer=layer, **SMALL)
    frozen = clone(model).set_params(n_fine_tuned_layers=0, max_iter=10).fit(images, y)
    model.set_params(layers=frozen.stack_.layers_, pretraining="prefit")
    model.set_params(max_iter=60, learning_rate=0.01, n_iter_no_change=None).fit(images, y)
    # Training rows, a supervised criterion: the whole fits better than the output alone.
    assert model.score(images, y) > 0.95
    assert model.score(images, y) > frozen.score(images, y)
    assert model.loss_curve_[-1] < 0.5 * model.loss_curve_[0]
    assert len(model.loss_curve_) == model.n_iter_ == 60


@pytest.mark.parametrize("n_tuned", [0, 1, 3])
def test_only_the_top_layers_are_fine_tuned(images, y, n_tuned):
    layers = [AutoEncoder(10, **SMALL), RBM(8, **SMALL), PSD(6, **SMALL)]
    model = StackedClassifier(layers=layers, n_fine_tuned_layers=n_tuned, **SMALL).fit(images, y)
    start = StackedAutoEncoder(layers=layers, **SMALL).fit(images)
    changed = [
        any((layer.weights_[name] != weight).any() for name, weight in before.weights_.items())
        for layer, before in zip(model.stack_.layers_, start.layers_, strict=True)
    ]
    assert changed == [number >= 3 - n_tuned for number in range(3)]


def test_fine_tuning_all_is_the_default(images, y):
    assert_same_model(
        small_classifier().fit(images, y), small_classifier(n_fine_tuned_layers=2).fit(images, y)
    )


def test_decoders_take_no_part_in_fine_tuning(images, y):
    layer = AutoEncoder(8, tied_weights=False, **SMALL)
    model = StackedClassifier(layers=[layer], **SMALL).fit(images, y)
    kept = StackedClassifier(layers=[layer], unsupervised_weight=0.5, **SMALL).fit(images, y)
    start = StackedAutoEncoder(layers=[layer], **SMALL).fit(images)
    for name in ("0.decoder_weight_0", "0.visible_bias_0"):
        # Predictions do not depend on them; the layers' own criteria do.
        assert_array_equal(model.stack_.weights_[name], start.weights_[name])
        assert (kept.stack_.weights_[name] != start.weights_[name]).any()


def test_no_pretraining_is_a_perceptron(images, y):
    model = small_classifier(pretraining=None, max_iter=150, learning_rate=0.02).fit(images, y)
    # Depth without pre-training is learnable at this size.
    assert model.score(images, y) > 0.95
    assert [layer.stopping_reason_ for layer in model.stack_.layers_] == ["untrained"] * 2


@pytest.mark.parametrize(
    "pretraining",
    ["supervised", "partly_supervised", "simultaneous", ["supervised", "unsupervised"], None],
)
def test_pretraining_is_that_of_the_stack(images, y, pretraining):
    model = small_classifier(pretraining=pretraining, n_fine_tuned_layers=0).fit(images, y)
    stack = StackedAutoEncoder((10, 6), layer="auto", pretraining=pretraining, **SMALL)
    # The layers that a transformer of the same parameters would learn, bit for bit.
    assert_array_equal(model.stack_.transform(images), stack.fit(images, y).transform(images))


def test_dropout(images, y):
    # Layers that do not move tell nothing; noise in the steps shows in what is learned.
    models = {
        name: small_classifier(**rates).fit(images, y)
        for name, rates in {
            "none": {},
            "hidden": {"dropout": 0.5},
            "input": {"dropout": (0.5, 0.0)},
            "again": {"dropout": (0.0, 0.5)},
        }.items()
    }
    # A number is that of hidden units.
    assert_same_model(models["hidden"], models["again"])
    for name in ("hidden", "input"):
        assert (models[name].output_weights_ != models["none"].output_weights_).any()
    # The whole net predicts: the same answer twice.
    assert_array_equal(
        models["hidden"].predict_proba(images), models["hidden"].predict_proba(images)
    )
    # Noise costs likelihood on the way.
    assert models["hidden"].loss_curve_[0] > models["none"].loss_curve_[0]


def test_the_penalty_shrinks_the_output(images, y):
    small, large = (
        small_classifier(output_penalty=penalty, max_iter=20, learning_rate=0.01).fit(images, y)
        for penalty in (0.01, 100.0)
    )
    assert np.linalg.norm(large.output_weights_) < 0.5 * np.linalg.norm(small.output_weights_)


# Probabilities


LABELS = {
    "integers": lambda y: y + 5,
    "text": lambda y: np.array([f"digit {i}" for i in range(10)])[y],
    "objects": lambda y: np.array([f"digit {i}" for i in range(10)], dtype=object)[y],
    "bool": lambda y: y < 5,
    "floats": lambda y: y.astype(float),
    "two": lambda y: y % 2,
}


@pytest.mark.parametrize("kind", LABELS)
def test_kinds_of_labels(images, y, kind):
    labels = LABELS[kind](y)
    model = small_classifier(layer=SHORT, max_iter=25, learning_rate=0.03).fit(images, labels)
    probabilities, logits = model.predict_proba(images), model.decision_function(images)
    assert_array_equal(model.classes_, np.unique(labels))
    assert probabilities.shape == (200, len(model.classes_))
    # A distribution for every row ...
    assert_allclose(probabilities.sum(1), 1.0, rtol=1e-12)
    # ... of which log-probabilities, logits and predictions are other words.
    assert_allclose(model.predict_log_proba(images), np.log(probabilities), atol=1e-10)
    assert_array_equal(model.predict(images), model.classes_[probabilities.argmax(1)])
    if len(model.classes_) == 2:
        assert_allclose(logits, np.log(probabilities[:, 1] / probabilities[:, 0]), atol=1e-8)
    else:
        shift = np.log(probabilities) - logits
        assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=1e-8)
    assert model.score(images, labels) == (model.predict(images) == labels).mean()
    assert model.score(images, labels) > 0.8
    # A column of labels is a list of labels.
    assert model.score(images, labels[:, np.newaxis]) == model.score(images, labels)
    weight = np.arange(200.0)
    right = model.predict(images) == labels
    assert_allclose(model.score(images, labels, weight), weight @ right / weight.sum())


def test_predictions_do_not_overflow(images, y):
    model = small_classifier().fit(images, y)
    model.output_weights_ = 1e6 * model.output_weights_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Logits of a million: probabilities are 0 and 1, and their logarithms finite.
        assert_allclose(model.predict_proba(images).sum(1), 1.0)
        assert np.isfinite(model.predict_log_proba(images)).all()


@BRIEF
def test_several_outputs(images, y):
    both = np.stack([y % 3, y // 5], axis=1)
    model = small_classifier(max_iter=60, learning_rate=0.02).fit(images, both)
    probabilities = model.predict_proba(images)
    assert [p.shape for p in probabilities] == [(200, 3), (200, 2)]
    for p, names, found in zip(probabilities, model.classes_, model.predict(images).T, strict=True):
        # A softmax for each output.
        assert_allclose(p.sum(1), 1.0)
        assert_array_equal(names[p.argmax(1)], found)
    assert [d.ndim for d in model.decision_function(images)] == [2, 1]
    # All outputs have to be right.
    right = (model.predict(images) == both).all(1)
    assert model.score(images, both) == right.mean() > 0.8


@pytest.mark.parametrize("n_tuned", [0, None])
def test_several_outputs_are_several_problems(images, y, n_tuned):
    both = np.stack([y % 3, y // 5], axis=1)
    settings = {"n_fine_tuned_layers": n_tuned, "pretraining": "unsupervised"}
    model = small_classifier(**settings, learning_rate=1e-300).fit(images, both)
    for column, p in zip(both.T, model.predict_proba(images), strict=True):
        alone = small_classifier(**settings, learning_rate=1e-300).fit(images, column)
        # Each output is a linear model of its own on the shared codes.
        assert_allclose(p, alone.predict_proba(images), atol=1e-3)


@BRIEF
def test_labels_that_are_there_or_not(images, y):
    labels = np.stack([y % 2, y > 4, y == 3], axis=1).astype(int)
    model = small_classifier(max_iter=60, learning_rate=0.02).fit(images, labels)
    p = model.predict_proba(images)
    # As scikit-learn's own nets: one column for each label, the probability that it is there.
    assert p.shape == model.decision_function(images).shape == (200, 3)
    assert_array_equal(model.predict(images), (p > 0.5).astype(int))
    assert_allclose(model.predict_log_proba(images), np.log(p), atol=1e-10)
    assert_allclose(model.decision_function(images), np.log(p / (1 - p)), atol=1e-6)
    assert_array_equal(model.classes_, [0, 1, 2])
    assert roc_auc_score(labels, p) > 0.9


# Rows without a label


@pytest.fixture
def some(y):
    """Labels of the first eighty rows."""
    return np.where(np.arange(200) < 80, y, -1)


@pytest.mark.parametrize("n_tuned", [0, 1, None])
def test_unlabelled_rows_take_part_in_pretraining_alone(images, some, n_tuned):
    model = small_classifier(n_fine_tuned_layers=n_tuned, **WHOLE).fit(images, some)
    assert model.n_labelled_ == 80
    assert -1 not in model.classes_
    stack = StackedAutoEncoder((10, 6), layer="auto", **WHOLE).fit(images)
    prefit = StackedClassifier(
        layers=stack.layers_, pretraining="prefit", n_fine_tuned_layers=n_tuned, **WHOLE
    ).fit(images[:80], some[:80])
    # Layers from all rows, and from there on the labelled ones as if there were no others.
    assert_allclose(model.predict_proba(images), prefit.predict_proba(images), rtol=1e-9)
    without = small_classifier(n_fine_tuned_layers=n_tuned, **WHOLE).fit(images[:80], some[:80])
    # They did change something.
    assert not np.allclose(model.predict_proba(images), without.predict_proba(images), rtol=1e-5)


def test_unlabelled_rows_in_the_layers_own_criteria(images, some):
    def stack_weights(weight, data):
        stack = StackedAutoEncoder(layers=[AutoEncoder(8, **WHOLE)]).fit(images)
        model = StackedClassifier(
            layers=stack.layers_, pretraining="prefit", unsupervised_weight=weight, **WHOLE
        )
        return model.fit(data, some).stack_.weights_["0.weight_0"]

    other = images.copy()
    other[80:] = 1 - other[80:]
    # Once pre-training is over, unlabelled rows count by that weight alone.
    assert_array_equal(stack_weights(0.0, images), stack_weights(0.0, other))
    assert not np.allclose(stack_weights(0.5, images), stack_weights(0.5, other), rtol=1e-6)


@BRIEF
def test_unsupervised_weight_keeps_reconstructions(images, y):
    settings = {"layer": SHORT, "max_iter": 30, "learning_rate": 0.01, "n_iter_no_change": None}
    kept, given_up = (
        small_classifier(unsupervised_weight=weight, **settings).fit(images, y)
        for weight in (1.0, 0.0)
    )
    # Supervised steps alone forget what the layers could reconstruct.
    assert kept.stack_.score(images) > given_up.stack_.score(images)
    # The curve is that of the supervised part, in nats of the classes.
    assert kept.loss_curve_[-1] < np.log(10)


def test_adversarial_moves_make_predictions_change_little(images, y):
    settings = {**SMALL, "max_iter": 40, "learning_rate": 0.02, "n_iter_no_change": None}
    plain, moved = (
        StackedClassifier((32,), layer=SHORT, adversarial_step=step, **settings).fit(images, y)
        for step in (0.0, 0.2)
    )
    generator, rows = np.random.default_rng(0), np.arange(len(y))

    def change(model):
        def log_probability(x):
            return model.predict_log_proba(x)[rows, np.searchsorted(model.classes_, y)]

        near = [images + 0.01 * generator.normal(size=images.shape) for _ in range(10)]
        return np.mean([abs(log_probability(x) - log_probability(images)) for x in near])

    assert change(moved) < 0.9 * change(plain)
    # Where no layer is fine-tuned there is nothing to move.
    frozen = StackedClassifier(
        (32,), layer=SHORT, adversarial_step=0.2, n_fine_tuned_layers=0, **settings
    )
    assert frozen.fit(images, y).score(images, y) > 0.5
    # It is no regulariser that keeps the classes from being learned.
    assert moved.score(images, y) > 0.9


def test_unlabelled_none(images, y):
    labels = np.where(y % 2, 1, -1)
    model = small_classifier(layer=SHORT, unlabelled=None, max_iter=40, learning_rate=0.02)
    model.fit(images, labels)
    assert_array_equal(model.classes_, [-1, 1])
    assert model.score(images, labels) > 0.9


def test_another_mark_of_unlabelled_rows(images, some):
    marked = np.where(some == -1, 99, some)
    # The value that stands for nothing is nothing but a name.
    assert_same_model(
        small_classifier(unlabelled=99).fit(images, marked),
        small_classifier().fit(images, some),
    )


def test_unlabelled_entries_of_several_outputs(images, y):
    both = np.stack([y % 3, y // 5], axis=1)
    both[:50, 0], both[150:, 1] = 7, 7
    model = small_classifier(n_fine_tuned_layers=0, unlabelled=7).fit(images, both)
    first = small_classifier(n_fine_tuned_layers=0, unlabelled=7).fit(images, both[:, 0])
    # A row teaches those outputs of which it has the class.
    assert_array_equal(model.classes_[0], [0, 1, 2])
    assert_array_equal(model.predict(images)[:, 0], first.predict(images))


# Weights of classes and rows


@pytest.mark.parametrize(
    ("class_weight", "n_tuned"),
    [({0: 3.0, 1: 0.5, 2: 1.0}, 0), ({2: 0.25}, None), ("balanced", None), ("balanced", 0)],
)
def test_class_weights_are_sample_weights(images, y, class_weight, n_tuned):
    labels = np.minimum(y, 2)
    settings = {"n_fine_tuned_layers": n_tuned, "pretraining": None, **WHOLE}
    model = small_classifier(class_weight=class_weight, **settings).fit(images, labels)
    weight = compute_sample_weight(class_weight, labels)
    weighted = small_classifier(**settings).fit(images, labels, sample_weight=weight)
    plain = small_classifier(**settings).fit(images, labels)
    # Classes are weighed in the supervised criterion, and there is no other here. (The initial
    # biases of random layers are the weighted means of the columns; they do not reach the codes.)
    assert_allclose(model.predict_proba(images), weighted.predict_proba(images), rtol=1e-5)
    assert not np.allclose(model.predict_proba(images), plain.predict_proba(images), rtol=1e-3)
    assert_allclose(model.labelled_weight_, weighted.labelled_weight_)
    assert model.n_labelled_ == 200


def test_class_weights_of_several_outputs(images, y):
    both = np.stack([y % 2, y // 5], axis=1)
    settings = {"n_fine_tuned_layers": 0, **WHOLE}
    model = small_classifier(class_weight=[{0: 5.0}, {}], **settings).fit(images, both)
    plain = small_classifier(**settings).fit(images, both)
    change = model.predict_proba(images) - plain.predict_proba(images)
    # Class 0 of the first output becomes more probable; the second output has only
    # the penalty's weight in common with it.
    assert change[:, 0].mean() < -0.1
    assert abs(change[:, 1]).mean() < 0.1 * abs(change[:, 0]).mean()


@pytest.mark.parametrize("n_tuned", [0, 1, None])
def test_weights_are_repetitions(images, y, n_tuned):
    weight = np.arange(200) % 3
    settings = {"n_fine_tuned_layers": n_tuned, **WHOLE}
    weighted = small_classifier(**settings).fit(images, y, sample_weight=weight)
    repeated = small_classifier(**settings).fit(
        np.repeat(images, weight, axis=0), np.repeat(y, weight)
    )
    # A row of weight 2 is two rows.
    assert_allclose(weighted.predict_proba(images), repeated.predict_proba(images), rtol=1e-5)
    assert weighted.labelled_weight_ == repeated.labelled_weight_ == weight.sum()
    assert (weighted.n_labelled_, repeated.n_labelled_) == ((weight > 0).sum(), weight.sum())


@pytest.mark.parametrize(
    "pretraining", ["unsupervised", "supervised", "partly_supervised", "simultaneous"]
)
def test_rows_of_weight_zero_do_not_matter(images, y, pretraining):
    weight = np.where(np.arange(200) < 120, 1.0, 0.0)
    other_X, other_y = images.copy(), y.copy()
    other_X[120:] = 1 - other_X[120:]
    # A class that no row that counts has is no class.
    other_y[120:] = 77
    model = small_classifier(pretraining=pretraining).fit(images, y, sample_weight=weight)
    other = small_classifier(pretraining=pretraining).fit(other_X, other_y, sample_weight=weight)
    assert_same_model(model, other)
    assert_array_equal(other.classes_, np.unique(y[:120]))
    # Nor do they take the place of others in a batch.
    assert_same_model(model, small_classifier(pretraining=pretraining).fit(images[:120], y[:120]))


# Early stopping


def test_early_stopping_holds_out_like_parts_of_the_classes(images, y):
    labels = np.where(np.arange(200) % 4 == 0, -2, y % 2 * (y > 6))
    settings = {"early_stopping": True, "validation_fraction": 0.2, "random_state": 0}
    settings["unlabelled"] = -2
    model = small_classifier(**settings, max_iter=25, learning_rate=0.1, n_iter_no_change=None)
    index, rows = split_labelled(model, labels)
    # A fifth of the labelled rows, none of which is trained on, and no unlabelled one.
    assert (len(index), len(rows)) == (120, 30)
    assert set(index) & set(rows) == set()
    assert (labels[np.concatenate([index, rows])] != -2).all()
    # Stratified: the rare class has its share, to within one row.
    assert abs((labels[rows] == 1).sum() - 0.2 * (labels == 1).sum()) < 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(images, labels)
    # Error rates of 30 rows, to five digits; what is beyond decides between equal ones.
    rates = 30 * np.array(model.validation_curve_)
    assert_allclose(rates, np.round(rates), atol=30 * 0.5e-5 + 1e-9)
    # Steps so large that errors go up and down: the least of them is the model's.
    assert max(rates) > min(rates)
    assert_allclose(1 - model.score(images[rows], labels[rows]), min(rates) / 30, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*no epoch was better")
@pytest.mark.parametrize("pretraining", ["unsupervised", "supervised"])
def test_early_stopping_does_not_see_held_out_labels(images, y, pretraining):
    # Fewer held-out rows than classes: which they are does not depend on their labels.
    settings = {"early_stopping": True, "validation_fraction": 0.04, "n_iter_no_change": None}
    model = small_classifier(pretraining=pretraining, **settings)
    _, rows = split_labelled(model, y)
    model.fit(images, y)
    curves = []
    for step in range(1, 10):
        changed = y.copy()
        changed[rows] = (y[rows] + step) % 10
        other = clone(model).fit(images, changed)
        # What judges a training has no part in it: not in its start, and not in any layer's.
        assert other.loss_curve_ == model.loss_curve_
        assert other.stack_.layer_loss_curves_ == model.stack_.layer_loss_curves_
        curves.append(other.validation_curve_)
    # A prediction is right by one of ten labellings: of eight rows, not by all equally often.
    assert any(curve != model.validation_curve_ for curve in curves)


def test_early_stopping_of_rare_classes(images, y):
    labels = np.where(np.arange(200) == 0, 5, y % 2)
    # One row cannot be on both sides: the split is a random one then.
    model = small_classifier(early_stopping=True).fit(images, labels)
    assert_array_equal(model.classes_, [0, 1, 5])


# Continued


def test_first_call_of_partial_fit_needs_the_classes(images, y):
    with pytest.raises(ValueError, match="first call of partial_fit needs classes="):
        small_classifier().partial_fit(images, y)
    with pytest.raises(ValueError, match=r"classes=.*at least two classes"):
        small_classifier().partial_fit(images, y, classes=[3])


def test_classes_with_the_mark_of_the_unlabelled(images, y):
    labels = np.where(y % 2, 1, -1)
    # Half of the data would be ignored without a word.
    with pytest.raises(ValueError, match=r"contains -1.*set\s+unlabelled=None"):
        small_classifier().partial_fit(images, labels, classes=[-1, 1])
    model = small_classifier(unlabelled=None).partial_fit(images, labels, classes=[-1, 1])
    assert_array_equal(model.classes_, [-1, 1])


def test_unseen_class_in_partial_fit(images, y):
    model = small_classifier().partial_fit(images[y < 4], y[y < 4], classes=range(4))
    before = pickle.dumps(vars(model))
    with pytest.raises(ValueError, match=r"class 4, which is none of the classes \[0, 1, 2, 3\]"):
        model.partial_fit(images[y < 5], y[y < 5])
    # All or nothing.
    assert pickle.dumps(vars(model)) == before


@pytest.mark.parametrize("unsupervised_weight", [0.0, 0.3])
def test_first_part_is_a_fit_of_one_epoch(images, y, unsupervised_weight):
    settings = {**WHOLE, "unsupervised_weight": unsupervised_weight}
    part = small_classifier(**settings).partial_fit(images, y, classes=range(10))
    whole = small_classifier(**settings)
    layers = [clone(layer) for layer in part.stack_.layers_]
    whole.set_params(layer_sizes=None, layers=layers, max_iter=1).fit(images, y)
    # Pre-training by all of the layers' epochs, and one pass of fine-tuning.
    assert_allclose(part.predict_proba(images), whole.predict_proba(images), rtol=1e-9)


def test_partial_fit_goes_on(images, y):
    model = small_classifier(learning_rate=0.02)
    losses = [model.partial_fit(images, y, classes=range(10)).loss_curve_[-1] for _ in range(30)]
    # Passes of one training: moments and random state carry over, the loss falls.
    assert losses == model.loss_curve_
    assert losses[-1] < 0.5 * losses[0]
    assert model.n_iter_ == 30
    interrupted = small_classifier(learning_rate=0.02)
    for i in range(10):
        interrupted.partial_fit(images, y, classes=range(10))
        if i == 5:
            interrupted = pickle.loads(pickle.dumps(interrupted))
    # A pickle in between changes nothing.
    assert losses[:10] == interrupted.loss_curve_


def test_parts_of_few_classes(images, y):
    order = np.argsort(y, kind="stable")
    model = small_classifier(class_weight={0: 2.0})
    model.partial_fit(images, y, classes=range(10))
    for rows in np.array_split(order, 10):
        # A part of a stream may have one class only, and none of the weighted ones.
        model.partial_fit(images[rows], y[rows])
    assert model.predict_proba(images).shape == (200, 10)
    # All rows twice; weights of classes make no rows of them.
    assert model.n_labelled_ == 2 * 200


@pytest.mark.parametrize("n_tuned", [0, 1, None])
def test_part_without_labels(images, y, n_tuned):
    model = small_classifier(n_fine_tuned_layers=n_tuned)
    model.partial_fit(images, y, classes=range(10))
    nothing = np.full(200, -1)
    with pytest.raises(ValueError, match="unsupervised_weight > 0"):
        model.partial_fit(images, nothing)
    kept = small_classifier(n_fine_tuned_layers=n_tuned, unsupervised_weight=0.5)
    kept.partial_fit(images, y, classes=range(10))
    before = copy.deepcopy(kept)
    if n_tuned == 0:
        # The layers' own criteria are those of layers that are fine-tuned.
        with pytest.raises(ValueError, match="teaches nothing"):
            kept.partial_fit(images, nothing)
        return
    kept.partial_fit(images, nothing)
    # The layers learn from it what they can.
    name = "1.weight_0"
    assert (kept.stack_.weights_[name] != before.stack_.weights_[name]).any()


def test_first_part_without_labels(images):
    nothing = np.full(200, -1)
    model = small_classifier(unsupervised_weight=0.5)
    model.partial_fit(images, nothing, classes=range(10))
    # Nothing is known, so that all classes are as probable.
    assert_allclose(model.predict_proba(images), 0.1, atol=1e-6)
    for mode in ("supervised", "partly_supervised"):
        model = small_classifier(unsupervised_weight=0.5, pretraining=mode)
        with pytest.raises(ValueError, match="needs rows with targets in the first call"):
            model.partial_fit(images, nothing, classes=range(10))


def test_balanced_weights_in_parts(images, y):
    with pytest.raises(ValueError, match="Pass a dict"):
        small_classifier(class_weight="balanced").partial_fit(images, y, classes=range(10))


@pytest.mark.parametrize("n_tuned", [0, None])
def test_fit_forgets_earlier_parts(images, y, n_tuned):
    model = small_classifier(n_fine_tuned_layers=n_tuned)
    model.partial_fit(images[::-1], y[::-1], classes=range(10)).fit(images, y)
    fresh = small_classifier(n_fine_tuned_layers=n_tuned).fit(images, y)
    assert_same_model(model, fresh)
    # Moments from before the fit are those of another model.
    assert_same_model(model.partial_fit(images, y), fresh.partial_fit(images, y))


def test_warm_start(images, y):
    model = small_classifier(warm_start=True, learning_rate=0.01).fit(images, y)
    assert_same_model(model, small_classifier(learning_rate=0.01).fit(images, y))
    stack = model.stack_
    weights = {name: weight.copy() for name, weight in stack.weights_.items()}
    first = model.loss_curve_[-1]
    model.fit(images, y)
    # Fine-tuning goes on, without pre-training again, and from where it was.
    assert model.loss_curve_[0] < first * 1.01
    # What was fitted before belongs to whom has taken it.
    for name, weight in weights.items():
        assert_array_equal(stack.weights_[name], weight)
    with pytest.raises(ValueError, match="class 10, which is none of the classes"):
        model.fit(images, y + 3)


# Data and composition


FITS = {
    "output": {"n_fine_tuned_layers": 0},
    "machines": {"layer": "rbm", "unsupervised_weight": 0.1, "n_fine_tuned_layers": 1},
    "supervised": {"pretraining": "supervised", "early_stopping": True, "max_iter": 6},
    "random": {"pretraining": None, "dropout": 0.2},
}


@pytest.mark.filterwarnings("ignore:.*no epoch was better")
@pytest.mark.parametrize("name", FITS)
def test_every_way_of_fitting_is_repeatable_and_small(images, y, name):
    data = images.astype(np.float32)
    model = StackedClassifier((64, 32), **{"layer": "auto", **SMALL, **FITS[name]}).fit(data, y)
    again = clone(model).fit(data, y)
    # The same seed gives the same bits.
    assert_same_model(model, again)
    assert model.loss_curve_ == again.loss_curve_
    stored = pickle.dumps(model)
    expected = model.predict_proba(data)
    assert_array_equal(pickle.loads(stored).predict_proba(data), expected)
    # All arithmetic is in the dtype of the data.
    assert expected.dtype == model.stack_.transform(data).dtype == np.float32
    # The weights once, and little else.
    arrays = [*model.stack_.weights_.values(), model.output_weights_, model.output_bias_]
    n_bytes = sum(array.nbytes for array in arrays)
    assert len(stored) <= 1.1 * n_bytes + 50_000


@pytest.mark.parametrize(
    ("model", "grid"),
    [
        (
            StackedClassifier(layers=[ContractiveAutoEncoder(8, **SMALL), RBM(6, **SMALL)]),
            {"layers__0__contraction": [0.0, 50.0]},
        ),
        (small_classifier(learning_rate=0.05), {"n_fine_tuned_layers": [0, None]}),
    ],
    ids=["layers", "tuned"],
)
def test_grid_search(images, y, model, grid):
    model = clone(model).set_params(**SMALL)
    pipeline = make_pipeline(model)
    steps = {f"stackedclassifier__{name}": values for name, values in grid.items()}
    search = GridSearchCV(pipeline, steps, cv=2, scoring="neg_log_loss").fit(images, y)
    scores = search.cv_results_["mean_test_score"]
    # Each setting arrives: two different models came out.
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]


def test_prefit_layers_are_left_alone(images, y):
    layer = AutoEncoder(8, **SMALL).fit(images)
    before = pickle.dumps(layer)
    model = StackedClassifier(layers=[FrozenEstimator(layer)], pretraining="prefit", **SMALL)
    clone(model).fit(images, y).partial_fit(images, y)
    clone(model).partial_fit(images, y, classes=range(10)).partial_fit(images, y)
    # Fine-tuning works on copies.
    assert pickle.dumps(layer) == before


# Bad input


DICTIONARY = [AutoEncoder(8), SparseCoder(4)]
REFUSED = [
    ({}, None, "requires y to be passed, but the target y is None"),
    ({}, np.arange(199) % 2, "inconsistent numbers of samples"),
    ({}, np.full(200, -1), "All labels are -1.*StackedAutoEncoder"),
    ({}, np.full(200, 3), "one class only, .*3.*at least two"),
    ({}, np.full(200, "a"), "one class only, .*'a'"),
    ({}, np.where(np.arange(200) % 2, 1, -1), "one class only.*set unlabelled=None"),
    ({}, np.linspace(0, 1, 200), "continuous"),
    ({}, np.where(np.arange(200) % 2, np.nan, 1.0), "NaN"),
    ({"class_weight": {"typo": 2.0}}, None, "requires y"),
    ({"class_weight": {"typo": 2.0}}, "y", "class_weight.*typo.*none of the classes"),
    ({"class_weight": "even"}, "y", "'class_weight' parameter"),
    ({"n_fine_tuned_layers": 3}, "y", "n_fine_tuned_layers=3, but there are 2"),
    ({"n_fine_tuned_layers": -1}, "y", "'n_fine_tuned_layers' parameter"),
    ({"layers": DICTIONARY}, "y", r"Layer 1 \(SparseCoder\) has no part in fine-tuning.*PSD"),
    ({"layers": DICTIONARY, "n_fine_tuned_layers": 1}, "y", r"Layer 1 \(SparseCoder\)"),
    (
        {"layers": DICTIONARY, "n_fine_tuned_layers": 0, "pretraining": "supervised"},
        "y",
        "Layer 1 is a SparseCoder",
    ),
    ({"layers": [AutoEncoder]}, "y", "is a class: pass an instance"),
    ({"layers": [AutoEncoder(8)], "layer_sizes": (9,)}, "y", "contradicts"),
    (
        {"layers": [AutoEncoder(8, activation="relu"), RBM(4, visible="bernoulli")]},
        "y",
        r"Layer 1 \(RBM\).*layer 0 .*visible='gaussian'",
    ),
    ({"pretraining": ["unsupervised"]}, "y", "each of the 2 layers"),
    ({"dropout": 1.0}, "y", "'dropout' parameter"),
    ({"dropout": (0.1, 0.2, 0.3)}, "y", "'dropout' parameter.*tuple of two"),
    ({"dropout": (-0.1, 0.2)}, "y", "'dropout' parameter.*tuple of two"),
    ({"unsupervised_weight": -1.0}, "y", "'unsupervised_weight' parameter"),
    ({"output_penalty": -1.0}, "y", "'output_penalty' parameter"),
    ({"unlabelled": [1]}, "y", "'unlabelled' parameter"),
    ({"early_stopping": True, "validation_fraction": 0.999}, "y", "hold out"),
]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("parameters", "labels", "match"), REFUSED, ids=lambda value: str(value)[:50]
)
def test_refused_before_any_layer_trains(images, y, parameters, labels, match):
    labels = y if isinstance(labels, str) else labels
    model = StackedClassifier(**{"layer_sizes": None, **parameters})
    with pytest.raises(ValueError, match=match):
        model.fit(images, labels)
    # Not half a model.
    with pytest.raises(NotFittedError):
        model.predict(images)
    assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.full((4, 3), np.nan), "Column 0 and 2 more of X"),
        (np.array([["a"], ["b"], ["a"], ["b"]]), "OneHotEncoder"),
        (np.zeros((0, 3)), "0 sample"),
    ],
    ids=["nothing observed", "text", "no rows"],
)
def test_bad_data_before_any_layer_trains(data, match):
    with pytest.raises(ValueError, match=match):
        small_classifier().fit(data, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=match):
        small_classifier().partial_fit(data, [0, 1, 0, 1], classes=[0, 1])


def test_sparse_coder_below_what_is_fine_tuned(images, y):
    layers = [SparseCoder(8, **SMALL), AutoEncoder(6, **SMALL)]
    model = StackedClassifier(layers=layers, n_fine_tuned_layers=1, **SMALL).fit(images, y)
    # No gradient has to go through what stays as it is.
    assert model.predict(images).shape == (200,)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_wrong_number_of_features(images, y, method):
    with pytest.raises(ValueError, match=r"60 features.*expecting 64"):
        getattr(small_classifier().fit(images, y), method)(images[:, :60])
    with pytest.raises(NotFittedError):
        getattr(small_classifier(), method)(images)


def test_other_number_of_outputs(images, y):
    model = small_classifier().fit(images, y)
    with pytest.raises(ValueError, match="2 outputs, but this model has 1"):
        model.partial_fit(images, np.stack([y, y], axis=1))


# Failures


def state_of(model):
    return pickle.dumps({k: v for k, v in vars(model).items() if k.endswith("_")})


@pytest.mark.parametrize(
    ("method", "n_trainings"), [("fit", 3), ("partial_fit", 1), ("warm fit", 1)]
)
def test_failure_leaves_the_earlier_model(images, y, fail_in_training, method, n_trainings):
    model = small_classifier(verbose=True, n_iter_no_change=None).fit(images, y)
    before = state_of(model)
    model.set_params(warm_start=method == "warm fit")
    for number in range(1, n_trainings + 1):
        fail_in_training(RuntimeError("out of memory"), training=number, epoch=1)
        with pytest.raises(RuntimeError, match="out of memory"):
            (model.partial_fit if method == "partial_fit" else model.fit)(images[::-1] ** 2, y)
        # All or nothing, whichever training failed.
        assert state_of(model) == before


def test_failure_after_training_leaves_the_earlier_model(images, y):
    layer = AutoEncoder(8, activation="relu", max_iter=1, random_state=0).fit(images)
    model = StackedClassifier(layers=[layer], pretraining="prefit", max_iter=2).fit(images, y)
    before = state_of(model)
    collapsed = copy.deepcopy(layer)
    collapsed.weights_["hidden_bias_0"] -= 1e3
    model.set_params(layers=[collapsed])
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapsedCodeWarning)
        # Rectifiers that are never positive say nothing of any class.
        with pytest.raises(CollapsedCodeWarning, match=r"8 of 8 code units"):
            model.fit(images, y)
    # Also where a warning is an error, after the last step.
    assert state_of(model) == before


@pytest.mark.filterwarnings("ignore:.*interrupted after 2 epochs")
def test_interruption_of_a_lower_layer(images, y, interrupt):
    model = small_classifier(verbose=1, max_iter=5).fit(images, y)
    before = state_of(model)
    interrupt(training=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(images**2, y)
    # Half a stack is no model.
    assert state_of(model) == before


def test_interruption_of_fine_tuning(images, y, interrupt):
    interrupt(training=3)
    model = small_classifier(verbose=1, max_iter=5, n_iter_no_change=None)
    with pytest.warns(ConvergenceWarning, match="StackedClassifier was interrupted after 2"):
        model.fit(images, y)
    # What was learned until then is kept, and said.
    assert model.stopping_reason_ == "interrupted"
    assert model.n_iter_ == 2
    assert model.predict(images).shape == (200,)


def test_divergence_of_fine_tuning(images, y):
    parameters = {"n_iter_no_change": None, "optimizer": "sgd", "learning_rate": 1e28}
    model = small_classifier(**parameters)
    # What pre-training and the linear output have learned is not thrown away,
    with pytest.warns(ConvergenceWarning, match=r"diverged.*smaller learning_rate.*was kept"):
        model.fit(images, y)
    assert model.stopping_reason_ == "diverged"
    start = small_classifier(n_fine_tuned_layers=0).fit(images, y)
    # it is the model: a logistic regression on the codes, up to its last few steps.
    assert (model.predict(images) == start.predict(images)).mean() > 0.97
    # From random weights nothing was learned, and nothing is left.
    model = small_classifier(pretraining=None, **parameters)
    with pytest.raises(ValueError, match=r"StackedClassifier diverged.*Nothing was learned"):
        model.fit(images, y)
    with pytest.raises(NotFittedError):
        model.predict(images)


def test_weak_penalties_do_not_tear_the_layers_apart(images, y):
    for penalty in (0.0, 1e-6):
        model = small_classifier(output_penalty=penalty, max_iter=20).fit(images, y)
        # Codes of few epochs are nearly collinear: without any penalty the output that is best
        # on them has huge weights, and the first steps through these would explode.
        assert model.stopping_reason_ != "diverged"
        assert model.loss_curve_[-1] <= model.loss_curve_[0]


def test_defaults_on_a_raw_table():
    X, y = load_wine(return_X_y=True)
    model = StackedClassifier(max_iter=5, random_state=0).fit(X[::2], y[::2])
    # Columns of any units, untouched defaults, few epochs.
    assert model.score(X[1::2], y[1::2]) > 0.9


def test_fine_tuned_layers_that_change_between_parts(images, y):
    model = small_classifier(n_fine_tuned_layers=0).partial_fit(images, y, classes=range(10))
    # The optimiser's moments are of other parameters: they are dropped, whether larger
    model.set_params(n_fine_tuned_layers=None).partial_fit(images, y)
    assert set(model._training_state["shapes"]) > {"output_weight", "output_bias"}
    # or smaller.
    model.set_params(n_fine_tuned_layers=1).partial_fit(images, y)
    assert int(model._training_state["optimizer"]["step"]) == -(-len(y) // model.batch_size)


def test_strings_for_unknown_classes(images, y):
    names = np.array([f"digit {label}" for label in y], dtype=object)
    some = np.where(np.arange(len(y)) % 2 == 0, names, "?")
    model = small_classifier(unlabelled="?").fit(images, some)
    assert "?" not in model.classes_
    # Rows of unknown class judge nothing.
    known = some != "?"
    assert model.score(images, some) == model.score(images[known], some[known])
    # -1 among strings is the same mark; other numbers there are a mistake.
    assert_array_equal(
        small_classifier().fit(images, np.where(known, names, -1)).classes_, model.classes_
    )
    with pytest.raises(ValueError, match="mixes strings"):
        small_classifier().fit(images, np.where(known, names, -2))


@pytest.mark.parametrize(
    "weights", [{0: np.nan, 1: 1.0}, {0: -1.0, 1: 1.0}, {0: 0.0, 1: 0.0}, [{0: 1.0}, {0: 2.0}]]
)
def test_bad_class_weights(images, y, weights):
    with pytest.raises(ValueError, match="class_weight"):
        small_classifier(class_weight=weights).fit(images, y % 2)


def test_classes_cannot_change_between_parts(images, y):
    model = small_classifier().partial_fit(images, y, classes=range(10))
    with pytest.raises(ValueError, match="cannot change"):
        model.partial_fit(images, y, classes=range(12))


def test_layers_are_named_in_warnings_and_errors():
    def elsewhere():
        with pytest.warns(UserWarning, match="^lost$"):
            warn("lost", UserWarning)
        done.append(True)

    done = []
    with of_layer(2):
        with pytest.warns(UserWarning, match="^Layer 2: lost$"):
            warn("lost", UserWarning)
        # What another thread does meanwhile is none of this layer's.
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert done == [True]
    with pytest.raises(ValueError, match=r"^Layer 1: bad$"), of_layer(1):
        raise ValueError("bad")
    # Outside of layers nothing is named.
    with pytest.warns(UserWarning, match="^lost$"):
        warn("lost", UserWarning)


def test_a_wide_net_may_overshoot_in_its_first_epoch():
    X = np.random.RandomState(0).rand(500, 20).astype(np.float32)
    y = np.arange(500) % 2
    model = StackedClassifier((3000,), max_iter=1, pretraining=None, random_state=0)
    # Its loss rises above that of the start and falls from the second epoch on: no divergence.
    assert model.fit(X, y).loss_curve_[0] > 0.8  # log 2 = 0.69 at the start
    with pytest.raises(ValueError, match="diverged"):
        model.set_params(learning_rate=1.0).fit(X, y)


def test_the_penalty_does_not_fade_in_repeated_passes(images, y):
    layers = [AutoEncoder(6, **SMALL).fit(images)]
    settings = {"layers": layers, "pretraining": "prefit", "n_fine_tuned_layers": 0}
    best = StackedClassifier(**settings, output_penalty=10.0, output="linear").fit(images, y)
    options = {"optimizer": "nesterov", "learning_rate": 0.3, "batch_size": 1000}
    model = StackedClassifier(**settings, **options, output_penalty=10.0, random_state=0)
    for _ in range(60):
        model.partial_fit(images, y, classes=range(10))
    # The same rows once more are no new ones: what they tell is what `fit` finds in them.
    norms = [np.linalg.norm(m.output_weights_) for m in (model, best)]
    assert norms[0] == pytest.approx(norms[1], rel=0.1)


def test_classes_of_several_outputs_as_the_model_has_them(images, y):
    both = np.stack([y % 2, y // 5], axis=1)
    model = small_classifier().partial_fit(images, both, classes=np.arange(2))
    assert_array_equal(model.classes_, [0, 1])
    # Numbers of labels, as in scikit-learn's networks, or the classes of each.
    model.partial_fit(images, both, classes=model.classes_)
    model.partial_fit(images, both, classes=model.output_classes_)
    three = np.stack([y % 3, y // 5], axis=1)
    model = small_classifier().partial_fit(images, three, classes=[range(3), range(2)])
    model.partial_fit(images, three, classes=model.classes_)
    with pytest.raises(ValueError, match="cannot change"):
        model.partial_fit(images, three, classes=[range(3), range(4)])
