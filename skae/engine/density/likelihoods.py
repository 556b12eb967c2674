r"""The law of a chain as a mixture: of what it may draw next, over the states that it visits.

    p(x) = E_states P(x | state)

An uncountable mixture, whose weights are the law itself. The mean over finitely many states is a
lower bound in expectation, which grows with their number (Bengio, Yao & Cho 2013).
"""

import math

import torch

from skae.engine.density.denoisers import Denoiser

# Numbers of one comparison of rows with states.
_BLOCK = 2**23


def transition_log_likelihood(
    denoiser: Denoiser, x: torch.Tensor, output: torch.Tensor
) -> torch.Tensor:
    """Log mean_m P(x | corrupted state_m) of each row, of shape (n_samples,).

    ``output``, of shape (n_states, n_features), is the units' pre-activation for these states.

    P draws columns by themselves: real ones with the variance that the denoiser says, others by the
    units. It is the step "denoising" of `skae.engine.density.chains`.
    """
    mean, units = denoiser.model.units.mean(output), denoiser.model.units
    if denoiser.is_drawn is None or denoiser.variance is None:
        raise ValueError(
            "the denoiser has to say which columns are drawn, and the others' variance"
        )
    real, variance = ~denoiser.is_drawn, denoiser.variance.clamp(min=1e-12)
    precision = torch.where(real, 1 / variance, 0.0)
    constant = 0.5 * torch.log(2 * math.pi * variance[real]).sum()
    drawn = bool(denoiser.is_drawn.any())
    results = []
    for rows in x.split(max(1, _BLOCK // output.numel())):
        square = (rows.square() @ precision).unsqueeze(1) - 2 * (rows * precision) @ mean.t()
        square = square + (mean.square() @ precision)
        # The parts of a row that is too far away overflow with both signs.
        square = torch.where(torch.isnan(square), torch.inf, square)
        log_density = -0.5 * square - constant
        if drawn:
            losses = units.column_losses(*torch.broadcast_tensors(output, rows.unsqueeze(1)))
            log_density = log_density - losses @ denoiser.is_drawn.to(losses.dtype)
        results.append(torch.logsumexp(log_density, 1) - math.log(len(output)))
    return torch.cat(results)
