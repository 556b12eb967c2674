"""What static tools see: constructors, attributes and annotations, of users' code and of skae."""

import collections.abc
import inspect
import os
import re
import subprocess
import sys
import types
import typing
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pytest
import torch
from registry import is_estimator
from sklearn.utils._param_validation import Interval, StrOptions

import skae

ROOT = Path(__file__).parents[1]
ESTIMATORS = [member for member in map(vars(skae).get, skae.__all__) if is_estimator(member)]

# A user's script. A comment says what mypy has to say of its line; of the others nothing.
SNIPPET = """
from skae import AutoEncoder, ContractiveAutoEncoder, DenoisingAutoEncoder

model = AutoEncoder(64, weight_decay=0.1, hidden_layer_sizes=(32,), loss="bernoulli")
AutoEncoder()
AutoEncoder(n_components=64, n_iter_no_change=None, device="cpu", random_state=0)
reveal_type(model)  # note: skae.estimators.auto_encoders.AutoEncoder
reveal_type(model.fit([[0.0]]))  # note: skae.estimators.auto_encoders.AutoEncoder
reveal_type(model.max_iter)  # note: "int | str"
reveal_type(model.n_iter_no_change)  # note: "int | None"
reveal_type(model.n_iter_)  # note: "int"
reveal_type(model.loss_curve_)  # note: "list[float]"
reveal_type(model.score([[0.0]]))  # note: "float"
reveal_type(ContractiveAutoEncoder().set_params(contraction=1.0).fit([[0.0]]))  # note: Contractive
model.n_iters_  # error: has no attribute "n_iters_"
AutoEncoder(64, (32,))  # error: Too many positional arguments
AutoEncoder(alpha=0.1)  # error: Unexpected keyword argument "alpha"
AutoEncoder(n_iter_=3)  # error: Unexpected keyword argument "n_iter_"
AutoEncoder(weights_={})  # error: Unexpected keyword argument "weights_"
AutoEncoder("many")  # error: expected "int"
AutoEncoder(n_components=None)  # error: expected "int"
AutoEncoder(max_iter=2.5)  # error: expected "int | str"
AutoEncoder(loss=None)  # error: expected "str | Sequence
ContractiveAutoEncoder(contraction="much")  # error: expected "float"
DenoisingAutoEncoder(emphasis=2.0)  # error: expected "Sequence[float] | None"
DenoisingAutoEncoder(corruption=3)  # error: expected "str | Callable[..., Any] | None"


def noise(x, generator):
    return x, None


DenoisingAutoEncoder(corruption=noise).fit([[0.0]]).transform([[0.0]])
"""


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.4.0", reason="older NumPy annotates arrays otherwise"
)
def test_annotations_of_users_code_and_of_the_package(tmp_path, request):
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    # One run for both, since it takes seconds; of a file that did not change, once.
    cache = getattr(request.config, "cache", None)
    folder = os.devnull if cache is None else str(cache.mkdir("mypy"))
    settings = ["--config-file", "pyproject.toml", "--cache-dir", folder]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *settings, "skae", str(snippet)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode in (0, 1), run.stderr
    found = re.findall(r"^(.*?):(\d+): (error|note): (.*)$", run.stdout, re.MULTILINE)
    # The package is what its annotations say.
    assert [
        said for said in found if said[2] == "error" and not said[0].endswith(snippet.name)
    ] == []
    for number, line in enumerate(SNIPPET.splitlines(), 1):
        expected = re.search(r"# (error|note): (.*)$", line)
        here = [
            (kind, text)
            for file, at, kind, text in found
            if file.endswith(snippet.name) and int(at) == number
        ]
        if expected is None:
            # Legal code is not found fault with.
            assert here == [], line
        else:
            # Constructors know their parameters, by name and type; a fitted model its attributes.
            kind, words = expected.groups()
            assert any(kind == own and words in text for own, text in here), (line, here)


def test_completion_shows_every_parameter():
    for kind in ESTIMATORS:
        _require_completion(kind)


def _require_completion(kind):
    parameters = list(inspect.signature(kind).parameters.values())
    assert parameters
    for number, one in enumerate(parameters):
        # By keyword, but for the first one; with a type and a default.
        positional = one.kind is one.POSITIONAL_OR_KEYWORD
        assert positional if number == 0 and positional else one.kind is one.KEYWORD_ONLY
        assert one.annotation is not one.empty, one.name
        assert one.default is not one.empty, one.name
    # What `fit` leaves is annotated, and no parameter.
    hints = typing.get_type_hints(kind)
    names = [one.name for one in parameters]
    assert set(names) <= set(hints)
    assert not [name for name in names if name.endswith("_")]


def test_annotations_are_true():
    for kind in ESTIMATORS:
        _require_true_annotations(kind)


def _require_true_annotations(kind):
    hints = typing.get_type_hints(kind)
    for name, one in inspect.signature(kind).parameters.items():
        types_of = _alternatives(hints[name])
        # A default is of its type ...
        assert any(_is_of(one.default, each) for each in types_of), (name, one.default, types_of)
        for constraint in kind._parameter_constraints[name]:
            # ... and so is whatever `fit` accepts.
            assert _admits(types_of, constraint), (name, constraint, types_of)


def _alternatives(hint):
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _is_of(value, hint):
    if hint is float:
        return isinstance(value, Real)
    if hint is typing.Any:
        return True
    if typing.get_origin(hint) is typing.Literal:
        return value in typing.get_args(hint)
    origin = typing.get_origin(hint) or hint
    return isinstance(value, origin)


def _admits(hints, constraint):
    origins = {typing.get_origin(hint) or hint for hint in hints}
    if typing.Any in origins or object in origins:
        return True
    if constraint is None:
        return type(None) in origins
    if isinstance(constraint, StrOptions) or constraint is str:
        return bool(origins & {str, typing.Literal})
    if isinstance(constraint, Interval):
        return bool(origins & ({int, float} if constraint.type is Integral else {float}))
    if constraint is callable:
        return collections.abc.Callable in origins
    if constraint == "boolean":
        return bool in origins
    if constraint == "array-like":
        return bool(origins & {collections.abc.Sequence, tuple, list})
    if isinstance(constraint, type) and constraint in (list, tuple, torch.device):
        return any(issubclass(constraint, each) for each in origins if isinstance(each, type))
    return True
