"""The manifold tangent classifier: its identities, its tangents and what it refuses."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skae import (
    PSD,
    CollapsedCodeWarning,
    ContractiveAutoEncoder,
    ManifoldTangentClassifier,
    SparseCoder,
    StackedClassifier,
)
from skae.diagnostics import jacobian_spectrum, local_pca_tangents, principal_angles, tangents
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.estimators.tangents.sources import EncoderTangents
from skae.estimators.targets import Classes

# Layers that are hardly trained: what is tested here is what comes after them.
SHORT = ContractiveAutoEncoder(
    contraction=0.05, max_iter=3, learning_rate=2e-3, learning_rate_schedule="linear"
)
FAST = {"layer": SHORT, "max_iter": 3, "random_state": 0}


@pytest.fixture(scope="module", name="digits")
def few_labels():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16, y[:300]
    return X, np.where(np.arange(300) < 100, y, -1)


def test_without_penalties_it_is_the_stack(digits):
    X, y = digits
    layer = ContractiveAutoEncoder(20, max_iter=3, random_state=0).fit(X)
    options = {"layers": [layer], "pretraining": "prefit", "max_iter": 3, "random_state": 0}
    settings = {
        "learning_rate": 3e-4,
        "learning_rate_schedule": "linear",
        "batch_size": 30,
        "output_penalty": 0.5,
    }
    names = ("tangent", "unlabelled", "entropy")
    nothing = {f"{name}_penalty": 0 for name in names}
    model = ManifoldTangentClassifier(**options, **settings, **nothing).fit(X, y)
    stack = StackedClassifier(**options, **settings).fit(X, y)
    # Nothing is added to the stack's criterion, and nothing more is drawn.
    np.testing.assert_allclose(model.predict_proba(X), stack.predict_proba(X), atol=1e-8)


def test_tangents_are_those_of_the_pre_trained_encoder(digits):
    X, y = digits
    model = ManifoldTangentClassifier((20,), n_tangents=4, **FAST).fit(X, y)
    expected = tangents(model.encoder_, X, 4).directions
    # The same function of the same layers, whatever fine-tuning made of them since.
    np.testing.assert_array_equal(model.tangents(X), expected)
    moved = np.abs(model.stack_.weights_["0.weight_0"] - model.encoder_.weights_["0.weight_0"])
    # Fine-tuning did change the layers, so the line above could have failed.
    assert moved.max() > 0


@pytest.mark.parametrize(("contraction", "is_flat"), [(1.0, False), (0.0, True)])
def test_automatic_tangents_hold_three_quarters_of_the_jacobian(digits, contraction, is_flat):
    X, _ = digits
    kind = {"contraction": contraction, "max_iter": 60 if contraction else 1}
    encoder = ContractiveAutoEncoder(60, random_state=0, **kind).fit(X)
    source = EncoderTangents(encoder, "auto", X[:200])
    held = np.cumsum(jacobian_spectrum(encoder, X[:200]) ** 2, axis=1)
    needed = 1 + (held < 0.75 * held[:, -1:]).sum(axis=1)
    # The median row's share of the whole spectrum, also where few leading values do not hold it;
    # half the 64 columns is the most.
    assert source.n_tangents == min(np.median(needed), 32)
    assert (source.n_tangents > 20) == is_flat


def response(model, X, directions):
    """Mean squared change of the logits along directions, by central differences."""
    step = 1e-4
    changes = [
        (model.decision_function(X + step * u) - model.decision_function(X - step * u)) / (2 * step)
        for u in np.moveaxis(directions, 1, 0)
    ]
    return np.mean(np.square(changes))


def test_the_output_changes_less_along_penalised_directions(digits):
    X, y = digits
    known = np.zeros((2, 64))
    known[0, 20], known[1, 43] = 1, 1

    def shifts(X):
        return np.broadcast_to(known, (len(X), 2, 64))

    options = {**FAST, "max_iter": 30, "tangent_source": shifts, "learning_rate": 1e-2}
    free, bound = (
        ManifoldTangentClassifier(
            (20,), tangent_penalty=b, unlabelled_penalty=(b, 1.0), **options
        ).fit(X, y)
        for b in (0, 1000.0)
    )
    # That is what the penalty is for.
    assert response(bound, X, shifts(X)) < 0.5 * response(free, X, shifts(X))


def test_local_pca_tangents_are_those_of_the_diagnostic(digits):
    X, y = digits
    model = ManifoldTangentClassifier((20,), tangent_source="local_pca", n_tangents=3, **FAST)
    found = model.fit(X, y).tangents(X[:20])
    expected = local_pca_tangents(X, 3, n_neighbors=30, query=X[:20]).directions
    # The same neighbours span the same planes.
    assert principal_angles(found, expected).max() < 1e-6
    found = model.set_params(tangent_source=("local_pca", 8)).fit(X, y).tangents(X[:20])
    expected = local_pca_tangents(X, 3, n_neighbors=8, query=X[:20]).directions
    # As many of them as the tuple says.
    assert principal_angles(found, expected).max() < 1e-6


def test_another_encoder_is_a_source_of_tangents(digits):
    X, y = digits
    encoder = ContractiveAutoEncoder(10, max_iter=3, random_state=0)
    model = ManifoldTangentClassifier((20,), tangent_source=encoder, n_tangents=4, **FAST)
    found = model.fit(X, y).tangents(X[:20])
    # Of a clone that saw the same rows; what the user passed is left as it was.
    np.testing.assert_array_equal(found, tangents(clone(encoder).fit(X), X[:20], 4).directions)
    assert not hasattr(encoder, "weights_")


def test_one_number_is_for_both_kinds_of_moves(digits):
    X, y = digits
    one, both, other = (
        ManifoldTangentClassifier((20,), unlabelled_penalty=p, unlabelled_step=s, **FAST)
        .fit(X, y)
        .predict_proba(X)
        for p, s in ((0.5, 0.3), ((0.5, 0.5), (0.3, 0.3)), ((0.5, 0.1), (0.3, 0.3)))
    )
    np.testing.assert_array_equal(one, both)
    # The second number is that of moves in any direction.
    assert np.abs(one - other).max() > 1e-6


def test_pairs_can_be_searched(digits):
    X, _ = digits
    y = load_digits().target[:300]
    grid = {"unlabelled_penalty": [0.0, (100.0, 0.0), (0.0, 100.0)]}
    model = ManifoldTangentClassifier((20,), **{**FAST, "max_iter": 10})
    # Folds have no unlabelled rows but these.
    y = np.where(np.arange(300) % 3 == 0, y, -1)
    search = GridSearchCV(model, grid, cv=2, scoring=mean_confidence).fit(X, y)
    # Numbers and tuples arrive: three different models came out.
    assert len(set(search.cv_results_["mean_test_score"])) == 3


def mean_confidence(model, X, y):
    return model.predict_proba(X).max(1).mean()


@pytest.mark.parametrize("tangent_source", ["encoder", "local_pca"])
def test_held_out_rows_without_tangents_are_judged(digits, tangent_source):
    X, y = digits
    model = ManifoldTangentClassifier(
        (20,), early_stopping=True, tangent_source=tangent_source, **FAST
    ).fit(X, y)
    # Batches of held-out rows, none of which has directions, are batches.
    assert len(model.validation_curve_) == len(model.loss_curve_) == 3


def test_the_same_seed_gives_the_same_bits(digits):
    X, y = digits
    first, second = (ManifoldTangentClassifier((20,), **FAST).fit(X, y) for _ in range(2))
    # Everything is drawn from random_state.
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))


def test_partial_fit_is_refused_with_a_reason():
    model = ManifoldTangentClassifier()
    # Tangents at each row come from layers that saw all rows.
    assert not hasattr(model, "partial_fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_tangents": 65}, "at most 20"),
        ({"n_tangents": 21}, "at most 20"),
        ({"n_tangents": 30, "tangent_source": "local_pca"}, "span 29 directions"),
        ({"n_tangents": 8, "tangent_source": ("local_pca", 8)}, "8 neighbours .* span 7"),
        ({"tangent_source": ("local_pca", 1)}, "must be .'local_pca', n_neighbors"),
        ({"tangent_source": ("encoder", 9)}, "must be .'local_pca', n_neighbors"),
        ({"tangent_source": ContractiveAutoEncoder}, "is a class: pass an instance"),
        ({"tangent_source": SparseCoder(3)}, "has no Jacobian.*Use another encoder"),
        ({"unlabelled_penalty": (1.0, -1.0)}, "'unlabelled_penalty' parameter.*tuple of two"),
        ({"unlabelled_step": (0.1, 0.2, 0.3)}, "'unlabelled_step' parameter.*tuple of two"),
        ({"entropy_penalty": (0.1, -1.0)}, "'entropy_penalty' parameter.*tuple of two"),
        ({"pretraining": None}, "random layers"),
        ({"tangent_source": lambda X: X}, "are needed"),
    ],
)
def test_bad_parameters_name_the_remedy(digits, options, message, monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "adam", lambda momentum: pytest.fail("it began to train"))
    # What cannot work is refused before any training, with what to do instead.
    with pytest.raises(ValueError, match=message):
        ManifoldTangentClassifier((20,), **{**FAST, **options}).fit(*digits)


def test_no_labels_and_one_class_are_refused(digits):
    X, y = digits
    # Nothing can be predicted from no labels, ...
    with pytest.raises(ValueError, match="nothing to predict"):
        ManifoldTangentClassifier((20,), **FAST).fit(X, np.full(300, -1))
    # ... and one class leaves nothing to tell apart.
    with pytest.raises(ValueError, match="one class"):
        ManifoldTangentClassifier((20,), **FAST).fit(X, np.where(y == 1, 1, -1))


# Three columns have little to say to a second layer.
@pytest.mark.filterwarnings("ignore:.*hardly better than the mean")
def test_layers_and_epochs_follow_the_data(digits):
    X, y = digits
    model = ManifoldTangentClassifier(n_tangents=2, random_state=0).fit(X[:60, 27:30], y[:60])
    # Four units for each of 3 columns, but 100 at least, in both layers and in what the stack says.
    layers = model.encoder_.layers_
    assert [layer.n_components for layer in layers] == [100, 100]
    assert model.stack_.layer_sizes == (100, 100)
    # Each layer's contraction is for each of its own inputs.
    assert [layer.contraction for layer in layers] == pytest.approx([3e-3, 0.1])
    # 60 rows are one batch, and 10,000 and 2,000 epochs would be more than the bounds.
    assert [layer.n_iter_ for layer in layers] == [400, 400]
    assert model.n_iter_ == 200
    given = ManifoldTangentClassifier(**FAST).fit(X[:20], y[:20])
    # What the user says, counts; four units for each of 64 columns.
    assert [layer.n_iter_ for layer in given.encoder_.layers_] == [3, 3]
    assert [layer.n_components for layer in given.encoder_.layers_] == [256, 256]
    assert given.n_iter_ == 3


def test_divergence_is_reported_where_epochs_follow_the_data(digits):
    X, y = digits
    model = ManifoldTangentClassifier(
        (20,), layer=SHORT, optimizer="sgd", learning_rate=1e28, random_state=0
    )
    # The number of epochs that it would have been is no parameter.
    with pytest.warns(ConvergenceWarning, match=r"diverged by epoch \d.*was kept"):
        model.fit(X, y)


def test_layers_are_never_wider_than_a_thousand(digits):
    X, y = digits
    wide = np.repeat(X[:20], 4, axis=1)
    none = {"n_fine_tuned_layers": 0, "tangent_penalty": 0, "unlabelled_penalty": 0}
    options = {**FAST, **none, "layer": clone(SHORT).set_params(max_iter=1), "n_tangents": 2}
    model = ManifoldTangentClassifier(**options).fit(wide, y[:20])
    # Four units for each of 256 columns would be 1024: the cost would grow with their square.
    assert [layer.n_components for layer in model.stack_.layers_] == [1000, 1000]


def test_a_prototype_is_checked_at_the_width_that_its_layers_will_have(digits):
    X, y = digits
    prototype = PSD(100, map_shape=(10, 10), group_shape=3, max_iter=1)
    model = ManifoldTangentClassifier(**{**FAST, "layer": prototype}).fit(X[:60, 30:33], y[:60])
    # Three columns ask for 100 units, which the map has, ...
    assert [layer.n_components for layer in model.stack_.layers_] == [100, 100]
    # ... and 64 for 256, which it has not: nothing is trained before that is said.
    with pytest.raises(ValueError, match="256"):
        ManifoldTangentClassifier(**{**FAST, "layer": prototype}).fit(X, y)


def mean_prediction(model, X, y):
    return model.predict_proba(X[y == -1]).mean(0)


def test_balance_brings_classes_to_their_frequency(digits):
    X, _ = digits
    y = load_digits().target[:300]
    y = np.where(y < 2, y, -1)
    # 5 and some 30 labels, which are not two equal classes by chance.
    y[np.flatnonzero(y == 0)[5:]] = -1
    prior = np.mean(y[y >= 0] == 0)
    options = {**FAST, "max_iter": 30, "learning_rate": 3e-3}
    away = [
        abs(
            mean_prediction(
                ManifoldTangentClassifier((20,), entropy_penalty=(0, b), **options).fit(X, y), X, y
            )[0]
            - prior
        )
        for b in (0, 100)
    ]
    # That is what the penalty is for.
    assert away[1] < 0.5 * away[0]


def test_frequencies_of_classes_take_weights_as_repetitions():
    y = np.repeat([0, 1, -1], [6, 14, 280])

    def frequency(y, weight=1.0):
        kind = Classes()
        table = kind.checked(y)
        return kind.described(table).encoded(table).times(weight).class_frequencies()[0]

    once, weighted, repeated = frequency(y), frequency(y, 5.0), frequency(np.tile(y, 5))
    assert weighted == pytest.approx(repeated)
    # Five times the labels leave less to chance: 0.3 itself is further from one half.
    assert 0.3 < weighted < once < 0.5


@pytest.mark.parametrize("tangent_source", ["encoder", "local_pca"])
def test_upper_layers_alone_see_tangents_through_the_lower(digits, tangent_source):
    X, y = digits
    model = ManifoldTangentClassifier(
        (20, 10), n_fine_tuned_layers=1, n_tangents=3, tangent_source=tangent_source, **FAST
    ).fit(X, y)
    before, after = (stack.layers_ for stack in (model.encoder_, model.stack_))
    # The lower layer is not trained, ...
    np.testing.assert_array_equal(before[0].components_, after[0].components_)
    # ... the upper one is, with penalties that are finite.
    assert np.abs(before[1].components_ - after[1].components_).max() > 0
    assert np.isfinite(model.loss_curve_).all()


@pytest.mark.parametrize(
    ("activation", "weight", "message"),
    [
        ("sigmoid", np.zeros((64, 64)), "does not respond to its input at 100%"),
        ("linear", np.eye(64), "responds to all directions alike at 100%"),
    ],
)
def test_an_encoder_without_tangents_is_reported(digits, activation, weight, message):
    X, y = digits
    layer = ContractiveAutoEncoder(64, activation=activation, max_iter=1, random_state=0).fit(X)
    layer.weights_["weight_0"][...] = weight
    model = ManifoldTangentClassifier(
        layers=[layer], pretraining="prefit", max_iter=1, random_state=0
    )
    # No response, or the same to all, leaves no direction that leads: said before it is used.
    with pytest.warns(CollapsedCodeWarning, match=message):
        model.fit(X, y)
    # The classifier is there all the same.
    assert np.isfinite(model.predict_proba(X)).all()
