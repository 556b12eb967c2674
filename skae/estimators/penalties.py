"""The penalties that the parameters of an auto-encoder ask for."""

from skae.engine.networks.neighborhoods import Neighborhood
from skae.engine.networks.penalties import (
    CONTRACTIONS,
    SPARSITY_PENALTIES,
    HessianContraction,
    WeightDecay,
)
from skae.estimators.face.layer_sizes import sizes_of_layers
from skae.estimators.face.training import decay_in_criterion

# Random directions by which the Jacobian of a deep network is seen, unless the user says.
_FEW_DIRECTIONS = 2


def _directions_of(model):
    """How many random directions show a Jacobian; None: all of them."""
    if len(sizes_of_layers(model.hidden_layer_sizes)) == 0:
        return None  # all cost next to nothing
    return (
        _FEW_DIRECTIONS if model.contraction_directions == "auto" else model.contraction_directions
    )


def penalties_of(model):
    """The penalties that parameters name, and the user's own."""
    penalties = []
    if (decay := decay_in_criterion(model)) > 0:
        penalties.append(WeightDecay(decay))
    if model.sparsity > 0:
        penalty = SPARSITY_PENALTIES[model.sparsity_penalty]
        penalties.append(penalty(model.sparsity, model.sparsity_target))
    if model.contraction > 0:
        penalty = CONTRACTIONS[model.contraction_target]
        n_directions = _directions_of(model)
        seen_by = () if n_directions is None else (n_directions,)
        penalties.append(penalty(model.contraction, *seen_by))
    if model.hessian > 0:
        noise = model.hessian_noise, model.hessian_samples
        penalties.append(HessianContraction(model.hessian, *noise))
    if model.neighborhood > 0:
        penalties.append(Neighborhood(model.neighborhood, model.perplexity))
    return [*penalties, *model.penalties]
