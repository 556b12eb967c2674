"""What is tried: an estimator, parameters, rows, and a sequence of calls.

An `Attack` is plain data, so that a failure prints as what can be run again. Parameters are drawn
from the constraints that each estimator declares; what these leave open stands in `OPEN`.
"""

import math
from copy import deepcopy
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from registry import CASES
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import Interval, StrOptions

import skae

BY_NAME = {str(case): case for case in CASES}


class Rows(NamedTuple):
    """Rows of X, without the rows themselves."""

    seed: int
    n_rows: int
    n_columns: int
    kind: str
    exponent: int
    trouble: str
    dtype: str
    container: str


class Call(NamedTuple):
    """A call: a method, the rows that it gets, more arguments, and where Ctrl-C is pressed.

    - ``rows``: which, of `ROWS`.
    - ``target``, ``weight``: which, of `TARGETS` and `WEIGHTS`, where the method takes them.
    - ``interrupt``: at which of the package's functions Ctrl-C is pressed. 0: never.
    """

    method: str
    rows: str
    target: str
    weight: str
    interrupt: int
    options: dict


class Attack(NamedTuple):
    """An estimator, parameters, rows and calls."""

    estimator: str
    parameters: dict
    rows: Rows
    calls: list


# Rows


KINDS = {
    "normal": lambda r, n, p: r.normal(size=(n, 2)) @ r.normal(size=(2, p)) + r.normal(size=p),
    "binary": lambda r, n, p: r.integers(0, 2, size=(n, p)),
    "unit": lambda r, n, p: np.round(r.random((n, p)), 1),
    "counts": lambda r, n, p: r.integers(0, 4, size=(n, p)) * (r.random((n, p)) < 0.5),
    "constant": lambda r, n, p: np.full((n, p), r.normal()),
    "constant columns": lambda r, n, p: r.normal(size=(n, p)) * (np.arange(p) % 2) + 3,
    "zeros": lambda r, n, p: np.zeros((n, p)),
    "duplicated": lambda r, n, p: np.repeat(r.normal(size=(1 + n // 4, p)), 4, 0)[:n],
    "equal columns": lambda r, n, p: np.repeat(r.normal(size=(n, 1)), p, 1),
    "one-hot": lambda r, n, p: np.eye(p)[r.integers(0, p, size=n)],
    "mixed": lambda r, n, p: np.where(np.arange(p) % 2, r.normal(size=(n, p)), r.random(p) < 0.5),
    "heavy": lambda r, n, p: r.standard_cauchy(size=(n, p)) ** 3,
    "far": lambda r, n, p: 1e8 + r.normal(size=(n, p)),
    "any scale": lambda r, n, p: r.normal(size=(n, p)) * 10.0 ** r.integers(-300, 300, size=(n, p)),
    "scales": lambda r, n, p: r.normal(size=(n, p)) * 10.0 ** r.integers(-300, 300, size=p),
    "subnormal": lambda r, n, p: r.normal(size=(n, p)) * 1e-310,
}
PLAIN = ("normal", "binary", "unit", "counts", "mixed", "constant columns", "duplicated", "one-hot")
TROUBLES = {
    "none": lambda r, X: X,
    "some nan": lambda r, X: np.where(r.random(X.shape) < 0.2, np.nan, X),
    "a column of nan": lambda r, X: np.where(np.arange(X.shape[1]) == 0, np.nan, X),
    "a row of nan": lambda r, X: np.where(np.arange(len(X))[:, None] == 0, np.nan, X),
    "all nan": lambda r, X: X * np.nan,
    "infinity": lambda r, X: np.where(r.random(X.shape) < 0.1, -np.inf, X),
}
DTYPES = (
    "float64", "float32", "float16", "longdouble", ">f8", "int64", "uint8", "int8", "bool",
    "object", "complex128", "str",
)  # fmt: skip


def _pandas(X):
    import pandas as pd

    return pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])


def _table(X):
    """A frame with text, a category and a date beside its numbers."""
    import pandas as pd

    frame = _pandas(X)
    codes = np.arange(len(X)) % 3
    frame["text"] = np.array(["x", "y", "z"])[codes]
    frame["kind"] = pd.Categorical(codes)
    frame["day"] = pd.date_range("2020", periods=len(X))
    return frame


def _polars(X):
    import polars as pl

    return pl.DataFrame({f"c{i}": X[:, i] for i in range(X.shape[1])})


def _sparse(kind, explicit=False):
    def make(X):
        from scipy import sparse

        matrix = sparse.csr_matrix(X)
        if explicit and matrix.nnz:
            matrix.data[:: max(1, matrix.nnz // 3)] = 0  # stored, and zero
        return matrix.asformat(kind)

    return make


def _read_only(X):
    X = X.copy()
    X.setflags(write=False)
    return X


CONTAINERS = {
    "array": lambda X: X,
    "fortran": np.asfortranarray,
    "strided": lambda X: np.repeat(np.repeat(X, 2, 0), 2, 1)[::2, ::2],
    "reversed": lambda X: X[::-1, ::-1],
    "read-only": _read_only,
    "list": lambda X: X.tolist(),
    "csr": _sparse("csr"),
    "csr with zeros": _sparse("csr", explicit=True),
    "csc": _sparse("csc"),
    "coo": _sparse("coo"),
    "pandas": _pandas,
    "table": _table,
    "polars": _polars,
    "tensor": lambda X: torch.as_tensor(X.copy()),
    "tensor with grad": lambda X: torch.as_tensor(X.copy()).requires_grad_(),
    "three axes": lambda X: X[:, :, None],
    "one axis": lambda X: X.ravel(),
    "masked": lambda X: np.ma.masked_array(X, mask=np.zeros(X.shape, dtype=bool)),
}
# Which rows a call gets, as what is different in them.
ROWS = {
    "same": lambda rows: rows,
    "fewer": lambda rows: rows._replace(n_rows=max(1, rows.n_rows // 3)),
    "one": lambda rows: rows._replace(n_rows=1),
    "others": lambda rows: rows._replace(seed=rows.seed + 1),
    "another kind": lambda rows: rows._replace(kind="normal", container="array"),
    "huge": lambda rows: rows._replace(exponent=rows.exponent + 160),
    "minute": lambda rows: rows._replace(exponent=rows.exponent - 160),
    "gaps": lambda rows: rows._replace(trouble="some nan"),
    "wider": lambda rows: rows._replace(n_columns=rows.n_columns + 1),
    "none": lambda rows: rows._replace(n_rows=0),
    "single": lambda rows: rows._replace(dtype="float32"),
    "whole": lambda rows: rows._replace(dtype="int64"),
    "sparse": lambda rows: rows._replace(container="csr with zeros"),
    "frame": lambda rows: rows._replace(container="pandas"),
}


def made(rows):
    """The rows of a description, in their container."""
    with np.errstate(all="ignore"):
        return _made(rows if possible(rows) else rows._replace(dtype="float32"))


def _made(rows):
    generator = np.random.default_rng(rows.seed)
    X = KINDS[rows.kind](generator, rows.n_rows, rows.n_columns) * 1.0
    X = X * 10.0 ** (rows.exponent // 2) * 10.0 ** (rows.exponent - rows.exponent // 2)
    X = TROUBLES[rows.trouble](generator, X)
    # Whole numbers have neither NaN nor infinity, and wrap around.
    X = np.nan_to_num(X) % 251 if np.dtype(rows.dtype).kind in "iub" else X
    X = X.astype(rows.dtype)
    return CONTAINERS[rows.container](X)


def possible(rows):
    """Whether there can be such rows: not every container holds every dtype."""
    kind = np.dtype(rows.dtype).kind
    plain = rows.dtype not in ("float16", "longdouble", ">f8", "object", "str", "complex128")
    if rows.container.startswith("tensor"):
        return (plain or rows.dtype == "float16") and (rows.container == "tensor" or kind == "f")
    if rows.container in ("csr", "csr with zeros", "csc", "coo", "polars"):
        return plain
    return rows.container not in ("pandas", "table") or rows.dtype != ">f8"  # takes no rows of it


# Targets and weights


def _cycle(values):
    return lambda r, n: np.resize(np.array(values), n)


TARGETS = {
    "none": lambda r, n: None,
    "classes": _cycle([0, 1, 1, 0, 2]),
    "two classes": _cycle([1, 0, 0]),
    "strings": _cycle(["no", "yes", "no"]),
    "marked": _cycle([0, -1, 1, -1]),
    "strings with None": lambda r, n: np.resize(np.array(["a", None, "b"], dtype=object), n),
    "truth values": _cycle([True, False, True]),
    "one class": lambda r, n: np.zeros(n, dtype=int),
    "all unlabelled": lambda r, n: np.full(n, -1),
    "numbers": lambda r, n: r.normal(size=n),
    "huge numbers": lambda r, n: r.normal(size=n) * 1e200,
    "tiny numbers": lambda r, n: r.normal(size=n) * 1e-200,
    "largest numbers": lambda r, n: np.resize([1.7e308, -1.7e308], n),
    "constant number": lambda r, n: np.full(n, 2.5),
    "nan": lambda r, n: np.resize([1.0, np.nan], n),
    "all nan": lambda r, n: np.full(n, np.nan),
    "infinity": lambda r, n: np.resize([1.0, np.inf, 2.0], n),
    "two outputs": lambda r, n: r.normal(size=(n, 2)),
    "two outputs of classes": lambda r, n: r.integers(0, 2, size=(n, 2)),
    "a column": lambda r, n: r.integers(0, 2, size=(n, 1)),
    "transposed": lambda r, n: r.normal(size=(1, n)),
    "short": lambda r, n: np.arange(max(0, n - 1)) % 2,
    "complex": lambda r, n: np.arange(n) * 1j,
    "list": lambda r, n: (np.arange(n) % 2).tolist(),
    "tensor": lambda r, n: torch.arange(n) % 2,
}
WEIGHTS = {
    "none": lambda r, n: None,
    "ones": lambda r, n: np.ones(n),
    "random": lambda r, n: r.random(n),
    "some zero": lambda r, n: (np.arange(n) % 2).astype(float),
    "one row": lambda r, n: (np.arange(n) == 0) * 1.0,
    "all zero": lambda r, n: np.zeros(n),
    "negative": lambda r, n: -np.ones(n),
    "huge": lambda r, n: np.resize([1e300, 1e-300], n),
    "nan": lambda r, n: np.full(n, np.nan),
    "short": lambda r, n: np.ones(max(0, n - 1)),
    "integers": lambda r, n: np.arange(n),
    "text": lambda r, n: np.full(n, "a"),
}


# Parameters


def own_noise(x, generator):
    """Noise of the user's own."""
    return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype), None


def no_noise(x, generator):
    """Noise that is none: it forgets to return something."""


def along_columns(X):
    """Tangents of the user's own: the first axis."""
    return np.resize(np.eye(X.shape[1])[:1], (len(X), 1, X.shape[1]))


SMALL = {"max_iter": 1, "random_state": 0}
_auto_encoder = skae.AutoEncoder(2, **SMALL)
_denoising = skae.DenoisingAutoEncoder(2, corruption="gaussian", **SMALL)
_rbm = skae.RBM(2, **SMALL)
_psd = skae.PSD(2, inference_max_iter=5, **SMALL)
_stack = skae.StackedAutoEncoder((2,), **SMALL)
_classifier = skae.StackedClassifier((2,), layer="auto", **SMALL)
_regressor = skae.StackedRegressor((2,), layer="auto", **SMALL)

SIZES = [(), 1, 2, (2,), (3, 2), [2], (0,), (2.5,), "many", (10**12,), np.array([2, 3])]
SHAPES = [1, 2, 3, (1, 1), (2, 2), (2, 3), (3, 3), (4, 4), (6, 6), (2, 2, 2), (0, 2), (100, 100)]
LOSSES = [
    [("gaussian", slice(None))],
    [("gaussian", [0]), ("bernoulli", slice(1, None))],
    [("multinomial", [0, 1]), ("squared_error", slice(2, None))],
    [("gaussian", [0])],
    [("gaussian", [0, 0])],
    [("gaussian", ["c0"]), ("squared_error", ["c1", "c2"])],
    [("nonsense", slice(None))],
    [],
    ["gaussian"],
]
ESTIMATORS = [
    None, _auto_encoder, _denoising, _rbm, _psd, _stack, _classifier, _regressor, PCA(2),
    FrozenEstimator(_auto_encoder), "nonsense", skae.AutoEncoder,
]  # fmt: skip
# What constraints leave open.
OPEN = {
    "batch_size": [1, 2, 5, 16, 100, 10**12],
    "random_state": [0, 1, 2**40, np.random.RandomState(0), np.int64(3), -1, 2**63, "seed"],
    "device": ["cpu", "auto", torch.device("cpu"), "cuda", "meta", "nonsense"],
    "verbose": [False, True, 2],
    "max_iter": [1, 2, 3, 1, 2, 3, "auto", 0],
    "hidden_layer_sizes": SIZES,
    "layer_sizes": SIZES,
    "layer": ["auto", "denoising", "contractive", "rbm", "psd", *ESTIMATORS[1:]],
    "layers": [
        None, [_auto_encoder], [_denoising, _auto_encoder], [_rbm, _rbm], [_psd, _auto_encoder],
        [PCA(2), _auto_encoder], [], ["nonsense"], [_auto_encoder, None], (_rbm,), [_stack],
    ],
    "loss": ["auto", "gaussian", "bernoulli", "multinomial", "squared_error", "none", *LOSSES],
    "visible": ["auto", "gaussian", "bernoulli", "multinomial", "squared_error", *LOSSES],
    "corruption": [
        None, "masking", "hiding", "salt_and_pepper", "gaussian", "swap", own_noise, no_noise,
    ],
    "corruption_level": [
        0.0, 0.25, 0.5, 1.0, (0.1, 0.5), (0.5, 0.1), (0, 0), [0.1, 0.2, 0.3], 2.0, 1e300, 1e-300,
        (0.1,), np.array([0.5, 0.5]), [np.nan] * 3,
    ],
    "walkback": [0, 0, 1, 2],
    "emphasis": [None, (1.0, 0.5), (0, 1), (0, 0), (1,), (np.inf, 1), (1e300, 1e-300), "both"],
    "penalties": [(), [], ["nonsense"], [object]],
    "dictionary": [
        None, None, np.eye(3), np.ones((2, 3)), np.zeros((2, 3)), np.full((2, 3), np.nan),
        1e200 * np.eye(3), PCA(2), _auto_encoder, _rbm, torch.eye(3), "nonsense", [[1, 2, 3]],
    ],
    "n_components": [1, 2, 3, 5, 10**12],
    "image_shape": [(4, 4), (6, 6), (2, 2), (4, 4, 1), (2, 2, 2), (1, 16), None, (0, 4), "square"],
    "filter_shape": SHAPES, "patch_shape": SHAPES, "size": SHAPES, "grid": [None, *SHAPES],
    "pooling_grid": [None, *SHAPES], "group_shape": [None, *SHAPES[:6]],
    "map_shape": [None, *SHAPES[:6]],
    "stride": [1, 2, 3, (1, 2), 100],
    "n_patches": [1, 5, 30],
    "categorical_features": ["from_dtype", [0], [True, False, False], ["c0"], [99], []],
    "class_weight": [
        None, "balanced", {0: 1, 1: 2}, {"no": 1.0, "yes": 3.0}, {0: 0.0, 1: 1}, {0: -1}, [],
        {0: np.nan},
    ],
    "unlabelled": [-1, None, np.nan, "?", 0, 2.5],
    "cost_matrix": [None, [[0, 1], [1, 0]], [[0, 1, 2]], [[np.nan] * 2] * 2, 1 - np.eye(3)],
    "tangent_source": [
        "encoder", "local_pca", ("local_pca", 2), ("local_pca", 10**6), ("nonsense",),
        _auto_encoder, along_columns, PCA(2),
    ],
    "dropout": [0.0, 0.5, (0.2, 0.5), (0.9, 0.9), (1, 2, 3), (1.0, 0.0)],
    "unlabelled_penalty": [1.0, 0.0, (1.0, 0.0), 1e300, (1, 2, 3)],
    "unlabelled_step": [0.28, (0.28, 0.2), 1e-300, 1e300, (1, 2, 3)],
    "entropy_penalty": [0.0, 1.0, (0.3, 1.0), 1e300],
    "pretraining": [
        "unsupervised", "supervised", "partly_supervised", "simultaneous", "prefit", None,
        ["unsupervised"], ["supervised", "unsupervised"], "nonsense",
    ],
    "whitening": [True, False, skae.PatchWhitener(), "nonsense", None],
    "encoder": ESTIMATORS[:6],
    "estimator": ESTIMATORS,
    "output": ["auto", "linear", "kernel", along_columns],
    "inference_max_iter": [1, 3, 30, 1000],
    "n_steps": [1, 2], "burn_in": [0, 1, 3], "thinning": [1, 2], "n_chains": [1, 2],
    "n_members": [1, 2, 4], "n_estimators": [2, 3], "n_gibbs_steps": [1, 2],
}  # fmt: skip
# What costs much as a default, in the place of what the other tests take.
SMALLER = {
    "PosteriorEnsemble": {"n_members": 2, "burn_in": 2, "thinning": 1, "n_steps": 2},
    "PatchFeatures": {"n_patches": 20, "image_shape": (4, 4), "patch_shape": (2, 2)},
    "ConvolutionalPSD": {"image_shape": (4, 4), "inference_max_iter": 20},
    "LocalContrastNormalizer": {"image_shape": (4, 4), "size": 3},
    "Pooling": {"image_shape": (4, 4)},
}
# Beside what is drawn, in half of the cases: what has a meaning together alone.
TOGETHER = {"DeepBoltzmannMachine": {"criterion": "multi_prediction", "pretraining": None}}
REALS = [0.0, 1e-300, 1e-12, 1e-3, 0.1, 0.3, 0.5, 0.99, 1.0, 3.0, 100.0, 1e8, 1e29, 1e150, 1e300]
ILLEGAL = [None, math.nan, math.inf, -math.inf, -1, 2.5, "nonsense", [], (), True, b"x", 1 + 1j]
KINDS_OF_NUMBERS = [np.float32(0.5), np.float64(0.5), np.int8(2), np.int64(2), np.True_]


def _legal(constraint):
    """Some of the values that a constraint allows."""
    if isinstance(constraint, Interval):
        numbers = REALS
        if constraint.type is Integral:
            least = -2 if constraint.left in (None, -math.inf) else int(constraint.left)
            numbers = [least, least + 1, least + 2, least + 4, 20]
        return [value for value in numbers if constraint.is_satisfied_by(value)]
    if isinstance(constraint, StrOptions):
        return sorted(constraint.options)
    if constraint is None:
        return [None]
    return {"boolean": [True, False], str: ["auto"], Real: [0.0, 1.0]}.get(constraint, [])


def values_of(name, constraints):
    """Values of a parameter: mostly legal ones."""
    legal = OPEN[name] if name in OPEN else [v for one in constraints for v in _legal(one)]
    return legal or [None]


@st.composite
def parameters(draw, cls, most=3):
    """Some parameters of an estimator, by name, with values."""
    constraints = cls._parameter_constraints
    names = draw(st.lists(st.sampled_from(sorted(constraints)), max_size=most, unique=True))
    found = {}
    for name in names:
        is_strange = draw(st.integers(0, 29)) == 29
        values = ILLEGAL + KINDS_OF_NUMBERS if is_strange else values_of(name, constraints[name])
        found[name] = draw(st.sampled_from(values))
    return found


def constructed(attack):
    """The estimator of an attack, not fitted."""
    case = BY_NAME[attack.estimator]
    return case.make(**deepcopy(SMALLER.get(attack.estimator, {}) | attack.parameters))


# Calls

LEARNING = ("fit", "partial_fit", "fit_transform")
# Of no estimator alone: what is done with any.
ANY = ("set_params", "clone", "pickle", "save", "set_output", "get_feature_names_out")
OPTIONS = {
    "sample": {
        "n_samples": [1, 3, 0, 7.5], "n_steps": [1, 2], "burn_in": [0, 2], "n_chains": [None, 1, 2],
        "random_state": [0, 1],
        "method": [
            "auto", "annealed", "local_covariance", "langevin", "denoising", "contractive",
            "isotropic", "gibbs", "tempering", "nonsense",
        ],
        "noise": [None, 0.1, (1.0, 0.1), 0.0, np.nan, 1e300, 1e-300],
        "return_means": [False, True],
    },
    "gibbs": {"n_steps": [1, 2, 0], "random_state": [0]},
    "log_partition_function": {
        "method": ["auto", "exact", "ais", "nonsense"], "n_chains": [2], "n_temperatures": [3, 10],
        "random_state": [0], "noise": [None, 0.5],
    },
    "chain_log_likelihood": {"n_states": [3], "burn_in": [1], "random_state": [0]},
    "energy": {"noise": [None, 0.5, 0.0, 1e300]},
    "score_field": {"noise": [None, 0.5, 1e-300]},
    "local_moments": {"noise": [None, 0.5]},
    "kneighbors": {"n_neighbors": [None, 1, 100], "return_distance": [True, False]},
}  # fmt: skip
# Always given: what these cost by default is too much for thousands of cases.
GIVEN = {
    "sample": ("n_steps", "burn_in"),
    "log_partition_function": ("n_chains", "n_temperatures"),
    "chain_log_likelihood": ("n_states", "burn_in"),
}


def methods_of(cls):
    """The public methods that are tried."""
    names = [name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name))]
    others = ("get_params", "get_metadata_routing", "set_callbacks", "fit_predict")
    return [n for n in names if n not in (*others, *ANY) and not n.endswith("_request")]


@st.composite
def calls_of(draw, cls, methods, first=False):
    """One call."""
    method = "fit" if first else draw(st.sampled_from(methods))
    options: dict[str, Any] = {}
    if method == "set_params":
        options = draw(parameters(cls, most=2))
        if draw(st.integers(0, 5)) == 5:
            options["nonsense"] = 1
    elif method == "set_output":
        options = {"transform": draw(st.sampled_from(["default", "pandas", "polars", "nonsense"]))}
    else:
        choices = OPTIONS.get(method, {})
        known = [name for name in choices if takes(cls, method, name)]
        given = [name for name in GIVEN.get(method, ()) if name in known]
        more = draw(st.lists(st.sampled_from(known), max_size=2, unique=True)) if known else []
        options = {name: draw(st.sampled_from(choices[name])) for name in {*given, *more}}
    usual = draw(st.integers(0, 3)) > 0
    rows = "same" if first or usual else draw(st.sampled_from(sorted(ROWS)))
    case = BY_NAME[cls.__name__]
    suitable = ["none"]
    if case.is_classifier or case.is_regressor:
        suitable = ["numbers"] if case.is_regressor else ["classes", "strings", "marked"]
    strange = draw(st.integers(0, 5)) == 5
    target = draw(st.sampled_from(sorted(TARGETS) if strange else suitable))
    weighted = draw(st.integers(0, 5)) == 5
    weight = draw(st.sampled_from(sorted(WEIGHTS))) if weighted else "none"
    # What sets parameters back can be stopped as well, and runs no longer than a moment.
    pressed = draw(st.integers(0, 7)) == 7 and method not in ANY
    interrupt = draw(st.integers(1, 1500)) if pressed else 0
    return Call(method, rows, target, weight, interrupt, options)


def takes(cls, method, name):
    """Whether a method has an argument."""
    import inspect

    return name in inspect.signature(getattr(cls, method)).parameters


@st.composite
def attacks(draw, case):
    """An attack on the estimator of a case of the registry."""
    chosen = draw(parameters(case.cls))
    if str(case) in TOGETHER and draw(st.booleans()):
        chosen = TOGETHER[str(case)] | chosen
    for_images = case.takes("image_shape") or case.takes("patch_shape")
    widths = [16, 16, 16, 36, 3] if for_images else [1, 2, 3, 3, 4, 5, 16, 40]
    # Mostly one thing at a time is strange, so that most fits succeed.
    strange = draw(st.sampled_from(["nothing"] * 6 + ["kind", "dtype", "container", "trouble"]))
    anything = draw(st.integers(0, 9)) == 9

    def of(what, values, usual):
        return draw(st.sampled_from(values)) if anything or strange == what else usual

    rows = Rows(
        seed=draw(st.integers(0, 99)),
        n_rows=draw(st.sampled_from([12, 20, 30, 5, 3, 2, 1])),
        n_columns=draw(st.sampled_from(widths)),
        kind=of("kind", sorted(KINDS), draw(st.sampled_from(PLAIN))),
        exponent=of("kind", [0, 0, 0, 8, -8, 40, -40, 160, -160, 290, -300, 300], 0),
        trouble=of("trouble", sorted(TROUBLES), "none"),
        dtype=of("dtype", DTYPES, "float64"),
        container=of("container", sorted(CONTAINERS), "array"),
    )
    methods = [*methods_of(case.cls), *ANY]
    begins = draw(st.integers(0, 9)) > 0
    calls = [draw(calls_of(case.cls, methods, first=True))] if begins else []
    calls += draw(st.lists(calls_of(case.cls, methods), min_size=1, max_size=4))
    return Attack(str(case), chosen, rows, calls)
