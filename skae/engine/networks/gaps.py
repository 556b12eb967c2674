"""Gaps: what was not observed of a row comes as NaN, and has no part in a loss."""

import torch


def observed(
    x: torch.Tensor, fill: torch.Tensor | float | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows whose gaps are filled, and the mask of what was observed; None where all of it was.

    ``fill``, of shape (n_features,), stands where x is NaN; None: 0.
    """
    gaps = torch.isnan(x)
    if not bool(gaps.any()):
        return x, None
    if isinstance(fill, torch.Tensor):
        return torch.where(gaps, fill.to(x), x), ~gaps
    return x.masked_fill(gaps, fill or 0.0), ~gaps
