"""The training criterion of restricted Boltzmann machines.

The gradient of -log P(x) is that of F(x) minus its expectation under the model. The
expectation is replaced by a mean over particles, samples that came out of Gibbs steps:

    mean_i F(x_i) - mean_m F(v_m),   v constant

Contrastive divergence (CD-k, Hinton 2002) runs k steps from the data; persistent
contrastive divergence (PCD, or stochastic maximum likelihood; Younes 1999, Tieleman
2008) keeps its chains from one gradient step to the next.
"""

import torch

from skae.engine.draws import bernoulli_
from skae.engine.energies import (
    free_energy,
    hidden_input,
    precision_of,
    sample_hidden,
    sample_visible,
)
from skae.engine.objectives import Forward
from skae.engine.pseudo_likelihood import conditional_log_likelihood

# How fast the offsets of centred hidden units follow their mean (Melchior et al. 2016).
_OFFSET_RATE = 0.01


class ContrastiveDivergence:
    """mean F(data) - mean F(particles) + the penalties.

    Parameters
    ----------
    units : Bernoulli or Gaussian
        The visible units.
    n_gibbs_steps : int
        Steps of the chains for each gradient: the k of CD-k.
    persistent : bool
        Whether chains go on from where the last step left them.
    n_chains : int
        Number of persistent chains.
    penalties : sequence, default=()
        From `skae.engine.penalties`, on P(h = 1 | x) as code.
    visible_offset : Tensor of shape (n_visible,), default=None
        Where given, units are centred: steps follow the gradient with respect to the
        parameters of E(v - visible_offset, h - hidden_offset), where the hidden offsets
        follow the units' means (Montavon & Mueller 2012; Melchior et al. 2016).
    offset : float, default=0.0
        Added to the criterion: sum_i log scale_i of standardised columns makes it a
        density of the data.

    Attributes
    ----------
    state : dict of str to Tensor
        What carries over from step to step: persistent chains and hidden offsets.
    """

    is_noisy = True
    reports_loss = False

    def __init__(
        self,
        units,
        n_gibbs_steps=1,
        persistent=False,
        n_chains=100,
        penalties=(),
        visible_offset=None,
        offset=0.0,
    ):
        self.units, self.n_gibbs_steps, self.persistent = units, n_gibbs_steps, persistent
        self.n_chains, self.penalties = n_chains, penalties
        self.visible_offset, self.offset = visible_offset, offset
        self.state, self._shares = {}, {}

    def value(self, theta, x, generator, row_weight=None):
        """The criterion on one batch, whose gradient is the learning rule.

        It says nothing about progress (see `criterion`), and leaves the persistent
        chains where they are.

        Parameters
        ----------
        theta : Parameters
        x : Tensor of shape (n_samples, n_visible)
        generator : torch.Generator
            Of the Gibbs steps.
        row_weight : Tensor of shape (n_samples,), default=None
            Sample weights, of mean 1 over the whole training set.

        Returns
        -------
        value : Tensor, a scalar
        """
        with torch.no_grad():
            _, particles, _ = self._run_chains(theta, x, generator)
        code = torch.sigmoid(hidden_input(theta, x))
        forward = Forward(x, row_weight, generator, [code])
        weight = 1.0 if row_weight is None else row_weight.mean()
        negative = weight * free_energy(theta, particles, self.units).mean()
        positive = forward.mean(free_energy(theta, x, self.units))
        penalties = (p.weight * p.value(theta, forward) for p in self.penalties)
        return sum(penalties, positive - negative)

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out`` and advance the chains.

        With s the share of each row, -w_i / n for data and mean(w) / m for particles,
        and h = P(h = 1 | v), over the rows of both:

            dW = (s h)^T v / s^2,   db = sum s h,   dc = sum s v / s^2

        Where units are centred, v and h are counted from their offsets in dW, and
        dc -= dW^T (hidden offset), db -= dW (visible offset).
        """
        code, particles, particle_code = self._run_chains(theta, x, generator, keep=True)
        share = self._share(x, particles, row_weight)
        visible = torch.cat([x, particles])
        hidden = torch.cat([code, particle_code])
        precision = precision_of(theta)

        if precision is not None:
            out["log_variance"].copy_(_variance_gradient(theta, visible, hidden, share))
            visible.mul_(precision)
        torch.mv(visible.t(), share, out=out["visible_bias_0"])
        torch.mv(hidden.t(), share, out=out["hidden_bias_0"])
        if self.visible_offset is None:
            torch.mm(hidden.mul_(share.unsqueeze(1)).t(), visible, out=out["weight_0"])
        else:
            self._centred_gradient(visible, hidden, share, out, code)
        if self.penalties:
            self._add_penalties(theta, x, generator, code, row_weight, out)

    def criterion(self, theta, x, generator, row_weight=None):
        """An estimate of -log PL(x) in nats: one column of each row, drawn, times all.

        `gradient` descends on the likelihood, which is not known; this tells how far.
        """
        n_visible = x.shape[1]
        column = torch.randint(n_visible, (len(x),), generator=generator, device=x.device)
        a = hidden_input(theta, x)
        losses = -n_visible * conditional_log_likelihood(theta, x, a, column, self.units)
        losses += self.offset
        return losses.mean() if row_weight is None else (losses * row_weight).mean()

    @property
    def frozen_chains(self):
        """Which persistent chains are where they began, as a boolean tensor."""
        chains, start = self.state["chains"], self.state["start"]
        return (chains == start).all(1)

    def _run_chains(self, theta, x, generator, keep=False):
        """P(h = 1 | x), the particles, and P(h = 1 | particles)."""
        n = len(x)
        if not self.persistent:
            code = hidden_input(theta, x).sigmoid_()
            particle_code = code
            for _ in range(self.n_gibbs_steps):
                hidden = bernoulli_(particle_code.clone(), generator)
                particles = sample_visible(theta, hidden, self.units, generator)
                particle_code = hidden_input(theta, particles).sigmoid_()
            return code, particles, particle_code
        hidden = self.state.get("chains")
        if hidden is None:
            start = torch.arange(self.n_chains, device=x.device) % n
            hidden = sample_hidden(theta, x[start], generator)
        start = self.state.get("start", hidden)
        for step in range(self.n_gibbs_steps):
            if step > 0:
                hidden = sample_hidden(theta, particles, generator)
            particles = sample_visible(theta, hidden, self.units, generator)
        # One product for both phases: at small batches it costs little more than one of them.
        codes = hidden_input(theta, torch.cat([x, particles])).sigmoid_()
        if keep:
            self.state["chains"] = bernoulli_(codes[n:].clone(), generator)
            self.state["start"] = start
        return codes[:n], particles, codes[n:]

    def _share(self, x, particles, row_weight):
        n, m = len(x), len(particles)
        if row_weight is not None:
            negative = (row_weight.mean() / m).expand(m)
            return torch.cat([row_weight / -n, negative])
        if n not in self._shares:
            signs = torch.cat([x.new_full((n,), -1.0 / n), x.new_full((m,), 1.0 / m)])
            self._shares[n] = signs
        return self._shares[n]

    def _centred_gradient(self, visible, hidden, share, out, code):
        offset = self.state.get("hidden_offset")
        if offset is None:
            offset = code.mean(0)
        visible.sub_(self.visible_offset)
        hidden.sub_(offset).mul_(share.unsqueeze(1))
        weight = torch.mm(hidden.t(), visible, out=out["weight_0"])
        out["visible_bias_0"].addmv_(weight.t(), offset, alpha=-1)
        out["hidden_bias_0"].addmv_(weight, self.visible_offset, alpha=-1)
        self.state["hidden_offset"] = torch.lerp(offset, code.mean(0), _OFFSET_RATE)

    def _add_penalties(self, theta, x, generator, code, row_weight, out):
        forward = Forward(x, row_weight, generator, [code])
        forward.slope, forward.delta = code * (1 - code), torch.zeros_like(code)
        for penalty in self.penalties:
            penalty.add_gradient_(theta, forward, out)
        precision = precision_of(theta)
        scaled = x if precision is None else x * precision
        out["weight_0"].addmm_(forward.delta.t(), scaled, alpha=1.0 / len(x))
        out["hidden_bias_0"].add_(forward.delta.sum(0), alpha=1.0 / len(x))


def _variance_gradient(theta, visible, hidden, share):
    """d/dz for s^2 = exp(z): sum over rows of s ((v - c)^2 / 2 - v (h W)) / s^2."""
    square = (visible - theta["visible_bias_0"]).square_().mul_(0.5)
    square.addcmul_(visible, hidden @ theta["weight_0"], value=-1)
    return torch.mv(square.t(), share) * precision_of(theta)
