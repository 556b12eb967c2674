"""Outputs that change little along given directions of each row: tangent propagation.

A row x comes with directions u_1 .. u_m, such as the tangents of a manifold. The output's change
along all of them is found from one random combination v = sum_j s_j u_j of independent signs:
with da the derivative of the output along v, E_s |da|^2 = sum_j |da/dx u_j|^2. A step then costs
that of twice the rows, however many directions there are.
"""

import torch

from skae.engine.networks.layers import AffineChain
from skae.engine.optimisation.devices import random_mask


def squared_change(change: torch.Tensor) -> torch.Tensor:
    """|da|^2 of each row (Simard et al. 1992; Rifai et al., NIPS 2011)."""
    return change.square().sum(1)


def random_combination(directions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
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


class DirectedChain(AffineChain):
    """Affine maps in turn, together with the derivative of some outputs along a direction.

    With z_l the input of map l, p_l = W_l z_l + b_l and h = s(p), changes follow

        dp_l = W_l dz_l,   dh = s'(p) * dp

    Rows and their changes go through each matrix in one product. Backwards, p receives
    s'(p) * (adjoint of h) + s''(p) * dp * (adjoint of dh), and dp receives s'(p) * (adjoint of dh).
    """

    def forward(self, theta, x, direction, generator=None):
        """The output's pre-activation, and its derivative along ``direction`` at the first rows.

        Parameters
        ----------
        theta : Parameters
        x : Tensor of shape (n_samples, n_features)
        direction : Tensor of shape (n_directed, n_features)
            Of the first of the rows.
        generator : torch.Generator, default=None
            With one, inputs drop out.

        Returns
        -------
        output : Tensor of shape (n_samples, n_outputs)
        change : Tensor of shape (n_directed, n_outputs)
        """
        n, m = len(x), len(direction)
        buffers, self._trace = self._buffers_for(theta, n + m), []
        z, below = torch.cat([x, direction]), None
        for level, step in enumerate(self.maps):
            keep = None
            if step.dropout > 0 and generator is not None:
                keep = random_mask(z[:n], 1 - step.dropout, generator).to(z.dtype)
                keep = keep.mul_(1 / (1 - step.dropout))
                keep = torch.cat([keep, keep[:m]])
                z = z * keep
            if step.gain is not None:
                z = z * step.gain
                z[:n] += step.shift
            self._trace.append((keep, z, below))
            weight = theta[step.weight] if step.transposed else theta[step.weight].t()
            pre = torch.mm(z, weight, out=buffers[level])
            pre[:n] += theta[step.bias]
            if level == len(self.maps) - 1:
                return pre[:n], pre[n:]
            code = step.activation.function_(pre[:n])
            slope = step.activation.slope(code)
            below = code, slope, pre[n:]
            z = torch.cat([code, slope[:m] * pre[n:]])

    def backward_(self, theta, residual, change_residual, out):
        """Write the gradient into ``out``, from those by the output and by its change."""
        delta, n, m = torch.cat([residual, change_residual]), len(residual), len(change_residual)
        buffers = self._buffers_for(theta, n + m)
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
                delta.mul_(keep)
            code, slope, change = below
            of_code, of_change = delta[:n], delta[n:]
            activation = self.maps[level - 1].activation
            bend = activation.curvature(code[:m], slope[:m] * change * of_change)
            of_code.mul_(slope)
            of_change.mul_(slope[:m])
            of_code[:m].add_(bend)
