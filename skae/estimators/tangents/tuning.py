"""What fine-tuning needs of the tangents: as the lowest layer that is tuned sees its rows."""

import numpy as np
import torch

from skae.diagnostics.jacobians import map_jacobians
from skae.engine.networks.affine_maps import encoder_maps, linearized
from skae.engine.networks.jacobians import DifferentiatedJacobian
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import summarize_columns


def frozen_planes(theta, levels):
    """The Jacobians of the code of some levels at any rows, with the parameters of now.

    Parameters
    ----------
    theta : Parameters
        Copied: what training does to them does not matter.
    levels : sequence of Level

    Returns
    -------
    planes : callable
        x of shape (n_rows, n_features) -> Jacobian, of `skae.engine.networks.jacobians`.
    """
    frozen, maps = Parameters(theta.shapes, theta.flat.clone()), encoder_maps(levels)
    if maps is not None:
        return lambda x: linearized(frozen, x, maps)[1]

    def code(x):
        for number, level in enumerate(levels):
            x = level.standardized(x) if number > 0 else x
            x = level.encode(frozen.part(level.prefix), x)
        return x

    return lambda x: DifferentiatedJacobian(code, x)


def spread(columns, rows, weight):
    """Root mean square distance of standardised rows from their mean."""
    deviation = summarize_columns(rows, weight).std
    if columns.is_standardized:
        deviation = deviation / columns.scale
    return float(np.linalg.norm(deviation))


def seen_directions(encoder, first, data, directions):
    """Directions at rows of data, in units of the data, as layer ``first`` sees them."""
    columns = encoder.columns_
    if columns.is_standardized:
        directions = directions / columns.scale.astype(directions.dtype)
    if first == 0:
        return directions
    below = encoder._shallow_copy().set_params(code_layer=first - 1)
    pushed = np.empty((*directions.shape[:2], below._n_features_out), directions.dtype)

    def push(jacobian, rows):
        found = jacobian.times(torch.tensor(directions[rows]).to(jacobian.like))
        pushed[rows] = found.cpu().numpy()
        return jacobian.like[:, 0]

    map_jacobians(below, data, push, (), "encoder")
    above = encoder.layers_[first].columns_
    return pushed / above.scale.astype(pushed.dtype) if above.is_standardized else pushed
