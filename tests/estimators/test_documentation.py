"""The documentation is complete, has numpydoc's form, and says what the code does."""

import inspect
import re

import numpy as np
import pytest
from sklearn.base import BaseEstimator

import skae
from skae import ManifoldTangentClassifier, TangentDistanceClassifier
from skae.estimators.face.transformer import TrainedTransformer
from skae.estimators.stacks.layers import StackParameters
from skae.estimators.supervised.predictors import StackedPredictor

ESTIMATORS = [
    getattr(skae, name) for name in skae.__all__ if issubclass(getattr(skae, name), BaseEstimator)
]


def methods_of(cls):
    """What a user of a class may call; maps of images have nothing to continue or to score."""
    if issubclass(cls, (ManifoldTangentClassifier, TangentDistanceClassifier)):
        return {"fit", "predict"}
    if issubclass(cls, StackedPredictor):
        return {"fit", "partial_fit", "predict"}
    if issubclass(cls, TrainedTransformer):
        return {"fit", "transform", "partial_fit", "inverse_transform", "score", "score_samples"}
    return {"fit", "transform"}


# numpydoc's checks that do not apply here:
IGNORED = {
    "GL01",  # text may start on the line of the quotes: this package's style
    "GL02",  # nor need the closing quotes be on a line of their own
    "GL03",  # double blank lines come from formulas
    "SA01",  # methods need no See Also
    "SA04",
    "EX01",  # examples are in the classes
    "ES01",  # a method may need one line only
    "SS05",  # a summary may be a noun: "Codes of the rows of X."
    "SS06",
    "RT02",  # returned values are named, as in scikit-learn: `self : object`
    "RT03",
    "PR03",  # parameters by keyword have no order; a class's own come first in its text
    "PR06",  # scikit-learn's words for types
    "PR08",  # descriptions may start with a quoted value
    "PR09",
    "YD01",
}


def public_methods(cls):
    """Names of the methods that skae itself defines, and of scikit-learn's it inherits."""
    return [
        name
        for name, member in inspect.getmembers(cls, callable)
        if not name.startswith("_") and member.__module__.startswith("skae")
    ]


def problems(path):
    validate = pytest.importorskip("numpydoc.validate").validate
    return [(code, text) for code, text in validate(path)["errors"] if code not in IGNORED]


@pytest.mark.parametrize("name", skae.__all__)
def test_classes_have_numpydoc_docstrings(name):
    # scikit-learn's own test of its docstrings, with the exceptions above.
    assert problems(f"skae.{name}") == []


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_methods_have_numpydoc_docstrings(cls):
    methods = public_methods(cls)
    # What a user calls is defined here, and so documented here.
    assert methods_of(cls) <= set(methods)
    found = {name: problems(f"skae.{cls.__name__}.{name}") for name in methods}
    assert {name: errors for name, errors in found.items() if errors} == {}
    assert all(getattr(cls, name).__doc__ for name in methods)


def documented_defaults(cls):
    section = cls.__doc__.split("Parameters\n----------\n")[1].split("Attributes\n----------\n")[0]
    return dict(re.findall(r"^(\w+) : .*, default=(.+)$", section, flags=re.MULTILINE))


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_every_parameter_is_documented_with_its_default(cls):
    parameters = inspect.signature(cls).parameters
    # A docstring that names another default than the code's is worse than none.
    assert documented_defaults(cls) == {
        name: repr(parameter.default) for name, parameter in parameters.items()
    }


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_one_parameter_is_positional_at_most(cls):
    positional = [
        name
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    # Keywords keep calls readable, and let parameters be added and reordered.
    first = ["n_components"] if issubclass(cls, TrainedTransformer) else positional[:1]
    assert positional == (["layer_sizes"] if issubclass(cls, StackParameters) else first)


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_defaults_are_plain(cls):
    # Defaults are shared by all instances and shown in documentation: nothing mutable.
    for parameter in inspect.signature(cls).parameters.values():
        assert isinstance(parameter.default, (type(None), str, int, float, bool, tuple))


@pytest.mark.parametrize("cls", ESTIMATORS)
def test_fitted_attributes_are_documented(cls, X):
    trained = issubclass(cls, (TrainedTransformer, StackedPredictor))
    model = (cls(4, max_iter=1, random_state=0) if trained else cls()).fit(X, np.arange(40) % 2)
    fitted = {name for name in vars(model) if name.endswith("_")}
    section = cls.__doc__.split("Attributes\n----------\n")[1]
    documented = set(re.findall(r"^(\w+_) : ", section, flags=re.MULTILINE))
    # Everything that fit leaves is public, so everything is explained ...
    assert fitted <= documented
    # ... and everything that is explained exists (names of features: with a DataFrame).
    assert all(hasattr(model, name) for name in documented - {"feature_names_in_"})


def test_public_names():
    # What is imported into the package is what it offers.
    public = {name for name in vars(skae) if not name.startswith("_")}
    modules = {name for name in public if inspect.ismodule(getattr(skae, name))}
    assert public - modules == set(skae.__all__)
    # In the order that ruff keeps imports in: names in capitals first.
    assert sorted(skae.__all__, key=lambda name: (not name.isupper(), name)) == skae.__all__


def test_repr_shows_what_was_changed():
    # scikit-learn's short form, by which users recognise a model in a pipeline.
    assert repr(skae.ContractiveAutoEncoder(3)) == "ContractiveAutoEncoder(n_components=3)"
