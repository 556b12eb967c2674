"""Gaps: what was not observed of a row comes as NaN, and has no part in a loss."""

import torch


def observed(
    x: torch.Tensor, fill: torch.Tensor | float | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows whose gaps are filled, and the mask of what was observed; None where all of it was.

    ``fill``, of shape (n_features,), stands where x is NaN; None: 0.
    """
    # A sum is NaN if an entry is, and takes a fifth of the time of a look at all.
    gaps = torch.isnan(x) if bool(x.sum().isnan()) else None
    if gaps is None or not bool(gaps.any()):
        return x, None
    if isinstance(fill, torch.Tensor):
        return torch.where(gaps, fill.to(x), x), ~gaps
    return x.masked_fill(gaps, fill or 0.0), ~gaps


def observed_loss(units, a, x, mask, weight=None):
    """-log P of what was observed of each row, shape (n_samples,).

    ``mask`` tells of what was observed; None: all. Where it is False, x is any finite number.
    """
    if mask is None:
        return units.negative_log_likelihood(a, x, weight)
    seen = mask.to(a.dtype)
    loss = units.negative_log_likelihood(a, x, seen if weight is None else seen * weight)
    return loss - missing_constant(units, mask, a.dtype)


def missing_constant(units, mask, dtype):
    """The part of the units' constant that is of columns not observed, of each row."""
    if units.column_constant is None:
        return 0.0
    return (~mask).to(dtype) @ units.column_constant.to(mask.device, dtype)
