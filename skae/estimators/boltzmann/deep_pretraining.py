"""How the training of a deep Boltzmann machine begins: machines of two layers each, in turn, or
a restricted machine that is there already.
"""

from sklearn.frozen import FrozenEstimator

from skae._validation import make_generator
from skae._warnings import of_layer
from skae.engine.boltzmann.deep_training import composed, extended, half_machine
from skae.engine.networks.units import Bernoulli
from skae.engine.optimisation import processes
from skae.engine.optimisation.models import AFRESH, FittedModel, Start, some_of
from skae.engine.optimisation.rows import all_rows, made_of, merged, summarize_columns
from skae.engine.optimisation.runs import Data
from skae.engine.optimisation.sources import Source
from skae.estimators.boltzmann.machines import base_bias, whole
from skae.estimators.boltzmann.rbm import RBM
from skae.estimators.boltzmann.sampling import report_chains
from skae.estimators.face.densities import log_volume
from skae.estimators.face.training import (
    place_for,
    rows_for,
    run_training,
    settings_of,
    weights_at,
)


def pretrained(model, X, weight):
    """The `Start` of a deep machine that machines of two layers each have learned.

    Rows are checked, as are their weights. The columns of ``model`` are known.
    """
    how, sizes = model.pretraining, model._sizes
    if isinstance(how, FrozenEstimator):
        return _on_top_of(how.estimator, model)
    whole(X, "pretraining learns from", "Set pretraining=None: multi-prediction needs no other.")
    if isinstance(how, str):
        how = RBM(batch_size=model.batch_size, device=model.device, verbose=model.verbose)
        how.max_iter = model.max_iter
    how._check_parameters()
    place = place_for(model, X)
    generator = make_generator(model.random_state, place.device)
    index = all_rows(X, weight, place.dtype.itemsize)
    weights = weights_at(weight, place)
    machines, curves, units = [], [], model.columns_.units(place.device)
    bias, columns = base_bias(model.columns_, place), model.columns_
    shift, scale = columns.standardization(place)
    of_columns = {
        "least_variance": model._least_variance(),
        "shift": shift,
        "scale": scale,
        "log_volume": log_volume(columns),
    }
    seen, mean = X, columns.mean_like(bias)
    for number in range(len(sizes) - 1):
        engine = half_machine(
            number,
            len(sizes) - 1,
            units,
            sizes,
            bias,
            report=report_chains if how.persistent else None,
            n_gibbs_steps=how.n_gibbs_steps,
            persistent=how.persistent,
            n_chains=how.batch_size,
            penalties=how._all_penalties(),
            visible_offset=mean if how.centered else None,
            **(of_columns if number == 0 else {}),
        )
        data = Data(rows_for(engine, seen, place), index, some_of(index), weight=weights)
        with of_layer(number):
            # What a machine is depends on how many there are above and below.
            options = {"settings": settings_of(how), "role": (number, len(sizes))}
            fitted = run_training(how, engine, data, AFRESH, generator=generator, **options)
        if fitted.training.outcome == "interrupted":
            raise KeyboardInterrupt
        machines.append(fitted.weights)
        curves.append(fitted.training.loss_curve)
        if number + 2 < len(sizes):
            below = FittedModel.of(engine, fitted.weights, place)
            seen = made_of(below.codes, seen, engine.n_codes)
            if isinstance(seen, Source):
                summaries = processes.current().gather(summarize_columns(seen, weight))
                mean = place.tensor(merged(summaries).mean)
            else:
                mean = place.tensor(processes.current().average(seen, weight))
            bias = Bernoulli().bias_for_mean(mean)
    return Start(composed(machines), was_learned=True, facts={"layer_loss_curves_": curves})


def _on_top_of(lowest, model):
    """The `Start` of a machine whose lowest two layers are a fitted RBM."""
    sizes, columns = model._sizes, model.columns_
    if lowest.weights_["weight_0"].shape != (sizes[1], sizes[0]):
        n_units, n_columns = lowest.weights_["weight_0"].shape
        raise ValueError(
            f"The fitted RBM of pretraining has {n_units} units over {n_columns} columns, but the "
            f"lowest hidden layer has {sizes[1]} over {sizes[0]}. The numbers must agree."
        )
    if not columns.are_seen_as(lowest.columns_):
        raise ValueError(
            "The fitted RBM of pretraining sees columns as other kinds, or by other means and "
            "scales, than this machine does. Fit it to the same rows, with the same visible."
        )
    generator = make_generator(model.random_state, "cpu")
    return Start(extended(lowest.weights_, sizes, generator), was_learned=True)
