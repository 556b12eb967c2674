"""Who is near whom: a penalty that keeps neighbours of a row its neighbours in the code."""

import math

import torch

from skae.engine.optimisation.parameters import Parameters

# Halvings of the interval (e^-8, e^8) in which a row's width is looked for, in units of its mean.
_N_HALVINGS, _LARGEST = 14, 8.0


class Neighborhood:
    r"""weight * KL(P || Q), who is near whom in the data and in the code (van der Maaten 2009).

    Of the n rows of a batch,

        P_ij = p_ij / n,   p_ij = exp(-b_i |x_i - x_j|^2) / sum_k exp(-b_i |x_i - x_k|^2)
        Q_ij = u_ij / sum_kl u_kl,   u_ij = 1 / (1 + |h_i - h_j|^2),   i != j

    where j and k are the 3 * ``perplexity`` rows nearest to row i, and b_i is such that the entropy
    of p_i is log(perplexity). Since Q is symmetric, P has the gradient of its symmetric part.
    Sample weights multiply the terms of both rows.
    """

    is_pure = True
    any_depth = True

    def __init__(self, weight: float, perplexity: float = 5.0):
        self.weight, self.perplexity = weight, perplexity

    def value(self, theta: Parameters, forward) -> torch.Tensor:
        """The penalty, a scalar."""
        del theta
        if len(forward.x) < 2:
            return forward.code.new_zeros(())
        places, p = self._neighbours(forward)
        closeness = _closeness(forward.code)
        return _divergence(p, closeness.gather(1, places), _weighted(closeness, forward).sum())

    def add_gradient_(self, theta: Parameters, forward, gradient: Parameters) -> torch.Tensor:
        """Add 4 sum_j (P_ij - Q_ij) u_ij (h_i - h_j) to ``forward.delta``; return the value."""
        del theta, gradient
        code, n_rows = forward.code, len(forward.x)
        if n_rows < 2:
            return code.new_zeros(())
        places, p = self._neighbours(forward)
        closeness = _closeness(code)
        near, weighted = closeness.gather(1, places), _weighted(closeness, forward)
        total = weighted.sum()
        value = _divergence(p, near, total)
        # What pushes all rows apart, and, in both directions, what pulls neighbours together.
        pull = weighted.mul_(closeness).mul_(-p.sum() / total).view(-1)
        rows = torch.arange(n_rows, device=code.device).unsqueeze(1)
        each = (0.5 * p * near).view(-1)
        pull.scatter_add_(0, (rows * n_rows + places).view(-1), each)
        pull.scatter_add_(0, (places * n_rows + rows).view(-1), each)
        pull = pull.view(n_rows, n_rows)
        change = pull.sum(1, keepdim=True) * code - pull @ code
        forward.delta.add_(change * forward.slope, alpha=4 * n_rows * self.weight)
        return value

    def _neighbours(self, forward):
        """The rows nearest to each, of shape (n_samples, n_neighbours), and P_ij of these."""
        with torch.no_grad():
            n_rows = len(forward.x)
            n_neighbours = max(1, min(round(3 * self.perplexity), n_rows - 1))
            square = _squared_distances(forward.x).fill_diagonal_(math.inf)
            square, places = square.topk(n_neighbours, dim=1, largest=False)
            p = _of_perplexity(square, min(self.perplexity, n_neighbours))
            if forward.row_weight is not None:
                p *= forward.row_weight[places]
                p /= p.sum(1, keepdim=True).clamp_(min=torch.finfo(p.dtype).tiny)
            return places, p * forward.row_fraction.unsqueeze(1)


def _squared_distances(rows):
    """|x_i - x_j|^2 of all pairs, from products of rows about their mean, which are smaller."""
    rows = rows - rows.mean(0)
    square = torch.linalg.vecdot(rows, rows)
    return (square + square.unsqueeze(1) - 2 * (rows @ rows.t())).clamp_(min=0)


def _closeness(code):
    """u_ij of all pairs; 0 of a row with itself."""
    closeness = 1 / (1 + _squared_distances(code))
    return closeness - torch.diag(closeness.diagonal())


def _weighted(closeness, forward):
    """w_i w_j u_ij, a tensor of its own."""
    weight = forward.row_weight
    return closeness.clone() if weight is None else closeness * weight * weight.unsqueeze(1)


def _divergence(p, near, total):
    """Sum of P log(P / Q), where Q = near / total."""
    tiny = torch.finfo(p.dtype).tiny
    mean_log = (p * (p.clamp(min=tiny).log() - near.clamp(min=tiny).log())).sum()
    return mean_log + p.sum() * total.clamp(min=tiny).log()


def _of_perplexity(square, perplexity):
    """exp(-b_i square_ij), normalised in each row, of an entropy of log(perplexity) or the nearest.

    Squared distances come in ascending order. By bisection of log b_i.
    """
    excess = square - square[:, :1]
    excess = excess / excess.mean(1, keepdim=True).clamp_(min=torch.finfo(square.dtype).tiny)
    low = torch.full_like(excess[:, :1], -_LARGEST)
    high = -low
    for _ in range(_N_HALVINGS):
        log_b = 0.5 * (low + high)
        energy = excess * log_b.exp()
        p = torch.exp(-energy)
        total = p.sum(1, keepdim=True)
        entropy = total.log() + (p * energy).sum(1, keepdim=True) / total
        is_wide = entropy > math.log(perplexity)
        low, high = torch.where(is_wide, log_b, low), torch.where(is_wide, high, log_b)
    p = torch.exp(-excess * (0.5 * (low + high)).exp())
    return p / p.sum(1, keepdim=True)
