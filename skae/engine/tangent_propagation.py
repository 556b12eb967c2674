"""Outputs that change little along given directions of each row: tangent propagation.

A row x comes with directions u_1 .. u_m, such as the tangents of a manifold. The output's change
along all of them is found from one random combination v = sum_j s_j u_j of independent signs:
with da the derivative of the output along v, E_s |da|^2 = sum_j |da/dx u_j|^2, and so for any
quadratic form. A step then costs that of twice the rows, however many directions there are.
"""

import torch

from skae.engine.backpropagation import AffineChain
from skae.engine.draws import random_mask
from skae.engine.supervised import Supervised


def squared_change(units, output, change):
    """|da|^2 of each row (Simard et al. 1992; Rifai et al., NIPS 2011)."""
    return change.square().sum(1)


def change_of_distribution(units, output, change):
    """da^T M(a) da of each row, with M the Fisher information of P(y | a).

    Twice the divergence KL(P(y | a) || P(y | a + da)), to second order. For classes it is
    sum_k p_k da_k^2 - (sum_k p_k da_k)^2.
    """
    product = units.jacobian_product(output, change.unsqueeze(-1)).squeeze(-1)
    return (change * product).sum(1)


def entropy(units, output, change):
    """H(P(y | a)) of each row (Grandvalet & Bengio 2005), but for the units' constant."""
    return units.negative_log_likelihood(output, units.mean(output)) - units.offset


class TangentPropagation(Supervised):
    """The criterion of `Supervised` for classes, and what outputs do along each row's directions.

        beta * mean over rows with a target of |da|^2
        + gamma * mean over rows without one of da^T M(a) da
        + eta * mean over rows without one of H(P(y | a))

    Parameters
    ----------
    levels, units, **options
        As of `Supervised`. Targets are classes, and batches have ``directions``.
    tangent_penalty, metric_penalty, entropy_penalty : float
        beta, gamma and eta.
    """

    def __init__(
        self,
        levels,
        units,
        *,
        tangent_penalty=0.0,
        metric_penalty=0.0,
        entropy_penalty=0.0,
        **options,
    ):
        super().__init__(levels, units, **options)
        self.on_labelled = [(tangent_penalty, squared_change)]
        self.on_others = [(metric_penalty, change_of_distribution), (entropy_penalty, entropy)]
        if self._chain is not None:
            self._chain = DirectedChain(self._chain.maps)

    @property
    def is_noisy(self):
        """Whether `value` depends on the generator: it does, combinations are drawn."""
        return True

    def supervised_value(self, theta, batch, generator, row_weight=None):
        """The criterion without the layers' own criteria, a scalar."""
        direction = self._direction(batch, generator)
        # A derivative forwards, as that of one backwards: torch's own imports what warns.
        output, pull = torch.func.vjp(lambda x: self.output(theta, x, generator), batch.x)
        _, push = torch.func.vjp(lambda residual: pull(residual)[0], torch.zeros_like(output))
        (change,) = push(direction)
        value = self._output_terms(output, change, batch, row_weight)
        if self.weight_decay > 0:
            value = value + 0.5 * self.weight_decay * theta["output_weight"].square().sum()
        return value

    def _direction(self, batch, generator):
        if batch.directions is None:
            return torch.zeros_like(batch.x)
        return random_combination(batch.directions, generator)

    def _output_terms(self, output, change, batch, row_weight):
        """All terms that depend on outputs and their changes, a scalar."""
        known = batch.target.sum(1)
        other = (known == 0).to(known)
        if row_weight is not None:
            other = other * row_weight
        value = self._target_loss(output, batch)
        for penalties, weight, share in (
            (self.on_labelled, known, self.share),
            (self.on_others, other, 1 - self.share),
        ):
            for strength, penalty in penalties:
                if strength > 0 and share > 0:
                    of_rows = penalty(self.units, output, change)
                    value = value + strength / share * (of_rows * weight).mean()
        return value

    def _loss_gradient(self, theta, batch, generator, out, row_weight):
        """Autograd at the output, and backpropagation by hand from there."""
        direction = self._direction(batch, generator)
        output, change = self._chain.forward(theta, batch.x, direction, generator)
        with torch.enable_grad():
            leaves = output.detach().requires_grad_(), change.detach().requires_grad_()
            value = self._output_terms(*leaves, batch, row_weight)
            residuals = torch.autograd.grad(value, leaves, materialize_grads=True)
        self._chain.backward_(theta, *residuals, out)
        return value.detach()


class DirectedChain(AffineChain):
    """Affine maps in turn, together with the derivative of the output along a direction.

    With z_l the input of map l, p_l = W_l z_l + b_l and h = s(p), changes follow

        dp_l = W_l dz_l,   dh = s'(p) * dp

    Rows and their changes go through each matrix in one product. Backwards, p receives
    s'(p) * (adjoint of h) + s''(p) * dp * (adjoint of dh), and dp receives s'(p) * (adjoint of dh).
    """

    def forward(self, theta, x, direction, generator=None):
        """The output's pre-activation and its derivative along ``direction``, shaped like x."""
        n = len(x)
        buffers, self._trace = self._buffers_for(theta, 2 * n), []
        z, below = torch.cat([x, direction]), None
        for level, step in enumerate(self.maps):
            keep = None
            if step.dropout > 0 and generator is not None:
                keep = random_mask(z[:n], 1 - step.dropout, generator).to(z.dtype)
                keep.mul_(1 / (1 - step.dropout))
                z = (z.view(2, n, -1) * keep).view(2 * n, -1)
            if step.gain is not None:
                z = z * step.gain
                z[:n] += step.offset
            self._trace.append((keep, z, below))
            weight = theta[step.weight] if step.transposed else theta[step.weight].t()
            pre = torch.mm(z, weight, out=buffers[level])
            pre[:n] += theta[step.bias]
            if level == len(self.maps) - 1:
                return pre[:n], pre[n:]
            code = step.activation.function_(pre[:n])
            slope = step.activation.slope(code)
            below = code, slope, pre[n:]
            z = torch.cat([code, slope * pre[n:]])

    def backward_(self, theta, residual, change_residual, out):
        """Write the gradient into ``out``, from those by the output and by its change."""
        delta, n = torch.cat([residual, change_residual]), len(residual)
        buffers = self._buffers_for(theta, 2 * n)
        for level in reversed(range(len(self.maps))):
            step, (keep, z, below) = self.maps[level], self._trace[level]
            self._add_gradient_(level, z, delta, delta[:n], buffers["ones"][:n], out)
            if level == 0:
                return
            weight = theta[step.weight].t() if step.transposed else theta[step.weight]
            delta = torch.mm(delta, weight, out=buffers["delta", level])
            if step.gain is not None:
                delta.mul_(step.gain)
            if keep is not None:
                delta.view(2, n, -1).mul_(keep)
            code, slope, change = below
            of_code, of_change = delta[:n], delta[n:]
            bend = self.maps[level - 1].activation.curvature(code, slope * change * of_change)
            delta.view(2, n, -1).mul_(slope)
            of_code.add_(bend)


def random_combination(directions, generator):
    """sum_j s_j u_j of each row, with independent signs s_j.

    Parameters
    ----------
    directions : Tensor of shape (n_samples, n_directions, n_features)
    generator : torch.Generator

    Returns
    -------
    combination : Tensor of shape (n_samples, n_features)
    """
    signs = random_mask(directions[:, :, 0], 0.5, generator).to(directions.dtype)
    signs = signs.mul_(2).sub_(1)
    return torch.bmm(signs.unsqueeze(1), directions).squeeze(1)
