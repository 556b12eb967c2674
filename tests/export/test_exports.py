"""Exports of every public estimator: the same numbers, or an error that says why there is none."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from registry import CASES
from sklearn.compose import make_column_transformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

import skae
from skae.engine.networks.activations import ACTIVATIONS
from skae.export import from_torch, register_converters, to_onnx, to_torch

# Estimators that have no export, and a word of the reason.
REFUSED = {
    "ConvolutionalPSD": "gains",
    "DeepBoltzmannMachine": "mean field",
    "DeepRecurrentAutoEncoder": "recurrence",
    "DenoisingImputer": "cannot be exported",
    "GenerativeStochasticNetwork": "recurrence",
    "LocalContrastNormalizer": "cannot be exported",
    "OutlierDetector": "cannot be exported",
    "PatchFeatures": "cannot be exported",
    "PatchWhitener": "cannot be exported",
    "Pooling": "cannot be exported",
    "PosteriorEnsemble": "cannot be exported",
    "Rectifier": "cannot be exported",
    "SparseCoder": "solved for each row",
    "TableFeatures": "more with rows",
    "TangentDistanceClassifier": "cannot be exported",
}
EXPORTED = [case for case in CASES if str(case) not in REFUSED]


def fitted(case):
    """A small model; one that predicts, with an output that is fine-tuned."""
    return case.fit(output="linear") if case.takes("output") else case.fitted


def expected(model, X):
    """What the encoder or predictor of a model says."""
    if hasattr(model, "transform"):
        return model.transform(X)
    said = model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)
    return said.reshape(len(X), -1)


def applied(module, X):
    with torch.no_grad():
        return module(torch.from_numpy(X)).numpy()


def session_of(graph):
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def run(graph, X):
    """All outputs of a graph for rows."""
    session = session_of(graph)
    return session.run(None, {session.get_inputs()[0].name: X})


@pytest.mark.parametrize("case", EXPORTED, ids=str)
def test_modules_of_torch_say_what_the_model_says(case):
    model = fitted(case)
    module = to_torch(model, dtype=torch.float64)
    assert_allclose(applied(module, case.X), expected(model, case.X), rtol=1e-10, atol=1e-12)
    assert all(values.requires_grad for values in module.parameters())
    if case.is_transformer:
        codes = model.transform(case.X)
        decoder = to_torch(model, "decoder", dtype=torch.float64)
        rows = model.inverse_transform(codes)
        assert_allclose(applied(decoder, codes), rows, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", EXPORTED, ids=str)
def test_weights_come_back_from_a_module(case):
    model = fitted(case)
    module = to_torch(model, dtype=torch.float64)
    linear = [one for one in module if isinstance(one, torch.nn.Linear)]
    with torch.no_grad():
        for one in linear:
            one.weight.mul_(0.5)
            one.bias.add_(0.1)
    changed = from_torch(model, module)
    assert_allclose(expected(changed, case.X), applied(module, case.X), rtol=1e-5, atol=1e-6)
    before = expected(model, case.X)
    assert np.abs(expected(changed, case.X) - before).max() > 1e-3
    again = from_torch(changed, to_torch(model, dtype=torch.float64))
    assert_allclose(expected(again, case.X), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", EXPORTED, ids=str)
def test_graphs_of_onnx_say_what_the_model_says(case, dtype):
    pytest.importorskip("skl2onnx")
    model, X = fitted(case), case.X.astype(dtype)
    options = {id(model): {"zipmap": False}} if case.is_classifier else None
    *labels, numbers = run(to_onnx(model, X[:1], options=options), X)
    assert numbers.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-10
    assert_allclose(numbers, expected(model, X), rtol=tolerance, atol=tolerance)
    assert not labels or (labels[0] == model.predict(X)).all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_says_why(name):
    case = next(case for case in CASES if str(case) == name)
    with pytest.raises((ValueError, TypeError), match=REFUSED[name]):
        to_torch(case.fitted)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_of_deep_models(activation):
    pytest.importorskip("skl2onnx")
    X = np.random.default_rng(0).normal(size=(40, 5)) * 30
    sizes = {"hidden_layer_sizes": (6,), "activation": activation}
    model = skae.AutoEncoder(4, **sizes, loss="gaussian", max_iter=3, random_state=0).fit(X)
    assert_allclose(applied(to_torch(model, dtype=torch.float64), X), model.transform(X), atol=1e-9)
    assert_allclose(run(to_onnx(model, X), X)[0], model.transform(X), atol=1e-9)


def mixed_rows():
    """Numbers, truth values and one-hot columns of two variables."""
    generator = np.random.default_rng(0)
    one_hot = [np.eye(n)[generator.integers(n, size=60)] for n in (3, 4)]
    coins = generator.integers(2, size=(60, 2))
    return np.hstack([generator.normal(3, 2, size=(60, 2)), coins, *one_hot])


def test_each_kind_of_column_has_its_own_mean():
    X = mixed_rows()
    model = skae.DenoisingAutoEncoder(4, max_iter=5, random_state=0).fit(X)
    assert len(model.columns_.parts) > 1
    codes = model.transform(X)
    rows = applied(to_torch(model, "decoder", dtype=torch.float64), codes)
    assert_allclose(rows, model.inverse_transform(codes), atol=1e-12)
    assert_allclose(rows[:, 4:7].sum(1), 1)


def test_gaps_are_filled_as_the_model_fills_them():
    pytest.importorskip("skl2onnx")
    X = mixed_rows()
    gappy = X.copy()
    gappy[::3, 0] = np.nan
    settings = {"loss": "gaussian", "numbers": "standardized", "max_iter": 3, "random_state": 0}
    for seen in (gappy, X):  # rows that come later may have gaps in any case
        model = skae.DenoisingAutoEncoder(4, **settings).fit(seen)
        codes = model.transform(gappy)
        assert np.isfinite(codes).all()
        assert_allclose(applied(to_torch(model, dtype=torch.float64), gappy), codes, atol=1e-12)
        assert_allclose(run(to_onnx(model, X), gappy)[0], codes, atol=1e-12)
    y = (X[:, 1] > 3).astype(int)
    stack = skae.StackedClassifier((3,), output="linear", max_iter=1, random_state=0).fit(X, y)
    labels, found = run(to_onnx(stack, X, options={"zipmap": False}), gappy)
    assert_allclose(found, stack.predict_proba(gappy), atol=1e-12)
    assert (labels == stack.predict(gappy)).all()


# What skl2onnx reads of an SVC.
@pytest.mark.filterwarnings("ignore:Attribute `prob:FutureWarning")
def test_a_pipeline_from_categories_to_classes_is_one_graph():
    pytest.importorskip("skl2onnx")
    generator = np.random.default_rng(0)
    X = np.column_stack([generator.normal(size=(80, 3)), generator.integers(3, size=80)])
    y = np.array(["low", "high"])[(X[:, 0] + X[:, 3] > 1).astype(int)]
    X = X.astype(np.float32)
    columns = make_column_transformer((StandardScaler(), [0, 1, 2]), (OneHotEncoder(), [3]))
    codes = skae.ContractiveAutoEncoder(5, max_iter=20, random_state=0)
    model = make_pipeline(columns, codes, LogisticRegression()).fit(X, y)
    labels, probabilities = run(to_onnx(model, X, options={"zipmap": False}), X)
    assert (labels == model.predict(X)).all()
    assert_allclose(probabilities, model.predict_proba(X), atol=1e-5)
    svm = make_pipeline(columns, codes, SVC(random_state=0)).fit(X, y)
    assert (run(to_onnx(svm, X), X)[0] == svm.predict(X)).all()


def test_the_table_of_the_guide_tells_what_the_other_tests_find():
    """``python tests/export/table.py`` writes it."""
    page = Path(__file__).parents[2] / "doc" / "guide" / "exports.inc"
    rows = page.read_text().split("   * - ")[2:]
    found = {row.partition("~skae.")[2].partition("`")[0]: row.split("\n     - ") for row in rows}
    refused = {name for name, cells in found.items() if "no" in cells[4].split(":")[0].split()}
    assert found.keys() == {str(case) for case in CASES}
    assert refused == REFUSED.keys()
    assert {name for name, cells in found.items() if cells[5].strip() == "no"} == REFUSED.keys()


def test_predictors_of_sparse_codes_and_dictionaries():
    pytest.importorskip("skl2onnx")
    X = np.random.default_rng(0).normal(size=(40, 6))
    for activation in ("tanh", "shrinkage", "smooth_shrinkage"):
        model = skae.PSD(4, activation=activation, alpha=0.1, max_iter=5, random_state=0).fit(X)
        codes = model.transform(X)
        module = to_torch(model, dtype=torch.float64)
        assert_allclose(applied(module, X), codes, atol=1e-12)
        assert_allclose(run(to_onnx(model, X), X)[0], codes, atol=1e-12)
        model.weights_["gain"][0] = 0.0
        assert (applied(to_torch(model, dtype=torch.float64), X)[:, 0] == 0).all()
        again = from_torch(model, module)
        assert again.weights_["weight_0"].shape == (4, 6)
    with pytest.raises(ValueError, match="inference='optimal'"):
        to_torch(model.set_params(inference="optimal"))
    coder = skae.SparseCoder(4, max_iter=2, inference_tol=1e-2, random_state=0).fit(X)
    codes = coder.transform(X)
    rows = applied(to_torch(coder, "decoder", dtype=torch.float64), codes)
    assert_allclose(rows, coder.inverse_transform(codes), atol=1e-12)
    with pytest.raises(ValueError, match="two parts"):
        to_torch(coder.set_params(split_sign=True), "decoder")


def test_tables_of_numbers():
    """Gaps, heavy tails, truth values, two numbers, and a column without any value."""
    pytest.importorskip("skl2onnx")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "a": rng.standard_cauchy(60), "b": rng.random(60) > 0.5, "c": rng.integers(3, 5, 60),
            "nothing": np.full(60, np.nan), "d": rng.integers(0, 9, 60),
        }
    )  # fmt: skip
    table.loc[::7, "a"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the column without any value
        model = skae.AutoEncoder(3, max_iter=3, random_state=0).fit(table)
        stack = skae.StackedClassifier((3,), output="linear", max_iter=3, random_state=0)
        stack.fit(table, (table["d"] > 4).astype(int))
    X, codes = table.to_numpy(dtype=np.float64), model.transform(table)
    assert_allclose(applied(to_torch(model, dtype=torch.float64), X), codes, atol=1e-5)
    assert_allclose(run(to_onnx(model, table), X)[0], codes, atol=1e-5)
    said = applied(to_torch(stack, dtype=torch.float64), X)
    assert_allclose(said, stack.predict_proba(table), atol=1e-5)
    with pytest.raises(ValueError, match="decoder of this AutoEncoder makes the rows of a table"):
        to_torch(model, "decoder")


def test_whole_numbers_as_rows():
    pytest.importorskip("skl2onnx")
    X = np.random.default_rng(0).integers(0, 9, size=(40, 4))
    for rows in (X, X + 1_700_000_000):  # seconds since 1970, which float32 does not tell apart
        model = skae.AutoEncoder(3, max_iter=3, random_state=0).fit(rows)
        assert_allclose(run(to_onnx(model, rows), rows)[0], model.transform(rows), atol=1e-5)


def test_outputs_side_by_side_and_no_graph_of_them():
    pytest.importorskip("skl2onnx")
    X = mixed_rows()
    y = np.column_stack([X[:, 2], X[:, 4:7].argmax(1)]).astype(int)
    model = skae.StackedClassifier((4,), output="linear", max_iter=3, random_state=0).fit(X, y)
    both = np.hstack(model.predict_proba(X))
    assert_allclose(applied(to_torch(model, dtype=torch.float64), X), both, atol=1e-12)
    with pytest.raises(ValueError, match="several outputs"):
        to_onnx(model, X)


def test_models_that_are_not_fitted_and_parts_that_are_not_there():
    X = mixed_rows()
    with pytest.raises(NotFittedError):
        to_torch(skae.AutoEncoder())
    model = skae.AutoEncoder(3, max_iter=2, random_state=0).fit(X)
    with pytest.raises(ValueError, match="'encoder' and 'decoder'"):
        to_torch(model, "predictor")
    few = skae.StackedClassifier((3,), layer="auto", output="kernel", max_iter=2, random_state=0)
    few.fit(X, X[:, 2].astype(int))
    with pytest.raises(ValueError, match="kernel of rows"):
        to_torch(few)
    with pytest.raises(ValueError, match="Export its stack_"):
        to_torch(few, "encoder")


def test_tables_are_refused_by_name():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2, 3, 4] * 5, "b": ["x", "y", "z", "x"] * 5})
    model = skae.DenoisingAutoEncoder(3, max_iter=2, random_state=0).fit(frame)
    with pytest.raises(ValueError, match=r"reads a table.*ColumnTransformer"):
        to_torch(model)


def test_modules_of_another_shape_or_without_numbers_are_refused():
    X = mixed_rows()
    model = skae.AutoEncoder(3, max_iter=2, random_state=0).fit(X)
    other = to_torch(skae.AutoEncoder(4, max_iter=2, random_state=0).fit(X))
    with pytest.raises(ValueError, match=r"\(4, 11\).*\(3, 11\)"):
        from_torch(model, other)
    broken = to_torch(model)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        from_torch(model, broken)


def test_skl2onnx_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skl2onnx", None)
    with pytest.raises(ImportError, match=r"skae\[onnx\]"):
        register_converters()
