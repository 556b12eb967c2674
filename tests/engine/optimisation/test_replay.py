"""Gradients that are recorded once and replayed, with a recorder that the CPU can run."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skae import (
    AutoEncoder,
    BatchedGridSearchCV,
    ContractiveAutoEncoder,
    StackedAutoEncoder,
    StackedClassifier,
)
from skae.engine.optimisation import replay


class Tape(TorchDispatchMode):
    """Notes each operation with its very arguments and results; one that waits is refused."""

    def __init__(self):
        super().__init__()
        self.notes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("A number is read on the host while a gradient is recorded.")
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        self.notes.append((function, args, kwargs, result))
        return result

    def repeat(self):
        """Do all of it again: each result goes where the first one was."""
        for function, args, kwargs, result in self.notes:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.view(new.shape).copy_(new)  # it may have been squeezed in place since


@pytest.fixture
def n_recordings(monkeypatch):
    """Record on the CPU as a CUDA graph does; a list of how many operations each recording has."""
    lengths = []

    def record(function, generators):
        with Tape() as tape:
            result = function()
        lengths.append(len(tape.notes))
        is_first = [True]

        def repeat():
            # A graph is recorded without being run; to note operations is to run them.
            if not is_first:
                tape.repeat()
            is_first.clear()
            return result

        return repeat

    monkeypatch.setitem(replay.RECORDERS, "cpu", record)
    monkeypatch.setattr(replay, "_FEWEST_STEPS", 5)
    return lengths


MODELS = {
    "plain": AutoEncoder(6, tied_weights=False),
    "contraction": ContractiveAutoEncoder(6, weight_decay=1e-3),
    "sparse": AutoEncoder(6, sparsity=0.1),
    "masking": AutoEncoder(6, corruption="masking", corruption_level=0.3),
    "emphasis": AutoEncoder(6, corruption="hiding", corruption_level=0.3, emphasis=(1.0, 0.5)),
    "levels": AutoEncoder(6, corruption="gaussian", corruption_level=(0.1, 0.4)),
    "swap": AutoEncoder(6, corruption="swap", corruption_level=0.2),
    "salt and pepper": AutoEncoder(6, corruption="salt_and_pepper", corruption_level=0.2),
    "deep": AutoEncoder(4, hidden_layer_sizes=(7,), optimizer="rmsprop"),
    "schedule": AutoEncoder(6, learning_rate_schedule="cosine", optimizer="sgd"),
    "stack": StackedAutoEncoder((7, 4), layer="denoising", fine_tuning=True),
    "classifier": StackedClassifier((7, 4), output="linear", dropout=0.1),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_replayed_training_ends_with_the_same_bits(name, digits, n_recordings, monkeypatch):
    X, y = digits[0][:203], digits[1][:203]
    sizes = {"batch_size": 20, "max_iter": 3, "random_state": 0, "device": "cpu"}
    model = MODELS[name].set_params(**sizes)
    weighted = {} if name == "stack" else {"sample_weight": np.linspace(0.5, 1.5, len(X))}

    def learned():
        model.fit(X, y, **weighted)
        output = model.predict_proba if name == "classifier" else model.reconstruct
        return output(X)

    replayed = learned()
    # Batches of 18 and 19 rows, of each training.
    assert len(n_recordings) >= 2
    monkeypatch.delitem(replay.RECORDERS, "cpu")
    assert np.array_equal(replayed, learned())


@pytest.mark.parametrize(
    "model",
    [
        AutoEncoder(6, contraction=0.1, contraction_target="reconstruction"),
        AutoEncoder(6, corruption=lambda x, generator: (x.clone(), None)),
        AutoEncoder(6, max_iter=1, batch_size=25),
    ],
    ids=["autograd", "own corruption", "few steps"],
)
def test_what_may_not_repeat_is_not_recorded(model, digits, n_recordings):
    few = model.max_iter if model.max_iter != "auto" else 3
    model.set_params(max_iter=few, batch_size=25, random_state=0, device="cpu")
    model.fit(digits[0][:203])
    assert n_recordings == []


def test_gaps_are_looked_for_in_every_batch(digits, n_recordings):
    X = digits[0][:203].copy()
    X[3, 20:30] = np.nan
    AutoEncoder(6, batch_size=20, max_iter=3, random_state=0, device="cpu").fit(X)
    assert n_recordings == []


def test_a_recorder_that_reads_numbers_is_noticed():
    with pytest.raises(AssertionError, match="read on the host"), Tape():
        float(torch.ones(2).sum())


@pytest.mark.parametrize("name", ["contraction", "masking", "swap"])
def test_a_replayed_search_has_the_same_scores(name, digits, n_recordings, monkeypatch):
    X = digits[0][:151]
    sizes = {"batch_size": 20, "max_iter": 3, "random_state": 0, "device": "cpu"}
    model = MODELS[name].set_params(**sizes)
    grid = {"learning_rate": [1e-3, 3e-3], "weight_decay": [0.0, 1e-2]}
    # Folds of 100 and 101 rows train side by side, with batches of other lengths.
    search = BatchedGridSearchCV(model, grid, cv=3, refit=False)
    replayed = search.fit(X).cv_results_["mean_test_score"]
    assert n_recordings
    monkeypatch.delitem(replay.RECORDERS, "cpu")
    assert np.array_equal(replayed, search.fit(X).cv_results_["mean_test_score"])
