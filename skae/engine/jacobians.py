"""Jacobians of layered maps, without building them where it can be avoided.

A layered map has the Jacobian J = D_L W_L ... D_2 W_2 D_1 W_1, where W_l are its
weight matrices and D_l = diag(slope_l) the slopes of its elementwise activations at
one input. Only the slopes depend on the row, so a norm needs the factor
F = D_L W_L ... W_2 D_1 alone: with the Gram matrix G = W_1 W_1^T,
|J|_F^2 = tr(F G F^T).
"""


def single_layer_squared_norm(slope, weight):
    """|diag(slope) W|_F^2 of each row: sum_j slope_j^2 sum_i W_ji^2.

    Parameters
    ----------
    slope : Tensor of shape (n_samples, n_out)
    weight : Tensor of shape (n_out, n_in)

    Returns
    -------
    squared_norm : Tensor of shape (n_samples,)
    """
    return (slope * slope) @ weight.square().sum(1)


def jacobian_factor(slopes, weights):
    """The row-dependent factor F of J = F W_1.

    Parameters
    ----------
    slopes : list of Tensor, the l-th of shape (n_samples, n_l)
        From the input outwards. The last may be None: slope 1.
    weights : list of Tensor, the l-th of shape (n_l, n_{l-1}); at least two

    Returns
    -------
    factor : Tensor of shape (n_samples, n_L, n_1)
    """
    factor = weights[-1].unsqueeze(0)
    if slopes[-1] is not None:
        factor = slopes[-1].unsqueeze(-1) * factor
    for level in reversed(range(len(weights) - 1)):
        factor = factor * slopes[level].unsqueeze(-2)
        if level > 0:
            factor = factor @ weights[level]
    return factor


def factored_squared_norm(factor, weight):
    """|F W|_F^2 of each row, by whichever of F W and F (W W^T) is smaller.

    Parameters
    ----------
    factor : Tensor of shape (n_samples, n_out, n_1)
    weight : Tensor of shape (n_1, n_in)

    Returns
    -------
    squared_norm : Tensor of shape (n_samples,)
    """
    n_hidden, n_in = weight.shape
    if n_in <= n_hidden:
        return (factor @ weight).square().sum((-2, -1))
    return ((factor @ (weight @ weight.t())) * factor).sum((-2, -1))


def squared_norm(slopes, weights):
    """|J|_F^2 of each row for a layered map of any depth.

    Parameters and shapes as in `jacobian_factor`, one layer allowed.
    """
    if len(weights) == 1:
        return single_layer_squared_norm(slopes[0], weights[0])
    return factored_squared_norm(jacobian_factor(slopes, weights), weights[0])


def jacobian(slopes, weights):
    """J itself, of shape (n_samples, n_out, n_in): for small problems and diagnostics."""
    if len(weights) == 1:
        return slopes[0].unsqueeze(-1) * weights[0]
    return jacobian_factor(slopes, weights) @ weights[0]


def two_layer_squared_norm(slope, inner, outer):
    """|A^T diag(slope) W|_F^2 of each row, for W ``inner`` and A ``outer``.

    With the Gram matrices of both sides this is slope^T (W W^T * A A^T) slope:
    no tensor with rows times features times units is ever made.

    Parameters
    ----------
    slope : Tensor of shape (n_samples, n_hidden)
    inner : Tensor of shape (n_hidden, n_in)
    outer : Tensor of shape (n_hidden, n_out)
    """
    gram = (inner @ inner.t()) * (outer @ outer.t())
    return ((slope @ gram) * slope).sum(-1)
