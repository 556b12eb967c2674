"""The semi-supervised criterion: closed forms against the formula, and the formula's terms."""

from dataclasses import replace

import pytest
import torch

from skae.engine.networks.differentials import jacobian_of
from skae.engine.networks.layers import Network
from skae.engine.networks.objectives import auto_encoder
from skae.engine.networks.units import Bernoulli, Multinomial
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import Labelled
from skae.engine.optimisation.runs import Objective
from skae.engine.stacks.stacking import stacked
from skae.engine.stacks.supervised import with_output
from skae.engine.tangents.semi_supervised import Moves, SemiSupervised, Span

SIZES = (6, 5, 4)


def make_models(activation, affine):
    """Two layers, the upper one on standardised codes."""
    models = []
    for k in range(2):
        network, n = Network(SIZES[k : k + 2], activation), SIZES[k]
        model = auto_encoder(
            network,
            Bernoulli(),
            torch.zeros(n, dtype=torch.float64),
            Objective,
            torch.linspace(-0.4, 0.6, n, dtype=torch.float64) if k == 1 else None,
            torch.linspace(0.3, 1.7, n, dtype=torch.float64) if k == 1 else None,
        )
        models.append(model if affine else replace(model, encoder=None))
    return models


@pytest.fixture(
    name="case", params=[("sigmoid", True), ("tanh", True), ("softplus", True), ("tanh", False)]
)
def models_and_batch(request):
    generator = torch.Generator().manual_seed(0)
    models = make_models(*request.param)
    shapes = with_output(models, Multinomial(), 3).shapes
    theta = Parameters(shapes, dtype=torch.float64, device="cpu")
    theta.flat.normal_(generator=generator)
    width = SIZES[0]
    x = torch.randn(7, width, dtype=torch.float64, generator=generator)
    directions = torch.randn(7, 2, width, dtype=torch.float64, generator=generator)
    target = torch.zeros(7, 3, dtype=torch.float64)
    target[0, 0], target[1, 2], target[2, 1] = 1, 1, 0.5
    return models, theta, Labelled(x, target, None, directions)


def planes_of(theta, models):
    """Tangent planes by an encoder that stays as it is, where its maps are known."""
    layers, frozen = stacked(models), Parameters(theta.shapes, theta.flat.clone())
    if layers.encoder is None:
        return lambda x, directions: Span(directions())
    return lambda x, directions: jacobian_of(layers, frozen, x)


ALL = {
    "tangent_penalty": 0.3,
    "within": Moves(0.7, 0.5),
    "anywhere": Moves(0.2, 0.9),
    "entropy_penalty": 0.4,
    "balance_penalty": 0.6,
    "prior": torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
}


def held_still(objective, theta, batch, seed):
    """The objective with moves found once, at theta: its gradient does not follow them."""
    generator = torch.Generator().manual_seed(seed)
    arranged = objective._arranged(theta, batch, generator, None)
    objective._arranged = lambda theta, batch, generator, row_weight: arranged
    return generator


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("tangent_penalty", [0.0, 0.3])
def test_gradient_is_that_of_the_value(case, dropout, tangent_penalty):
    models, theta, batch = case

    def make():
        return SemiSupervised(
            models,
            Multinomial(),
            planes=planes_of(theta, models),
            labelled_fraction=3 / 7,
            dropout=(dropout, dropout),
            weight_decay=0.1,
            **{**ALL, "tangent_penalty": tangent_penalty},
        )

    closed, expected = theta.empty_like(), theta.empty_like()
    closed.flat.fill_(9.0)
    expected.flat.zero_()
    with torch.no_grad():
        value = make().gradient(theta, batch, torch.Generator().manual_seed(1), closed)
        reference = make()
        generator = held_still(reference, theta, batch, seed=1)
    by_formula = reference.value(theta.tracked(expected), batch, generator)
    by_formula.backward()
    # The closed form is the formula's derivative, with the same draws.
    torch.testing.assert_close(closed.flat, expected.flat, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(value, by_formula.detach(), rtol=1e-12, atol=0)


def test_terms_are_those_of_the_formula(case):
    models, theta, batch = case
    objective = SemiSupervised(
        models, Multinomial(), planes=planes_of(theta, models), labelled_fraction=3 / 7, **ALL
    )
    with torch.no_grad():
        held_still(objective, theta, batch, seed=0)
        value = objective.value(theta, batch, None)
        arranged = objective._arranged(theta, batch, None, None)
        p = torch.softmax(objective.output(theta, batch.x), 1)
        moved = torch.softmax(objective.output(theta, arranged.x[7:]), 1).split(4)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda x: objective.output(theta, x[None])[0]))
        change = torch.einsum("nki,ni->nk", jacobian(batch.x[:3]), arranged.direction)
    counts = batch.target[:3].sum(1)
    q = p[3:]
    mean = (q.sum(0) + 3 * ALL["prior"]) / 7
    expected = (
        -(batch.target[:3] * p[:3].log()).sum() / 3
        + 0.3 * (change.square().sum(1) * counts).sum() / 3
        + 0.7 * (q * (q / moved[0]).log()).sum(1).mean()
        + 0.2 * (q * (q / moved[1]).log()).sum(1).mean()
        - 0.4 * (q * q.log()).sum(1).mean()
        + 0.6 * (mean * (mean / ALL["prior"]).log()).sum()
    )
    # Each written from its definition.
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0)


def test_moves_have_their_length_and_lie_in_their_plane(case):
    models, theta, batch = case
    objective = SemiSupervised(
        models,
        Multinomial(),
        planes=lambda x, directions: Span(directions()),
        within=Moves(1.0, 0.5),
        anywhere=Moves(1.0, 0.9),
    )
    arranged = objective._arranged(theta, batch, torch.Generator().manual_seed(0), None)
    within, anywhere = (part - batch.x[3:] for part in arranged.x[7:].split(4))
    # That is what `Moves.length` says.
    torch.testing.assert_close(within.norm(dim=1), torch.full((4,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(anywhere.norm(dim=1), torch.full((4,), 0.9, dtype=torch.float64))
    basis = torch.linalg.qr(batch.directions[3:].transpose(1, 2)).Q
    shadow = (basis @ (basis.transpose(1, 2) @ within.unsqueeze(2))).squeeze(2)
    # B^T B times anything is a combination of the rows of B.
    torch.testing.assert_close(shadow, within, rtol=1e-8, atol=1e-10)


def test_batches_of_one_kind_alone_have_a_gradient(case):
    models, theta, batch = case
    for rows in (slice(0, 3), slice(3, 7)):
        part = Labelled(batch.x[rows], batch.target[rows], None, batch.directions[rows])
        objective = SemiSupervised(
            models, Multinomial(), planes=planes_of(theta, models), labelled_fraction=0.5, **ALL
        )
        out = theta.empty_like()
        with torch.no_grad():
            objective.gradient(theta, part, torch.Generator().manual_seed(0), out)
        # A batch may by chance hold labelled rows alone, or none.
        assert out.flat.isfinite().all()
        assert out.flat.abs().max() > 0


def test_random_combinations_give_the_sum_over_directions(case):
    models, theta, batch = case
    batch = batch._replace(target=torch.ones_like(batch.target) / 3)
    several = [None if part is None else torch.cat([part] * 20) for part in batch[:4]]
    several = batch._replace(**dict(zip(batch._fields, several, strict=False)))
    options = {"models": models, "units": Multinomial(), "labelled_fraction": 1.0}
    plain = SemiSupervised(**options)
    penalised = SemiSupervised(tangent_penalty=1.0, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = [penalised.value(theta, several, generator) for _ in range(20)]
        base = plain.value(theta, batch, generator)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda x: plain.output(theta, x[None])[0]))
        change = torch.einsum("nki,nmi->nmk", jacobian(batch.x), batch.directions)
    mean, error = torch.stack(draws).mean() - base, torch.stack(draws).std() / 20**0.5
    # Independent signs leave no cross terms in the mean.
    assert abs(mean - change.square().sum((1, 2)).mean()) < 4 * error + 1e-12
