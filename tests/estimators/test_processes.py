"""Fits that several processes make together, `distributed`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from registry import TRAINED
from several import in_processes
from sklearn.base import clone

from skae import (
    PSD,
    AutoEncoder,
    BatchedGridSearchCV,
    Distributed,
    EarlyStopping,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
    TableFeatures,
)
from skae.engine.optimisation import processes
from skae.engine.optimisation.runs import Run
from skae.estimators.face.columns import describe_columns
from skae.estimators.face.training import TrainedModel
from skae.estimators.targets import Classes, Numbers

TESTS = Path(__file__).parents[1]
SHARED = [c for c in TRAINED if issubclass(c.cls, TrainedModel) and c.cls._made_by_one is None]


def part(rows, rank, n_first=23):
    """Rows of one of two processes: the first has fewer than the second."""
    return None if rows is None else rows[:n_first] if rank == 0 else rows[n_first:]


def values_of(model):
    """What `fit` has left, numbers by name."""
    found = dict(model.weights_) if hasattr(model, "weights_") else {}
    if hasattr(model, "stack_"):
        found |= model.stack_.weights_ | {"output": model.output_weights_}
    found["curve"], found["validation"] = model.loss_curve_, model.validation_curve_
    return {name: np.asarray(value) for name, value in found.items()}


@pytest.fixture
def in_order(monkeypatch):
    """Batches of one process are those of two, one below the other, in the order of the rows."""

    def batches(run, generator):
        index, n_batches = run.data.index, run.lockstep.n_batches
        if processes.current().is_joined:
            own = torch.tensor_split(index, n_batches)
            return run.lockstep.batches(own, index)
        halves = [torch.tensor_split(half, n_batches) for half in (index[:23], index[23:])]
        return [torch.cat(both) for both in zip(*halves, strict=True)]

    monkeypatch.setattr(Run, "batches", batches)


@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
def test_two_processes_learn_what_one_does_of_all_rows(in_order):
    random = np.random.default_rng(0)
    causes = random.normal(size=(63, 3))
    X = causes @ random.normal(size=(3, 8)) + 0.1 * random.normal(size=(63, 8))
    y, weight = np.array(["a", "b", "c"])[np.abs(causes).argmax(1)], random.uniform(0.5, 2, 63)
    val = random.normal(size=(20, 8))
    own = {"batch_size": 12, "max_iter": 4, "random_state": 0, "tol": 0}
    models = [
        AutoEncoder(3, hidden_layer_sizes=(5,), weight_decay=0.01, **own),
        PSD(4, inference_tol=1e-12, inference_max_iter=5000, **own),
        SparseCoder(6, inference_tol=1e-12, **own),
        StackedAutoEncoder([5, 3], layer=AutoEncoder(**own), fine_tuning=True, **own),
        StackedClassifier([5], pretraining=None, layer=AutoEncoder(**own), **own),
    ]
    for model in models:
        name = type(model).__name__

        def fit(rank, model=model, name=name):
            rows = [X, y if hasattr(model, "predict") else None, weight, val]
            if rank is not None:
                rows = [*(part(values, rank) for values in rows[:3]), part(val, rank, 7)]
            is_watched = name == "AutoEncoder"
            stopping = [EarlyStopping(rows[3])] if is_watched else None
            made = clone(model).set_params(callbacks=stopping)
            return made.fit(*rows[:2], sample_weight=rows[2] if is_watched else None)

        alone, (first, second) = fit(None), in_processes(2, fit)
        found, others = values_of(first), values_of(second)
        for key, value in values_of(alone).items():
            # What differs is rounding: sums of two sums in place of one.
            np.testing.assert_allclose(found[key], value, 0, 1e-10, err_msg=f"{name}: {key}")
            assert np.array_equal(found[key], others[key]), (name, key)


def fit_own(case, rank, **parameters):
    """A small estimator of the registry, of the rows of one process."""
    return case.make(max_iter=2, **parameters).fit(part(case.X, rank, 17), part(case.y, rank, 17))


@pytest.mark.filterwarnings("ignore")
def test_all_estimators_leave_the_same_bits_in_all_processes():
    differing = []
    for number, case in enumerate(SHARED):
        every = 2 if number % 2 else None  # steps together, or weights that are averaged
        first, second = in_processes(2, lambda rank, case=case: fit_own(case, rank), every)
        # Noise, chains and rows are each process's own; what is learned is not.
        differing += [
            (str(case), every)
            for mine, other in [(case.output(first), case.output(second))]
            if not np.array_equal(mine, other)
        ]
        assert first.loss_curve_ == second.loss_curve_, str(case)
        assert first.stopping_reason_ == second.stopping_reason_, str(case)
    assert differing == []


def test_columns_are_described_by_the_rows_of_all_processes():
    random = np.random.default_rng(0)
    X = np.column_stack(
        [
            random.normal(3, 2, 200),
            random.integers(0, 2, 200),
            np.eye(3)[random.integers(0, 3, 200)],
            np.round(random.normal(size=200), 1) + 0.0,
            np.repeat([0.0, 1.0], 100),  # of one value in each process
            random.integers(0, 9, 200),
        ]
    )
    X[random.uniform(size=200) < 0.1, 0] = np.nan
    weight = random.uniform(0.5, 2, 200)
    options = {"gaps": True}
    whole = describe_columns(X, "auto", weight, X, **options)

    def describe(rank):
        own = part(X, rank, 100)
        return describe_columns(own, "auto", part(weight, rank, 100), own, **options)

    for found in in_processes(2, describe):
        assert [name for name, _ in found.parts] == [name for name, _ in whole.parts]
        for name in ("shift", "scale", "mean", "minimum", "maximum"):
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), 1e-12)
        for mine, own in zip((*found.parts, *found.grid), (*whole.parts, *whole.grid), strict=True):
            assert str(mine) == str(own)


def test_targets_are_described_by_the_rows_of_all_processes():
    random = np.random.default_rng(0)
    # The first process knows one class of three, and one number in a column.
    names = np.array(["a"] * 23 + ["b", "c"] * 20)
    numbers = np.where(np.arange(63)[:, None] < 22, [[5.0, np.nan]], random.normal(size=(63, 2)))
    weight = random.uniform(0.5, 2, 63)
    weight *= 63 / weight.sum()
    for kind, y in ((Classes(class_weight="balanced"), names), (Numbers(), numbers)):

        def read(rank, kind=kind, y=y):
            table, own = kind.checked(part(y, rank)), part(weight, rank)
            targets = kind.described(table, own).encoded(table, own)
            return targets, targets.start_bias().numpy()

        table = kind.checked(y)
        whole = kind.described(table, weight).encoded(table, weight)
        (first, bias), (second, _) = in_processes(2, read)
        np.testing.assert_allclose(np.vstack([first.values, second.values]), whole.values, 1e-12)
        assert first.total == pytest.approx(whole.total, rel=1e-12)
        np.testing.assert_allclose(bias, whole.start_bias().numpy(), 1e-9, 1e-12)


def test_what_cannot_be_shared_is_refused_with_the_reason(monkeypatch):
    X = np.random.default_rng(0).normal(size=(30, 4))
    made = {"max_iter": 1, "distributed": True}
    with pytest.raises(RuntimeError, match=r"torchrun .*init_process_group"):
        AutoEncoder(2, **made).fit(X)
    for wrong in (Distributed(average_every=0), Distributed(timeout=0)):
        with pytest.raises(ValueError, match="of Distributed must be"):
            AutoEncoder(2, distributed=wrong).fit(X)
    # One process, of which is asked what is asked of several.
    monkeypatch.setattr(processes, "joined", lambda *how: processes.within(processes.Processes()))
    refused = {
        "TableFeatures is fitted by one process": lambda: TableFeatures(**made).fit(X),
        "more or fewer": lambda: AutoEncoder(2, **made).fit(iter([X])),
        "trains its candidates as one": lambda: BatchedGridSearchCV(
            AutoEncoder(2, **made), {"learning_rate": [0.1]}, cv=2, error_score="raise"
        ).fit(X),
    }
    for message, call in refused.items():
        with pytest.raises(ValueError, match=message):
            call()

    def fit_frame(rank):
        import pandas as pd

        return AutoEncoder(2, max_iter=1).fit(pd.DataFrame({"a": ["x", "y"] * 5, "b": range(10)}))

    with pytest.raises(ValueError, match="Encode the table beforehand"):
        in_processes(2, fit_frame)


def test_processes_of_torch_distributed(tmp_path):
    script = [sys.executable, str(TESTS / "distributed_fits.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for name in ("AutoEncoder", "RBM", "SparseCoder", "averaged", "after errors"):
        # The same bits in both processes; and again, whatever has failed between.
        assert first[name] == second[name], name
        assert first[name][0] == first[name][1], name
    assert first["unseeded"] == second["unseeded"]
    assert first["difference"] < 1e-10
    for what, message in {
        "parameters": "differ in n_components: 2 in process 0, 3 in process 1",
        "seeds": "differ in random_state: 0 in process 0, 1 in process 1",
        "columns": "differ in the number of columns: 6 in process 0, 5 in process 1",
    }.items():
        for found, _ in (first[what], second[what]):
            assert message in found, what
    for what, message in {"an empty rank": "0 sample", "a process that raises": "infinity"}.items():
        assert message in second[what][0]
        # Who waits is told by whom it was left, and why, long before its time is up.
        assert first[what][0].startswith("ProcessGroupError: Process 1 of 2 failed: ValueError")
        assert message in first[what][0]
        assert first[what][1] < 30
    # Process 0 failed at its eighth file; the group went on from there to the bits of a whole fit.
    assert first["kept"][0][0].startswith("StopIteration")
    assert second["kept"][0][0].startswith("ProcessGroupError: Process 0 of 2 failed: StopIter")
    assert first["kept"][1] == first["kept"][2] == second["kept"][1]
    assert "has ended, or did not answer" in first["gone"][0]
    assert first["gone"][1] < 30
