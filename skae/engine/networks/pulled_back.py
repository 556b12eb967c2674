r"""The squared norm of a deep encoder's Jacobian, by directions of its code, with its gradient.

Of J = D_L W_L ... D_1 W_1, with D_l = diag(s_l) the layers' slopes, and directions v of the code,

    t_L = v,    u_l = s_l * t_l,    t_{l-1} = u_l W_l,    J^T v = t_0

and |J|_F^2 is the sum of |J^T v|^2 over an orthonormal basis, or the mean over random directions v
with E[v v^T] = I (Hutchinson 1990). Of signs, +1 or -1 for each unit, that mean has the variance

    2 / m * sum over j != k of (J J^T)_jk^2  <=  2 / m * |J|_F^4

of m directions. Its relative error is thus at most sqrt(2 / m) for a row, and 1 / sqrt(n) of that
for the mean over the n rows of a batch, each of which has directions of its own.
"""

from collections.abc import Sequence

import torch

from skae.engine.networks.jacobians import LayeredJacobian, squared_norm


def directions_of(
    code: torch.Tensor, n_directions: int | None, generator: torch.Generator | None
) -> torch.Tensor | None:
    """Random directions v / sqrt(m), of shape (n_samples, m, n_codes); None: a basis does it.

    It does for m = None, and where it has not more than m directions.
    """
    n_rows, n_codes = code.shape
    if n_directions is None or n_directions >= n_codes:
        return None
    signs = code.new_empty(n_rows, n_directions, n_codes)
    signs.random_(0, 2, generator=generator).mul_(2.0).sub_(1.0)
    return signs.div_(n_directions**0.5)


def pulled_squared_norm(slopes, weights, directions: torch.Tensor | None) -> torch.Tensor:
    """|J|_F^2 of each row, or the estimate of it by directions; differentiable."""
    if directions is None:
        return squared_norm(slopes, weights)
    pulled = LayeredJacobian(slopes, weights).transposed_times(directions)
    return pulled.square().sum((1, 2))


def pulled_gradient_(
    slopes: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    directions: torch.Tensor | None,
    row_weight: torch.Tensor,
    gradients: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """`pulled_squared_norm` with the gradient of its sum over rows, each times its ``row_weight``.

    The gradient by the weights, of shapes (n_l, n_{l-1}), is added to ``gradients``; that by the
    slopes, (n_samples, n_l), is returned. With r = row_weight, from the lowest layer up,

        du_1 = 2 r t_0 W_1^T,    dW_1 = 2 u_1^T r t_0
        ds_l = sum over directions of du_l * t_l,    dt_l = s_l * du_l
        dW_{l+1} = u_{l+1}^T dt_l,    du_{l+1} = dt_l W_{l+1}^T
    """
    n_rows, depth = len(slopes[0]), len(weights)
    basis = torch.eye(len(weights[-1]), dtype=slopes[0].dtype, device=slopes[0].device)
    t = basis.unsqueeze(0) if directions is None else directions
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    for slope, weight in zip(reversed(slopes), reversed(weights), strict=True):
        inputs.insert(0, t)
        u = t * slope.unsqueeze(1)
        outputs.insert(0, u.view(-1, len(weight)))
        if len(outputs) < depth:
            t = (outputs[0] @ weight).view(n_rows, -1, weight.shape[1])

    each = (2 * row_weight).repeat_interleave(len(outputs[0]) // n_rows).unsqueeze(1)
    squares, change = _lowest_(outputs[0], weights[0], each, gradients[0])
    value = squares.view(n_rows, -1).sum(1)
    by_slope = []
    for level, slope in enumerate(slopes):
        change = change.view(n_rows, -1, slope.shape[1])
        by_slope.append((change * inputs[level]).sum(1))
        if level + 1 < depth:
            above, change = outputs[level + 1], change * slope.unsqueeze(1)
            change = change.view(-1, slope.shape[1])
            gradients[level + 1].addmm_(above.t(), change)
            change = change @ weights[level + 1].t()
    return value, by_slope


def _lowest_(u, weight, each, gradient):
    """|u W|^2 of each u, and ``each`` u W W^T; adds u^T each u W to the gradient.

    By u W, or by the Gram matrix W W^T, whichever takes fewer products.
    """
    (n, n_hidden), n_in = u.shape, weight.shape[1]
    if 3 * n * n_in <= 2 * n * n_hidden + 2 * n_hidden * n_in:
        pulled = u @ weight
        squares = pulled.square().sum(1)
        pulled.mul_(each)
        gradient.addmm_(u.t(), pulled)
        return squares, pulled @ weight.t()
    product = u @ (weight @ weight.t())
    squares = (product * u).sum(1)
    gradient.addmm_(u.t() @ (u * each), weight)
    return squares, product.mul_(each)
