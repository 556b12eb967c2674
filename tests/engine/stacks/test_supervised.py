"""The supervised criterion of a stack: closed form against autograd, targets, both paths."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.learning import ContrastiveDivergence
from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.networks.corruptions import Masking
from skae.engine.networks.layers import Network, encode
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.objectives import Reconstruction, auto_encoder
from skae.engine.networks.penalties import Contraction
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial
from skae.engine.optimisation.devices import random_mask
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import Labelled
from skae.engine.optimisation.runs import Objective
from skae.engine.stacks.stacking import Layerwise, codes_of_layers
from skae.engine.stacks.supervised import Supervised, classification_error, with_output

N_ROWS, N_OUTPUTS, SIZES = 9, 5, (6, 5, 4, 3)
FIRST, SECOND = torch.tensor([3, 0]), torch.tensor([1, 4, 2])
UNITS = {
    "bernoulli": Bernoulli(),
    "gaussian": Gaussian(constant=1.7),
    "multinomial": Multinomial(),
    "classes": Mixed([(Multinomial(), FIRST), (Multinomial(), SECOND)]),
    "mixed": Mixed([(Gaussian(-0.6), FIRST), (Multinomial(), SECOND)]),
}
UNLABELLED = torch.tensor([2, 7])


def make_models(n_layers=3, activation="sigmoid", affine=True):
    """Layers of which the middle one sees standardised codes, and their networks."""
    models, networks = [], []
    for k in range(n_layers):
        network, n = Network(SIZES[k : k + 2], activation, k % 2 == 0), SIZES[k]
        model = auto_encoder(
            network,
            Gaussian(0.3) if k == 1 else Bernoulli(),
            torch.zeros(n, dtype=torch.float64),
            Objective,
            torch.linspace(-0.4, 0.6, n, dtype=torch.float64) if k == 1 else None,
            torch.linspace(0.3, 1.7, n, dtype=torch.float64) if k == 1 else None,
        )
        models.append(model if affine else replace(model, encoder=None))
        networks.append(network)
    return models, networks


def make_layerwise(models, networks, *, noisy=True):
    corruption = Masking(0.4) if noisy else None
    criteria = [
        Reconstruction(network, model.units, corruption, penalties=[Contraction(0.2)])
        for model, network in zip(models, networks, strict=True)
    ]
    return Layerwise(models, criteria)


def make_theta(models, generator):
    shapes = with_output(models, None, N_OUTPUTS, n_features=SIZES[0]).shapes
    theta = Parameters(shapes, dtype=torch.float64)
    theta.flat.normal_(0.0, 0.7, generator=generator)
    return theta


def one_hot(n_classes, generator):
    index = torch.randint(n_classes, (N_ROWS,), generator=generator)
    return functional.one_hot(index, n_classes).double()


def make_batch(units, generator, *, weighted=False, unlabelled=False):
    x = torch.rand(N_ROWS, SIZES[0], dtype=torch.float64, generator=generator)
    target = torch.randn(N_ROWS, N_OUTPUTS, dtype=torch.float64, generator=generator)
    if units == "bernoulli":
        target = (target > 0).double()
    if units == "multinomial":
        target = one_hot(N_OUTPUTS, generator)
    if units == "classes":
        target[:, FIRST] = one_hot(2, generator)
    if units in ("classes", "mixed"):
        target[:, SECOND] = one_hot(3, generator)
    weight = 2 * torch.rand(N_ROWS, dtype=torch.float64, generator=generator) if weighted else None
    if unlabelled:
        target[UNLABELLED] = 0.0
        if units not in ("multinomial", "classes"):
            weight = torch.ones(N_ROWS, dtype=torch.float64) if weight is None else weight
            weight[UNLABELLED] = 0.0
    return Labelled(x, target, weight)


def seeded():
    return torch.Generator().manual_seed(11)


def autograd(objective, theta, batch, row_weight=None):
    flat = theta.flat.clone().requires_grad_()
    value = objective.value(Parameters(theta.shapes, flat), batch, seeded(), row_weight)
    return value.detach(), torch.autograd.grad(value, flat)[0]


def closed(objective, theta, batch, row_weight=None):
    """Value and gradient as a training sees them; NaN that lay in ``out`` must be gone."""
    out = theta.empty_like()
    out.flat.fill_(torch.nan)
    with torch.no_grad():
        value = objective.gradient(theta, batch, seeded(), out, row_weight)
    return value, out


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


EVERYTHING = {
    "dropout": (0.2, 0.4),
    "weight_decay": 0.3,
    "weight": 2.5,
    "labelled_fraction": 0.4,
    "adversarial_step": 0.3,
}
OPTIONS = [
    {},
    {"adversarial_step": 0.3},
    {"weight_decay": 0.3},
    {"weight": 2.5, "weight_decay": 0.3},
    {"dropout": (0.2, 0.4)},
    {"dropout": (0.0, 0.4)},
    EVERYTHING,
]
each_kind = pytest.mark.parametrize("units", UNITS)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@each_kind
def test_gradient_matches_autograd(units, options, generator):
    models, networks = make_models()
    theta = make_theta(models, generator)
    for weighted, own in itertools.product((False, True), repeat=2):
        batch = make_batch(units, generator, weighted=weighted, unlabelled=True)
        rows = torch.rand(N_ROWS, dtype=torch.float64, generator=generator) if weighted else None
        criteria = make_layerwise(models, networks) if own else None
        objective = Supervised(
            models, UNITS[units], **options, unsupervised=criteria, unsupervised_weight=0.6
        )
        before = [tensor.clone() for tensor in (theta.flat, batch.x, batch.target)]
        _, expected = autograd(objective, theta, batch, rows)
        value, out = closed(objective, theta, batch, rows)
        # The gradient is that of ``value`` with the same masks and the same corruption: both draw
        # first for the dropout from the data upwards, then for each layer's own criterion.
        assert_same(out.flat, expected)
        alone = Supervised(models, UNITS[units], **options)
        # What is reported is the supervised part alone.
        assert_same(value, alone.value(theta, batch, seeded(), rows))
        # A gradient is an observation: neither the parameters nor the batch may change.
        for tensor, kept in zip((theta.flat, batch.x, batch.target), before, strict=True):
            assert torch.equal(tensor, kept)


@pytest.mark.parametrize("n_layers", [0, 1, 2])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_matches_autograd_at_every_depth(activation, n_layers, generator):
    models, _ = make_models(n_layers, activation)
    theta = make_theta(models, generator)
    batch = make_batch("classes", generator, weighted=True)
    objective = Supervised(models, UNITS["classes"], **EVERYTHING)
    expected_value, expected = autograd(objective, theta, batch)
    value, out = closed(objective, theta, batch)
    # The same for any number of layers of any activation.
    assert_same(value, expected_value)
    assert_same(out.flat, expected)


@each_kind
def test_rows_move_to_where_their_loss_is_highest(units, generator):
    models, _ = make_models()
    theta, step = make_theta(models, generator), 1e-4
    batch = make_batch(units, generator, weighted=True)
    objective = Supervised(models, UNITS[units], adversarial_step=step)
    moved = objective.with_moved(theta, batch)
    at, after = moved.x[:N_ROWS], moved.x[N_ROWS:]
    assert_same(at, batch.x)
    # Every row that counts moves by one length ...
    counts = batch.weight.reshape(N_ROWS, -1).any(1)
    assert_same((after - at).norm(dim=1), step * counts.to(at.dtype))

    def loss(x):
        own = batch._replace(x=x)
        return Supervised(models, UNITS[units]).value(theta, own, seeded())

    # ... and of all such moves that raises the loss most.
    gain = loss(after) - loss(at)
    others = torch.randn(200, *at.shape, dtype=at.dtype, generator=generator)
    others = step * others / others.norm(dim=2, keepdim=True)
    assert gain > max(loss(at + other) - loss(at) for other in others) > 0


@each_kind
def test_layers_that_are_no_affine_maps_have_the_same_gradient(units, generator):
    models, networks = make_models()
    opaque, _ = make_models(affine=False)
    theta, batch = make_theta(models, generator), make_batch(units, generator, weighted=True)
    objectives = [
        Supervised(
            each,
            UNITS[units],
            **EVERYTHING,
            unsupervised=make_layerwise(each, networks),
            unsupervised_weight=0.6,
        )
        for each in (models, opaque)
    ]
    # Backpropagation needs affine maps, without which there is autograd.
    assert [objective.has_closed_form for objective in objectives] == [True, False]
    (value, out), (other_value, other) = (closed(each, theta, batch) for each in objectives)
    # Two ways to the same numbers, with the same draws.
    assert_same(value, other_value)
    assert_same(out.flat, other.flat)


def hand_written_losses(units, a, y):
    """-log P(y | a) of each row by torch's own losses."""
    if units == "bernoulli":
        return functional.binary_cross_entropy_with_logits(a, y, reduction="none").sum(1)
    if units == "gaussian":
        return 0.5 * functional.mse_loss(a, y, reduction="none").sum(1) + 1.7
    if units == "multinomial":
        return functional.cross_entropy(a, y, reduction="none")
    second = functional.cross_entropy(a[:, SECOND], y[:, SECOND], reduction="none")
    if units == "classes":
        return functional.cross_entropy(a[:, FIRST], y[:, FIRST], reduction="none") + second
    return 0.5 * (a[:, FIRST] - y[:, FIRST]).square().sum(1) - 0.6 + second


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@each_kind
def test_the_value_is_the_formula(units, weighted, generator):
    models, networks = make_models()
    theta, batch = make_theta(models, generator), make_batch(units, generator, weighted=weighted)
    criteria = make_layerwise(models, networks, noisy=False)
    rows = 2 * torch.rand(N_ROWS, dtype=torch.float64, generator=generator)
    objective = Supervised(
        models,
        UNITS[units],
        weight_decay=0.3,
        weight=2.5,
        labelled_fraction=0.4,
        unsupervised=criteria,
        unsupervised_weight=0.6,
    )
    code = codes_of_layers(models, theta, batch.x)[-1]
    output = functional.linear(code, theta["output_weight"], theta["output_bias"])
    losses = hand_written_losses(units, output, batch.target)
    loss = (losses if batch.weight is None else losses * batch.weight).sum() / N_ROWS
    expected = (
        2.5 / 0.4 * loss
        + 0.3 / 2 * theta["output_weight"].square().sum()
        + 0.6 * criteria.value(theta, batch.x, seeded(), rows)
    )
    # weight / fraction * mean_i w_i -log P(y_i | o_i) + decay / 2 |U|^2 + lambda * the layers' own
    # criteria, in which rows have weights of their own.
    torch.testing.assert_close(objective.value(theta, batch, seeded(), rows), expected)
    # Training is judged by the first term, of rows that all have a target.
    torch.testing.assert_close(objective.criterion(theta, batch, seeded(), rows), 2.5 * loss)


def test_no_layers_are_logistic_regression(generator):
    theta, batch = make_theta([], generator), make_batch("multinomial", generator, weighted=True)
    objective = Supervised([], Multinomial(), weight_decay=0.3)
    value, out = closed(objective, theta, batch)

    x, y, w = (tensor.numpy() for tensor in batch[:3])
    U, d = theta["output_weight"].numpy(), theta["output_bias"].numpy()
    o = x @ U.T + d
    p = np.exp(o) / np.exp(o).sum(1, keepdims=True)
    residual = w[:, None] * (p - y) / N_ROWS
    # The textbook's gradient: dU = mean_i w_i (softmax(o_i) - y_i) x_i^T + decay U,
    np.testing.assert_allclose(out["output_weight"].numpy(), residual.T @ x + 0.3 * U, rtol=1e-11)
    # dd = mean_i w_i (softmax(o_i) - y_i),
    np.testing.assert_allclose(out["output_bias"].numpy(), residual.sum(0), rtol=1e-11)
    # of the textbook's loss.
    expected = -(w * np.log((p * y).sum(1))).mean() + 0.15 * (U**2).sum()
    np.testing.assert_allclose(float(value), expected, rtol=1e-12)


def test_data_and_hidden_units_drop_out_at_their_rates(generator):
    models, networks = make_models(2)
    theta, batch = make_theta(models, generator), make_batch("gaussian", generator)
    objective = Supervised(models, UNITS["gaussian"], dropout=(0.2, 0.5))
    same = seeded()

    def dropped(h, rate):
        return torch.where(random_mask(h, 1 - rate, same), h / (1 - rate), 0.0)

    x = dropped(batch.x, 0.2)
    h = encode(theta.part("0."), x, networks[0])[-1]
    h = (dropped(h, 0.5) - models[1].shift) / models[1].scale
    h = dropped(encode(theta.part("1."), h, networks[1])[-1], 0.5)
    expected = functional.linear(h, theta["output_weight"], theta["output_bias"])
    # Srivastava et al. 2014: inputs are zeroed, others divided by the probability to stay; a
    # hidden unit that is left out is so before the next layer's standardisation.
    torch.testing.assert_close(objective.output(theta, batch.x, seeded()), expected)
    # Without a generator nothing drops out,
    h = codes_of_layers(models, theta, batch.x)[-1]
    whole = functional.linear(h, theta["output_weight"], theta["output_bias"])
    torch.testing.assert_close(objective.output(theta, batch.x), whole)
    # as where training is judged.
    losses = hand_written_losses("gaussian", whole, batch.target)
    torch.testing.assert_close(objective.criterion(theta, batch, seeded()), losses.mean())


def test_without_layers_the_output_sees_data_drop_out(generator):
    theta, batch = make_theta([], generator), make_batch("gaussian", generator)
    seen = [
        Supervised([], UNITS["gaussian"], dropout=rates).output(theta, batch.x, seeded())
        for rates in ((0.0, 0.5), (0.5, 0.0), (0.0, 0.0))
    ]
    # The output's inputs are the rows' columns: the rate of hidden units concerns none.
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=str)
@each_kind
def test_rows_without_a_target_do_not_count(units, options, generator):
    models, _ = make_models()
    theta = make_theta(models, generator)
    batch = make_batch(units, generator, unlabelled=True)
    other = batch._replace(x=batch.x.clone())
    other.x[UNLABELLED] = 1 - other.x[UNLABELLED]
    objective = Supervised(models, UNITS[units], **options)
    value, out = closed(objective, theta, batch)
    changed_value, changed = closed(objective, theta, other)
    # A sum of no terms, or of terms that count 0 times, is no function of the row.
    assert_same(value, changed_value)
    assert_same(out.flat, changed.flat)
    assert_same(objective.criterion(theta, batch, None), objective.criterion(theta, other, None))


@each_kind
def test_the_mean_over_labelled_rows(units, generator):
    models, _ = make_models()
    theta = make_theta(models, generator)
    batch = make_batch(units, generator, unlabelled=True)
    keep = torch.ones(N_ROWS, dtype=torch.bool)
    keep[UNLABELLED] = False
    some = Labelled(
        batch.x[keep], batch.target[keep], None if batch.weight is None else batch.weight[keep]
    )
    share = N_ROWS / int(keep.sum())
    value, out = closed(
        Supervised(models, UNITS[units], weight=share, weight_decay=0.3), theta, batch
    )
    expected_value, expected = closed(
        Supervised(models, UNITS[units], weight_decay=0.3), theta, some
    )
    # A weight of n / n_labelled makes the mean over all rows that over labelled ones; the penalty
    # is of parameters, which are as many as before.
    assert_same(value, expected_value)
    assert_same(out.flat, expected.flat)


def test_rows_without_a_target_count_in_the_layers_own_criteria(generator):
    models, networks = make_models()
    theta = make_theta(models, generator)
    batch = make_batch("multinomial", generator, unlabelled=True)
    batch.target.zero_()
    criteria = make_layerwise(models, networks)
    objective = Supervised(
        models, Multinomial(), unsupervised=criteria, unsupervised_weight=0.6, weight_decay=0.0
    )
    value, out = closed(objective, theta, batch)
    own = theta.empty_like()
    own.flat.zero_()
    criteria.gradient(theta, batch.x, seeded(), own)
    # Without any target what is left is lambda times the gradient of the layers' own criteria,
    assert_same(out.flat, 0.6 * own.flat)
    # and no supervised loss.
    assert float(value) == 0.0


def test_the_layers_own_criteria_are_added_to_each_layer_alone(generator):
    models, networks = make_models()
    theta, batch = make_theta(models, generator), make_batch("multinomial", generator)
    alone = Supervised(models, Multinomial())
    criteria = make_layerwise(models, networks)
    both = Supervised(models, Multinomial(), unsupervised=criteria, unsupervised_weight=0.6)
    (_, without), (_, out) = closed(alone, theta, batch), closed(both, theta, batch)
    x, same = batch.x, seeded()
    for number, (model, own) in enumerate(zip(models, criteria.parts.values(), strict=True)):
        part = theta.part(f"{number}.")
        z = model.standardized(x) if number == 1 else x
        expected = part.empty_like()
        own.gradient(part, z, same, expected)
        added = out.part(f"{number}.").flat - without.part(f"{number}.").flat
        # No term is there from the criteria of the layers above.
        assert_same(added, 0.6 * expected.flat)
        x = model.encode(part, z)
    # The output has no criterion of that kind.
    assert torch.equal(out["output_weight"], without["output_weight"])
    assert torch.equal(out["output_bias"], without["output_bias"])


def test_the_layers_own_criteria_do_not_add_up_from_batch_to_batch(generator):
    models, networks = make_models()
    theta = make_theta(models, generator)
    objective = Supervised(
        models,
        Multinomial(),
        **EVERYTHING,
        unsupervised=make_layerwise(models, networks),
        unsupervised_weight=0.6,
    )
    batch = make_batch("multinomial", generator)
    for rows in (slice(0, 5), slice(5, 9), slice(2, 7), slice(0, 5)):
        some = Labelled(batch.x[rows], batch.target[rows], None)
        _, expected = autograd(objective, theta, some)
        # Buffers are used again, but each gradient is that of its own batch.
        assert_same(closed(objective, theta, some)[1].flat, expected)


def test_parameters_of_decoders_have_no_supervised_gradient(generator):
    models, _ = make_models()
    theta, batch = make_theta(models, generator), make_batch("multinomial", generator)
    _, out = closed(Supervised(models, Multinomial(), **EVERYTHING), theta, batch)
    decoders = [name for name in theta if "visible" in name or "decoder" in name]
    # Predictions do not depend on the way down, so its parameters stay as they are.
    assert len(decoders) == 4
    assert not any(out[name].any() for name in decoders)


def test_a_validation_loss_of_its_own(generator):
    models, _ = make_models()
    theta, batch = make_theta(models, generator), make_batch("gaussian", generator, weighted=True)

    def absolute_error(output, target):
        return (output - target).abs().sum(1)

    objective = Supervised(models, UNITS["gaussian"], **EVERYTHING, validation_loss=absolute_error)
    output = objective.output(theta, batch.x)
    expected = (batch.weight * (output - batch.target).abs().sum(1)).mean()
    # Judged by the given loss, rows weighted as in training;
    torch.testing.assert_close(objective.criterion(theta, batch, seeded()), expected)
    # which has none of the constant of -log P.
    assert (objective.floor, Supervised(models, UNITS["gaussian"]).floor) == (0.0, 1.7)
    plain = Supervised(models, UNITS["gaussian"], **EVERYTHING)
    # What is minimised is still -log P.
    assert torch.equal(closed(objective, theta, batch)[1].flat, closed(plain, theta, batch)[1].flat)


def test_what_it_says_of_itself():
    models, networks = make_models()
    quiet, noisy = (make_layerwise(models, networks, noisy=noisy) for noisy in (False, True))

    def is_noisy(**options):
        return Supervised(models, Multinomial(), **options).is_noisy

    # Masks and corruption depend on the generator, and nothing else does.
    assert not is_noisy()
    assert not is_noisy(unsupervised=quiet)
    assert is_noisy(unsupervised=noisy)
    assert is_noisy(dropout=(0.1, 0.0))
    assert is_noisy(dropout=(0.0, 0.1))


def test_the_state_is_that_of_the_layers_own_criteria(generator):
    models, _ = make_models(1)
    theta, batch = make_theta(models, generator), make_batch("multinomial", generator)

    def make():
        rbm = ContrastiveDivergence(lambda part: BipartiteMachine(part, Bernoulli()), 1, True, 4)
        return Supervised(models, Multinomial(), unsupervised=Layerwise(models, [rbm]))

    objective, again = make(), make()
    closed(objective, theta, batch)
    # Persistent chains, under the name of their layer.
    assert objective.state["0.chains"].shape == (4, SIZES[1])
    again.state = {
        name: value.clone() if torch.is_tensor(value) else value
        for name, value in objective.state.items()
    }
    # Given the state, the next step is the same bit for bit.
    assert torch.equal(closed(objective, theta, batch)[1].flat, closed(again, theta, batch)[1].flat)
    plain = Supervised(models, Multinomial())
    plain.state = {}
    # Without such criteria nothing is remembered.
    assert plain.state == {}


def test_classification_error_of_one_output():
    output = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.1, 0.0, 0.2], [5.0, 1.0, 0.0]])
    target = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    # Right, wrong, right, and of an unknown class, which is not wrong whatever is said of it.
    assert classification_error([output], [target]).tolist() == [0, 1, 0, 0]


def test_classification_error_of_several_outputs():
    first = torch.tensor([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    second = torch.tensor([[0.0, 1.0, 3.0], [0, 1, 3], [0, 1, 3], [0, 1, 3], [9, 0, 0]])
    y_first = torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 0], [0, 0]])
    y_second = torch.tensor([[0.0, 0, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
    # Both right; one of two wrong; both wrong; the one that is known wrong; none known.
    expected = [0, 0.5, 1, 0.5, 0]
    assert classification_error([first, second], [y_first, y_second]).tolist() == expected


def test_classification_error_counts_what_a_row_counts():
    output = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    target = torch.tensor([[0.0, 3.0], [3.0, 0.0]])
    # Targets carry the rows' weights: an error of a row that counts three times is three errors.
    assert classification_error([output], [target]).tolist() == [3, 0]
