r"""Chains of auto-encoders: a row is corrupted, and drawn again from what the model says of it.

A chain is a function of a `Denoiser` and a generator that returns a step, from a state (rows,
means) to the next; the means are those of the law that the rows were drawn from. Those that users
choose by name are in `CHAINS`; `run_chains` runs them.

With Gaussian noise of level sigma, a row drawn from N(r(y), sigma^2 J(y)) given its noisy copy y
has the moments of the clean row. Of normal data the chain's law is then the data's, whatever
sigma; others leave too much or too little:

=======================  ===========================================================
local_covariance         x + noise = y, then N(r(y), sigma^2 J(y))
isotropic                x + noise = y, then N(r(y), sigma^2 I): too wide; or codes, alike
langevin                 x + (r(x) - x) / 2 + sigma N(0, I): a step of sigma^2
denoising                corrupted as in training, then drawn from P(x | r)
contractive              h + J J^T eps, J = dh/dx, then decoded (Rifai et al. 2012)
=======================  ===========================================================

`annealed` is no chain: each row comes down from much noise to little (Song & Ermon 2019).
"""

from collections.abc import Callable

import torch

from skae.engine.density.denoisers import Denoiser
from skae.engine.networks.differentials import jacobian_of
from skae.engine.optimisation.parameters import Registry

CHAINS = Registry()
# Columns up to which draws are conditioned on those that are kept; wider ones are only clamped.
_CONDITIONED = 256
# Langevin steps at each level of noise, where columns are kept, and their size in its variance.
_CORRECTOR = 20, 0.4
State = tuple[torch.Tensor, torch.Tensor]
Step = Callable[[State], State]


@CHAINS.named("local_covariance")
def local_covariance(
    denoiser: Denoiser,
    generator: torch.Generator,
    *,
    corrupts: bool = True,
    draws: bool = True,
    is_local: bool = True,
) -> Step:
    """Gaussian noise, then N(r, sigma^2 J): draws with the local moments of the density.

    Without ``corrupts`` the noise is left out, without ``draws`` rows are the means, and if it is
    not ``is_local`` they are drawn from N(r, sigma^2 I).
    """

    def step(state):
        x, _ = state
        y = denoiser.noisy(x, generator) if corrupts else x
        output = denoiser.model.reconstruct(denoiser.theta, y)
        mean = denoiser.model.units.mean(output)
        if not draws:
            return _kept(denoiser, mean, mean)
        if is_local:
            drawn = mean + denoiser.normal_draw(y, generator)
            drawn, mean = _conditioned(denoiser, y, drawn, mean)
        else:
            drawn = denoiser.noisy(mean, generator)
        return _kept(denoiser, _with_discrete(denoiser, drawn, output, generator), mean)

    return step


@CHAINS.named("denoising")
def denoising(denoiser: Denoiser, generator: torch.Generator) -> Step:
    """The corruption of training, then P(x | r): columns drawn by themselves."""

    def step(state):
        x, _ = state
        y, mask = denoiser.corrupt(x, generator)
        if denoiser.clamp is not None and mask is not None:
            y = denoiser.clamp.on(y)
        return _kept(denoiser, *drawn_given(denoiser, y, generator))

    return step


@CHAINS.named("contractive")
def contractive(denoiser: Denoiser, generator: torch.Generator, *, is_local: bool = True) -> Step:
    """Codes move by J J^T eps, J = dh/dx: along the directions in which the data vary.

    If it is not ``is_local``, they move by as much in any direction.
    """
    model, theta = denoiser.model, denoiser.theta

    def step(state):
        code = model.encode(theta, state[0])
        eps = torch.empty_like(code).normal_(generator=generator)
        jacobian = jacobian_of(model, theta, state[0])
        move = jacobian.gram_times(eps.unsqueeze(1))[:, 0]
        if not is_local:
            length = torch.linalg.vector_norm(move, dim=1, keepdim=True)
            other = torch.empty_like(code).normal_(generator=generator)
            move = other * (length / torch.linalg.vector_norm(other, dim=1, keepdim=True))
        mean = model.units.mean(model.decode(theta, code + denoiser.noise * move))
        return _kept(denoiser, mean, mean)

    return step


@CHAINS.named("isotropic")
def isotropic(denoiser: Denoiser, generator: torch.Generator) -> Step:
    """For comparison: the chain of the same noise, of rows or of codes, alike in all directions."""
    chain = contractive if denoiser.moves_codes else local_covariance
    return chain(denoiser, generator, is_local=False)


@CHAINS.named("langevin")
def langevin(denoiser: Denoiser, generator: torch.Generator) -> Step:
    """X + score * sigma^2 / 2 + sigma * N(0, I): unadjusted Langevin steps of size sigma^2."""

    def step(state):
        x, _ = state
        mean = x + 0.5 * (denoiser.reconstruct(x) - x)
        return _kept(denoiser, denoiser.noisy(mean, generator), mean)

    return step


def levels_between(low: float, high: float, n: int) -> list[float]:
    """So many levels of noise from the highest down, each the same part of the one before."""
    return [high * (low / high) ** (k / max(1, n - 1)) for k in range(n)]


def annealed(denoiser: Denoiser, levels: list[float], x: torch.Tensor, generator) -> State:
    """Rows and their means, from rows with noise of the highest level: x <- r + (s'/s)(x - r).

    The flow along which noise of level s becomes noise of level s' (Karras et al. 2022). At the
    last level the row is drawn with its local covariance. Columns that are kept have the noise of
    the level, too. As the flow has decided on the others before that noise is small, steps of
    Langevin at each level let these follow (the corrector of Song et al. 2021).
    """
    for level, below in zip(levels, [*levels[1:], None], strict=True):
        here = denoiser.at(level)
        if denoiser.clamp is not None:
            x = _corrected(here, x, generator)
        output = here.model.reconstruct(here.theta, x)
        mean = here.model.units.mean(output)
        if below is None:
            drawn = mean + here.normal_draw(x, generator)
            drawn = _with_discrete(here, drawn, output, generator)
            return _kept(here, drawn, mean)
        x = mean + (below / level) * (x - mean)
    raise ValueError("levels has to hold one level at least")


def _corrected(denoiser: Denoiser, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Noisy rows, whose free columns are drawn given those that are kept."""
    clamp, (n_steps, size) = denoiser.clamp, _CORRECTOR

    def kept(x):
        return torch.where(clamp.mask, denoiser.noisy(clamp.on(x), generator), x)

    x = kept(x)
    for _ in range(n_steps):
        noise = torch.empty_like(x).normal_(generator=generator)
        moved = torch.lerp(x, denoiser.reconstruct(x), size)
        x = kept(moved + (2 * size) ** 0.5 * denoiser.noise * noise)
    return x


def drawn_given(denoiser: Denoiser, y: torch.Tensor, generator: torch.Generator) -> State:
    """A draw from P(x | r(y)), column by column, and its mean."""
    output = denoiser.model.reconstruct(denoiser.theta, y)
    return _drawn_by_units(denoiser, output, generator)


def _drawn_by_units(denoiser, output, generator):
    mean = denoiser.model.units.mean(output)
    noise = torch.empty_like(mean).normal_(generator=generator)
    drawn = mean if denoiser.variance is None else mean + denoiser.variance.sqrt() * noise
    return _with_discrete(denoiser, drawn, output, generator), mean


def _with_discrete(denoiser, drawn, output, generator):
    """Rows whose columns of 0 and 1, and one-hot ones, are drawn by the units."""
    if denoiser.is_drawn is None or not bool(denoiser.is_drawn.any()):
        return drawn
    return torch.where(denoiser.is_drawn, denoiser.model.units.sample(output, generator), drawn)


def _kept(denoiser, x, mean):
    if denoiser.clamp is None:
        return x, mean
    return denoiser.clamp.on(x), denoiser.clamp.on(mean)


def _conditioned(denoiser, y, drawn, mean):
    """Draws and means given the columns that are kept, as those of a normal law are.

    x_m + C_mo C_oo^-1 (values - x_o), m what is free and o what is kept: exact for normal data.
    """
    clamp, n_columns = denoiser.clamp, y.shape[1]
    if clamp is None or n_columns > _CONDITIONED:
        return drawn, mean
    covariance = denoiser.covariance(y).dense()
    mask = clamp.mask.expand_as(y)
    if denoiser.is_drawn is not None:
        mask = mask & ~denoiser.is_drawn
    kept = mask.unsqueeze(1) & mask.unsqueeze(2)
    size = torch.diagonal(covariance, dim1=1, dim2=2).abs().amax(1).clamp(min=1e-12)
    ridge = torch.where(mask, 1e-4 * size.unsqueeze(1), 1.0)
    inner = torch.where(kept, covariance, 0.0) + torch.diag_embed(ridge)
    values, basis = torch.linalg.eigh(inner)
    values = values.clamp(min=1e-4 * size.unsqueeze(1))
    moved = []
    for x in (drawn, mean):
        gap = torch.where(mask, clamp.values.expand_as(x) - x, 0.0)
        part = torch.einsum("nij,ni->nj", basis, gap) / values
        pull = torch.where(mask, torch.einsum("nij,nj->ni", basis, part), 0.0)
        moved.append(x + torch.einsum("nij,nj->ni", covariance, pull))
    return moved[0], moved[1]
