"""What chains of parameters are worth, by what models make of some training rows."""

from math import ceil

import numpy as np

from skae.diagnostics import effective_sample_size, potential_scale_reduction

# Rows, and functions of them, by which chains are judged.
_ROWS, _FUNCTIONS = 20, 200
# Averages are within a third of the spread of the draws from ten independent ones on.
_FEWEST, _APART = 10.0, 1.1
# Acceptance at which chains hardly move.
_REJECTS, _NEVER_REJECTS = 0.2, 0.995


def watched(problem):
    """A function of parameters: what the model makes of some rows, an array of one dimension."""
    model, index = problem.model, problem.data.index
    some = index[:: max(1, len(index) // _ROWS)]
    batch, _ = problem.data.batch(some.to(problem.data.rows.place.device))
    x = model.filled(getattr(batch, "x", batch)[:_ROWS])

    def outputs(theta):
        means = model.units.mean(model.reconstruct(theta, x)).reshape(-1)
        return means[:: max(1, ceil(len(means) / _FUNCTIONS))].cpu().numpy().astype(np.float64)

    return outputs


def worth(traces: np.ndarray) -> tuple[float, float]:
    """How many independent draws the moves of chains are worth, and R-hat: medians over outputs.

    R-hat is NaN for one chain. A ValueError tells of chains that have left all bounds.
    """
    outputs = traces[:, :, 1:]
    if not np.isfinite(outputs).all():
        raise ValueError(
            "Chains left all bounds. Use a smaller step_size, or penalties that bound parameters."
        )
    size = float(np.median(effective_sample_size(outputs)))
    agree = potential_scale_reduction(outputs) if len(outputs) > 1 else np.nan
    return size, float(np.median(agree))


def trouble_of(acceptance: float, size: float, r_hat: float) -> str | None:
    """What to warn of."""
    remedy = "Use a larger burn_in, thinning or n_members"
    if acceptance < _REJECTS or acceptance > _NEVER_REJECTS:
        change = "smaller" if acceptance < _REJECTS else "larger"
        return (
            f"{acceptance:.1%} of the proposals were accepted, so that chains hardly move. Use a "
            f"{change} step_size, or 'auto' and a larger burn_in."
        )
    if not size >= _FEWEST:
        return (
            f"The draws are worth {size:.3g} independent ones, too few to average over. {remedy}."
        )
    if r_hat > _APART:
        return (
            f"Chains have not come together (r_hat_ is {r_hat:.3g}): averages depend on which of "
            f"them are taken. {remedy}."
        )
    return None
