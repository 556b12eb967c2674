"""What is fine-tuned, on which rows, and what it descends on."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length

from skae._validation import as_array, check_rows, check_weights, make_generator
from skae.engine.optimisation import processes
from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.models import Model, rows_that_count, split
from skae.engine.optimisation.rows import summarize_columns
from skae.engine.stacks.stacking import Layerwise
from skae.engine.stacks.supervised import Supervised, mean_loss
from skae.estimators.face.rows import of_encoded_rows
from skae.estimators.face.training import place_for
from skae.estimators.labels import Table
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.stacks.layers import models_of, weights_of
from skae.estimators.stacks.lowest_layer import lowest_layer
from skae.estimators.stacks.pretraining import codes_of
from skae.estimators.targets import Targets

_CPU = torch.device("cpu")


class Read(NamedTuple):
    """What the user passed, checked.

    ``data`` is an ndarray or CSR matrix, ``weight`` of mean 1, ``table`` y with a column for each
    output, and ``targets`` the table as the engine sees it, whose totals are of weights as the user
    passed them.
    """

    data: Any
    weight: np.ndarray | None
    table: Table
    targets: Targets


class Task(NamedTuple):
    """What is fine-tuned, and on what.

    The ``stack`` is as before the first step, and ``is_fresh`` if it was pre-trained just now. Of
    its layers, those from ``first`` on are trained; ``models`` are theirs, perhaps none, and
    ``weights`` theirs and the output's, from which training begins. ``rows`` are what the lowest
    of them sees of the ``data``, before it standardises. ``targets`` are of all rows, those held
    out among them; ``index`` has the rows that count and are not held out, and ``labelled``, of
    shape (n_samples,), tells whose targets are learned. ``options`` are for all criteria: see
    `Supervised`.
    """

    stack: StackedAutoEncoder
    is_fresh: bool
    first: int
    models: list[Model]
    weights: dict[str, np.ndarray]
    place: Place
    data: Any
    rows: Any
    weight: np.ndarray | None
    targets: Targets
    index: torch.Tensor
    labelled: torch.Tensor
    options: dict

    @property
    def known(self) -> torch.Tensor:
        """The rows of the index that have a target."""
        return self.index[self.labelled[self.index]]

    @property
    def others(self) -> torch.Tensor:
        """Those that have none."""
        return self.index[~self.labelled[self.index]]

    def fraction(self, index: torch.Tensor) -> float:
        """The part of some rows that has a target."""
        total = processes.current().total
        return max(1, total(int(self.labelled[index].sum()))) / max(1, total(len(index)))


class Criterion(NamedTuple):
    """What the whole descends on, and which rows it needs.

    ``objective()`` is a new `Supervised`; ``index`` has the rows of an epoch, some perhaps several
    times; ``directions`` and ``position`` are as of `LabelledRows`; ``max_iter`` are epochs, where
    these are not the model's parameter; ``facts`` is what the model shows, by attributes' names.
    """

    objective: Callable[[], Supervised]
    index: torch.Tensor
    directions: Any = None
    position: torch.Tensor | None = None
    max_iter: int | None = None
    facts: Mapping = MappingProxyType({})


class FittedOutput(NamedTuple):
    """What an output has learned: ``weights`` of shape (n_outputs, n_codes), ``bias`` of shape
    (n_outputs,), ``n_iter``, the steps that it took, and ``facts``, what else the model shows, by
    attributes' names.
    """

    weights: np.ndarray
    bias: np.ndarray
    n_iter: int
    facts: Mapping = MappingProxyType({})


def labelled_criterion(
    task: Task, unsupervised_weight: float = 0.0, adversarial_step: float = 0.0
) -> Criterion:
    """The loss of the rows with a target, and the layers' own criteria of all rows.

    The rows are learned after moves, too, whose length is ``adversarial_step`` times `spread_of`.
    """
    keeps_own = unsupervised_weight > 0 and len(task.models) > 0
    index = task.index if keeps_own else task.known
    is_moved = adversarial_step > 0 and len(task.models) > 0
    length = adversarial_step * spread_of(task) if is_moved else 0.0

    def objective():
        own = [model.objective() for model in task.models] if keeps_own else None
        return Supervised(
            task.models,
            labelled_fraction=task.fraction(index),
            adversarial_step=length,
            unsupervised=Layerwise(task.models, own, task.first) if keeps_own else None,
            unsupervised_weight=unsupervised_weight,
            **task.options,
        )

    return Criterion(objective, index)


def spread_of(task: Task) -> float:
    """Root mean square distance of a task's rows from their mean, as the net sees them."""
    columns = task.stack.layers_[task.first].columns_
    deviation = summarize_columns(task.rows, task.weight).std
    return float(np.linalg.norm(deviation / (columns.scale if columns.is_standardized else 1)))


def read_rows(model, X, y, sample_weight, *, is_fresh, by_blocks=False, **announced):
    """What the user passed, checked; the model notes what it says of columns and targets.

    ``by_blocks`` tells whether rows that are not in memory will do.
    """
    if y is None:
        raise ValueError(
            f"This {type(model).__name__} requires y to be passed, but the target y is None."
        )
    options = {"sample_weight": sample_weight, "lowest": lowest_layer(model)}
    data = check_rows(model, X, reset=is_fresh, by_blocks=by_blocks, **options)
    kind = model._targets()
    table = kind.checked(y)
    check_consistent_length(data, table.values)
    weight = check_weights(sample_weight, data)
    if is_fresh:
        kind = kind.described(table, weight, **announced)
        vars(model).update(kind.facts)
    targets = kind.encoded(table, weight)
    if sample_weight is not None:
        # Weights count as the user passed them, which are not 1 on average.
        given = np.ravel(np.asarray(as_array(sample_weight), dtype=np.float64))
        targets = targets.times(float(processes.current().average(given[given > 0])))
    return Read(data, weight, table, targets)


def held_out_rows(model, table: Table, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Labelled rows to train on, and those to hold out, with like parts of every class."""
    generator = make_generator(model.random_state, _CPU)
    labelled = torch.tensor(np.flatnonzero(targets.labelled))
    index, held_out = split(labelled, model.validation_fraction, generator)
    both, n_held_out = torch.cat([index, held_out]).numpy(), len(held_out)
    strata = targets.kind.strata(table, both, n_held_out)
    if strata is None:
        return index.numpy(), held_out.numpy()
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    index, held_out = train_test_split(
        both, test_size=n_held_out, stratify=strata, random_state=seed
    )
    return index, held_out


def make_task(
    model,
    read: Read,
    seen: Targets,
    held_out: np.ndarray | None,
    stack: StackedAutoEncoder,
    n_tuned: int,
    output: FittedOutput,
    *,
    is_fresh: bool,
    watched: Read | None = None,
) -> Task:
    """The task of fine-tuning the top ``n_tuned`` layers of a stack, and its output.

    ``seen`` are the targets that are learned from, ``held_out`` positions of the rows by which
    training is judged, or None, and ``output`` the one with which it begins. ``watched`` are rows
    of the user's own that judge it instead.
    """
    first = len(stack.layers_) - n_tuned
    layers = stack.layers_[first:]
    rows = read.data if first == 0 else codes_of(layers_below(stack, first), read.data)
    place = place_for(model, rows)
    index, labelled = rows_that_count(len(seen.labelled), read.weight), seen.labelled
    if held_out is not None:
        index = index[torch.tensor(~np.isin(index.numpy(), held_out))]
    kind = read.targets.kind
    is_held_out = held_out is not None or watched is not None
    validation_loss = kind.validation_loss() if is_held_out else None
    judged = labelled if held_out is None else held_out
    dropout = model.dropout if isinstance(model.dropout, tuple) else (0.0, model.dropout)
    options = {
        "units": kind.units(place.device),
        "first": first,
        "weight_decay": model.output_penalty / model.labelled_weight_,
        "dropout": (dropout[min(first, 1)], dropout[1]),
        "validation_loss": validation_loss,
        "baseline": _loss_of_nothing(read, judged, validation_loss)
        if watched is None
        else _loss_of_nothing(watched, watched.targets.labelled, validation_loss),
    }
    return Task(
        stack=stack,
        is_fresh=is_fresh,
        first=first,
        models=models_of(layers, place),
        weights=weights_with_output(layers, output, first),
        place=place,
        data=read.data,
        rows=rows,
        weight=read.weight,
        targets=read.targets,
        index=index,
        labelled=torch.tensor(labelled),
        options=options,
    )


def layers_below(stack: StackedAutoEncoder, number: int) -> StackedAutoEncoder:
    """The layers of a fitted stack below one of them, as a stack of checked rows."""
    below = of_encoded_rows(stack)
    below.layers_, below.code_layer = stack.layers_[:number], -1
    return below


def weights_with_output(layers, output, first=0):
    """What layers and the output have learned, by the names of the engine."""
    own = {"output_weight": output.weights, "output_bias": output.bias}
    return weights_of(layers, first) | own


def _loss_of_nothing(read, rows, validation_loss):
    """What an output that knows nothing but the targets' mean would be judged at."""
    values, weight = read.targets.tensors(Place(torch.float64, _CPU))
    rows = torch.as_tensor(rows)
    values, weight = values[rows], None if weight is None else weight[rows]
    everyone = processes.current()
    n_rows = everyone.total(len(values))
    if not n_rows:
        return -math.inf
    output = read.targets.start_bias().expand_as(values)
    if not everyone.is_joined:
        units = read.targets.kind.units(_CPU)
        return float(mean_loss(units, output, values, weight, validation_loss))
    units, loss = read.targets.kind.units(_CPU), 0.0
    if len(values):
        loss = float(mean_loss(units, output, values, weight, validation_loss)) * len(values)
    return everyone.total(loss) / n_rows
