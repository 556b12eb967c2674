"""Fits that are killed and go on, from every place at which they were kept."""

import inspect
import os
import shutil
from functools import partial

import numpy as np
import pytest
from fuzz.properties import digest
from numpy.testing import assert_array_equal
from registry import TRAINED, families
from several import in_processes
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import (
    RBM,
    AutoEncoder,
    BatchedGridSearchCV,
    Checkpoint,
    ContractiveAutoEncoder,
    DeepBeliefNetwork,
    DenoisingAutoEncoder,
    EarlyStopping,
    ModelFileError,
    Snapshots,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
    load,
    save,
)
from skae.estimators import persistence
from skae.estimators.face import sessions

# After each step: what is kept is in the middle of epochs, too.
STEPS = {"every": 0, "unit": "minutes"}
EPOCHS = {"every": 1, "unit": "epochs"}
X = np.random.default_rng(0).random((60, 5))


class KilledError(BaseException):
    """Stands for SIGKILL, which no `except Exception` sees either."""


@pytest.fixture
def kill(monkeypatch):
    """A function: let writes of files raise from such a one on; -1: never."""
    write, written = persistence.write, []

    def kill_after(n_writes):
        written.clear()

        def counted(*args, **kwargs):
            if len(written) == n_writes:
                raise KilledError
            write(*args, **kwargs)
            written.append(args)

        monkeypatch.setattr(persistence, "write", counted)
        return written

    return kill_after


def small(**parameters):
    given = {"batch_size": 20, "max_iter": 4, "random_state": 0} | parameters
    return DenoisingAutoEncoder(3, **given)


def learned(model):
    """A digest of all that a fit has left."""
    return digest({name: value for name, value in vars(model).items() if name != "callbacks"})


def killed(kill, n_writes, model, *data):
    """A model whose fit was killed at such a write."""
    kill(n_writes)
    with pytest.raises(KilledError):
        model.fit(*data)
    kill(-1)
    return model


@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_a_killed_fit_ends_as_if_it_had_not_been(case, tmp_path, kill):
    y = case.y
    plain = learned(case.make().fit(case.X, y))
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    written = kill(-1)
    # To be kept changes nothing.
    assert learned(case.make(callbacks=[checkpoint]).fit(case.X, y)) == plain
    n_writes = len(written)
    for path in tmp_path.iterdir():
        path.unlink()
    # What goes on is written first, so that one write alone is no progress.
    n_killed, step = 0, max(2, n_writes // 4)
    while True:
        kill(step)
        try:
            model = case.make(callbacks=[checkpoint]).fit(case.X, y)
        except KilledError:
            n_killed += 1
            continue
        break
    assert n_killed >= min(2, n_writes - 1)
    assert learned(model) == plain


@pytest.mark.parametrize(
    ("model", "average_every"),
    [
        (DenoisingAutoEncoder(3, early_stopping=True), None),
        (DenoisingAutoEncoder(3, optimizer="sgd", n_iter_no_change=None), 2),
        (RBM(3), None),
        (SparseCoder(4, inference_tol=1e-2), None),
        (StackedClassifier([4, 3]), None),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
def test_a_killed_group_ends_as_if_it_had_not_been(model, average_every, tmp_path, kill):
    y = (X[:, 0] > 0.5).astype(int)

    def fit(n_processes=2, **parameters):
        """The model of each process, which has some of the rows."""

        def own(rank):
            made = clone(model).set_params(max_iter=3, batch_size=20, random_state=0, **parameters)
            bounds = slice(22 * rank, 22 * (rank + 1) if rank < n_processes - 1 else None)
            return made.fit(X[bounds], y[bounds])

        return [learned(found) for found in in_processes(n_processes, own, average_every)]

    plain = fit()
    # Only the first process's path counts.
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    written = kill(-1)
    assert fit(callbacks=checkpoint) == plain
    n_writes, n_killed = len(written), 0
    (tmp_path / "fit").unlink()
    (tmp_path / "fit.1").unlink()
    while True:
        kill(max(2, n_writes // 3))
        try:
            found = fit(callbacks=checkpoint)
            break
        except KilledError:
            n_killed += 1
        if n_killed == 1:
            kill(-1)
            with pytest.raises(ValueError, match="the number of processes is 3, was 2"):
                fit(3, callbacks=checkpoint)
    assert n_killed >= 2
    assert found == plain


@pytest.mark.parametrize(
    "parameters",
    [
        {"early_stopping": True, "max_iter": 30, "n_iter_no_change": 3},
        {"learning_rate_schedule": "cosine", "optimizer": "rmsprop"},
        {"callbacks": [Snapshots(3)]},
        {"callbacks": [Snapshots(None, decay=0.5), EarlyStopping(X[40:])]},
        {"callbacks": [EarlyStopping(X[40:], scoring=lambda model, X, y: model.score(X))]},
        {"tol": 0.3, "n_iter_no_change": 2, "max_iter": 30},
    ],
    ids=["early stopping", "schedule", "mean", "mean that is judged", "score", "convergence"],
)
def test_what_decides_the_end_is_kept(parameters, tmp_path, kill):
    others = parameters.pop("callbacks", [])
    plain = learned(small(callbacks=others, **parameters).fit(X))
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    # The best weights, the epochs without progress, the mean: all go on as they were.
    for n_writes in (4, 5):
        killed(kill, n_writes, small(callbacks=[*others, checkpoint], **parameters), X)
    assert learned(small(callbacks=[*others, checkpoint], **parameters).fit(X)) == plain
    parameters["callbacks"] = others


def test_trainings_that_have_ended_are_not_repeated(tmp_path, kill, capsys):
    layers = [RBM(4, max_iter=2, verbose=True), RBM(3, max_iter=3, verbose=True)]
    checkpoint = Checkpoint(tmp_path / "fit", **EPOCHS)

    def make():
        return DeepBeliefNetwork(layers=layers, random_state=0, callbacks=checkpoint)

    # After one epoch of two, at the end of the lower machine, and after one of three above.
    killed(kill, 3, make(), X)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0].split()[-1] for line in shown] == ["1/2", "2/2", "1/3", "2/3"]
    model = make().fit(X)
    shown = capsys.readouterr().out.splitlines()
    # The lower one is as it was, the upper one goes on after its first epoch.
    assert [line.split(",")[0].split()[-1] for line in shown] == ["2/3", "3/3"]
    plain = DeepBeliefNetwork(layers=layers, random_state=0).fit(X)
    assert learned(model) == learned(plain)
    # A fit that has ended is there at once.
    capsys.readouterr()
    assert learned(make().fit(X)) == learned(plain)
    assert capsys.readouterr().out == ""


def test_curves_of_layers_that_learn_together_are_kept(tmp_path, kill):
    given = {"layer": "denoising", "pretraining": "simultaneous", "fine_tuning": True}
    given |= {"max_iter": 3, "batch_size": 20, "random_state": 0}
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    model = StackedAutoEncoder((4, 3), **given)
    plain = learned(clone(model).fit(X))
    killed(kill, 5, clone(model).set_params(callbacks=[checkpoint]), X)
    assert learned(clone(model).set_params(callbacks=[checkpoint]).fit(X)) == plain


def test_seeds_of_the_system_are_kept(tmp_path, kill):
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    killed(kill, 4, small(random_state=None, callbacks=checkpoint), X)
    curves = [small(random_state=None, callbacks=checkpoint).fit(X).loss_curve_ for _ in range(2)]
    assert curves[0] == curves[1]
    # Another file, another seed.
    other = Checkpoint(tmp_path / "other", **STEPS)
    assert small(random_state=None, callbacks=other).fit(X).loss_curve_ != curves[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"learning_rate": 0.1}, "learning_rate is 0.1, was 0.001"),
        ({"random_state": 1}, "random_state is 1, was 0"),
        ({"callbacks": Snapshots(2)}, "Snapshots's n_epochs is 2, was not there"),
        ({"X": X[:50]}, r"X is of shape \(50, 5\) and dtype float64, was of shape \(60, 5\)"),
        ({"X": X + 1e-9}, r"X \(of shape \(60, 5\) and dtype float64\) has other values"),
        ({"X": X.astype(np.float32)}, r"X is of shape \(60, 5\) and dtype float32, was"),
        ({"sample_weight": np.ones(60)}, "sample_weight is of shape"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(changed, words, tmp_path, kill):
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    killed(kill, 4, small(callbacks=checkpoint), X)
    before = (tmp_path / "fit").read_bytes()
    changed = dict(changed)
    data, weight = changed.pop("X", X), changed.pop("sample_weight", None)
    callbacks = [checkpoint, *filter(None, [changed.pop("callbacks", None)])]
    # What differs is named, and so is what to do; the work so far stays.
    with pytest.raises(ValueError, match=f"(?s)of another fit: {words}.*delete its files, or pass"):
        small(callbacks=callbacks, **changed).fit(data, sample_weight=weight)
    assert (tmp_path / "fit").read_bytes() == before


def test_a_checkpoint_of_another_class_or_version_is_refused(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "fit", **EPOCHS)
    small(callbacks=checkpoint).fit(X)
    with pytest.raises(ValueError, match="the estimator is ContractiveAutoEncoder, was Denoising"):
        ContractiveAutoEncoder(3, callbacks=checkpoint).fit(X)
    monkeypatch.setattr("skae.__version__", "9.9")
    with pytest.raises(ValueError, match=r"skae is 9\.9, was"):
        small(callbacks=checkpoint).fit(X)


def test_a_warm_start_is_another_fit(tmp_path):
    model = small(callbacks=Checkpoint(tmp_path / "fit", **EPOCHS), warm_start=True).fit(X)
    with pytest.raises(ValueError, match="the model that warm_start goes on from is a fitted one"):
        model.fit(X)


def test_another_machine_is_told(tmp_path, kill, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    plain = learned(small().fit(X))
    made = sessions._surroundings()
    monkeypatch.setattr(sessions, "_surroundings", lambda: made | {"torch": "1.0"})
    killed(kill, 4, small(callbacks=checkpoint), X)
    monkeypatch.setattr(sessions, "_surroundings", lambda: made)
    # Work of hours is not refused for it, but bits are not promised.
    with pytest.warns(UserWarning, match=r"torch .*, not 1\.0.*may not end with the same bits"):
        model = small(callbacks=checkpoint).fit(X)
    assert learned(model) == plain


# What may become of a file.
DAMAGES = {
    "empty": lambda data: b"",
    "short": lambda data: data[: len(data) // 2],
    "flipped": lambda data: (
        data[: (at := data.index(b"\x93NUMPY") + 200)] + bytes([data[at] ^ 1]) + data[at + 1 :]
    ),
    "other": lambda data: b"nothing of skae",
}


def replace_but(path, source, target, replace=os.replace):
    """os.replace of a process that is killed when it puts a file in a certain place."""
    if target == path:
        raise KilledError
    replace(source, target)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_and_the_one_before_used(damage, tmp_path, kill, monkeypatch):
    checkpoint, path = Checkpoint(tmp_path / "fit", **STEPS), tmp_path / "fit"
    plain = learned(small().fit(X))
    killed(kill, 6, small(callbacks=checkpoint), X)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    good = (tmp_path / "fit.1").read_bytes()
    # Killed again when the next one is to be put in place: the damaged one has taken no place.
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", partial(replace_but, path))
        with (
            pytest.warns(UserWarning, match=r"fit is damaged.*before it, .*fit\.1, is used"),
            pytest.raises(KilledError),
        ):
            small(callbacks=checkpoint).fit(X)
    assert (tmp_path / "fit.1").read_bytes() == good
    with pytest.warns(UserWarning, match="damaged"):
        model = small(callbacks=checkpoint).fit(X)
    assert learned(model) == plain
    for name in ("fit", "fit.1"):
        (tmp_path / name).write_bytes(DAMAGES[damage](good))
    with pytest.raises(ModelFileError, match=r"(?s)fit is damaged.*No checkpoint is left.*delete"):
        small(callbacks=checkpoint).fit(X)


def test_a_file_that_is_missing_for_a_moment(tmp_path, kill):
    # Killed between two renames: the older one is all that there is.
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    killed(kill, 6, small(callbacks=checkpoint), X)
    os.replace(tmp_path / "fit", tmp_path / "fit.1")
    assert learned(small(callbacks=checkpoint).fit(X)) == learned(small().fit(X))


@pytest.mark.filterwarnings("default")
def test_a_full_disk_ends_no_fit(tmp_path, monkeypatch):
    checkpoint, n_syncs, sync = Checkpoint(tmp_path / "fit", **STEPS), [0], os.fsync

    def full(number):
        n_syncs[0] += 1
        if n_syncs[0] > 3:
            raise OSError(28, "No space left on device")
        sync(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match=r"cannot be written: .*No space.*last good") as said:
        model = small(callbacks=checkpoint).fit(X)
    # Once for a disk that stays full.
    assert len(said) == 1
    assert learned(model) == learned(small().fit(X))
    # Nothing half is left, and what is there is good.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fit", "fit.1"]
    monkeypatch.undo()
    assert learned(small(callbacks=checkpoint).fit(X)) == learned(model)


def test_so_many_files_are_kept(tmp_path):
    small(callbacks=Checkpoint(tmp_path / "one", keep=1, **EPOCHS)).fit(X)
    small(callbacks=Checkpoint(tmp_path / "three", keep=3, **EPOCHS)).fit(X)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["one", "three", "three.1", "three.2"]
    running = [persistence.read(tmp_path / name, "checkpoint")["running"] for name in names[2:]]
    # One epoch apart, the oldest last.
    assert [part["state"]["position"]["epoch"] for part in running] == [3, 2]


def test_what_killed_writers_left_is_removed(tmp_path):
    left = tmp_path / ".fit.0123456789abcdef"
    other = tmp_path / ".fit.of-someone-else"
    for path in (left, other):
        path.write_bytes(b"half")
    small(callbacks=Checkpoint(tmp_path / "fit", **EPOCHS)).fit(X)
    assert not left.exists()
    assert other.exists()


def test_a_folder_has_a_file_for_each_fit_of_a_search(tmp_path, capsys):
    features = small(callbacks=Checkpoint(tmp_path, keep=1, **EPOCHS), verbose=True)
    model = make_pipeline(StandardScaler(), features)
    grid = {"denoisingautoencoder__learning_rate": [1e-3, 1e-2]}
    scores = [
        GridSearchCV(model, grid, cv=2, refit=False).fit(X).cv_results_["mean_test_score"]
        for _ in range(2)
    ]
    # Two candidates on two parts; the second search trains none of them again.
    assert len(list(tmp_path.iterdir())) == 4
    assert capsys.readouterr().out.count("4/4") == 4
    assert_array_equal(scores[0], scores[1])


def test_fits_of_a_search_find_each_others_file(tmp_path):
    model = small(callbacks=Checkpoint(tmp_path / "fit", **EPOCHS))
    # At the second fold, not after all of them.
    with pytest.raises(ValueError, match=r"X .*With a folder for a path each fit has a file of"):
        cross_val_score(model, X, cv=2, error_score="raise")


def test_batched_searches_refuse_checkpoints(tmp_path):
    model = small(callbacks=Checkpoint(tmp_path / "fit", **EPOCHS))
    search = BatchedGridSearchCV(model, {"learning_rate": [1e-3, 1e-2]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match="Use scikit-learn's search with a Checkpoint of a folder"):
        search.fit(X)


def test_scikit_learns_callbacks_are_the_same(tmp_path, kill):
    model = small()
    if not hasattr(model, "set_callbacks"):
        pytest.skip("scikit-learn has no callbacks in this version")
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    killed(kill, 4, small().set_callbacks(checkpoint), X)
    # A clone has it, too, and goes on.
    model = clone(small().set_callbacks(checkpoint)).fit(X)
    assert_array_equal(model.transform(X), small().fit(X).transform(X))
    with pytest.raises(TypeError, match="is for estimators of skae that are trained, not for Stan"):
        StandardScaler().set_callbacks(checkpoint).fit(X)


@pytest.mark.parametrize(
    "case", families(case for case in TRAINED if hasattr(case.make(), "partial_fit")), ids=str
)
def test_partial_fit_refuses_callbacks(case, tmp_path):
    model = case.make(callbacks=Checkpoint(tmp_path / "fit"))
    options = {"classes": np.unique(case.y)} if case.is_classifier else {}
    with pytest.raises(ValueError, match=r"partial_fit of \w+ knows no Checkpoint.*skae.save"):
        model.partial_fit(case.X, case.y, **options)
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize(
    ("checkpoint", "error", "words"),
    [
        (Checkpoint("fit", every=-1), ValueError, "every, must be at least 0"),
        (Checkpoint("fit", every=0, unit="epochs"), ValueError, "every, must be at least 1"),
        (Checkpoint("fit", every=np.nan), ValueError, "at least 0"),
        (Checkpoint("fit", unit="hours"), ValueError, "must be 'minutes' or 'epochs'"),
        (Checkpoint("fit", keep=0), ValueError, "one file or more"),
        (Checkpoint(3), TypeError, "must be a path"),
        (Checkpoint("there/is/none/fit"), FileNotFoundError, "no folder there/is/none"),
        ([Checkpoint("a"), Checkpoint("b")], ValueError, "2 callbacks of the kind Checkpoint"),
        ([print], ValueError, "set those of scikit-learn by set_callbacks"),
        ("fit.skae", ValueError, "callbacks"),
    ],
    ids=str,
)
def test_bad_checkpoints_are_refused_before_training(checkpoint, error, words):
    with pytest.raises(error, match=words):
        small(callbacks=checkpoint, max_iter=10**9).fit(X)


def test_a_checkpoint_is_no_model(tmp_path):
    checkpoint = Checkpoint(tmp_path / "fit", **EPOCHS)
    model = small(callbacks=checkpoint).fit(X)
    with pytest.raises(ModelFileError, match="holds no model, but checkpoint"):
        load(tmp_path / "fit")
    save(model, tmp_path / "model")
    # Callbacks are of the fit, not of the model.
    assert load(tmp_path / "model").callbacks is None
    with pytest.raises(ModelFileError, match="no checkpoint"):
        small(callbacks=Checkpoint(tmp_path / "model")).fit(X)
    assert_array_equal(load(tmp_path / "model").transform(X), model.transform(X))


def test_an_interrupted_fit_goes_on(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path / "fit", **EPOCHS)
    given = {"layer_sizes": (4, 3), "layer": "denoising", "max_iter": 3, "random_state": 0}
    given |= {"fine_tuning": True, "batch_size": 20}
    n_told = [0]
    write = persistence.write

    def interrupted(*args, **kwargs):
        write(*args, **kwargs)
        n_told[0] += 1
        if n_told[0] == 8:  # in the training of the whole
            raise KeyboardInterrupt

    monkeypatch.setattr(persistence, "write", interrupted)
    with pytest.warns(UserWarning, match="was interrupted"):
        model = StackedAutoEncoder(callbacks=checkpoint, **given).fit(X)
    assert model.stopping_reason_ == "interrupted"
    # The model so far was kept by its owner, and the fit can go on.
    model = StackedAutoEncoder(callbacks=checkpoint, **given).fit(X)
    assert learned(model) == learned(StackedAutoEncoder(**given).fit(X))


def test_data_of_all_forms_are_known_again(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(
        {"a": X[:, 0], "b": X[:, 1], "kind": np.where(X[:, 2] > 0.5, "x", "y")}
    )
    checkpoint = Checkpoint(tmp_path / "table", **EPOCHS)
    first = small(callbacks=checkpoint).fit(table)
    assert first.loss_curve_ == small(callbacks=checkpoint).fit(table.copy()).loss_curve_
    with pytest.raises(ValueError, match=r"X .* has other values"):
        small(callbacks=checkpoint).fit(table.replace({"kind": {"x": "z"}}))
    with pytest.raises(ValueError, match=r"X .* has other values"):
        small(callbacks=checkpoint).fit(table.rename(columns={"a": "c"}))
    np.save(tmp_path / "rows.npy", X)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    checkpoint = Checkpoint(tmp_path / "map", **EPOCHS)
    first = small(callbacks=checkpoint).fit(X)
    # The same rows, wherever they are.
    assert first.loss_curve_ == small(callbacks=checkpoint).fit(mapped).loss_curve_


def test_a_classifiers_targets_are_compared(tmp_path):
    y = (X[:, 0] > 0.5).astype(int)
    given = {"output": "linear", "max_iter": 2, "random_state": 0, "layer": "denoising"}
    checkpoint = Checkpoint(tmp_path / "fit", **EPOCHS)
    StackedClassifier((3,), callbacks=checkpoint, **given).fit(X, y)
    with pytest.raises(ValueError, match=r"fit: y \(of shape"):
        StackedClassifier((3,), callbacks=checkpoint, **given).fit(X, 1 - y)


def test_the_signature_of_fit_stays():
    assert list(inspect.signature(AutoEncoder.fit).parameters) == [
        "self", "X", "y", "sample_weight"
    ]  # fmt: skip


def test_disk_is_needed_where_it_is(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    checkpoint = Checkpoint(folder / "fit", **EPOCHS)

    model = small(callbacks=[checkpoint, EarlyStopping(X, scoring=lambda *_: _without(folder))])
    with pytest.warns(UserWarning, match="cannot be written"):
        model.fit(X)
    assert model.n_iter_ == 4


def _without(folder):
    shutil.rmtree(folder, ignore_errors=True)
    return 0.0
