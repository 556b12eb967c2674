"""From two guesses of a variable to what fills its gaps."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls
from sklearn.utils import get_tags

from skae.frames.encoding import Variable

# That half of each guess is best is believed as if so many cells had told.
_PRIOR = 10
# Residuals of a number that draws are made of.
_RESIDUALS = 2_000


class Filler(NamedTuple):
    """How a variable's gaps are filled; fitted state of `DenoisingImputer`.

    - ``variable``: what it is, of the encoding; ``columns``: its slice of the rows as they are
      learned from.
    - ``mean``: of its columns; ``network``, ``normal``: what counts of the two guesses, so that
      the guess is mean + network (network's - mean) + normal (normal's - mean).
    - ``residuals``: what that left of hidden cells, for numbers.
    """

    variable: Variable
    columns: slice
    mean: np.ndarray
    network: float
    normal: float
    residuals: np.ndarray

    def guess(self, network: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """The expected value of a number, or the probabilities of categories, of each row."""
        guess = self.mean + self.network * (network - self.mean)
        guess += self.normal * (normal - self.mean)
        if self.variable.is_numeric:
            return guess
        guess = np.clip(guess, 1e-9, 1)
        return guess / guess.sum(axis=1, keepdims=True) if guess.shape[1] > 1 else guess

    def weighed(self, target, network, normal, rng: np.random.RandomState) -> "Filler":
        r"""The same with weights by least squares, not negative, of cells that are known.

        Half of each guess is what is believed at first.
        """
        target = target - self.mean
        deviations = np.stack([(g - self.mean).ravel() for g in (network, normal)], axis=1)
        spread = 1.0 if self.variable.is_numeric else 0.1
        prior = np.sqrt(_PRIOR * spread) * np.eye(2)
        left = np.concatenate([target.ravel(), prior.sum(axis=1) / 2])
        weights, _ = nnls(np.vstack([deviations, prior]), left)
        residuals = target.ravel() - deviations @ weights
        if not self.variable.is_numeric or not len(residuals):
            residuals = np.zeros(1)
        if len(residuals) > _RESIDUALS:
            residuals = rng.choice(residuals, size=_RESIDUALS, replace=False)
        network, normal = weights.tolist()
        return self._replace(network=network, normal=normal, residuals=residuals)

    def draw(self, guess: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """A value of each row, with the spread that the guess leaves."""
        if self.variable.is_numeric:
            return guess + rng.choice(self.residuals, size=guess.shape)
        if guess.shape[1] == 1:
            return (rng.random_sample(guess.shape) < guess).astype(guess.dtype)
        order = np.cumsum(guess, axis=1)
        place = (rng.random_sample((len(guess), 1)) > order[:, :-1]).sum(axis=1)
        return np.eye(guess.shape[1])[place]


def require_member(estimator) -> None:
    """Raise a ValueError for a model that takes no gaps, or has not a loss for each column."""
    if "loss" not in estimator.get_params() or not get_tags(estimator).input_tags.allow_nan:
        raise ValueError(
            f"estimator={estimator!r} must be an AutoEncoder or a variant of it, which takes rows "
            "with gaps and has a loss for each column."
        )
