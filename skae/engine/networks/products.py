"""Products of one model, or of several at once, whose tensors have an axis more, the first."""

import torch


def affine(bias, x, weight, out=None):
    """``x W + b``, where W has a row for each input."""
    if x.dim() == 2:
        return torch.addmm(bias, x, weight, out=out)
    return torch.baddbmm(bias.unsqueeze(1), x, weight, out=out)


def add_product_(target, left, right, *, is_first, scale):
    """Add scale * left^T right to the target, or write it there if it is the first."""
    if target.dim() == 2:
        target.addmm_(left.t(), right, beta=0 if is_first else 1, alpha=scale)
    else:
        # Several products at once are fast where they have memory of their own.
        add_(target, torch.bmm(left.mT, right), is_first=is_first, scale=scale)


def add_(target, change, *, is_first, scale):
    """Add scale * change to the target, or write it there if it is the first."""
    if is_first:
        torch.mul(change, scale, out=target)
    else:
        target.add_(change, alpha=scale)
