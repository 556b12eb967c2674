"""Samples of a stack: chains on the top auto-encoder, then down through the decoders."""

import torch

from skae._validation import check_is_fitted, make_generator
from skae.engine.optimisation.models import FittedModel
from skae.engine.optimisation.parameters import Parameters
from skae.engine.stacks.stacking import stacked
from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.density.models import denoiser_of, place_of_model
from skae.estimators.density.sampling import with_values
from skae.estimators.face.rows import in_data_form, of_encoded_rows, returns_rows
from skae.estimators.stacks.layers import models_of, number_of_code


@returns_rows
def sample(
    self,
    n_samples=1,
    *,
    method="auto",
    noise=None,
    n_steps=None,
    burn_in=200,
    init=None,
    n_chains=None,
    return_means=False,
    random_state=None,
):
    """Draw rows: chains on the top auto-encoder, and each of their states down through the others.

    The deep generative auto-encoder of Rifai et al. 2012: chains mix well on the codes that
    the layers below have made, and decoders turn these into rows.

    Parameters
    ----------
    n_samples : int, default=1
        Rows to return.
    method, noise, n_steps, burn_in, n_chains : object
        Of the top layer's chains, see :meth:`AutoEncoder.sample`.
    init : array-like of shape (n_chains, n_features), default=None
        Rows at whose codes the chains start. None: codes drawn by themselves, with the means of
        the training data's.
    return_means : bool, default=False
        Whether to return what the decoders make of the top layer's means, and no draws of columns
        that are 0 and 1 or categories.

    Returns
    -------
    samples : ndarray or data frame of shape (n_samples, n_features)
        In the units of the data, on the grid and in the range of the training data's columns, and
        in the order of :meth:`AutoEncoder.sample`; a data frame, if that is what the model was
        fitted on or ``set_output`` asks for.

    Raises
    ------
    ValueError
        If the top layer is no auto-encoder, or its training is not what the method is for.

    Warns
    -----
    ConvergenceWarning
        If chains leave the range of the codes, do not move, or collapse.
    """
    check_is_fitted(self)
    layers = self.layers_[: number_of_code(self, len(self.layers_)) + 1]
    if not isinstance(layers[-1], AutoEncoder):
        raise ValueError(
            f"Chains run on the top layer, which is of the kind {type(layers[-1]).__name__} here. "
            "Use an AutoEncoder with noise or a contraction there, or, for a stack of RBMs, "
            "DeepBeliefNetwork."
        )
    place = place_of_model(layers[0])
    seed = self.random_state if random_state is None else random_state
    generator = make_generator(seed, place.device)
    of_top = int(torch.randint(2**31, (), generator=generator, device=place.device))
    options = {
        "method": method,
        "noise": noise,
        "n_steps": n_steps,
        "burn_in": burn_in,
        "n_chains": n_chains,
        "return_means": return_means,
        "random_state": of_top,
    }
    if len(layers) == 1:
        return layers[0].sample(n_samples, init=init, **options)
    models = models_of(layers, place)
    theta = Parameters.from_numpy(self.weights_, dtype=place.dtype, device=place.device)
    below = FittedModel(stacked(models, n_coding=len(layers) - 1), theta)
    if init is not None:
        init = below.codes(self._checked(init))
    states = of_encoded_rows(layers[-1]).sample(n_samples, init=init, **options)
    lowest, units = layers[0], below.model.units
    means = below.map_codes(lambda h: units.mean(below.model.decode(theta, h)), states)
    if return_means or not isinstance(lowest, AutoEncoder):
        return self._decoded(means)
    drawn = with_values(denoiser_of(lowest, place), place.tensor(means), generator)
    return in_data_form(lowest, drawn.cpu().numpy().astype(means.dtype), are_means=False)
