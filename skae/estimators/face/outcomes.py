"""How a fit can end other than well: exceptions, divergence, interruption, collapse."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skae._warnings import warn
from skae.diagnostics import constant_units
from skae.engine.networks.gaps import observed
from skae.engine.optimisation.rows import every, source_behind, varies

# A few dead units are usual in wide or relu layers; from this fraction on, warn.
_COLLAPSED = 0.5
# A model explains nothing if it reduces the loss of the mean by less than this, once it
# had this many epochs.
_EXPLAINED, _TIME_TO_LEARN = 0.01, 30
# A training that gave back this part of what it had gained went wrong.
_SETBACK = 0.5
# One whose last tenth brought more than this part of the loss's whole fall fell no slower at the
# end than on average.
_UNFINISHED = 0.1


class CollapsedCodeWarning(UserWarning):
    """A code that carries nothing: constant units, or reconstructions that are the mean."""


@contextmanager
def unchanged_by_errors(model) -> Iterator[None]:
    """A context that a model leaves as it was, where it ends by an error."""
    before = dict(vars(model))
    try:
        yield
    except BaseException:
        vars(model).clear()
        vars(model).update(before)
        raise


def report_outcome(model, training, max_iter, start_is_model=False, rate=None):
    """Warn of a training that diverged or was interrupted; raise if it learned nothing.

    ``max_iter`` are the epochs that were allowed, or None if they depended on the rows.
    ``start_is_model`` tells whether the weights at the start, which are kept where nothing better
    was found, are what an earlier phase of the same fit has learned; ``rate`` what the learning
    rate is, where it is not the model's.
    """
    rate = f"now {model.learning_rate:g}" if rate is None else rate
    name, n_epochs = type(model).__name__, len(training.loss_curve)
    if training.outcome == "diverged":
        # After a regular end every epoch was finite; the explosion came to light at the end.
        epoch = min(n_epochs + 1, max_iter or n_epochs + 1)
        message = (
            f"{name} diverged by epoch {epoch}: the loss or the weights exploded or are not "
            f"finite. Use a smaller learning_rate ({rate}) or weaker penalties"
        )
        if training.kept_epoch == 0 and start_is_model:
            kept = "This training made the model worse only: what it started from was kept"
            warn(f"{message}. {kept}.", ConvergenceWarning)
        elif training.kept_epoch == 0:
            raise ValueError(f"{message}. Nothing was learned.")
        else:
            warn(f"{message}. The best finite weights were kept.", ConvergenceWarning)
    elif training.kept_epoch == 0 and n_epochs > 0 and not start_is_model:
        warn(
            f"{name}: no epoch was better on the held-out rows than the model that training "
            f"started from, which was kept. Use a smaller learning_rate ({rate}"
            f") or more rows.",
            ConvergenceWarning,
        )
    elif training.setback > _SETBACK and n_epochs >= _TIME_TO_LEARN:
        warn(
            f"{name} lost more than half of its progress again: its loss rose to "
            f"{training.loss_curve[-1]:.6g} from {min(training.loss_curve):.6g} after epoch "
            f"{1 + np.argmin(training.loss_curve)}. Use a smaller learning_rate ({rate}"
            f"), learning_rate_schedule='linear' or fewer epochs.",
            ConvergenceWarning,
        )
    elif training.unfinished > _UNFINISHED and n_epochs >= _TIME_TO_LEARN:
        warn(
            f"{name} reached max_iter={n_epochs} while its loss still fell: the last tenth of the "
            f"epochs brought {training.unfinished:.0%} of its whole fall. Use a larger max_iter, "
            f"or max_iter='auto', or a larger learning_rate ({rate}).",
            ConvergenceWarning,
        )
    elif training.outcome == "interrupted":
        warn(
            f"{name} was interrupted after {n_epochs} epochs; the model fitted so far was kept.",
            ConvergenceWarning,
        )


def some_rows(X, weight, n_rows=1000):
    """About ``n_rows`` rows that count, spread over the whole of X."""
    if weight is None and source_behind(X) is not None:
        return every(X, max(1, X.shape[0] // n_rows))
    rows = np.arange(X.shape[0]) if weight is None else np.flatnonzero(weight)
    return X[rows[:: max(1, len(rows) // n_rows)]]


def report_collapse(model, fitted, X, training):
    """Warn if half of the units are constant over training rows, or only the mean was learned."""
    if training.outcome == "interrupted" or not varies(X):
        return  # the user knows, and waits; or there was nothing to learn
    if report_vanished(model, X, fitted) or training.outcome == "given":
        return  # given units are the user's choice
    if report_constant_units(model, fitted.codes(X)):
        return
    n_epochs = len(training.loss_curve)
    had_time = training.outcome == "converged" or n_epochs >= _TIME_TO_LEARN
    if had_time and explained(model, X, fitted) < _EXPLAINED:
        warn(
            f"After {n_epochs} epochs the reconstructions are hardly better than the mean of the "
            "training rows, so the codes carry next to nothing. "
            f"{model._collapse_remedy}",
            CollapsedCodeWarning,
        )


def report_constant_units(model, codes):
    """Warn if half of the units are constant in codes of training rows; return whether they are."""
    constant = constant_units(codes)
    collapsed = constant.mean() >= _COLLAPSED
    if collapsed:
        warn(
            f"{constant.sum()} of {len(constant)} code units are constant on the training rows of "
            f"this {type(model).__name__}. {model._collapse_remedy}",
            CollapsedCodeWarning,
        )
    return collapsed


def report_vanished(model, X, fitted=None):
    """Warn if all codes of X are zero, of the alpha from which on they are; return whether so."""
    engine, theta = fitted = model._fitted_model(X) if fitted is None else fitted
    if engine.largest_alpha is None:
        return False
    largest = float(fitted.map_rows(lambda x: engine.largest_alpha(theta, x), X).max())
    if model.alpha < largest:
        return False
    if largest > 0:  # else the rows are zero, and so are the right codes
        warn(
            f"All codes of this {type(model).__name__} are zero: alpha={model.alpha:g} is more "
            f"than any atom explains of these rows. The largest useful alpha is {largest:.4g}; "
            "for codes of several atoms take a tenth of it.",
            CollapsedCodeWarning,
        )
    return True


def explained(model, X, fitted=None):
    """The part of the loss of the training rows' mean that reconstructions of X save."""
    engine, theta = fitted = model._fitted_model(X) if fitted is None else fitted
    mean = engine.units.bias_for_mean(model.columns_.mean_like(theta.flat))

    def losses(x):
        x, mask = observed(x, engine.fill)
        of_mean = engine.units.negative_log_likelihood(mean.unsqueeze(0), x, mask)
        own = engine.units.negative_log_likelihood(engine.reconstruct(theta, x), x, mask)
        return torch.stack([own, of_mean], 1)

    losses_of_rows = fitted.map_rows(losses, X, (2,), gaps=True)
    own, of_mean = losses_of_rows.mean(0) - engine.units.constant
    return 1 - own / of_mean


def report_unsolved(model, n_unsolved, n_rows, tol, max_iter, is_single):
    """Warn of codes that are less accurate than ``tol``, which was asked for."""
    if n_unsolved:
        warn(
            f"{n_unsolved} of {n_rows} codes of this {type(model).__name__} did not come within "
            f"{tol:g} of their optimum in {max_iter} steps. "
            f"{'Pass float64 data, allow' if is_single else 'Allow'} more steps or a larger "
            "tolerance, or use a larger alpha, which makes the problem easier.",
            ConvergenceWarning,
        )
