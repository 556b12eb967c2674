"""Output units: what the decoder's pre-activation ``a`` says about the data.

Each kind of unit defines the mean r(a), samples from P(x | r), and the
reconstruction loss -log P(x | r), in nats, summed over columns. All are exponential
families in their natural parameter, hence one fact serves every closed-form gradient:

    d/da -log P(x | r(a)) = r(a) - x

`Gaussian` works in standardised columns, z = (x - mean) / scale; its ``constant``
carries sum_i log scale_i + d/2 log 2 pi, so that losses are densities of x itself
and models with different units can be compared. Where the mean is elementwise,
``activation`` is what it applies.

A kind of unit that users choose by name is registered here with `unit`, and says of itself

- ``name`` and ``summary``, for users;
- ``domain``, between what its columns lie, or None;
- ``standardizes``, whether its columns are shifted and scaled to mean 0 and variance 1;
- ``sums_to_one``, whether its columns are one one-hot variable, which stays apart from others;
- ``of_columns(scale)``, the units of columns that were divided by ``scale``;
- ``together(sizes, device)``, units of several such variables, one after the other, as one
  operation; None where there is no such thing;
- ``is_linear``, whether the mean is the pre-activation itself.

`value_and_residual_` also takes the rows of several models at once, of shape (n_models, n_samples,
n_features), and returns the value of each.

`column_losses` gives the terms of that sum one by one, -x_i log r_i for one-hot columns, and
without the constant.

Units that also have ``energy`` and ``log_normalizer`` can be the visible units of a Boltzmann
machine. ``is_discrete`` says whether all states of theirs can be counted, ``is_binary`` whether
these are all of zeros and ones; ``precision``, of one
number for each column, is 1 where a column is discrete.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch.nn.functional import log_softmax

from skae.engine.networks.activations import ACTIVATIONS, Activation, softplus
from skae.engine.optimisation.devices import bernoulli, coins
from skae.engine.optimisation.parameters import Registry

# The name of an activation, or "softmax", and the columns that it is of.
Pieces: TypeAlias = list[tuple[str, torch.Tensor]]
UNITS = Registry()
unit = UNITS.register


class Units:
    """What kinds of units are unless they say otherwise."""

    name: str
    summary: str
    domain: tuple[float, float] | None = None
    standardizes = False
    sums_to_one = False
    is_binary = False
    together: Callable[..., Any] | None = None
    is_linear = False
    activation: Activation | None = None
    constant = 0.0
    # ``noise(shape, like, generator)``: random numbers that units are ``drawn(a, noise)`` by. None:
    # those cannot be drawn before ``a`` is known.
    noise: Callable[..., torch.Tensor] | None = None
    # What each column has of the constant, a tensor; None where that is 0.
    column_constant: torch.Tensor | None = None

    @classmethod
    def of_columns(cls, scale):
        """The units of columns that were divided by ``scale``, a Tensor."""
        return cls()

    @property
    def likeness(self):
        """What units of the same columns share, but for the constant: a hashable value."""
        return type(self)

    def pieces(self, n_columns: int) -> Pieces | None:
        """What the mean is, for other libraries. None: nothing that they know by a name."""
        if self.activation is None:
            return None
        return [(self.activation.name, torch.arange(n_columns))]


@unit
class Bernoulli(Units):
    """Columns in [0, 1]: -sum_i x_i log r_i + (1 - x_i) log(1 - r_i), r = sigmoid(a)."""

    name = "bernoulli"
    summary = "cross-entropy, for values in [0, 1]"
    domain = (0.0, 1.0)
    is_discrete = True
    is_binary = True
    activation = ACTIVATIONS["sigmoid"]

    def mean(self, a):
        """Mean of each column given the pre-activation, shape of ``a``."""
        return torch.sigmoid(a)

    def sample(self, a, generator, precision=None, out=None):
        """One draw of each column."""
        return bernoulli(self.mean(a), generator, out)

    def noise(self, shape, like, generator):
        """Random numbers by which `drawn` draws what `sample` would."""
        return coins(shape, like, generator)

    def drawn(self, a, noise):
        """One draw of each column, by its noise, in the place of ``a``."""
        return torch.lt(noise, a.sigmoid_(), out=a)

    def negative_log_likelihood(self, a, x, weight=None):
        """-log P(x | r(a)) of each row, shape (n_samples,); columns weighted by ``weight``."""
        return self.column_losses(a, x, weight).sum(-1)

    def column_losses(self, a, x, weight=None):
        """-log P(x_i | r(a)_i) of each column, shape of ``a``."""
        return _times(softplus(a) - x * a, weight)

    def value_and_residual_(self, a, x, weight=None, scale=1.0):
        """``scale`` * the sum of losses less the constant; ``a`` becomes its gradient / scale."""
        # softplus(a) = max(a, 0) - log max(r, 1 - r), at half the cost where r is needed anyway.
        if weight is None:
            # One tensor is all the memory that is needed: large ones cost as much as a pass.
            spare = a.clamp(min=0)
            if a.dim() < 3:
                value = _total(spare) - _inner(a, x)
            else:
                value = _total(spare.addcmul_(a, x, value=-1))
            torch.sub(a.new_ones(()), a.sigmoid_(), out=spare)
            value -= _total(_log_products(torch.maximum(spare, a, out=spare)))
        else:
            losses = a.clamp(min=0).addcmul_(a, x, value=-1)
            confidence = torch.maximum(a.sigmoid_(), 1 - a)
            value = _total(losses.sub_(confidence.log_()).mul_(weight))
        a.sub_(x)
        return value.mul_(scale), _weighted_(a, weight)

    def jacobian_product(self, a, matrix):
        """dr/da @ matrix for each row; ``matrix`` has shape (n_samples, n_features, m)."""
        r = self.mean(a)
        return (r * (1 - r)).unsqueeze(-1) * matrix

    def energy(self, x, bias, precision=None):
        """Energy of visible units without hidden ones, -x.c, shape (n_samples,)."""
        return -torch.matmul(x, bias)

    def log_normalizer(self, u, bias, precision=None):
        """Log of the sum over all x of exp(u.x - energy(x)): sum_i softplus(u_i + c_i)."""
        return softplus(u + bias).sum(-1)

    def bias_for_mean(self, mean):
        """The pre-activation at which the units' mean is ``mean``."""
        # Columns that are constant at 0 or 1 would ask for an infinite bias.
        return torch.logit(mean.clamp(1e-4, 1 - 1e-4))


@unit
class Gaussian(Units):
    """Real columns of unit variance: 1/2 |x - a|^2 + constant.

    The constant is the part of -log P that does not depend on the parameters; 0 makes the loss the
    plain 1/2 squared error.
    """

    name = "gaussian"
    summary = (
        "columns standardised by their mean and standard deviation, which are estimated in `fit`, "
        "so that a raw table needs no scaler"
    )
    standardizes = True
    is_discrete = False
    is_linear = True
    activation = ACTIVATIONS["linear"]

    def __init__(self, constant: float | torch.Tensor = 0.0):
        if isinstance(constant, torch.Tensor):
            self.column_constant, self.constant = constant, float(constant.sum())
        else:
            self.constant = constant

    @classmethod
    def of_columns(cls, scale):
        """Units whose loss is the density of columns that were divided by ``scale``."""
        return cls(torch.log(scale) + 0.5 * math.log(2 * math.pi))

    def mean(self, a):
        """Mean of each column given the pre-activation: ``a`` itself."""
        return a

    def sample(self, a, generator, precision=None, out=None):
        """One draw of each column, in standardised units; unit variance or 1 / precision."""
        noise = (torch.empty_like(a) if out is None else out).normal_(generator=generator)
        return noise.add_(a) if precision is None else noise.mul_(precision.rsqrt()).add_(a)

    def noise(self, shape, like, generator):
        """Random numbers by which `drawn` draws what `sample` would, with unit variance."""
        return like.new_empty(shape).normal_(generator=generator)

    def drawn(self, a, noise):
        """One draw of each column, by its noise, in the place of ``a``."""
        return a.add_(noise)

    def negative_log_likelihood(self, a, x, weight=None):
        """-log P(x | a) of each row, shape (n_samples,); columns weighted by ``weight``."""
        return self.column_losses(a, x, weight).sum(-1) + self.constant

    def column_losses(self, a, x, weight=None):
        """1/2 (x_i - a_i)^2 of each column, shape of ``a``."""
        return _times(0.5 * (x - a) ** 2, weight)

    def value_and_residual_(self, a, x, weight=None, scale=1.0):
        """``scale`` * the sum of losses less the constant; ``a`` becomes its gradient / scale."""
        a.sub_(x)
        if weight is None:
            value = _inner(a, a)
        else:
            value = _total(weight * a * a)
        return value.mul_(0.5 * scale), _weighted_(a, weight)

    def jacobian_product(self, a, matrix):
        """dr/da @ matrix for each row: ``matrix`` itself."""
        return matrix

    def energy(self, x, bias, precision=None):
        """Energy of visible units without hidden ones, 1/2 |x - c|^2 times the precision."""
        square = (x - bias).square()
        return 0.5 * (square if precision is None else square * precision).sum(-1)

    def log_normalizer(self, u, bias, precision=None):
        """Log of the integral over x of exp(sum_i precision_i u_i x_i - energy(x)).

        sum_i precision_i (u_i^2 / 2 + u_i c_i) + 1/2 log(2 pi / precision_i)
        """
        exponent = u * (0.5 * u + bias)
        if precision is None:
            return exponent.sum(-1) + 0.5 * u.shape[-1] * math.log(2 * math.pi)
        return (exponent * precision + 0.5 * torch.log(2 * math.pi / precision)).sum(-1)

    def bias_for_mean(self, mean):
        """The pre-activation at which the units' mean is ``mean``."""
        return mean


@unit
class SquaredError(Gaussian):
    """Real columns as they are: 1/2 |x - a|^2."""

    name = "squared_error"
    summary = "half the squared error in the input's own units"
    standardizes = False

    @classmethod
    def of_columns(cls, scale):
        """Units without a constant."""
        return cls()


@unit
class Multinomial(Units):
    """Columns that together are one one-hot variable: -sum_i x_i log softmax(a)_i."""

    name = "multinomial"
    summary = "all columns together are one one-hot variable"
    domain = (0.0, 1.0)
    is_discrete = True
    sums_to_one = True

    @staticmethod
    def together(sizes, device=None):
        """Units of several one-hot variables of so many columns, one after the other."""
        return OneHotGroups(sizes, device)

    def pieces(self, n_columns: int) -> Pieces:
        """One softmax of all columns."""
        return [("softmax", torch.arange(n_columns))]

    def mean(self, a):
        """Probability of each category, shape of ``a``."""
        return torch.softmax(a, dim=-1)

    def sample(self, a, generator, precision=None, out=None):
        """One one-hot draw for each row."""
        out = torch.empty_like(a) if out is None else out
        return out.zero_().scatter_(-1, _drawn(self.mean(a), generator, -1), 1.0)

    def negative_log_likelihood(self, a, x, weight=None):
        """-log P(x | r(a)) of each row, shape (n_samples,); columns weighted by ``weight``."""
        return self.column_losses(a, x, weight).sum(-1)

    def column_losses(self, a, x, weight=None):
        """-x_i log softmax(a)_i of each column, shape of ``a``."""
        return _times(-x * log_softmax(a, dim=-1), weight)

    def value_and_residual_(self, a, x, weight=None, scale=1.0):
        """``scale`` * the sum of losses less the constant; ``a`` becomes its gradient / scale."""
        target = x if weight is None else weight * x
        log_mean = log_softmax(a, dim=-1)
        value = -_total(target * log_mean)
        torch.exp(log_mean, out=a)
        # The row sums of x are 1, so this is r - x unless columns are weighted.
        a.mul_(target.sum(-1, keepdim=True)).sub_(target)
        return value.mul_(scale), a

    def jacobian_product(self, a, matrix):
        """dr/da @ matrix for each row, (diag(r) - r r^T) matrix."""
        r = self.mean(a).unsqueeze(-1)
        return r * (matrix - (r * matrix).sum(-2, keepdim=True))

    def energy(self, x, bias, precision=None):
        """Energy of visible units without hidden ones, -x.c, shape (n_samples,)."""
        return -torch.matmul(x, bias)

    def log_normalizer(self, u, bias, precision=None):
        """Log of the sum over the categories x of exp(u.x - energy(x)): logsumexp_i(u_i + c_i)."""
        return torch.logsumexp(u + bias, dim=-1)

    def bias_for_mean(self, mean):
        """The pre-activation at which the units' mean is ``mean``."""
        return torch.log(mean.clamp(min=1e-4 / mean.shape[-1]))


class OneHotGroups(Units):
    """Columns that are several one-hot variables, each its own softmax: all of them at once.

    ``sizes`` are the numbers of columns of the groups, which lie one after the other. They are
    padded to the largest of them, (n_samples, width, n_groups), so that one softmax does for all:
    over an axis that is not the last, where it goes through many groups side by side.
    """

    is_discrete = True

    def __init__(self, sizes, device=None):
        sizes = torch.as_tensor(sizes, device=device)
        self.shape = width, n_groups = int(sizes.max()), len(sizes)
        start = torch.cumsum(sizes, 0) - sizes
        within = torch.arange(width, device=device).unsqueeze(1)
        is_padding = within >= sizes
        # Of which group each column is, and how many columns that has.
        self.group = torch.repeat_interleave(torch.arange(n_groups, device=device), sizes)
        self.size = sizes[self.group]
        # Where padded columns come from, what is added to padding, and where columns are there.
        self.source = (start + within).masked_fill(is_padding, 0).view(-1)
        self.bias = torch.zeros(is_padding.shape, dtype=torch.float32, device=device)
        self.bias = self.bias.masked_fill_(is_padding, -math.inf).view(-1)
        position = torch.arange(int(sizes.sum()), device=device) - start[self.group]
        self.place = position * n_groups + self.group
        self._copies: dict[torch.dtype, torch.Tensor] = {}

    @property
    def likeness(self):
        """What units of the same columns share, but for the constant: a hashable value."""
        return type(self), tuple(self.group.tolist())

    def pieces(self, n_columns: int) -> Pieces:
        """A softmax of each group."""
        group = self.group.cpu()
        n_groups = int(group[-1]) + 1
        return [("softmax", torch.nonzero(group == g).squeeze(1)) for g in range(n_groups)]

    def _padded(self, a):
        """Pre-activations by group, minus infinity where there is no column."""
        if a.dtype not in self._copies:
            self._copies[a.dtype] = self.bias.to(a.dtype)
        padded = a.index_select(-1, self.source).add_(self._copies[a.dtype])
        return padded.view(*a.shape[:-1], *self.shape)

    def _flat(self, values):
        """What was computed of `_padded`, by column."""
        return values.flatten(-2).index_select(-1, self.place)

    def _group_sums(self, values):
        """The sum of each column's group, shape of ``values``."""
        sums = values.new_zeros((*values.shape[:-1], self.shape[1]))
        return sums.index_add_(-1, self.group, values).index_select(-1, self.group)

    def log_mean(self, a):
        """Log-probability of each category, shape of ``a``."""
        return self._flat(log_softmax(self._padded(a), dim=-2))

    def mean(self, a):
        """Probability of each category, shape of ``a``."""
        return self._flat(torch.softmax(self._padded(a), dim=-2))

    def sample(self, a, generator, precision=None, out=None):
        """One one-hot draw for each row and group."""
        padded = torch.softmax(self._padded(a), dim=-2)
        index = _drawn(padded, generator, -2)
        drawn = self._flat(padded.zero_().scatter_(-2, index, 1.0))
        return drawn if out is None else out.copy_(drawn)

    def negative_log_likelihood(self, a, x, weight=None):
        """-log P(x | r(a)) of each row, shape (n_samples,); columns weighted by ``weight``."""
        return self.column_losses(a, x, weight).sum(-1)

    def column_losses(self, a, x, weight=None):
        """-x_i log r_i of each column, shape of ``a``."""
        return _times(-x * self.log_mean(a), weight)

    def value_and_residual_(self, a, x, weight=None, scale=1.0):
        """``scale`` * the sum of losses less the constant; ``a`` becomes its gradient / scale."""
        target = x if weight is None else weight * x
        log_mean = self.log_mean(a)
        value = -_inner(target, log_mean)
        torch.exp(log_mean, out=a)
        # Groups whose columns are all 0 are not observed, and weights may differ.
        a.mul_(self._group_sums(target)).sub_(target)
        return value.mul_(scale), a

    def jacobian_product(self, a, matrix):
        """dr/da @ matrix for each row, (diag(r) - r r^T) matrix in each group."""
        r = self.mean(a).unsqueeze(-1)
        sums = self._group_sums((r * matrix).transpose(-1, -2)).transpose(-1, -2)
        return r * (matrix - sums)

    def energy(self, x, bias, precision=None):
        """Energy of visible units without hidden ones, -x.c, shape (n_samples,)."""
        return -torch.matmul(x, bias)

    def log_normalizer(self, u, bias, precision=None):
        """Log of the sum over all x of exp(u.x - energy(x)): a logsumexp for each group."""
        return torch.logsumexp(self._padded(u + bias), dim=-2).sum(-1)

    def bias_for_mean(self, mean):
        """The pre-activation at which the units' mean is ``mean``."""
        return torch.log(torch.maximum(mean, 1e-4 / self.size))


# Up to so many numbers torch and its matrix library sum on one thread. More are summed row by row,
# so that the bits do not depend on the number of threads.
_SUMMED_AT_ONCE = 4096


def _total(values):
    """The sum over rows and columns, for each model where there are several."""
    if values.dim() < 3:
        return values.sum() if values.numel() <= _SUMMED_AT_ONCE else values.sum(-1).sum()
    return values.sum((-2, -1))


# Numbers from which on logarithms cost more than the calls that save some of them.
_MANY_LOGARITHMS = 2**15


def _log_products(values):
    """Logarithms of products of many values in [0.5, 1], whose sum is that of all logarithms.

    A product of 64 of them is at least 2^-64, far above what is the smallest number of float32.
    """
    if values.numel() < _MANY_LOGARITHMS:
        return values.log_()
    values = values.reshape(*values.shape[:-2], -1)
    whole = values.shape[-1] // 64 * 64
    products = values[..., :whole].unflatten(-1, (-1, 64)).prod(-1)
    if whole == values.shape[-1]:
        return products.log_().unsqueeze(-2)
    return torch.cat([products, values[..., whole:]], -1).log_().unsqueeze(-2)


def _inner(a, b):
    """The sum of products over rows and columns, for each model where there are several."""
    if a.dim() < 3:
        if a.numel() <= _SUMMED_AT_ONCE:
            return torch.dot(a.reshape(-1), b.reshape(-1))
        return torch.linalg.vecdot(a, b).sum()
    # As products of a row and a column, which is what torch makes of it, they take thrice as long.
    return _total(a * b)


def _drawn(probability, generator, dim):
    """The number of a category along an axis, drawn: which of exponential clocks rings first.

    They ring at rates p. Where these are not finite, as of weights that explode, it is any.
    """
    time = torch.empty_like(probability).exponential_(generator=generator)
    time.clamp_(min=torch.finfo(time.dtype).tiny)
    return torch.div(probability, time, out=time).argmax(dim, keepdim=True)


def _times(losses, weight):
    return losses if weight is None else losses * weight


def _weighted_(residual, weight):
    return residual if weight is None else residual.mul_(weight)
