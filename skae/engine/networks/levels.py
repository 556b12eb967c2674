r"""Networks that are told how much noise a row has, and what they add to what each column says.

A row with Gaussian noise of level s says of itself, column by column and without the others,

    real, of variance 1:      E[x | y] = y / (1 + s^2),  and errs by s / sqrt(1 + s^2)
    0 and 1, or one-hot:      log P(x = 1 | y) = log P(x = 1) + (y - 1/2) / s^2 + const

The output's pre-activation is that, plus what the network makes of all columns together, so that
it has as much to learn at every level (Karras et al. 2022): with little noise, next to nothing.
"""

from dataclasses import dataclass

import torch


def told_of(x: torch.Tensor, level: float | torch.Tensor) -> torch.Tensor:
    """What a network sees that is told the noise of rows: x / sqrt(1 + s^2), and log(s) / 2.

    ``level`` is s, a number or of shape (n_samples, 1). Rows are about as large whatever their
    noise (Karras et al. 2022).
    """
    level = torch.as_tensor(level, dtype=x.dtype, device=x.device).expand(len(x), 1)
    return torch.cat([x * (1 + level.square()).rsqrt(), 0.5 * level.log()], 1)


@dataclass(frozen=True)
class OwnColumn:
    """What columns say by themselves, of rows as the network sees them.

    ``real`` and ``drawn``, of shape (n_features,), are 1 for columns of real numbers, and for those
    of 0 and 1, or one-hot. Of others nothing is said.
    """

    real: torch.Tensor
    drawn: torch.Tensor

    def said_and_error(self, told: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The pre-activation without the network, and what the network's output is times."""
        level = torch.exp(2 * told[:, -1:])
        size = torch.sqrt(1 + level.square())
        x = told[:, :-1] * size
        said = self.real * (x / size.square()) + self.drawn * ((x - 0.5) / level.square())
        return said, 1 + self.real * (level / size - 1)

    def completed(self, output: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """The pre-activation of the units, from the network's output."""
        said, error = self.said_and_error(told)
        return torch.addcmul(said, output, error)

    def weights(self, row_weight: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """The weight of each column, of shape (n_samples, n_features).

        ``row_weight``, of shape (n_samples, 1), makes squared errors of all levels alike. What is
        drawn has losses in nats, which are alike already: of it, 1 + 1 / s^2 is taken off.
        """
        alike = 1 / (1 + torch.exp(-4 * told[:, -1:]))
        return row_weight * (1 + self.drawn * (alike - 1))
