"""Random draws that cost little: what a generator spends on bits is most of a coin's price."""

import torch

# From this many coins on, cutting two from each 64-bit draw beats one float per coin.
_MANY = 20_000


def random_mask(x, probability, generator):
    """Independent coins: True with ``probability``, a boolean tensor shaped like ``x``.

    Four coins are cut from each 64-bit draw; 16 bits resolve a probability to 1 / 65536.
    """
    n_coins = x.numel()
    draws = torch.empty((n_coins + 3) // 4, dtype=torch.int64, device=x.device)
    draws.random_(-(2**63), None, generator=generator)
    threshold = round(probability * 2**16) - 2**15
    if threshold > 2**15 - 1:
        return torch.ones_like(x, dtype=torch.bool)
    return (draws.view(torch.int16)[:n_coins] < threshold).view(x.shape)


def bernoulli(probability, generator, out=None):
    """Independent draws of 0 or 1, in the probabilities' shape and dtype.

    A draw is 1 where random bits, read as a number in [0, 1), are below the probability:
    32 bits, or in float32 the 24 that it can hold. torch's own ``bernoulli`` takes four
    times as long on a CPU.
    """
    out = torch.empty_like(probability) if out is None else out
    n_draws = probability.numel()
    if n_draws < _MANY:
        return out.uniform_(generator=generator).lt_(probability)
    bits = torch.empty((n_draws + 1) // 2, dtype=torch.int64, device=probability.device)
    bits.random_(-(2**63), None, generator=generator)
    bits, n_bits = bits.view(torch.int32)[:n_draws].view(probability.shape), 32
    if probability.dtype != torch.float64:
        bits, n_bits = bits.bitwise_right_shift_(8), 24
    out.copy_(bits)
    return out.lt_((probability - 0.5).mul_(2.0**n_bits))
