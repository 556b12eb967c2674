"""Measures of how skae is built, of whichever checkout Python imports.

Run it in a checkout, or with its folder in ``PYTHONPATH``::

    PYTHONPATH=/path/to/checkout python examples/benchmarks/structure.py

Traced calls
------------
Each call of `CALLS` runs once untraced, so that imports on demand and caches do not count, and
then once under `sys.setprofile`. Counted is what lies in the folder of the package:

- files: distinct files of which code was entered.
- functions: distinct code objects that were entered. Lambdas, comprehensions, generator
  expressions, nested functions and the wrappers of decorators count, each once.
- depth: the most frames of the package that were on the stack at one time; frames of torch,
  numpy or scikit-learn between them do not count.
- down: calls back from a base class to a subclass. A method or property runs on the estimator
  of the call (its ``self`` is this object, so what its layers do with themselves does not
  count) and is defined in a class C; its caller is the nearest frame below it on the stack that
  is a method on the same object, defined in a class B. Functions, closures, wrappers and other
  objects' methods between the two are passed over. The call is down if C comes before B in the
  method resolution order, so an override in a mixin counts. The number is that of distinct pairs
  (caller, callee); "callees" is the number of distinct callees in them.
- up: the same with C after B: calls of inherited methods and of ``super()``.

Source
------
The rest is read from the source, except that method resolution orders and constructors are
those of the imported classes. Lines of code are lines with a token that is not a comment and
not part of a docstring, which is any string that is a statement of its own.
"""

import ast
import functools
import inspect
import sys
import tokenize
import types
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator

import skae

PACKAGE = Path(skae.__file__).parent
_LISTED = 15


# Calls that are traced. Each function returns the estimator and what to call.


def _rows():
    X = np.random.default_rng(0).random((40, 6))
    return X, np.arange(40) % 2


def _contractive():
    X, _ = _rows()
    model = skae.ContractiveAutoEncoder(max_iter=1, random_state=0, device="cpu")
    return model, lambda: model.fit(X)


def _rbm():
    X, _ = _rows()
    model = skae.RBM(max_iter=1, random_state=0, device="cpu")
    return model, lambda: model.fit(X)


def _sparse_coder():
    # A given dictionary: with a learned one, more kinds of inference are tried.
    X, _ = _rows()
    model = skae.SparseCoder(dictionary=np.eye(6), device="cpu").fit(X)
    return model, lambda: model.transform(X)


def _classifier():
    X, y = _rows()
    model = skae.StackedClassifier(max_iter=1, random_state=0, device="cpu")
    return model, lambda: model.fit(X, y)


def _manifold_tangents():
    X, y = _rows()
    model = skae.ManifoldTangentClassifier(
        max_iter=1, layer=skae.ContractiveAutoEncoder(max_iter=1), random_state=0, device="cpu"
    )
    return model, lambda: model.fit(X, y)


CALLS = {
    "ContractiveAutoEncoder.fit": _contractive,
    "RBM.fit": _rbm,
    "SparseCoder.transform": _sparse_coder,
    "StackedClassifier.fit": _classifier,
    "ManifoldTangentClassifier.fit": _manifold_tangents,
}


class Trace:
    """What of the package one call enters.

    Parameters
    ----------
    model : object
        The estimator whose calls of itself are counted.

    Attributes
    ----------
    files : set of str
    functions : set of code
    depth : int
    down, up : set of (str, str)
        Pairs of caller and callee.
    """

    def __init__(self, model):
        self.model = model
        self.files, self.functions, self.depth = set(), set(), 0
        self.down, self.up = set(), set()
        self._methods = _methods(type(model))

    def run(self, call):
        """Call a function and trace it.

        Parameters
        ----------
        call : callable
            Without arguments.
        """
        sys.setprofile(self._on_event)
        try:
            call()
        finally:
            sys.setprofile(None)

    def _on_event(self, frame, event, _):
        if event != "call" or not _is_own(frame.f_code):
            return
        self.files.add(frame.f_code.co_filename)
        self.functions.add(frame.f_code)
        self.depth = max(self.depth, sum(_is_own(below.f_code) for below in _stack(frame)))
        callee = self._method(frame)
        if callee is None:
            return
        below = (self._method(below) for below in _stack(frame.f_back))
        caller = next((method for method in below if method is not None), None)
        if caller is None or caller[0] == callee[0]:
            return
        calls = self.down if callee[0] < caller[0] else self.up
        calls.add((caller[1], callee[1]))

    def _method(self, frame):
        """Position of the class and name of the model's method in a frame, or None."""
        method = self._methods.get(frame.f_code)
        own = method is not None and frame.f_locals.get("self") is self.model
        return method if own else None


def _stack(frame):
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_own(code):
    return code.co_filename.startswith(f"{PACKAGE}/")


def _methods(cls):
    """Positions in the method resolution order and names, by the code of each own method."""
    found = {}
    for position, base in enumerate(cls.__mro__):
        for name, value in vars(base).items():
            for function in _functions(value):
                # Wrappers have one code for all that they wrap: only what is innermost tells.
                code = inspect.unwrap(function).__code__
                if _is_own(code):
                    found.setdefault(code, (position, f"{base.__name__}.{name}"))
    return found


def _functions(value):
    if isinstance(value, property):
        value = [value.fget, value.fset, value.fdel]
    elif isinstance(value, functools.cached_property):
        value = [value.func]
    elif isinstance(value, staticmethod | classmethod):
        value = [value.__func__]
    elif hasattr(value, "fn"):  # scikit-learn's available_if
        value = [value.fn]
    else:
        value = [value]
    return [one for one in value if isinstance(one, types.FunctionType)]


def print_calls():
    """Trace every call of `CALLS`, and print what it enters."""
    traces = {}
    print("Traced calls: files / functions / depth / down (callees) / up")
    for name, make in CALLS.items():
        try:
            make()[1]()
            model, call = make()
            trace = Trace(model)
            trace.run(call)
        except Exception as error:
            print(f"  {name:<32} failed: {type(error).__name__}: {error}")
            continue
        traces[name] = trace
        n_callees = len({callee for _, callee in trace.down})
        print(
            f"  {name:<32} {len(trace.files)} / {len(trace.functions)} / {trace.depth} / "
            f"{len(trace.down)} ({n_callees}) / {len(trace.up)}"
        )
    for name, trace in traces.items():
        for direction in ("down", "up"):
            print(f"\n{name}, {direction}:")
            for caller, callee in sorted(getattr(trace, direction)):
                print(f"  {caller} -> {callee}")


# Source.


def parsed(folder):
    """Syntax trees of the modules in a folder and below.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    trees : dict of Path to ast.Module
    """
    return {path: ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}


def print_hooks(trees):
    """Print the private members that a subclass defines again.

    Parameters
    ----------
    trees : dict of Path to ast.Module
        Where classes are looked for. They are told apart by their names alone.
    """
    bases, members = {}, {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).split(".")[-1] for base in node.bases]
                members[node.name] = _private_members(node)

    def ancestors(name):
        above = [base for base in bases.get(name, ()) if base in bases]
        return set(above).union(*map(ancestors, above))

    overriding, first = defaultdict(set), defaultdict(set)
    for name in bases:
        for member in members[name]:
            over = [base for base in ancestors(name) if member in members[base]]
            if over:
                overriding[member].add(name)
                first[member].update(b for b in over if not _is_below(b, over, ancestors))
    print(f"\nPrivate hooks overridden: {len(overriding)}, in {_total(overriding)} places")
    for member, classes in sorted(overriding.items(), key=lambda item: (-len(item[1]), item[0])):
        where = ", ".join(sorted(first[member]))
        print(f"  {len(classes):>2} {member} of {where}: {', '.join(sorted(classes))}")


def _is_below(name, others, ancestors):
    return bool(ancestors(name) & set(others))


def _total(sets):
    return sum(map(len, sets.values()))


def _private_members(node):
    found = set()
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(statement.name)
        elif isinstance(statement, ast.Assign):
            found.update(t.id for t in statement.targets if isinstance(t, ast.Name))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found.add(statement.target.id)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def public_estimators():
    """The public classes of the package that are estimators.

    Returns
    -------
    classes : list of type
    """
    public = [getattr(skae, name) for name in skae.__all__]
    return [cls for cls in public if isinstance(cls, type) and issubclass(cls, BaseEstimator)]


def print_classes():
    """Print every public estimator's own classes and number of parameters."""
    print("\nOwn classes in the method resolution order, longest first:")
    orders = {
        cls: [base.__name__ for base in cls.__mro__ if base.__module__.split(".")[0] == "skae"]
        for cls in public_estimators()
    }
    for order in sorted(orders.values(), key=lambda order: (-len(order), order)):
        print(f"  {len(order)} {' > '.join(order)}")
    counts = {cls.__name__: len(inspect.signature(cls).parameters) for cls in orders}
    print(f"\nConstructor parameters: {sum(counts.values())}")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        print(f"  {count:>2} {name}")


def code_lines(path, tree):
    """Number of lines that hold code.

    Parameters
    ----------
    path : Path
    tree : ast.Module
        What the file contains.

    Returns
    -------
    n_lines : int
    """
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    quiet |= {tokenize.ENDMARKER, tokenize.ENCODING}
    lines = set()
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type not in quiet:
                lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def print_files(trees):
    """Print how many files and lines there are, and which are the largest.

    Parameters
    ----------
    trees : dict of Path to ast.Module
    """
    n_lines = {path: len(path.read_text().splitlines()) for path in trees}
    n_code = {path: code_lines(path, tree) for path, tree in trees.items()}
    print(f"\nFiles: {len(trees)}, lines: {sum(n_lines.values())}, of code: {sum(n_code.values())}")
    for folder in sorted({path.parent for path in trees}):
        inside = [path for path in trees if path.parent == folder]
        print(
            f"  {folder.relative_to(PACKAGE.parent)}: {len(inside)} files, "
            f"{sum(n_lines[path] for path in inside)} lines, "
            f"{sum(n_code[path] for path in inside)} of code"
        )
    print("\nLargest files, in lines of code (all lines):")
    for path in sorted(n_code, key=lambda path: (-n_code[path], path))[:_LISTED]:
        print(f"  {n_code[path]:>3} ({n_lines[path]}) {path.relative_to(PACKAGE.parent)}")


def print_signatures(trees):
    """Print the functions with the most arguments, self and cls left out.

    Parameters
    ----------
    trees : dict of Path to ast.Module
    """
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                names = [a.arg for a in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
                names += [a.arg for a in (given.vararg, given.kwarg) if a is not None]
                names = [name for name in names if name not in ("self", "cls")]
                place = f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
                found.append((-len(names), place, node.name, names))
    print("\nLongest signatures, in arguments:")
    for count, place, name, names in sorted(found)[:_LISTED]:
        print(f"  {-count:>2} {place} {name}({', '.join(names)})")


def _is_estimator(path):
    return path.relative_to(PACKAGE).parts[0] == "estimators"


def main():
    """Print all measures."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{PACKAGE}\n")
    print_calls()
    trees = parsed(PACKAGE)
    print_hooks({path: tree for path, tree in trees.items() if _is_estimator(path)})
    print_classes()
    print_files(trees)
    print_signatures(trees)


if __name__ == "__main__":
    main()
