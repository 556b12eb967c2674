"""Constructor parameters, each declared once: default, legal values, meaning.

    @estimator
    class Model(BaseEstimator):
        alpha: float = parameter(0.0, [Interval(Real, 0, None, closed="left")], "float ...")

gives ``Model`` the constructor that scikit-learn expects (it only assigns), the
constraints that `validate_parameters` checks in ``fit``, and the "Parameters" section
of its docstring, where it says ``{parameters}``. A subclass inherits all of them, so a
named variant of a model is a class that restates a default.
"""

import dataclasses
import inspect
import textwrap

from sklearn.base import BaseEstimator


def parameter(default, constraints, doc, *, positional=False):
    """Declare a constructor parameter, by keyword only unless ``positional``.

    Parameters
    ----------
    default : None, str, number, bool or tuple
    constraints : list
        Legal values, as scikit-learn's parameter validation takes them.
    doc : str
        First line: the type. Then what it does. The default is added.
    """
    metadata = {"constraints": constraints, "doc": inspect.cleandoc(doc)}
    return dataclasses.field(default=default, kw_only=not positional, metadata=metadata)


def preset(cls, name, default):
    """The declaration of an inherited parameter with another default."""
    field = cls.__dataclass_fields__[name]
    return dataclasses.field(default=default, kw_only=field.kw_only, metadata=field.metadata)


def estimator(cls):
    """Class decorator that makes the constructor and composes the docstring."""
    cls = dataclasses.dataclass(eq=False, repr=False)(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    cls._parameter_constraints = {name: f.metadata["constraints"] for name, f in fields.items()}
    if cls.__doc__:
        # A class's own parameters come first in its documentation.
        declared = [name for base in cls.__mro__ for name in inspect.get_annotations(base)]
        order = [name for name in dict.fromkeys(declared) if name in fields]
        text = inspect.cleandoc(cls.__doc__)
        text = text.replace("{parameters}", "\n".join(_documented(fields[n]) for n in order))
        text = text.replace("{attributes}", inspect.cleandoc(getattr(cls, "_attributes_doc", "")))
        cls.__doc__ = text
    return cls


def validate_parameters(model):
    """Raise scikit-learn's InvalidParameterError where a parameter is out of bounds."""
    BaseEstimator._validate_params(model)


def _documented(field):
    kind, _, meaning = field.metadata["doc"].partition("\n")
    return f"{field.name} : {kind}, default={field.default!r}\n{textwrap.indent(meaning, '    ')}"
