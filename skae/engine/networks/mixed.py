"""Units of columns of several kinds."""

import torch

from skae.engine.networks.units import Pieces, Units


class Mixed(Units):
    """Different units for different columns: the sum of ``parts``, a list of (units, columns).

    Columns are a LongTensor or a slice; together they cover every column once.
    """

    def __init__(self, parts):
        self.parts = [(units, _as_slice(columns)) for units, columns in parts]
        self.constant = sum(units.constant for units, _ in parts)
        self.column_constant = self._constants() if self.constant else None

    def _constants(self):
        n_columns = sum(c.stop - c.start if isinstance(c, slice) else len(c) for _, c in self.parts)
        constants = [units.column_constant for units, _ in self.parts]
        known = next((constant for constant in constants if constant is not None), None)
        if known is None:
            return None
        result = known.new_zeros(n_columns)
        for constant, (_, columns) in zip(constants, self.parts, strict=True):
            if constant is not None:
                # Constants come from the host, columns may be on the device.
                where = columns if isinstance(columns, slice) else columns.to(result.device)
                result[where] = constant
        return result

    @property
    def likeness(self):
        """What units of the same columns share, but for the constant: a hashable value."""
        return tuple((units.likeness, _key(columns)) for units, columns in self.parts)

    def pieces(self, n_columns: int) -> Pieces | None:
        """Those of the parts."""
        every, found = torch.arange(n_columns), []
        for units, columns in self.parts:
            own = every[columns if isinstance(columns, slice) else columns.cpu()]
            pieces = units.pieces(len(own))
            if pieces is None:
                return None
            found += [(name, own[part]) for name, part in pieces]
        return found

    def mean(self, a):
        """Mean of each column given the pre-activation, shape of ``a``."""
        return self._scattered(a, lambda units, part: units.mean(part))

    @property
    def is_discrete(self):
        """Whether all units are."""
        return all(units.is_discrete for units, _ in self.parts)

    def sample(self, a, generator, precision=None, out=None):
        """One draw of each column; real ones of variance 1 or 1 / precision."""
        out = torch.empty_like(a) if out is None else out
        for units, columns in self.parts:
            own = None if precision is None else precision[columns]
            out[..., columns] = units.sample(a[..., columns], generator, own)
        return out

    def negative_log_likelihood(self, a, x, weight=None):
        """-log P(x | r(a)) of each row, shape (n_samples,); columns weighted by ``weight``."""
        return sum(
            units.negative_log_likelihood(
                a[:, columns], x[:, columns], None if weight is None else weight[:, columns]
            )
            for units, columns in self.parts
        )

    def column_losses(self, a, x, weight=None):
        """-log P of each column, but for the constant; shape of ``a``."""
        losses = torch.empty_like(a)
        for units, columns in self.parts:
            losses[..., columns] = units.column_losses(a[..., columns], x[..., columns])
        return losses if weight is None else losses * weight

    def value_and_residual_(self, a, x, weight=None, scale=1.0):
        """``scale`` * the sum of losses less the constant; ``a`` becomes its gradient / scale."""
        value = 0.0
        for units, columns in self.parts:
            part, residual = units.value_and_residual_(
                _taken(a, columns),
                _taken(x, columns),
                None if weight is None else _taken(weight, columns),
                scale,
            )
            _put_(a, columns, residual)
            value = value + part
        return value, a

    def jacobian_product(self, a, matrix):
        """dr/da @ matrix for each row, part by part."""
        product = torch.empty_like(matrix)
        for units, columns in self.parts:
            product[:, columns] = units.jacobian_product(a[:, columns], matrix[:, columns])
        return product

    def energy(self, x, bias, precision=None):
        """Energy of visible units without hidden ones: the sum of those of the parts."""
        return sum(
            units.energy(
                x[..., columns], bias[columns], None if precision is None else precision[columns]
            )
            for units, columns in self.parts
        )

    def log_normalizer(self, u, bias, precision=None):
        """Log of the sum and integral over all x of exp(sum_i precision_i u_i x_i - energy(x))."""
        return sum(
            units.log_normalizer(
                u[..., columns], bias[columns], None if precision is None else precision[columns]
            )
            for units, columns in self.parts
        )

    def bias_for_mean(self, mean):
        """The pre-activation at which the units' mean is ``mean``."""
        return self._scattered(mean, lambda units, part: units.bias_for_mean(part))

    def _scattered(self, a, function):
        result = torch.empty_like(a)
        for units, columns in self.parts:
            result[..., columns] = function(units, a[..., columns])
        return result


def _as_slice(columns):
    """Columns that lie one after the other as a slice, which copies nothing."""
    if isinstance(columns, slice) or len(columns) == 0:
        return columns
    first, last = int(columns[0]), int(columns[-1])
    if last - first + 1 == len(columns) and bool((columns[1:] > columns[:-1]).all()):
        return slice(first, last + 1)
    return columns


def _taken(values, columns):
    """Some of the columns, in memory of their own; twice as fast as an index by them."""
    if isinstance(columns, slice):
        return values[..., columns].contiguous()
    return torch.gather(values, -1, columns.expand(*values.shape[:-1], -1))


def _put_(values, columns, part):
    """Put values into the place of some of the columns."""
    if isinstance(columns, slice):
        values[..., columns] = part
    else:
        values.scatter_(-1, columns.expand(part.shape), part)


def _key(columns):
    """Columns as a hashable value."""
    if isinstance(columns, slice):
        return columns.start, columns.stop
    return tuple(columns.tolist())
