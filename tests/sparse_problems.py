"""Problems of sparse coding with atoms in general position."""

import numpy as np
import torch


def problem(n_samples=20, n_components=30, n_features=12, seed=0, dtype=torch.float64):
    """A dictionary of unit atoms and rows, both normally distributed."""
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((n_components, n_features))
    x = rng.standard_normal((n_samples, n_features))
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    return torch.tensor(D, dtype=dtype), torch.tensor(x, dtype=dtype)
