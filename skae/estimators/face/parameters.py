"""What is documented once: constructor parameters, fitted attributes, arguments of methods.

    @estimator
    class Model(BaseEstimator):
        weight_decay: float = parameter(
            default=0.0, constraints=[Interval(Real, 0, None, closed="left")], doc="..."
        )
        n_iter_: int = attribute("int", "Epochs run.")

gives ``Model`` the constructor that scikit-learn expects (it only assigns), the constraints that
`validate_parameters` checks in ``fit``, and the sections "Parameters" and "Attributes" of its
docstring, before those that are written there. A subclass inherits all of them, so a named variant
of a model is a class that restates a default.

A method's docstring says what is special of its arguments and of what it returns;
`document_methods` adds the others: those of the same method of a base class, or the usual ones.
"""

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal, TypeVar, dataclass_transform

import numpy as np

from skae._documentation import complete, entries, joined, public_functions, sections
from skae._validation import Interval, Registered, make_constraint
from skae.engine.optimisation.devices import undisturbed
from skae.estimators.face.namespaces import OF_ROWS, keeps_namespace
from skae.estimators.face.scikit_learn import BaseEstimator

T = TypeVar("T")
E = TypeVar("E", bound=BaseEstimator)


def parameter(
    *, default: Any, constraints: list, doc: str, kind: str = "", kw_only: bool = True
) -> Any:
    """Declare a constructor parameter, which ``kw_only`` makes one that is passed by its name.

    ``constraints`` are legal values, as scikit-learn's parameter validation takes them; ``doc``
    says what it does, and ``kind`` its type where the annotation does not tell users. Where these
    say ``{names}`` or ``{summaries}``, those of the parts that are `Registered` as constraints.
    """
    metadata = {"constraints": constraints, "kind": kind, "doc": inspect.cleandoc(doc)}
    return dataclasses.field(default=default, kw_only=kw_only, metadata=metadata)


def preset(cls: type, name: str, *, default: Any, kw_only: bool = True) -> Any:
    """Declare the parameter of another class again, with another default."""
    metadata = cls.__dataclass_fields__[name].metadata  # type: ignore[attr-defined]
    return dataclasses.field(default=default, kw_only=kw_only, metadata=metadata)


def attribute(kind: str, meaning: str, *, init: Literal[False] = False) -> Any:
    """Declare what `fit` leaves: its type, and what it is.

    ``init`` tells type checkers that it is no parameter of the constructor.
    """
    doc = f"{kind}\n{inspect.cleandoc(meaning)}"
    return dataclasses.field(init=init, metadata={"doc": doc})


class fitted_property(property):  # noqa: N801 - a decorator, as property is
    """A property that is computed of what `fit` left, with the documentation of an attribute.

    The docstring's first line is its type, the others say what it is.
    """

    def __init__(self, fget=None, fset=None, fdel=None, doc=None):
        super().__init__(fget, fset, fdel)
        self.text = fget.__doc__ if doc is None else doc
        # Documentation tools then take the entry of the class, which has the type as well.
        self.__doc__ = None


class _Number:
    """A parameter that is a number: a truth value is kept as the number that it is in Python.

    scikit-learn's constraints take ``True`` for a number; torch does not. Models of files that were
    written before there was a parameter have its default, as for any other attribute of a class.
    """

    def __init__(self, name: str, default):
        self.name, self.default = name, default

    def __get__(self, model, cls):
        return self.default if model is None else vars(model).get(self.name, self.default)

    def __set__(self, model, value):
        vars(model)[self.name] = int(value) if isinstance(value, bool) else value


@dataclass_transform(kw_only_default=True, field_specifiers=(parameter, preset, attribute))
def estimator(cls: type[T]) -> type[T]:
    """Class decorator that makes the constructor and composes the docstring."""
    cls = dataclasses.dataclass(eq=False, repr=False)(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    cls._parameter_constraints = {  # type: ignore[attr-defined]
        name: field.metadata["constraints"] for name, field in fields.items()
    }
    for name, constraints in cls._parameter_constraints.items():  # type: ignore[attr-defined]
        if any(isinstance(c, Interval) for c in constraints) and "boolean" not in constraints:
            setattr(cls, name, _Number(name, fields[name].default))
    # scikit-learn asks for it at every clone, and for every set of parameters.
    cls.__init__.__signature__ = inspect.signature(cls.__init__)  # type: ignore[misc, attr-defined]
    if cls.__doc__:
        # A class's own come first in its documentation.
        names = [n for base in cls.__mro__ for n in (*inspect.get_annotations(base), *vars(base))]
        parameters = [_documented(fields[n]) for n in dict.fromkeys(names) if n in fields]
        attributes = [_documented_attribute(cls, n) for n in dict.fromkeys(names)]
        found = sections(cls.__doc__)
        first = {"": found.pop(""), "Parameters": "\n".join(parameters)}
        first["Attributes"] = "\n".join(filter(None, attributes))
        cls.__doc__ = joined(first | found)
    if issubclass(cls, BaseEstimator) and not hasattr(cls.set_params, "__wrapped__"):
        cls.set_params = _all_or_none(cls.set_params)  # type: ignore[method-assign]
    return _guarded_methods(document_methods(cls))


def _all_or_none(set_params):
    """Decorate ``set_params`` so that, where a name or a value is wrong, none is set."""

    @functools.wraps(set_params)
    def guarded(self, **params):
        if params.keys() <= {*self._get_param_names()}:  # nothing can be wrong
            for name, value in params.items():
                setattr(self, name, value)
            return self
        before = self.get_params()
        try:
            return set_params(self, **params)
        except BaseException:
            for name, value in before.items():
                owner, _, own = name.rpartition("__")
                holder = before[owner] if owner else self
                if _is_estimator(holder):
                    setattr(holder, own, value)
            raise

    return guarded


# What is around public methods, from the outside in: those of rows return arrays of the library of
# X, and what all compute does not depend on the modes of the caller. Inside of these is, where a
# method learns, `skae.estimators.face.learning.learns`, and where it does not at most one of
# `returns_rows`, `maps_batches` and `maps_lazily`.
AROUND = (keeps_namespace, undisturbed)


def _guarded_methods(cls: type[T]) -> type[T]:
    """Put `AROUND` the public methods of a class; those of another class have it already."""
    for name, member, function in list(public_functions(cls)):
        if name in ("get_params", "set_params", "get_feature_names_out"):
            continue
        if hasattr(function, "_is_guarded"):
            continue
        guarded = function
        for guard in reversed(AROUND if name in OF_ROWS else AROUND[1:]):
            guarded = guard(guarded)
        guarded._is_guarded = True  # type: ignore[attr-defined]
        if inspect.isfunction(member):
            setattr(cls, name, guarded)
        elif getattr(member, "fn", None) is function:  # of scikit-learn's available_if
            member.fn = guarded  # type: ignore[union-attr]
    return cls


# What arguments of methods are where a docstring does not say it; first those of learning.
_OF_LEARNING = entries(
    """
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Training data.
    y : Ignored
        Not used, present for API consistency.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in the objective; a row of weight 0 is left out.
    """
)
_USUAL = _OF_LEARNING | entries(
    """
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in the mean.
    random_state : int, RandomState instance or None, default=None
        None: the estimator's own, so that two calls return the same.
    """
)
_FITTED = "self : object\n    The fitted estimator."


def document_methods(cls: type[T]) -> type[T]:
    """Class decorator that completes the docstrings of public methods."""
    for name, member, function in public_functions(cls):
        learns = name in ("fit", "partial_fit")
        usual, returned = (_OF_LEARNING, _FITTED) if learns else (_USUAL, "")
        for base in reversed(cls.__mro__[1:]):
            doc = getattr(vars(base).get(name), "__doc__", None)
            if doc and base.__module__.startswith("skae."):
                of_base = sections(doc)
                usual = usual | entries(of_base.get("Parameters", ""))
                returned = of_base.get("Returns", returned)
        complete(function, usual, returned)
        member.__doc__ = function.__doc__
    return cls


# More than this, times what it multiplies, leaves float32, in which models may compute.
_LARGEST = 1e30


def check_pair(name: str, value, legal: Interval) -> None:
    """Raise a ValueError unless a parameter that may be a tuple has two legal numbers there."""
    if isinstance(value, tuple) and (len(value) != 2 or not all(map(legal.is_satisfied_by, value))):
        raise ValueError(
            f"The {name!r} parameter must be a number or a tuple of two, each of them {legal}. "
            f"Got {value!r} instead."
        )


def check_function(name: str, function, arguments: Sequence[str], returned: str) -> None:
    """Raise a ValueError for a user's function that does not take so many arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise ValueError(
            f"{name}={function!r} cannot be called as {name}({', '.join(arguments)}), to return "
            f"{returned}."
        ) from error
    except ValueError:
        return  # functions in C do not all say what they take


def validate_parameters(model: BaseEstimator) -> None:
    """Raise a ValueError where a parameter is illegal, a class, or no number of float32."""
    cls: Any = type(model)
    given = {name: getattr(model, name) for name in cls._parameter_constraints}
    # Most parameters are what they are by default.
    legal = _legal_defaults(cls)
    given = {n: value for n, value in given.items() if value is not legal.get(n, _UNKNOWN)}
    for name, value in given.items():
        parts = value if isinstance(value, list | tuple) else ()
        places = {name: value, **{f"{name}[{number}]": part for number, part in enumerate(parts)}}
        for place, part in places.items():
            if isinstance(part, type) and hasattr(part, "get_params"):
                raise ValueError(
                    f"{place}={part!r} is a class: pass an instance of it, {part.__name__}()."
                )
    if not all(_is_legal(cls, name, value) for name, value in given.items()):
        BaseEstimator._validate_params(model)
    for name in [name for name in given if name in _real_parameters(cls)]:
        value = given[name]
        numbers = value if isinstance(value, list | tuple | np.ndarray) else [value]
        if any(isinstance(v, Real) and not abs(float(v)) <= _LARGEST for v in numbers):
            raise ValueError(
                f"The {name!r} parameter of {cls.__name__} must be finite and at most "
                f"{_LARGEST:g}. Got {value!r} instead."
            )


def _is_legal(cls, name, value):
    """Whether a value satisfies one of the constraints of a parameter."""
    return any(constraint.is_satisfied_by(value) for constraint in _constraints_of(cls)[name])


@functools.cache
def _constraints_of(cls):
    """What scikit-learn, anew each time, makes of constraints, by the names of parameters."""
    return {
        name: [make_constraint(constraint) for constraint in constraints]
        for name, constraints in cls._parameter_constraints.items()
    }


_UNKNOWN = object()


@functools.cache
def _legal_defaults(cls: Any) -> dict[str, Any]:
    """Defaults that need no check, by the names of parameters, of a class."""
    fields = {name: cls.__dataclass_fields__.get(name) for name in cls._parameter_constraints}
    return {
        name: field.default
        for name, field in fields.items()
        if field is not None and _is_legal(cls, name, field.default)
    }


@functools.cache
def _real_parameters(cls: type[BaseEstimator]) -> set[str]:
    """Names of the parameters that may be real numbers, of a class."""
    return {
        name
        for name, constraints in cls._parameter_constraints.items()
        if any(isinstance(c, Interval) and c.type is Real for c in constraints)
    }


def get_nested_params(model: BaseEstimator, deep: bool) -> dict:
    """What ``get_params`` returns, with the parameters of estimators in lists."""
    params = BaseEstimator.get_params(model, deep=deep)
    for name, value in list(params.items()) if deep else ():
        if not (isinstance(value, list | tuple) and any(map(_is_estimator, value))):
            continue
        for number, part in enumerate(value):
            params[f"{name}__{number}"] = part
            if _is_estimator(part):
                for below, setting in part.get_params().items():
                    params[f"{name}__{number}__{below}"] = setting
    return params


def set_nested_params(model: E, params: dict[str, Any]) -> E:
    """What ``set_params`` does, with the parameters of estimators in lists."""
    own, nested = model.get_params(deep=False), []
    for name in sorted(params, key=len):  # what is set itself comes before its parameters
        owner, is_nested, below = name.partition("__")
        if owner not in own:
            BaseEstimator.set_params(model, **{name: params[name]})  # raises the usual error
        elif is_nested:
            nested.append((name, owner, below))
        else:
            setattr(model, name, params[name])
    of_estimators: dict[str, dict] = {}
    for name, owner, below in nested:
        value = getattr(model, owner)
        if hasattr(value, "set_params"):
            of_estimators.setdefault(owner, {})[below] = params[name]
            continue
        parts = list(value) if isinstance(value, list | tuple) else []
        number, _, below = below.partition("__")
        if not number.isdigit() or int(number) >= len(parts):
            raise ValueError(
                f"{name!r} is no parameter of this {type(model).__name__}, which has "
                f"{len(parts)} estimators in its parameter {owner}."
            )
        if below:
            parts[int(number)].set_params(**{below: params[name]})
        else:
            parts[int(number)] = params[name]
        setattr(model, owner, parts)
    for owner, settings in of_estimators.items():
        getattr(model, owner).set_params(**settings)
    return model


def _is_estimator(value):
    return hasattr(value, "get_params") and not isinstance(value, type)


def _documented(field):
    kind, doc = field.metadata["kind"], field.metadata["doc"]
    if not kind:
        kind = getattr(field.type, "__name__", str(field.type)).replace(" | ", " or ")
    for constraint in field.metadata["constraints"]:
        if isinstance(constraint, Registered):
            kind = kind.replace("{names}", constraint.options.names)
            doc = doc.replace("{summaries}", constraint.options.summaries)
    return f"{field.name} : {kind}, default={field.default!r}\n{textwrap.indent(doc, '    ')}"


def _documented_attribute(cls, name):
    """The entry of an attribute, or None if the name is none that is documented."""
    member = inspect.getattr_static(cls, name, None)
    field = cls.__dataclass_fields__.get(name)
    if isinstance(member, fitted_property):
        doc = inspect.cleandoc(member.text)
    elif field is not None and not field.init:
        doc = field.metadata["doc"]
    else:
        return None
    kind, _, meaning = doc.partition("\n")
    return f"{name} : {kind}\n{textwrap.indent(meaning, '    ')}"
