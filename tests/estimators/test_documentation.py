"""The documentation is complete, has numpydoc's form, and says what the code does."""

import inspect
import re

import pytest
from registry import CASES

import skae
from skae.estimators.face.parameters import fitted_property

each_case = pytest.mark.parametrize("case", CASES, ids=str)


def methods_of(case):
    """What a user of a class may call; maps of images have nothing to continue or to score."""
    if not case.is_transformer:
        return (
            {"fit", "partial_fit", "predict"}
            if case.takes("unsupervised_weight")
            else {"fit", "predict"}
        )
    if case.is_trained:
        learns = {"partial_fit"} if hasattr(case.make(), "partial_fit") else set()
        return {"fit", "transform", "inverse_transform", "score", "score_samples"} | learns
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


@each_case
def test_methods_have_numpydoc_docstrings(case):
    cls, methods = case.cls, public_methods(case.cls)
    # What a user calls is defined here, and so documented here.
    assert methods_of(case) <= set(methods)
    found = {name: problems(f"skae.{cls.__name__}.{name}") for name in methods}
    assert {name: errors for name, errors in found.items() if errors} == {}
    assert all(getattr(cls, name).__doc__ for name in methods)


def documented_defaults(cls):
    section = cls.__doc__.split("Parameters\n----------\n")[1].split("Attributes\n----------\n")[0]
    return dict(re.findall(r"^(\w+) : .*, default=(.+)$", section, flags=re.MULTILINE))


def test_every_parameter_is_documented_with_its_default():
    for case in CASES:
        parameters = inspect.signature(case.cls).parameters
        # A docstring that names another default than the code's is worse than none.
        assert documented_defaults(case.cls) == {
            name: repr(parameter.default) for name, parameter in parameters.items()
        }, case.cls


def test_constructors_are_plain():
    for case in CASES:
        _require_plain_constructor(inspect.signature(case.cls).parameters.values())


def _require_plain_constructor(parameters):
    positional = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    first = {"layer_sizes", "n_components"} & {p.name for p in parameters}
    # Keywords keep calls readable, and let parameters be added and reordered.
    assert len(positional) <= 1
    assert first <= set(positional)
    # Defaults are shared by all instances and shown in documentation: nothing mutable.
    for parameter in parameters:
        assert isinstance(parameter.default, (type(None), str, int, float, bool, tuple))


def declared_attributes(cls):
    """Names of the attributes that the class says `fit` leaves, and of those it computes."""
    fields = {name for name, field in cls.__dataclass_fields__.items() if not field.init}
    computed = {name for name, _ in inspect.getmembers_static(cls, _is_computed)}
    return fields, computed


def _is_computed(member):
    return isinstance(member, fitted_property)


@each_case
def test_fitted_attributes_are_documented(case):
    model = case.fitted
    fitted = {name for name in vars(model) if name.endswith("_") and not name.startswith("_")}
    section = case.cls.__doc__.split("Attributes\n----------\n")[1].split("\n\n")[0]
    documented = set(re.findall(r"^(\w+_) : ", section, flags=re.MULTILINE))
    fields, computed = declared_attributes(case.cls)
    # Everything that fit leaves is public, so everything is declared and explained ...
    assert documented == fields | computed
    assert fitted <= documented
    # ... and everything that is explained exists (names of features: with a DataFrame).
    missing = {name for name in documented if not hasattr(model, name)}
    assert missing <= {"feature_names_in_"}
    # Type checkers see it, too.
    assert all(name in _annotations(case.cls) for name in fields)


def _annotations(cls):
    return {name for base in cls.__mro__ for name in inspect.get_annotations(base)}


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
