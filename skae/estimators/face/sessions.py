"""A fit that is kept: its trainings, one after the other, and how it goes on in another process.

A fit is a function of parameters and data; next to all of its time goes into trainings. So what is
kept are the results of those that have ended, and the state of the one that runs. Called again, the
fit does all that lies between anew, takes the results instead of training, and goes on from the
state. It thus needs to know nothing of what it is kept for, nor by which estimator.
"""

import os
import platform
import time
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from skae import _seeds
from skae._warnings import warn
from skae.engine.optimisation import processes
from skae.engine.optimisation.averaging import Average
from skae.engine.optimisation.models import Extras, Fitted, Model, fit_alone, trainer
from skae.engine.optimisation.resuming import Keeper, changed, changes
from skae.engine.optimisation.rows import digest
from skae.engine.optimisation.runs import Training
from skae.estimators import persistence
from skae.estimators.face.callbacks import Checkpoint, Snapshots, callbacks_of
from skae.estimators.face.fingerprints import (
    Identity,
    differences,
    identity_of,
    identity_of_all,
)
from skae.estimators.face.parameters import validate_parameters

_KIND = "checkpoint"
# Every so many steps several processes ask each other for the time.
_STEPS = 16


class About(NamedTuple):
    """What is known of a training before it begins: whose it is, and with which numbers.

    ``notes`` are lists of numbers to which a listener adds something after each epoch.
    """

    name: str
    model: Model
    has_gaps: bool
    generator: torch.Generator
    notes: list[list[float]]

    @property
    def key(self) -> list:
        """What has to be as it was for a result to be that of this training."""
        shapes = [[name, *shape] for name, shape in self.model.shapes.items()]
        state = digest(self.generator.get_state())
        return [self.name, shapes, "" if state is None else state.hex()]


class CheckpointFile:
    """The files of a checkpoint: the latest, and those before it."""

    def __init__(self, checkpoint: Checkpoint, identity: Identity):
        # As the fit begins: a training may use fewer threads.
        self.identity, self.made = identity, _surroundings()
        path = Path(checkpoint.path)
        if path.is_dir() or str(checkpoint.path).endswith(os.sep):
            name = "-".join(str(value[0]) for value in identity.values())
            of = digest(torch.tensor(list(name.encode()), dtype=torch.uint8))
            path = path / f"{identity['the estimator'][0]}-{'' if of is None else of.hex()}.skae"
        if not path.parent.is_dir():
            raise FileNotFoundError(
                f"There is no folder {path.parent} for the checkpoint {path}. Make it before."
            )
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(f"Checkpoints cannot be written to the folder {path.parent}.")
        older = [path.with_name(f"{path.name}.{number}") for number in range(1, checkpoint.keep)]
        self.path, self.places = path, [path, *older]
        self._is_good = False  # the latest, so that it may take the place of the one before
        self._fails = False

    def read(self) -> dict[str, Any] | None:
        """What was kept of the same fit; None if nothing was.

        Raises a ValueError if it was another fit, a ModelFileError if all files are damaged.
        """
        persistence.remove_unfinished(self.path)
        damaged: list[Exception] = []
        for place in self.places:
            if not place.exists():
                continue
            try:
                content = persistence.read(place, _KIND)
                kept = content["fit"]
            except (persistence.ModelFileError, KeyError, TypeError) as error:
                damaged.append(error)
                continue
            differing = differences(kept, self.identity)
            if differing:
                raise ValueError(
                    f"The checkpoint {place} is of another fit: {'; '.join(differing)}. Set back "
                    "what differs to go on from it; or delete its files, or pass another path, to "
                    "begin anew. With a folder for a path each fit has a file of its own."
                )
            for trouble in damaged:
                warn(f"{trouble}. The checkpoint before it, {place}, is used.", UserWarning)
            self._is_good = not damaged and place == self.path
            self._compare(content["made"])
            return content
        if damaged:
            troubles = " ".join(f"{trouble}." for trouble in damaged)
            raise persistence.ModelFileError(
                f"{troubles} No checkpoint is left to go on from: delete these files, or "
                "pass another path, to begin anew."
            ) from damaged[0]
        return None

    def write(self, content: dict[str, Any]) -> None:
        """Keep what there is now; warn if that is not possible."""
        content = {"fit": self.identity, "made": self.made, **content}
        try:
            persistence.write(self.path, _KIND, content, make_room=self._make_room)
        except OSError as error:
            if not self._fails:
                warn(
                    f"The checkpoint {self.path} cannot be written: {error}. The fit goes on, and "
                    "the last good file stays.",
                    UserWarning,
                )
            self._fails = True
            return
        self._is_good, self._fails = True, False

    def _make_room(self):
        """Let each file but the oldest be one older; whenever this ends, a good one is there."""
        if not self._is_good:
            return  # a damaged file takes no good one's place
        for newer, older in zip(self.places[-2::-1], self.places[:0:-1], strict=True):
            if newer.exists():
                os.replace(newer, older)

    def _compare(self, made):
        differing = [
            f"{name} {value}, not {made.get(name)}"
            for name, value in self.made.items()
            if made.get(name) != value
        ]
        if differing:
            warn(
                f"The checkpoint {self.path} was written elsewhere; this is {', '.join(differing)}."
                " The fit goes on, but may not end with the same bits.",
                UserWarning,
            )


class Session:
    """The trainings of one fit, which are kept in a file, or whose weights are averaged.

    Several processes have one file, which the first of them reads and writes: what it keeps, and
    what is other in each of the others. So there is no file of some of them alone.
    """

    def __init__(self, checkpoint: Checkpoint | None, snapshots: Snapshots | None, identity):
        self.checkpoint, self.snapshots = checkpoint, snapshots
        self._everyone = processes.current()
        self.file = None
        if checkpoint is not None and self._everyone.rank == 0:
            self.file = CheckpointFile(checkpoint, identity)
        kept = None if self.file is None else self.file.read()
        kept = kept if checkpoint is None else self._everyone.first(kept)
        if kept is None:
            kept = {"seeds": [], "finished": [], "running": None}
        elif self._everyone.rank:
            kept = changed(kept, kept["others"][self._everyone.rank])
        self.seeds, self.finished, self.running = kept["seeds"], kept["finished"], kept["running"]
        self._n_begun, self._n_seeds, self._is_over = 0, 0, False
        self._latest, self._latest_epoch = time.monotonic(), 0

    def seed(self) -> int:
        """A fresh seed for ``random_state=None``: that of the fit that goes on, if it does."""
        self._n_seeds += 1
        if self._n_seeds > len(self.seeds):
            self.seeds.append(self._everyone.first(_seeds.fresh_seed()))
        return self.seeds[self._n_seeds - 1]

    def trained(self, about: About, train: Callable[[Extras], Fitted], extras: Extras) -> Fitted:
        """What a training leads to: ``train`` is called unless its result was kept.

        Raises a ValueError if it is not the training that was kept.
        """
        snapshots = self.snapshots
        if snapshots is not None:
            options = snapshots.n_epochs, snapshots.decay
            extras = extras._replace(average=lambda theta: Average(theta, *options))
        if self.checkpoint is None or self._is_over:
            return train(extras)
        number, self._n_begun = self._n_begun, self._n_begun + 1
        key, held = about.key, None
        kept = self.finished[number] if number < len(self.finished) else self.running
        if kept is not None:
            if kept["key"] != key:
                raise ValueError(
                    f"The checkpoint {self.checkpoint.path} is of a fit that went another way: its "
                    f"training {number} was of {kept['key'][0]} with other parameters or random "
                    "numbers. Something that fit depends on is not the same in each call. Delete "
                    "the file to begin anew."
                )
            for curve, before in zip(about.notes, kept["notes"], strict=True):
                curve[:] = before
            if kept is not self.running:
                return revived(kept, about)
            held = tensors(kept["state"])
        self._latest_epoch = 0 if held is None else held["position"]["epoch"]

        def keep(state):
            self._write({"key": key, "notes": about.notes, "state": arrays(state)})

        fitted = train(extras._replace(keeper=Keeper(held, self._is_due, keep)))
        if fitted.training.outcome == "interrupted":
            self._is_over = True  # the file says how to go on, which no later training changes
            return fitted
        self.finished.append(result(fitted, key, about.notes))
        self.running = None
        self._write()
        return fitted

    def _is_due(self, epoch, step):
        assert self.checkpoint is not None
        if self.checkpoint.unit == "minutes":
            if self._everyone.is_joined and self.checkpoint.every and step % _STEPS:
                return False
            seconds = time.monotonic() - self._latest
            return self._everyone.any(seconds >= 60 * self.checkpoint.every)
        is_due = step == 0 and epoch - self._latest_epoch >= self.checkpoint.every
        self._latest_epoch = epoch if is_due else self._latest_epoch
        return is_due

    def _write(self, running=None):
        content = {"seeds": self.seeds, "finished": self.finished, "running": running}
        others = self._everyone.gather(changes(content, self._everyone.first(content)))
        if self.file is not None:
            self.file.write(content | {"others": others})
        self._latest = time.monotonic()


_session: ContextVar[Session | None] = ContextVar("session", default=None)


def trained(about: About, train: Callable[[Extras], Fitted], extras: Extras) -> Fitted:
    """`Session.trained` of the fit that runs, or ``train``, where it has no session."""
    session = _session.get()
    return train(extras) if session is None else session.trained(about, train, extras)


@contextmanager
def session_of(estimator, X, y=None, sample_weight=None):
    """A context of the session of a fit, after what its callbacks ask is known to be possible.

    Without callbacks there is none.
    """
    chosen, name = callbacks_of(estimator), type(estimator).__name__
    if not any(chosen):
        yield
        return
    validate_parameters(estimator)
    for callback in filter(None, chosen):
        callback.check()
    if chosen.stopping is not None and getattr(estimator, "early_stopping", False):
        raise ValueError(
            f"{name} has early_stopping=True, which holds out training rows, and EarlyStopping, "
            "which watches others. Choose one."
        )
    if chosen.checkpoint is not None and trainer.get() is not fit_alone:
        raise ValueError(
            f"{name} has a Checkpoint, but a search that trains its candidates as one has no state "
            "of each. Use scikit-learn's search with a Checkpoint of a folder, or callbacks=None."
        )
    identity = {}
    if chosen.checkpoint is not None:
        identity = identity_of_all(identity_of(estimator, X, y, sample_weight))
    session = Session(chosen.checkpoint, chosen.snapshots, identity)
    token = _session.set(session)
    source = None if session.checkpoint is None else _seeds.seeds.set(session.seed)
    try:
        yield
    finally:
        _session.reset(token)
        if source is not None:
            _seeds.seeds.reset(source)


# Between results and what is written


def result(fitted: Fitted, key: list, notes: list[list[float]]) -> dict[str, Any]:
    """What is kept of a training that has ended."""
    training = fitted.training._replace(optimizer_state={})
    return {
        "key": key,
        "notes": notes,
        "weights": fitted.weights,
        "training": list(training),
        "state": fitted.state,
        "measured": fitted.measured,
        "objective": arrays(fitted.objective.state),
        "memory": fitted.objective.memory,
    }


def revived(kept: dict[str, Any], about: About) -> Fitted:
    """The same as it was returned, with the generator where the training left it."""
    device, state = about.generator.device, kept["state"]
    about.generator.set_state(torch.tensor(state["generator"]))
    assert about.model.objective is not None
    objective = about.model.objective()
    objective.has_gaps, objective.memory = about.has_gaps, kept["memory"]
    objective.state = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in tensors(kept["objective"]).items()
    }
    training = Training(*kept["training"])
    return Fitted(kept["weights"], training, objective, state, kept["measured"])


def arrays(value):
    """A value with arrays, of the same bits, for tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy().copy()
    if isinstance(value, dict):
        return {name: arrays(part) for name, part in value.items()}
    return list(value) if isinstance(value, list) else value


def tensors(value):
    """The reverse, with tensors on the host."""
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    return {n: tensors(part) for n, part in value.items()} if isinstance(value, dict) else value


def _surroundings():
    """On what bits depend besides parameters and data."""
    versions = {"torch": str(torch.__version__), "numpy": np.__version__}
    return versions | {"threads": torch.get_num_threads(), "processor": platform.machine()}
