r"""An output of few labels: ridge regression on targets with a kernel of rows and codes.

With labelled rows i of weights w_i and targets y_i (one-hot rows, or numbers), p the weighted mean
of the targets and k a kernel, the output of a row is

    f(x) = p + sum_i k(x, x_i) a_i,    (K + rho W^-1) a = y - p

which minimises sum_i w_i |y_i - f(x_i)|^2 + rho |f - p|^2 in the norm of the kernel. What it would
have said of a row without having seen its target is known in closed form. From these outputs
follow the two or more numbers by which outputs become log-odds: no labels are kept aside. Where
targets are numbers, which say more of a row than a class does, they also tell how much k counts,
and a linear function of the columns beside it.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from scipy import optimize

from skae.engine.optimisation.parameters import Registry

# (x, z, distances) -> similarities of shape (len(x), len(z)); 1 for equal rows.
Kernel = Callable[[torch.Tensor, torch.Tensor, "Distances"], torch.Tensor]
# Kernels by the names that users know them by.
KERNELS = Registry()

# Outputs below this one hardly become smaller as probabilities.
_FLOOR = 0.04
# What the logarithm of the slope is expected to be: ridge regression draws outputs together. And
# the variances of it and of the log-odds that are added.
_SLOPE, _SLOPE_VARIANCE, _SHIFT_VARIANCE = 0.2, 0.25, 0.25
# The least penalty, and the least part of a row's kernel with itself that is added to it.
_LEAST, _LEAST_RIDGE = 1e-8, 1e-4
# Shares of a kernel and of a linear one that are compared, for numbers; rows that tell, at most.
_SHARES, _COMPARED = (0.0, 0.3, 1.0, 3.0, 10.0), 500
# Deviations from the median, by the quartiles, from which on a number may be an outlier.
_FAR, _QUARTILES = 5.0, 1.349
# Standard errors that are no chance.
_CHANCE = 2.0
# Distances below so many units of rounding of what is compared are none.
_ROUNDING = 16


class Distances(NamedTuple):
    """Mean distance of pairs of rows: |x - z|_1, and the root of the mean of |x - z|_2^2."""

    city_block: float
    euclidean: float


def mean_distances(x: torch.Tensor, weight: torch.Tensor | None = None) -> Distances:
    """Means over all pairs of rows, each row beside itself included, without visiting pairs.

    With W_k the sum of the weights of the k least values of a column and W that of all,
    mean |x - z| = 2 / W^2 sum_k W_k (W - W_k) (x_(k+1) - x_(k)); mean (x - z)^2 is twice the
    variance. Where all rows are alike but for rounding, which would become a difference, it is 1.
    """
    rounding = _ROUNDING * torch.finfo(x.dtype).eps
    x = x.double()
    weight = torch.full((len(x),), 1.0, dtype=x.dtype) if weight is None else weight.to(x.dtype)
    weight = weight / weight.sum()
    ordered, order = x.sort(dim=0)
    below = weight[order].cumsum(0)[:-1]
    city_block = 2 * (below * (1 - below) * ordered.diff(dim=0)).sum()
    mean = weight @ x
    euclidean = (2 * (weight @ (x - mean).square()).sum()).sqrt()
    least = rounding * (weight @ x.abs()).sum(), rounding * (weight @ x.square()).sum().sqrt()
    found = zip((city_block, euclidean), least, strict=True)
    return Distances(*(float(d) if float(d) > float(m) else 1.0 for d, m in found))


@KERNELS.named("kernel")
def laplacian(x: torch.Tensor, z: torch.Tensor, distances: Distances) -> torch.Tensor:
    """exp(-|x - z|) with distances of both kinds, each by twice its mean, on average of the two."""
    city_block = torch.cdist(x, z, p=1).mul_(-0.5 / distances.city_block).exp_()
    euclidean = torch.cdist(x, z).mul_(-0.5 / distances.euclidean).exp_()
    return city_block.add_(euclidean).mul_(0.5)


def mean_kernel(
    kernel: Kernel,
    views: Sequence[torch.Tensor],
    anchors: Sequence[torch.Tensor],
    distances: Sequence[Distances],
) -> torch.Tensor:
    """The mean of a kernel over several views of rows: their columns, and codes of layers.

    Raises a ValueError for a function that returns something else than similarities.
    """
    total, shape = 0, (len(views[0]), len(anchors[0]))
    for one in zip(views, anchors, distances, strict=True):
        values = kernel(*one)
        if not isinstance(values, torch.Tensor) or values.shape != shape:
            got = tuple(values.shape) if hasattr(values, "shape") else values
            raise ValueError(
                f"The kernel {kernel!r} returned a {type(values).__name__}, {got}, for {shape[0]} "
                f"and {shape[1]} rows: output must be a function (x, z, distances) that returns "
                "similarities, a tensor of shape (len(x), len(z))."
            )
        total = total + values
    return total / len(views)


class Ridge(NamedTuple):
    """Coefficients a of shape (n_rows, n_outputs), offset p, (n_outputs,), and ``left_out``: the
    output at each row of the regression without it, (n_rows, n_outputs).
    """

    coefficients: torch.Tensor
    offset: torch.Tensor
    left_out: torch.Tensor


def kernel_ridge(
    kernel: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, penalty: float
) -> Ridge:
    """The regression on all rows, and the outputs of all those on all but one.

    With G = (K + rho W^-1)^-1 and p_i the mean of the targets but that of row i, the regression
    without row i has there the output y_i - (G (y - p_i))_i / G_ii, its own offset included. Of a
    weight w_i above 1, which stands for so many rows, u_i = 1 is left out; of others u_i = w_i:

        y_i - (G (y - p_i))_i / ((w_i - u_i) / rho + G_ii u_i / w_i)
    """
    penalty = max(penalty, _LEAST)
    # Rows that count for more than this are met nearly: more would give rows that are alike
    # coefficients so large, of opposite signs, that predictions lose their digits.
    weight = torch.minimum(weight, penalty / (_LEAST_RIDGE * kernel.diagonal().max()))
    inverse = torch.linalg.inv(kernel + torch.diag(penalty / weight))
    total = weight @ targets
    offset = total / weight.sum()
    coefficients = inverse @ (targets - offset)
    unit = weight.clamp(max=1)
    rest = (weight.sum() - unit).unsqueeze(1)
    without = torch.where(rest > 0, (total - unit.unsqueeze(1) * targets) / rest, offset)
    error = inverse @ targets - inverse.sum(1, keepdim=True) * without
    own = (weight - unit) / penalty + inverse.diagonal() * unit / weight
    return Ridge(coefficients, offset, targets - error / own.unsqueeze(1))


class Mixture(NamedTuple):
    """How numbers are predicted: by ``kernel`` k + ``linear`` l, from targets that are drawn into
    [``least``, ``most``].

    l(x, z) = (x - c) (z - c) / q of the columns, with their means c and the mean squared distance q
    from these.
    """

    kernel: float = 1.0
    linear: float = 0.0
    least: float = -math.inf
    most: float = math.inf


def chosen_mixture(
    kernel: torch.Tensor,
    linear: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    penalty: float,
) -> Mixture:
    """The mixture whose outputs at rows that were left out are nearest to their targets.

    In the weighted mean of squares, of some of the rows where they are many. ``target`` is of shape
    (n_rows,). Outliers are drawn in, unless outputs are better without that by more than chance.
    """
    some = torch.arange(0, len(target), -(-len(target) // _COMPARED), device=target.device)
    kernel, linear = kernel[some][:, some], linear[some][:, some]
    target, weight = target[some], weight[some]
    ends = _usual(target, weight)
    targets = torch.stack([target, target.clamp(*ends)], dim=1)
    pairs = [(a, b) for a, b in product(_SHARES, _SHARES) if a or b]
    left_out = torch.stack(
        [kernel_ridge(a * kernel + b * linear, targets, weight, penalty).left_out for a, b in pairs]
    )
    errors = (weight.unsqueeze(1) * (left_out - targets).square()).sum(1)
    best = errors.argmin(0)
    error = left_out[best, :, torch.arange(2, device=best.device)] - target
    gain = error[1].square() - error[0].square()
    as_they_are = float(weight @ gain) > _CHANCE * float((weight @ gain.square()).sqrt())
    if as_they_are or torch.equal(*targets.T):
        return Mixture(*pairs[int(best[0])])
    return Mixture(*pairs[int(best[1])], *ends)


def _usual(target, weight):
    """What lies within so many deviations of the median; everything where quartiles are one."""
    ordered, order = target.sort()
    below = weight[order].cumsum(0) / weight.sum()
    quantiles = torch.tensor([0.25, 0.5, 0.75], dtype=below.dtype, device=below.device) - _LEAST
    where = torch.searchsorted(below, quantiles).clamp(max=len(ordered) - 1)
    low, middle, high = ordered[where].tolist()
    far = _FAR * (high - low) / _QUARTILES or math.inf
    return middle - far, middle + far


def log_shares(outputs: torch.Tensor) -> torch.Tensor:
    """log((f + sqrt(f^2 + 4 e^2)) / 2) = log e + asinh(f / 2 e) of outputs f about probabilities.

    That is log f but for outputs below e or so, even negative ones: they lose nothing of their
    order.
    """
    return torch.asinh(outputs / (2 * _FLOOR)) + math.log(_FLOOR)


class Calibration(NamedTuple):
    """log P(y) = ``slope`` log_shares(f) + ``shift``, of shape (n_classes,), up to a constant."""

    slope: float
    shift: tuple[float, ...]

    def log_odds(self, outputs: torch.Tensor) -> torch.Tensor:
        """Logits of classes from outputs."""
        return self.slope * log_shares(outputs) + outputs.new_tensor(self.shift)


def calibrated(left_out: torch.Tensor, targets: torch.Tensor) -> Calibration:
    """Slope and shift under which rows that were left out are most probable, with priors.

    It minimises -sum_i y_i log P(y_i) + (c - 1/5)^2 / (2 v) + sum_k b_k^2 / v over the logarithm c
    of the slope and shifts b, with v = 1/4: for two classes the difference of shifts has the
    variance v.
    The weights of rows are in their one-hot targets. The slope is positive: the order is kept.
    """
    # Few numbers and many evaluations, each of which is read on the host.
    shares, targets = log_shares(left_out.double().cpu()), targets.double().cpu()
    weight = targets.sum(1)

    def loss(numbers):
        numbers = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
        slope, shift = numbers[0], numbers[1:]
        logits = slope.exp() * shares + shift
        value = (weight * logits.logsumexp(1)).sum() - (targets * logits).sum()
        value = value + (slope - _SLOPE).square() / (2 * _SLOPE_VARIANCE)
        value = value + shift.square().sum() / _SHIFT_VARIANCE
        (gradient,) = torch.autograd.grad(value, numbers)
        return float(value.detach()), gradient.numpy()

    start = [0.0] * (1 + targets.shape[1])
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    return Calibration(math.exp(found[0]), tuple(found[1:].tolist()))
