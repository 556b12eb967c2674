"""The training criterion of restricted Boltzmann machines.

The gradient of -log P(x) is that of F(x) minus its expectation under the model. The
expectation is replaced by a mean over particles, samples that came out of Gibbs steps:

    mean_i F(x_i) - mean_m F(v_m),   v constant

Contrastive divergence (CD-k, Hinton 2002) runs k steps from the data; persistent
contrastive divergence (PCD, or stochastic maximum likelihood; Younes 1999, Tieleman
2008) keeps its chains from one gradient step to the next.
"""

import torch

from skae.engine.boltzmann.energies import (
    free_energy,
    hidden_input,
    precision_of,
    sample_hidden,
    sample_visible,
)
from skae.engine.boltzmann.pseudo_likelihood import conditional_log_likelihood
from skae.engine.networks.objectives import Forward
from skae.engine.optimisation.draws import bernoulli

# How fast the offsets of centred hidden units follow their mean (Melchior et al. 2016).
_OFFSET_RATE = 0.01
# How fast the size of variances' steps follows that of recent batches.
_STEADY_RATE = 0.01
# Persistent chains are watched over windows of this many gradient steps.
_WINDOW = 50


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
        From `skae.engine.networks.penalties`, on P(h = 1 | x) as code.
    visible_offset : Tensor of shape (n_visible,), default=None
        Where given, units are centred: steps follow the gradient with respect to the
        parameters of E(v - visible_offset, h - hidden_offset), where the hidden offsets
        follow the units' means (Montavon & Mueller 2012; Melchior et al. 2016).
    log_volume : float, default=0.0
        Added to the criterion: sum_i log scale_i of standardised columns makes it a
        density of the data.
    least_loss : float, default=0.0
        What the criterion cannot fall below, without ``log_volume``.

    Attributes
    ----------
    state : dict of str to Tensor or int
        What carries over from step to step: persistent ``chains`` (hidden units), their
        ``n_steps`` and which of them ``moved``, the ``hidden_offset`` of centred units, the
        ``variance_square`` of recent steps.
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
        log_volume=0.0,
        least_loss=0.0,
    ):
        self.units, self.n_gibbs_steps, self.persistent = units, n_gibbs_steps, persistent
        self.n_chains, self.penalties = n_chains, penalties
        self.visible_offset, self.log_volume = visible_offset, log_volume
        self.offset = log_volume + least_loss
        self.state, self._shares, self._buffers = {}, {}, {}
        self._all_moved = False

    def value(self, theta, x, generator, row_weight=None):
        """The scalar on one batch whose gradient, in a metric, is the learning rule.

        It says nothing about progress (see `criterion`), and leaves the persistent
        chains where they are. The metric is `gradient`'s: without centring and learned
        variances, it is the gradient itself.

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
            visible, _ = self._run_chains(theta, x, generator)
        code = torch.sigmoid(hidden_input(theta, x))
        forward = Forward(x, row_weight, generator, [code])
        energies = free_energy(theta, visible, self.units)
        share = self._share(len(x), len(visible) - len(x), row_weight, theta.flat)
        penalties = (p.weight * p.value(theta, forward) for p in self.penalties)
        return sum(penalties, -torch.dot(share, energies))

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out`` and advance the chains.

        With q the share of each row, -w_i / n for data and w_i / n, or mean(w) / m where
        chains are persistent, for particles, and h = P(h = 1 | v), over the rows of both:

            dW = (q h)^T v / s^2,   db = sum q h,   dc = sum q v / s^2

        and what the penalties add. Learned variances s^2 make these steps longest where
        the units are most sensitive; dW and dc are multiplied by s^2 again. The step of
        log s^2 is divided by its root mean square over recent batches, where that exceeds
        1: a rare large value must count for as much as it does in the mean. Where units
        are centred, the step is that of the centred machine: v and h are counted from
        their offsets in dW, and dc -= dW^T (hidden offset), db -= dW (visible offset).
        """
        visible, hidden = self._run_chains(theta, x, generator, keep=True)
        share = self._share(len(x), len(visible) - len(x), row_weight, theta.flat)
        precision = precision_of(theta)
        weight, n = out["weight_0"], len(x)
        if precision is not None:
            out["log_variance"].copy_(_variance_gradient(theta, visible, hidden, share))
        torch.mv(visible.t(), share, out=out["visible_bias_0"])
        torch.mv(hidden.t(), share, out=out["hidden_bias_0"])
        delta, keep = None, 0
        if self.penalties:
            weight.zero_()
            keep, delta = 1, self._penalty_delta(theta, x, generator, hidden[:n], row_weight, out)
            if precision is not None:
                weight.div_(precision)
        offset = None if self.visible_offset is None else self._hidden_offset(hidden[:n])
        if offset is not None:
            visible.sub_(self.visible_offset)
            hidden.sub_(offset)
        hidden.mul_(share.unsqueeze(1))
        if delta is not None:
            hidden[:n] += delta
            out["hidden_bias_0"].add_(delta.sum(0))
        if keep:
            weight.addmm_(hidden.t(), visible)
        else:
            torch.mm(hidden.t(), visible, out=weight)
        if offset is not None:
            out["visible_bias_0"].addmv_(weight.t(), offset, alpha=-1)
            out["hidden_bias_0"].addmv_(weight, self.visible_offset, alpha=-1)
        if precision is not None:
            self._steady_(out["log_variance"])

    def criterion(self, theta, x, generator, row_weight=None):
        """An estimate of -log PL(x) in nats: one column of each row, drawn, times all.

        `gradient` descends on the likelihood, which is not known; this tells how far.
        """
        n_visible = x.shape[1]
        column = torch.randint(n_visible, (len(x),), generator=generator, device=x.device)
        a = hidden_input(theta, x)
        losses = -n_visible * conditional_log_likelihood(theta, x, a, column, self.units)
        losses += self.log_volume
        return losses.mean() if row_weight is None else (losses * row_weight).mean()

    def _run_chains(self, theta, x, generator, keep=False):
        """The rows of x and below them the particles, and P(h = 1 | v) of both."""
        hidden = self.state.get("chains")
        n = m = len(x)
        if self.persistent:
            m = self.n_chains if hidden is None else len(hidden)
        visible, code = self._buffers_for(theta, n, m)
        visible[:n] = x
        particles = visible[n:]
        if not self.persistent:
            hidden_input(theta, x, out=code[:n]).sigmoid_()
            particle_code = code[:n]
            for _ in range(self.n_gibbs_steps):
                hidden = bernoulli(particle_code, generator)
                sample_visible(theta, hidden, self.units, generator, out=particles)
                particle_code = hidden_input(theta, particles, out=code[n:]).sigmoid_()
            return visible, code
        if hidden is None:
            first = torch.arange(m, device=x.device) % n
            hidden = sample_hidden(theta, x[first], generator)
        before = hidden
        for step in range(self.n_gibbs_steps):
            if step > 0:
                hidden = sample_hidden(theta, particles, generator)
            sample_visible(theta, hidden, self.units, generator, out=particles)
        # One product for both phases: at small batches it costs little more than one of them.
        hidden_input(theta, visible, out=code).sigmoid_()
        if keep:
            self.state["chains"] = bernoulli(code[n:], generator)
            self._watch(before)
        return visible, code

    def _watch(self, before):
        """Note which chains have moved, in windows: weights that grow may freeze them later."""
        n_steps = int(self.state.get("n_steps", 0))
        if n_steps % _WINDOW == 0:
            if "moved" in self.state:
                self.state["moved_before"] = self.state["moved"]
            self.state["moved"] = torch.zeros(len(before), dtype=torch.bool, device=before.device)
            self._all_moved = False
        self.state["n_steps"] = n_steps + 1
        if not self._all_moved:
            self.state["moved"] |= (self.state["chains"] != before).any(1)
            self._all_moved = bool(self.state["moved"].all())

    @property
    def frozen_chains(self):
        """Which persistent chains did not move in the last whole window, or None before it."""
        n_steps = int(self.state.get("n_steps", 0))
        whole = "moved" if n_steps > 0 and n_steps % _WINDOW == 0 else "moved_before"
        return ~self.state[whole] if whole in self.state else None

    def _buffers_for(self, theta, n, m):
        # An epoch has batches of two sizes at most; their buffers are made once.
        if (n, m) not in self._buffers:
            n_hidden, n_visible = theta["weight_0"].shape
            self._buffers[n, m] = (
                theta.flat.new_empty(n + m, n_visible),
                theta.flat.new_empty(n + m, n_hidden),
            )
        return self._buffers[n, m]

    def _share(self, n, m, row_weight, like):
        if row_weight is not None:
            if not self.persistent:
                return torch.cat([row_weight / -n, row_weight / n])
            return torch.cat([row_weight / -n, (row_weight.mean() / m).expand(m)])
        if (n, m) not in self._shares:
            self._shares[n, m] = torch.cat(
                [like.new_full((n,), -1.0 / n), like.new_full((m,), 1.0 / m)]
            )
        return self._shares[n, m]

    def _steady_(self, change):
        """Divide by the root mean square of recent batches; clipping would favour one sign."""
        square = change.square()
        self.state["variance_square"] = torch.lerp(
            self.state.get("variance_square", square), square, _STEADY_RATE
        )
        change.div_(self.state["variance_square"].sqrt().clamp_(min=1.0))

    def _hidden_offset(self, code):
        """The offsets of hidden units, before they follow the batch's means."""
        mean = code.mean(0)
        offset = self.state.setdefault("hidden_offset", mean)
        self.state["hidden_offset"] = torch.lerp(offset, mean, _OFFSET_RATE)
        return offset

    def _penalty_delta(self, theta, x, generator, code, row_weight, out):
        """Add the penalties on the weights to ``out``; return what they ask of the code.

        That is the gradient with respect to the pre-activation of each row's hidden units.
        """
        forward = Forward(x, row_weight, generator, [code])
        forward.slope, forward.delta = code * (1 - code), torch.zeros_like(code)
        for penalty in self.penalties:
            penalty.add_gradient_(theta, forward, out)
        delta = forward.delta.div_(len(x))
        if "log_variance" in out:
            change = (x * (delta @ theta["weight_0"])).sum(0)
            out["log_variance"].sub_(change.mul_(precision_of(theta)))
        return delta


def _variance_gradient(theta, visible, hidden, share):
    """d/dz for s^2 = exp(z): sum over rows of s ((v - c)^2 / 2 - v (h W)) / s^2."""
    square = (visible - theta["visible_bias_0"]).square_().mul_(0.5)
    square.addcmul_(visible, hidden @ theta["weight_0"], value=-1)
    return torch.mv(square.t(), share) * precision_of(theta)
