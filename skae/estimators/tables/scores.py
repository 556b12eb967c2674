"""How like the training rows a row is to a fitted model, as a whole and by its columns.

A score is an object with ``rows(X)``, of shape (n_samples,), higher for what is more like the
training rows, and ``columns(X)``, of shape (n_samples, n_columns), whose terms sum to it but for a
number that no row changes. X are rows as encoded; of a score that ``reads_tables``, as the user's.
"""

import numpy as np
import torch
from scipy import sparse

from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.networks.gaps import observed
from skae.engine.networks.units import UNITS
from skae.estimators.face.rows import of_encoded_rows
from skae.estimators.face.transformer import Transformer

# Steps of an integral along a line, by the midpoint rule.
_STEPS = 32
# Part of a column's own variance below which residuals are no smaller.
_LEAST_VARIANCE = 0.02


class _OfEncodedRows:
    """What scores of a model of this package share: it sees rows as encoded."""

    reads_tables = False

    def __init__(self, model):
        self.model, self.encoding = of_encoded_rows(model), model.encoding_
        scaled = [c for name, c in model.columns_.parts if UNITS[name].standardizes]
        self.scaled = np.concatenate([np.arange(0), *scaled]).astype(np.intp)

    def _add_derivatives(self, terms, X, weight=1.0):
        """Terms by column, and the part of a log-derivative that differs from that at the median.

        It makes of a density of the encoded numbers one of the table's.
        """
        terms = terms.astype(np.float64)
        if self.encoding is not None:
            at_median = self.encoding.log_derivatives(np.zeros_like(X[:1]))
            derivatives = np.where(np.isnan(X), 0.0, self.encoding.log_derivatives(X) - at_median)
            terms[:, self.scaled] += weight * derivatives[:, self.scaled]
        return terms

    def _log_derivative(self, X):
        return 0.0 if self.encoding is None else self.encoding.log_derivative(X, self.scaled)


class Likelihood(_OfEncodedRows):
    """log P(x | r(x)), the terms by column those of the units' loss."""

    def rows(self, X):
        """The model's own score of each row."""
        return self.model.score_samples(X) + self._log_derivative(X)

    def columns(self, X):
        """The terms of that sum, without constants."""
        return self._add_derivatives(-self._map_columns(X, _losses), X)

    def _map_columns(self, X, function):
        """``function(units, output, x)`` of each column, 0 where it was not observed."""
        model, theta = fitted = self.model._fitted_model(X)

        def of_block(x):
            filled, mask = observed(x, model.fill)
            terms = function(model.units, model.reconstruct(theta, filled), filled)
            return terms if mask is None else terms * mask

        return fitted.map_rows(of_block, X, (model.n_features,), gaps=True)


class Surprise(Likelihood):
    r"""A likelihood with heavy tails, of the residuals' own size in each column.

    Numbers have Student's density of two degrees of freedom, scaled to their residuals over the
    training rows, whose squares have the mean v:

    .. math:: -\tfrac{3}{2} \log(1 + (x - r)^2 / (2 v)) + \tfrac{1}{2} \log \frac{dx}{dz}

    where x is a number z as encoded: the second term keeps apart what is far out and clipped. Truth
    values and categories have log P(x | r).
    """

    def __init__(self, model, X):
        super().__init__(model)
        residual = self._map_columns(X[:: max(1, X.shape[0] // 10_000)], _residuals)
        self.variance = np.square(residual).mean(axis=0) + _LEAST_VARIANCE

    def rows(self, X):
        """The sum over columns."""
        return self.columns(X).sum(axis=1)

    def columns(self, X):
        """The terms of each column."""
        if not sparse.issparse(X):
            X = X.astype(np.float64)  # so that a row's score does not depend on other rows
        variance = torch.as_tensor(self.variance[self.scaled])
        scaled = torch.as_tensor(self.scaled)

        def terms(units, output, x):
            found = -units.column_losses(output, x)
            square = (units.mean(output) - x)[:, scaled].square()
            found[:, scaled] = -1.5 * torch.log1p(square / (2 * variance.to(square)))
            return found

        return self._add_derivatives(self._map_columns(X, terms), X, 0.5)


class FreeEnergy(_OfEncodedRows):
    r"""-F(x), and by column an integral of its gradient along the line from the mean row m.

    .. math:: -(x_i - m_i) \int_0^1 \frac{\partial F}{\partial x_i}(m + t (x - m)) \, dt

    which sum to F(m) - F(x) (Aumann and Shapley's division of a cost).
    """

    def rows(self, X):
        """Minus the free energy."""
        return self._log_derivative(X) - self.model.free_energy(X)

    def columns(self, X):
        """Its parts by column."""
        model, theta = fitted = self.model._fitted_model(X)
        machine = BipartiteMachine(theta, model.units)
        mean = self.model.columns_.mean_like(theta.flat)

        def terms(x):
            total = 0.0
            with torch.inference_mode(False), torch.enable_grad():
                for step in range(_STEPS):
                    at = (mean + (step + 0.5) / _STEPS * (x - mean)).clone().requires_grad_()
                    energy = machine.free_energy(at).sum()
                    total = total + torch.autograd.grad(energy, at)[0]
            return (mean - x) * total / _STEPS

        return self._add_derivatives(fitted.map_rows(terms, X, (model.n_features,)), X)


class Own:
    """What `score_samples` of any estimator says, without terms by column."""

    reads_tables = True

    def __init__(self, model):
        self.model = model

    def rows(self, X):
        """The estimator's own score of each row; a ValueError where one is no number."""
        scores = np.asarray(self.model.score_samples(X), dtype=np.float64)
        if np.isnan(scores).any():
            raise ValueError(
                f"{self.model!r} gives row {np.flatnonzero(np.isnan(scores))[0]} the score NaN, "
                "which is neither above nor below another. Use other parameters of it, more rows, "
                "or another estimator."
            )
        return scores


def score_of(model):
    """The score of a fitted estimator, by what it is."""
    if not isinstance(model, Transformer):
        return Own(model)
    if hasattr(model, "free_energy"):
        return FreeEnergy(model)
    return Likelihood(model)


def _losses(units, output, x):
    return units.column_losses(output, x)


def _residuals(units, output, x):
    return units.mean(output) - x
