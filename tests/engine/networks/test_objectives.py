"""The reconstruction criterion: closed form against autograd, means, weights, noise."""

import pytest
import torch

from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.networks.corruptions import GaussianNoise, Masking, SaltAndPepper
from skae.engine.networks.layers import Network
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.neighborhoods import Neighborhood
from skae.engine.networks.objectives import Emphasis, Reconstruction
from skae.engine.networks.penalties import (
    CodeKL,
    CodeL1,
    Contraction,
    HessianContraction,
    ReconstructionContraction,
    WeightDecay,
)
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial
from skae.engine.optimisation.parameters import Parameters

N_ROWS, N_FEATURES, N_COMPONENTS = 9, 6, 4
MIXED_COLUMNS = {
    "bernoulli": torch.tensor([4, 0]),
    "multinomial": torch.tensor([5, 1]),
    "gaussian": torch.tensor([2, 3]),
}
UNITS = {
    "bernoulli": Bernoulli(),
    "gaussian": Gaussian(constant=1.7),
    "multinomial": Multinomial(),
    "mixed": Mixed(
        [
            (Bernoulli(), MIXED_COLUMNS["bernoulli"]),
            (Multinomial(), MIXED_COLUMNS["multinomial"]),
            (Gaussian(constant=-0.6), MIXED_COLUMNS["gaussian"]),
        ]
    ),
}
ENDS = torch.tensor([[-0.5], [1.5]], dtype=torch.float64).expand(2, N_FEATURES)
SALT_AND_PEPPER = SaltAndPepper(0.4, *ENDS)
CORRUPTIONS = {
    "none": (None, None),
    "masking": (Masking(0.4), None),
    "masking_emphasis": (Masking(0.4), Emphasis(1.6, 0.3)),
    "salt_and_pepper": (SALT_AND_PEPPER, None),
    "salt_and_pepper_emphasis": (SALT_AND_PEPPER, Emphasis(1.0, 0.0)),
    "gaussian": (GaussianNoise(0.3), None),
}
PENALTIES = {
    "weight_decay": lambda: WeightDecay(0.3),
    "l1": lambda: CodeL1(0.2),
    "kl": lambda: CodeKL(0.4, 0.1),
    "contraction": lambda: Contraction(0.5),
    "hessian": lambda: HessianContraction(0.6, 0.4, 3),
    "neighborhood": lambda: Neighborhood(0.7, 1.5),
}
DEEP_ONES = ("weight_decay", "l1", "kl", "contraction", "neighborhood")
ANY_DEPTH = {name: PENALTIES[name] for name in DEEP_ONES} | {
    "directions": lambda: Contraction(0.5, 2)
}
# Without a gradient in closed form.
OPEN = {"reconstruction": lambda: ReconstructionContraction(0.7)}


def make_data(units, generator):
    """Rows in the domain of the units, weights between 0 and 1 included."""
    x = torch.rand(N_ROWS, N_FEATURES, dtype=torch.float64, generator=generator)
    if units == "multinomial":
        x /= x.sum(1, keepdim=True)
    if units == "mixed":
        columns = MIXED_COLUMNS["multinomial"]
        x[:, columns] /= x[:, columns].sum(1, keepdim=True)
        x[:, MIXED_COLUMNS["gaussian"]] -= 2.0
    return x


def make_objective(
    units="bernoulli",
    activation="sigmoid",
    tied=True,
    penalties=(),
    corruption="none",
    layer_sizes=(N_FEATURES, N_COMPONENTS),
    linear=False,
):
    network = Network(layer_sizes, activation, tied and not linear, linear)
    parts = [(PENALTIES | ANY_DEPTH | OPEN)[name]() for name in penalties]
    return Reconstruction(network, UNITS[units], *CORRUPTIONS[corruption], parts)


def autograd(objective, theta, x, generator, row_weight=None):
    flat = theta.flat.clone().requires_grad_()
    value = objective.value(Parameters(theta.shapes, flat), x, generator, row_weight)
    (gradient,) = torch.autograd.grad(value, flat)
    return value.detach(), gradient


def seeded():
    return torch.Generator().manual_seed(11)


# Every activation with every kind of unit; then every penalty with every activation that it
# takes, every corruption with every kind of unit.
DEEP_PAIRS = [("tanh", "mixed"), ("relu", "gaussian"), ("sigmoid", "bernoulli")]
ALL_BUT_KL = tuple(name for name in PENALTIES if name != "kl")
CASES = [
    *({"activation": a, "units": u} for a in ACTIVATIONS for u in UNITS),
    *({"activation": a, "penalties": (p,)} for a in ACTIVATIONS for p in ALL_BUT_KL),
    {"penalties": ("kl",)},
    *({"corruption": c, "units": u} for c in CORRUPTIONS for u in UNITS),
    *({"corruption": c, "penalties": tuple(PENALTIES), "units": "mixed"} for c in CORRUPTIONS),
    *(
        {"activation": a, "corruption": "gaussian", "penalties": ALL_BUT_KL, "units": "gaussian"}
        for a in ACTIVATIONS
    ),
    *({"layer_sizes": (N_FEATURES, 5, 3), "activation": a, "units": u} for a, u in DEEP_PAIRS),
    *({"layer_sizes": (N_FEATURES, 5, 3), "corruption": c, "units": "mixed"} for c in CORRUPTIONS),
    {"layer_sizes": (N_FEATURES, 6, 5, 3), "linear": True, "activation": "relu", "units": "mixed"},
    *({"layer_sizes": (N_FEATURES, 5, 3), "penalties": (p,)} for p in ANY_DEPTH),
    *(
        {"layer_sizes": (N_FEATURES, *wide, 3), "penalties": (p,), "activation": a}
        for a in ("tanh", "softplus")
        for p in ("contraction", "directions")
        for wide in ((4,), (20,), (7, 5))  # the Gram matrix of few units, and none of many
    ),
    {"layer_sizes": (N_FEATURES, 8, 5, 3), "penalties": tuple(ANY_DEPTH), "corruption": "masking"},
]


def _name(case):
    return "-".join(map(str, case.values()))


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: _name(CASES[number]))
def test_closed_form_matches_autograd(number, random_theta, generator):
    case = CASES[number]
    for weighted in (False, True):
        # Weighted or not, every second case is tied: all four pairs meet every kind of part.
        objective = make_objective(tied=(number + weighted) % 2 == 0, **case)
        theta = random_theta(objective.network)
        x = make_data(case.get("units", "bernoulli"), generator)
        weight = torch.rand(N_ROWS, dtype=x.dtype, generator=generator) * 2 if weighted else None
        expected_value, expected = autograd(objective, theta, x, seeded(), weight)

        out = theta.empty_like()
        out.flat.fill_(torch.nan)
        before = theta.flat.clone(), x.clone()
        with torch.no_grad():
            value = objective.value_and_gradient(theta, x, seeded(), out, weight)
        # Two ways to the same number: the formula, and the formula from shared intermediates.
        torch.testing.assert_close(value, expected_value)
        # The closed form is the derivative of ``value``; what was in ``out`` (here NaN) is gone.
        torch.testing.assert_close(out.flat, expected)
        # A gradient is an observation: neither the parameters nor the batch may change.
        assert torch.equal(theta.flat, before[0])
        assert torch.equal(x, before[1])


def test_buffers_of_one_batch_do_not_leak_into_the_next(random_theta, generator):
    objective = make_objective(corruption="masking", penalties=tuple(PENALTIES))
    theta, x = random_theta(objective.network), make_data("bernoulli", generator)
    out = theta.empty_like()
    for rows in (slice(0, 5), slice(5, 9), slice(2, 7)):
        with torch.no_grad():
            objective.value_and_gradient(theta, x[rows], seeded(), out)
        _, expected = autograd(objective, theta, x[rows], seeded())
        # Buffers are reused between batches, but each gradient is that of its own batch.
        torch.testing.assert_close(out.flat, expected)


DEEP = {"layer_sizes": (N_FEATURES, 5, 3), "activation": "tanh", "units": "mixed"}
WITHOUT_CLOSED_FORM = {
    "deep": lambda: make_objective(**DEEP, tied=False, penalties=("hessian",)),
    "deep_tied_noisy": lambda: make_objective(
        **DEEP, penalties=("weight_decay", "contraction", "hessian"), corruption="masking"
    ),
    "deep_reconstruction": lambda: make_objective(**DEEP, penalties=("reconstruction",)),
    "shallow_reconstruction": lambda: make_objective(
        "multinomial", tied=False, penalties=("reconstruction",)
    ),
}


@pytest.mark.parametrize("name", WITHOUT_CLOSED_FORM)
def test_value_is_differentiable(name, random_theta, generator):
    objective = WITHOUT_CLOSED_FORM[name]()
    theta = random_theta(objective.network)
    x = make_data("multinomial" if name.startswith("shallow") else "mixed", generator)
    flat = theta.flat.clone().requires_grad_()
    # Central differences of ``value`` know nothing of autograd; the noise is the same each time.
    assert torch.autograd.gradcheck(
        lambda flat: objective.value(Parameters(theta.shapes, flat), x, seeded()), flat
    )


@pytest.mark.parametrize("name", WITHOUT_CLOSED_FORM)
def test_gradient_falls_back_on_autograd(name, random_theta, generator):
    objective = WITHOUT_CLOSED_FORM[name]()
    theta = random_theta(objective.network)
    x = make_data("multinomial" if name.startswith("shallow") else "mixed", generator)
    out = theta.empty_like()
    out.flat.fill_(torch.nan)
    expected_value, expected = autograd(objective, theta, x, seeded())
    with torch.no_grad():  # as the training loop calls it
        value = objective.gradient(theta, x, seeded(), out)
    # Where there is no closed form the gradient is autograd's, and nothing of an earlier one.
    assert not objective.has_closed_form
    torch.testing.assert_close(out.flat, expected)
    torch.testing.assert_close(value, expected_value)
    # Detached, so that summing losses over an epoch keeps no graph alive.
    assert not value.requires_grad
    assert not theta.flat.requires_grad


def test_published_models_have_a_closed_form():
    # All the published one-layer criteria train without autograd: that is what they are for.
    assert make_objective(penalties=tuple(PENALTIES), corruption="masking").has_closed_form
    assert make_objective(**DEEP).has_closed_form
    # So do deep ones, with those penalties that have one at any depth.
    sigmoid = DEEP | {"activation": "sigmoid"}
    assert make_objective(**sigmoid, penalties=tuple(ANY_DEPTH)).has_closed_form
    assert not make_objective(**DEEP, penalties=("hessian",)).has_closed_form


NOT_ADDITIVE = ("kl", "hessian", "weight_decay", "neighborhood")
ADDITIVE = tuple(name for name in PENALTIES if name not in NOT_ADDITIVE)


@pytest.fixture
def additive(random_theta, generator):
    """A noiseless criterion that is a mean over rows, its parameters, and a batch."""
    objective = make_objective("mixed", tied=False, penalties=(*ADDITIVE, "reconstruction"))
    return objective, random_theta(objective.network), make_data("mixed", generator)


def test_value_does_not_depend_on_the_order_of_rows(additive, generator):
    objective, theta, x = additive
    order = torch.randperm(len(x), generator=generator)
    # A mean is symmetric in its terms.
    torch.testing.assert_close(
        objective.value(theta, x[order], None), objective.value(theta, x, None)
    )


def test_value_of_a_batch_is_the_mean_of_its_parts(additive):
    objective, theta, x = additive
    parts = [(len(part), objective.value(theta, part, None)) for part in torch.split(x, 4)]
    # A mean over rows is the mean of the parts' means, weighted by their sizes.
    expected = sum(n * value for n, value in parts) / len(x)
    torch.testing.assert_close(objective.value(theta, x, None), expected)


@pytest.mark.parametrize("penalties", [ADDITIVE, ("kl", "weight_decay")])
def test_integer_weights_are_repeated_rows(penalties, random_theta, generator):
    objective = make_objective(penalties=penalties)
    theta, x = random_theta(objective.network), make_data("bernoulli", generator)
    counts = torch.tensor([1, 0, 2, 5, 1, 1, 3, 0, 2])
    repeated = autograd(objective, theta, x.repeat_interleave(counts, 0), None)
    weight = counts.double() * len(x) / counts.sum()
    # A row of weight 2 counts twice, one of weight 0 not at all, in value and gradient.
    torch.testing.assert_close(autograd(objective, theta, x, None, weight), repeated)


def test_penalties_are_added_with_their_weights(random_theta, generator):
    names = ("weight_decay", "l1", "kl", "contraction")
    x = make_data("bernoulli", generator)
    objective = make_objective(penalties=names)
    theta = random_theta(objective.network)

    def value(**weights):
        objective.penalties = [PENALTIES[name]() for name in weights]
        for penalty, weight in zip(objective.penalties, weights.values(), strict=True):
            penalty.weight = weight
        return objective.value(theta, x, None)

    plain = value()
    parts = sum(3.0 * (value(**{name: 1.0}) - plain) for name in names)
    # The criterion is linear in the penalties' weights.
    torch.testing.assert_close(value(**dict.fromkeys(names, 3.0)), plain + parts)


def test_emphasis_weighs_corrupted_and_untouched_components(random_theta, generator):
    network = Network((N_FEATURES, N_COMPONENTS))
    theta, x = random_theta(network), make_data("bernoulli", generator)

    def value(corrupted, untouched):
        emphasis = Emphasis(corrupted, untouched)
        return Reconstruction(network, Bernoulli(), Masking(0.4), emphasis).value(
            theta, x, seeded()
        )

    plain = Reconstruction(network, Bernoulli(), Masking(0.4)).value(theta, x, seeded())
    # Every component is either corrupted or not: with weights 1 the two sums make the whole.
    torch.testing.assert_close(value(1.0, 1.0), plain)
    torch.testing.assert_close(value(1.0, 0.0) + value(0.0, 1.0), plain)
    # The loss is linear in the weights.
    torch.testing.assert_close(value(3.0, 0.5), 3 * value(1.0, 0.0) + 0.5 * value(0.0, 1.0))
    mask = torch.tensor([[True, False]])
    assert Emphasis(3.0, 0.5).column_weight(mask, torch.float64).tolist() == [[3.0, 0.5]]


def test_the_target_is_the_clean_row(random_theta, generator):
    objective = make_objective(corruption="masking")
    objective.corruption = Masking(1.0)
    theta, x = random_theta(objective.network), make_data("bernoulli", generator)
    clean = make_objective()
    expected = clean.units.negative_log_likelihood(
        torch.addmm(
            theta["visible_bias_0"],
            torch.sigmoid(theta["hidden_bias_0"]).expand(len(x), -1),
            theta["weight_0"],
        ),
        x,
    ).mean()
    # With everything masked the code is s(b), and it is x, not its corruption, that counts.
    torch.testing.assert_close(objective.value(theta, x, seeded()), expected)
