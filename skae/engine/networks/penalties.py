"""Regularisers: everything that a training criterion adds to the reconstruction loss.

A penalty is one class with a ``weight``. ``value(theta, forward)`` is its formula
without the weight, a differentiable scalar averaged over the batch, of what a pass through the
network left in ``forward`` (`skae.engine.networks.forward.Forward`); that is all a new
penalty needs. One that draws random numbers says so by ``is_noisy``. One that also has
``add_gradient_(theta, forward, gradient)`` keeps one-layer models on their closed-form path: it
adds weight * n_samples * its gradient with respect to the code's pre-activation to
``forward.delta`` and weight * its gradient with respect to the matrices to ``gradient``, and
returns its value. A test compares the two for every penalty that has both. Where it does so for
networks of any depth, ``any_depth`` is True; a layer below the code has its part of
``forward.deltas`` then.

Where several networks are trained as one, tensors have an axis more, the first, and `together`
makes one penalty of several: those attributes that ``numbers`` names, "weight" at least, are
columns then, of shape (n_models, 1). A penalty without ``numbers`` is for one network at a time.

Penalties that users choose by a name are registered here, with `sparsity_penalty` or with
`contraction`, and have ``name`` and ``summary``. Objects of users' own are penalties as much as
these.
"""

import inspect
import math
from collections.abc import Sequence
from copy import copy
from numbers import Real
from typing import Any

import torch

from skae.engine.networks import jacobians
from skae.engine.networks.layers import encode
from skae.engine.networks.pulled_back import directions_of, pulled_gradient_, pulled_squared_norm
from skae.engine.optimisation.parameters import Parameters, Registry

SPARSITY_PENALTIES = Registry()
sparsity_penalty = SPARSITY_PENALTIES.register
CONTRACTIONS = Registry()
contraction = CONTRACTIONS.register


def together(penalties: Sequence, like: torch.Tensor) -> Any:
    """Several penalties of one kind as one of several networks, with parameters like a tensor."""
    one = copy(penalties[0])
    for name in one.numbers:
        values = [[getattr(penalty, name)] for penalty in penalties]
        setattr(one, name, torch.tensor(values, dtype=like.dtype, device=like.device))
    return one


def of_some(penalty: Any, places: list[int]) -> Any:
    """What `together` has made, of some of the networks."""
    one = copy(penalty)
    for name in one.numbers:
        setattr(one, name, getattr(penalty, name)[places])
    return one


def add_(target: torch.Tensor, change: torch.Tensor, weight: float | torch.Tensor) -> None:
    """Target += weight * change: of one network, or of each of several with its own weight."""
    if isinstance(weight, torch.Tensor):
        target.addcmul_(change, weight.unsqueeze(-1))
    else:
        target.add_(change, alpha=weight)


def squared_norm(matrix: torch.Tensor) -> torch.Tensor:
    """The sum of squares of a matrix, or of each of several."""
    return torch.linalg.vecdot(matrix, matrix).sum(-1)


class WeightDecay:
    """weight / 2 * sum of squared weights (biases are free)."""

    is_pure = True
    numbers = ("weight",)
    any_depth = True

    def __init__(self, weight: float):
        self.weight = weight

    def value(self, theta: Parameters, forward) -> torch.Tensor:
        """The penalty, a scalar."""
        matrices = forward.network.weight_matrices(theta)
        return 0.5 * sum(w.square().sum((-2, -1)) for w in matrices)

    def add_gradient_(self, theta: Parameters, forward, gradient: Parameters) -> torch.Tensor:
        """Add weight * W to the gradient of each matrix; return the value."""
        value = 0.0
        for w, g in zip(
            forward.network.weight_matrices(theta),
            forward.network.weight_matrices(gradient),
            strict=True,
        ):
            add_(g, w, self.weight)
            value = value + squared_norm(w) * 0.5
        return value


@sparsity_penalty
class CodeL1:
    """weight * mean over rows of |h|_1: few units respond to any one row."""

    name = "l1"
    summary = "the sum of absolute values of the code"
    is_pure = True
    numbers = ("weight",)
    any_depth = True

    def __init__(self, weight: float, target: float = 0.0):
        del target  # sparse codes are drawn to 0
        self.weight = weight

    def value(self, theta: Parameters, forward) -> torch.Tensor:
        """The penalty, a scalar."""
        return forward.mean(forward.code.abs().sum(-1))

    def add_gradient_(self, theta: Parameters, forward, gradient: Parameters) -> torch.Tensor:
        """Add weight * sign(h) s'(p) to ``forward.delta``; return the value."""
        change = forward.weighted_(forward.code.sign().mul_(forward.slope))
        add_(forward.delta, change, self.weight)
        return forward.mean(forward.code.abs().sum(-1))


@sparsity_penalty
class CodeKL:
    """weight * sum_j KL(target || mean activation of unit j) (Lee et al. 2008; Ng 2011).

    Each unit is on average active ``target`` of the time; for codes in (0, 1).
    """

    name = "kl"
    summary = "drives each unit's mean activity to ``sparsity_target``; for codes in (0, 1)"
    code_range = (0.0, 1.0)
    is_pure = True
    numbers = ("weight", "target")
    any_depth = True

    def __init__(self, weight: float, target: float):
        self.weight, self.target = weight, target

    def value(self, theta: Parameters, forward) -> torch.Tensor:
        """The penalty, a scalar."""
        target, activity = _on_and_off(self.target), _on_and_off(self._activity(forward))
        return sum(
            (rho * torch.log(rho / share)).sum(-1)
            for rho, share in zip(target, activity, strict=True)
        )

    def add_gradient_(self, theta: Parameters, forward, gradient: Parameters) -> torch.Tensor:
        """Add the derivative through the mean activity to ``forward.delta``."""
        target, activity = _on_and_off(self.target), _on_and_off(self._activity(forward))
        slope_of_divergence = target[1] / activity[1] - target[0] / activity[0]
        if forward.row_weight is not None:
            slope_of_divergence = slope_of_divergence / forward.row_weight.mean(-1, keepdim=True)
        change = forward.weighted_(forward.slope * slope_of_divergence.unsqueeze(-2))
        add_(forward.delta, change, self.weight)
        return self.value(theta, forward)

    def _activity(self, forward):
        activity = forward.mean(forward.code)
        if forward.row_weight is None:
            return activity
        # Weights have mean 1 over all rows, not over a batch: activities are fractions.
        return activity / forward.row_weight.mean(-1, keepdim=True)


def _on_and_off(activity):
    # A unit saturated over a whole batch would make the logarithm infinite, and a clamp
    # would leave it without a gradient to recover by.
    return activity + 1e-9, (1 - activity) + 1e-9


@contraction
class Contraction:
    """weight * mean over rows of |dh/dx|_F^2 (Rifai et al., ICML 2011).

    In closed form for one layer, sum_j s'(p_j)^2 sum_i W_ji^2. For more, by all directions of the
    code, or by so many random ones: see `skae.engine.networks.pulled_back`.
    """

    name = "encoder"
    summary = "dh/dx, the code's"
    is_pure = True
    numbers = ("weight",)
    any_depth = True

    def __init__(self, weight: float, n_directions: int | None = None):
        self.weight, self.n_directions = weight, n_directions
        self.is_noisy = n_directions is not None

    def value(self, theta: Parameters, forward) -> torch.Tensor:
        """The penalty, a scalar."""
        slopes, weights = encoder_layers(theta, forward.hidden, forward.network)
        if forward.network.depth == 1:
            return forward.mean(jacobians.squared_norm(slopes, weights))
        directions = directions_of(forward.code, self.n_directions, forward.generator)
        return forward.mean(pulled_squared_norm(slopes, weights, directions))

    def add_gradient_(self, theta: Parameters, forward, gradient: Parameters) -> torch.Tensor:
        """Add 2 |W_j|^2 s' s'' to ``forward.delta`` and 2 W_j mean(s'^2) to the weights.

        With several layers, s'' times the gradient by each layer's slopes to ``forward.deltas``.
        """
        if forward.network.depth > 1:
            return self._add_deep_gradient_(theta, forward, gradient)
        weight, slope = theta["weight_0"], forward.slope
        norms = torch.linalg.vector_norm(weight, dim=-1).square_()
        square = slope * slope
        energy = forward.mean(square)
        change = forward.network.nonlinearity.curvature(forward.code, square)
        twice = 2 * self.weight
        forward.delta.addcmul_(forward.weighted_(change), (norms * twice).unsqueeze(-2))
        gradient["weight_0"].addcmul_(weight, (energy * twice).unsqueeze(-1))
        return (energy * norms).sum(-1)

    def _add_deep_gradient_(self, theta, forward, gradient):
        slopes, weights = encoder_layers(theta, forward.hidden, forward.network)
        matrices = [gradient[f"weight_{level}"] for level in range(len(weights))]
        directions = directions_of(forward.code, self.n_directions, forward.generator)
        each = self.weight * forward.row_fraction
        norms, by_slope = pulled_gradient_(slopes, weights, directions, each, matrices)
        curvature, n_rows = forward.network.nonlinearity.curvature, len(forward.x)
        layers = zip(forward.deltas, forward.hidden, slopes, by_slope, strict=True)
        for delta, hidden, slope, change in layers:
            delta.add_(curvature(hidden, slope * change), alpha=n_rows)
        return forward.mean(norms)


@contraction
class ReconstructionContraction:
    """weight * mean over rows of |dr/dx|_F^2, r the reconstruction.

    Gaussian corruption of variance 2 * weight amounts to this penalty, to first order
    in the variance, for 1/2 squared error where rows are reconstructed exactly
    (Bishop 1995; Alain & Bengio 2014). Of several layers, by all directions of the output or by so
    many random ones.
    """

    name = "reconstruction"
    summary = "dr/dx, the reconstruction's"

    def __init__(self, weight: float, n_directions: int | None = None):
        self.weight, self.n_directions = weight, n_directions
        self.is_noisy = n_directions is not None
        # The standard deviation of that noise.
        self.noise = math.sqrt(2 * weight)

    def value(self, theta: Parameters, forward) -> torch.Tensor:
        """The penalty, a scalar."""
        slopes, weights = encoder_layers(theta, forward.hidden, forward.network)
        if forward.network.depth == 1 and forward.units.is_linear:
            outer = forward.network.decoder_weight(theta, 0)
            norms = jacobians.two_layer_squared_norm(slopes[0], weights[0], outer)
            return forward.mean(norms)
        slope = forward.network.nonlinearity.slope
        levels = reversed(range(forward.network.decoder_depth))
        weights += [forward.network.decoder_weight(theta, level).t() for level in levels]
        slopes += [slope(g) for g in forward.decoded] + [None]
        directions = directions_of(forward.output, self.n_directions, forward.generator)
        if directions is not None:
            inner = jacobians.LayeredJacobian(slopes, weights)
            whole = jacobians.OutputJacobian(inner, forward.units, forward.output)
            return forward.mean(whole.transposed_times(directions).square().sum((1, 2)))
        factor = jacobians.jacobian_factor(slopes, weights)
        factor = forward.units.jacobian_product(forward.output, factor)
        return forward.mean(jacobians.factored_squared_norm(factor, weights[0]))


class HessianContraction:
    """weight * mean of |J(x) - J(x + eps)|_F^2, eps ~ N(0, noise^2 I) (Rifai et al., ECML 2011).

    A stochastic estimate, from ``n_samples`` eps for each row, of noise^2 times the squared norm of
    the encoder's second derivative: it makes the Jacobian change slowly, so that the code's tangent
    planes turn slowly along the manifold.
    """

    is_noisy = True

    def __init__(self, weight: float, noise: float, n_samples: int):
        self.weight, self.noise, self.n_samples = weight, noise, n_samples

    def value(self, theta: Parameters, forward) -> torch.Tensor:
        """The penalty, a scalar."""
        slopes, weights = encoder_layers(theta, forward.hidden, forward.network)
        if forward.network.depth > 1:
            factor = jacobians.jacobian_factor(slopes, weights)
        total = 0.0
        for x in self._neighbours(forward):
            hidden = encode(theta, x, forward.network)
            others, _ = encoder_layers(theta, hidden, forward.network)
            if forward.network.depth == 1:
                change = jacobians.single_layer_squared_norm(slopes[0] - others[0], weights[0])
            else:
                difference = factor - jacobians.jacobian_factor(others, weights)
                change = jacobians.factored_squared_norm(difference, weights[0])
            total = total + forward.mean(change)
        return total / self.n_samples

    def add_gradient_(self, theta: Parameters, forward, gradient: Parameters) -> torch.Tensor:
        """The same through the slopes at x, the slopes at x + eps, and the weights."""
        weight, slope = theta["weight_0"], forward.slope
        nonlinearity = forward.network.nonlinearity
        norms = torch.linalg.vector_norm(weight, dim=1).square_()
        rate, total = 2 * self.weight / self.n_samples, 0.0
        for x in self._neighbours(forward):
            (code,) = encode(theta, x, forward.network)
            other = nonlinearity.slope(code)
            change = slope - other
            energy = forward.mean(change * change)
            total = total + torch.dot(energy, norms)
            response = nonlinearity.curvature(forward.code, slope * change)
            forward.delta.addcmul_(forward.weighted_(response), norms, value=rate)
            gradient["weight_0"].addcmul_(weight, energy.unsqueeze(1), value=rate)
            # The same chain at the neighbour, whose input and delta are its own.
            delta = nonlinearity.curvature(code, other * change).mul_(norms)
            delta = forward.weighted_(delta.mul_(-rate))
            gradient["weight_0"].addmm_(delta.t(), x, alpha=1.0 / len(x))
            gradient["hidden_bias_0"].add_(delta.sum(0), alpha=1.0 / len(x))
        return total / self.n_samples

    def _neighbours(self, forward):
        for _ in range(self.n_samples):
            noise = torch.empty_like(forward.x).normal_(generator=forward.generator)
            yield torch.add(forward.x, noise, alpha=self.noise)


def encoder_layers(theta, hidden, network):
    """The slopes at each layer's output and the weights, from the input outwards."""
    slopes = [network.nonlinearity.slope(h) for h in hidden]
    return slopes, [theta[f"weight_{level}"] for level in range(network.depth)]


def check_penalties(penalties: Sequence, code_range: tuple[float, float]) -> None:
    """Raise a ValueError for what is no penalty, or none for codes of such a range."""
    for penalty in penalties:
        weight = getattr(penalty, "weight", None)
        try:
            if type(penalty).__module__ != __name__:  # those here are right
                inspect.signature(getattr(penalty, "value", None)).bind(None, None)  # type: ignore[arg-type]
                if hasattr(penalty, "add_gradient_"):
                    inspect.signature(penalty.add_gradient_).bind(None, None, None)
            if not isinstance(weight, Real) or not math.isfinite(weight):
                raise TypeError(f"Its weight is {weight!r}.")
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"penalties={penalty!r} is no penalty: it has to have a finite number, weight, and "
                "a method value(theta, forward) that returns a scalar tensor, a mean over the rows "
                "of forward.code; and it may have a method add_gradient_(theta, forward, gradient) "
                "that returns the same."
            ) from error
        needed = getattr(penalty, "code_range", code_range)
        if code_range[0] < needed[0] or code_range[1] > needed[1]:
            raise ValueError(
                f"{type(penalty).__name__} is for codes between {needed[0]:g} and {needed[1]:g}, "
                "but those of this model are not bound to that: use activation='sigmoid', or "
                "sparsity_penalty='l1'."
            )


def checked_value(value: Any, penalty: Any, method: str) -> torch.Tensor:
    """What a penalty's method returned; a ValueError unless it is a scalar tensor."""
    if isinstance(value, torch.Tensor) and value.dim() == 0:
        return value
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else ""
    raise ValueError(
        f"{type(penalty).__name__}.{method} has to return a scalar tensor, a mean over the rows, "
        f"not a {type(value).__name__}{shape}."
    )
