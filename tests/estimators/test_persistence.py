"""Model files: the same model again, nothing that runs, errors of our own for what is damaged."""

import io
import json
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from numpy.testing import assert_array_equal
from registry import CASES
from sklearn.cluster import KMeans
from sklearn.frozen import FrozenEstimator

import skae
from skae import AutoEncoder, SparseCoder, StackedClassifier
from skae.estimators.persistence import _npy, from_bytes

# About so many of the bytes are tried; `tests/fuzz/model_file.py` tries all.
SOME_BYTES = 400


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_estimator_comes_back(case, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of models that are hardly trained
        model = case.fitted
    skae.save(model, tmp_path / "model")
    again = skae.load(tmp_path / "model")
    assert type(again) is type(model)
    assert_array_equal(np.asarray(case.output(again)), np.asarray(case.output(model)))
    assert again.get_params().keys() == model.get_params().keys()
    assert os.listdir(tmp_path) == ["model"]
    # skops needs no trust in what is not ours, but for a dtype of NumPy.
    stored = skops.io.dumps(model)
    types = skops.io.get_untrusted_types(data=stored)
    assert all(name.startswith("skae.") or name == "numpy.dtype" for name in types)
    again = skops.io.loads(stored, trusted=types)
    assert_array_equal(np.asarray(case.output(again)), np.asarray(case.output(model)))


FILES = sorted((Path(__file__).parent / "model_files").glob("*/*.skae"))
BY_NAME = {str(case): case for case in CASES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_files_of_earlier_versions(path):
    """`model_files/write.py` wrote them, and what the models said of the first rows."""
    model, case = skae.load(path), BY_NAME[path.stem]
    found = case.output(model)[:8]
    with np.load(path.parent / "said.npz") as said:
        expected = said[path.stem]
    if found.dtype.kind == "f":
        # Another machine's kernels round otherwise, and codes that are inferred enlarge that.
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    else:
        assert_array_equal(found, expected)


def test_there_is_a_file_of_each_estimator():
    names = {path.stem for path in FILES if path.parent.name == skae.__version__}
    assert names == set(BY_NAME), "run tests/estimators/model_files/write.py"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such masks")
def test_who_may_read_a_file_is_what_the_mask_says(tmp_path):
    before = os.umask(0o022)
    try:
        skae.save(AutoEncoder(2), tmp_path / "model")
    finally:
        os.umask(before)
    # As of any file that a program writes, so that a service of another user can read it.
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o644


def test_what_models_of_tables_know(tmp_path):
    frame = pd.DataFrame(
        {
            "number": np.arange(40.0),
            "text": list("xyzw") * 10,
            "date": pd.date_range("2020", periods=40),
            "kind": pd.Categorical(list("pq") * 20),
        }
    )
    y = np.where(np.arange(40) % 3 > 0, np.array(["no", "yes"])[np.arange(40) % 2], None)
    model = StackedClassifier(max_iter=2, unlabelled=np.nan, random_state=0).fit(frame, y)
    skae.save(model, tmp_path / "model")
    again = skae.load(tmp_path / "model")
    assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))
    assert np.isnan(again.unlabelled)
    frozen = FrozenEstimator(AutoEncoder(3, max_iter=1, random_state=0).fit(frame[["number"]]))
    skae.save(SparseCoder(dictionary=frozen), tmp_path / "model")
    assert skae.load(tmp_path / "model").dictionary.estimator.n_features_in_ == 1


def test_numbers_of_numpy_come_back_as_such(tmp_path):
    # Some are Python's floats and texts as well; they are not to come back as these.
    skae.save(AutoEncoder(np.int64(2), learning_rate=np.float64(0.5)), tmp_path / "model")
    again = skae.load(tmp_path / "model")
    assert type(again.n_components) is np.int64
    assert type(again.learning_rate) is np.float64


def test_a_model_goes_on_where_it_was(X, tmp_path):
    model = AutoEncoder(3, random_state=0).partial_fit(X)
    skae.save(model, tmp_path / "model")
    again = skae.load(tmp_path / "model").partial_fit(X)
    # Moments and random state are in the file.
    assert_array_equal(again.transform(X), model.partial_fit(X).transform(X))


@pytest.mark.parametrize(
    "model",
    [
        SparseCoder(dictionary=KMeans()),
        AutoEncoder(corruption=lambda x, generator: (x, None)),
        KMeans(),
        "no model",
    ],
)
def test_what_is_no_data_is_refused(model, tmp_path):
    with pytest.raises(TypeError, match=r"not saved|no estimator of skae"):
        skae.save(model, tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_write_that_fails_leaves_the_earlier_file(X, tmp_path, monkeypatch):
    path = tmp_path / "model"
    model = AutoEncoder(2, max_iter=1, random_state=0).fit(X)
    skae.save(model, path)
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        skae.save(AutoEncoder(3), path)
    assert os.listdir(tmp_path) == ["model"]
    assert_array_equal(skae.load(path).transform(X), model.transform(X))


def stored(model, tmp_path):
    skae.save(model, tmp_path / "model")
    return (tmp_path / "model").read_bytes()


def rewritten(data, tmp_path, change):
    """A file whose content was changed, with checksums that are right."""
    (tmp_path / "old").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "old") as old, zipfile.ZipFile(tmp_path / "new", "w") as new:
        for name in old.namelist():
            entry = old.read(name)
            if name == "model.json":
                entry = json.dumps(change(json.loads(entry))).encode()
            new.writestr(name, entry)
    return tmp_path / "new"


ATTACKS = {
    "another package": ["object", "subprocess.Popen", ["dict", []]],
    "a builtin": ["object", "builtins.eval", ["dict", []]],
    "a method": ["entry", "model.json"],
    "no estimator": ["dict", []],
    "a later array": ["array", 999],
    "a path": ["array", "../../etc/passwd"],
    "a type": ["dtype", "O8,O8"],
}


@pytest.mark.parametrize("content", ATTACKS.values(), ids=ATTACKS)
def test_files_ask_for_nothing_else(content, tmp_path):
    data = stored(AutoEncoder(2), tmp_path)
    path = rewritten(data, tmp_path, lambda found: found | {"model": content})
    with pytest.raises(skae.ModelFileError):
        skae.load(path)


def test_no_other_file_is_read(tmp_path):
    """pandas would open what a name of a time zone of dateutil says."""
    dtype = ["pandas", f"datetime64[ns, dateutil/{tmp_path}/zone]"]
    data = stored(AutoEncoder(2), tmp_path)
    path = rewritten(data, tmp_path, lambda found: found | {"model": ["list", [dtype]]})
    with pytest.raises(skae.ModelFileError, match="a file of time zones, which is not read"):
        skae.load(path)


def test_mentions_of_an_array_are_one_array(tmp_path):
    """A short file that mentions a long array many times would fill the memory."""
    model = AutoEncoder(2, max_iter=1).fit(np.random.default_rng(0).random((9, 3)))

    def changed(found):
        found["model"][2][1].append(["mentions", ["list", [["array", 0]] * 100]])
        return found

    again = skae.load(rewritten(stored(model, tmp_path), tmp_path, changed))
    assert len({id(array) for array in again.mentions}) == 1


def test_entries_inside_of_others_are_refused(tmp_path):
    """They would be longer together than the file, by the square of its length."""
    numbers, inner, outer = np.zeros(10_000), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("1.npy", _npy(numbers))
        hidden = archive.getinfo("1.npy")
    around = _npy(np.frombuffer(inner.getvalue(), dtype=np.uint8))
    with zipfile.ZipFile(outer, "w") as archive:
        content = {"format": 1, "skae": "1", "model": ["list", [["array", 0], ["array", 1]]]}
        archive.writestr("model.json", json.dumps(content))
        archive.writestr("0.npy", around)
        start = outer.getvalue().index(inner.getvalue()[:30])
        hidden.header_offset = start
        archive.filelist.append(hidden)
        archive.NameToInfo["1.npy"] = hidden
    with pytest.raises(skae.ModelFileError, match=r"entry 1\.npy is not stored as it should be"):
        from_bytes(outer.getvalue())


def test_a_file_of_a_later_version(tmp_path):
    data = stored(AutoEncoder(2), tmp_path)
    path = rewritten(data, tmp_path, lambda found: found | {"format": 2, "skae": "9.0"})
    with pytest.raises(skae.ModelFileError, match=r"format 2 of skae 9\.0.*later version"):
        skae.load(path)


def test_objects_among_arrays_are_not_read(tmp_path):
    data = stored(AutoEncoder(2, max_iter=1).fit(np.random.default_rng(0).random((9, 3))), tmp_path)
    (tmp_path / "old").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "old") as old, zipfile.ZipFile(tmp_path / "new", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"'<f8'", b"'|O' "))
    with pytest.raises(skae.ModelFileError, match="array"):
        skae.load(tmp_path / "new")


def test_damaged_files(tmp_path):
    rows = np.random.default_rng(0).random((9, 3))
    model = AutoEncoder(2, max_iter=1, random_state=0).fit(rows)
    vars(model).pop("_training_state", None)
    data, codes = stored(model, tmp_path), model.transform(rows)
    places = range(0, len(data), len(data) // SOME_BYTES)
    refused = 0
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        try:
            again = from_bytes(bytes(damaged))
        except skae.ModelFileError:
            refused += 1
            continue
        # What is not noticed is of no account: times and flags of the archive's own.
        assert_array_equal(again.transform(rows), codes)
        assert again.get_params() == model.get_params()
    assert refused > 0.8 * len(places)
    for length in range(0, len(data), len(data) // 20):
        with pytest.raises(skae.ModelFileError):
            from_bytes(data[:length])


def test_categories_that_are_times_and_intervals(tmp_path):
    """What `pd.cut` makes of numbers and of dates, in zones or not."""
    x = np.random.default_rng(0).normal(size=40)
    days = pd.Timestamp("2020-01-01", tz="Europe/Berlin") + pd.to_timedelta(x.round(), unit="D")
    table = pd.DataFrame({"bin": pd.cut(x, 3), "span": pd.cut(days, 3), "a": x})
    table["day"] = pd.Categorical(days)
    table["nano"] = pd.Categorical(days.tz_convert(None).as_unit("ns") + pd.Timedelta(7, "ns"))
    model = AutoEncoder(2, max_iter=1, random_state=0).fit(table)
    skae.save(model, tmp_path / "model")
    pd.testing.assert_frame_equal(
        skae.load(tmp_path / "model").reconstruct(table), model.reconstruct(table)
    )
