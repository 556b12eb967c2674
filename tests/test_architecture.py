"""What the package is built like: which part may import which, how large what may be."""

import ast
import functools
import importlib
import inspect
import io
import json
import os
import pkgutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from registry import CASES

import skae
import skae.estimators
from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.networks.corruptions import CORRUPTIONS
from skae.engine.networks.penalties import CONTRACTIONS, SPARSITY_PENALTIES
from skae.engine.networks.units import UNITS
from skae.engine.optimisation.optimizers import OPTIMIZERS

PACKAGE = Path(skae.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def trees():
    """The syntax trees of all files."""
    return {name: ast.parse(path.read_text()) for name, path in FILES.items()}


@functools.cache
def nodes(tree):
    """All nodes of a tree."""
    return list(ast.walk(tree))


# The arrows. Each floor may import itself and those named here.
FLOORS = {
    "engine": set(),
    "_documentation": set(),
    "sources": {"engine"},
    "_seeds": set(),
    "_validation": {"engine", "sources", "_seeds"},
    "_warnings": set(),
    "frames": {"engine", "sources", "_validation", "_warnings"},
    "datasets": {"_validation"},
    "diagnostics": {"engine", "frames", "_validation"},
    "plots": {"diagnostics", "_documentation", "_validation"},
    "export": {"engine", "estimators", "_validation"},
    "estimators": {
        "engine",
        "sources",
        "frames",
        "diagnostics",
        "_documentation",
        "_seeds",
        "_validation",
        "_warnings",
    },
}
# So may the families of the engine ...
ENGINE = {
    "optimisation": set(),
    "networks": {"optimisation"},
    "boltzmann": {"networks", "optimisation"},
    "density": {"networks", "optimisation"},
    "sparse": {"optimisation"},
    "images": set(),
    "joint": {"optimisation"},
    "stacks": {"networks", "optimisation"},
    "tangents": {"networks", "optimisation", "stacks"},
    "posterior": {"optimisation"},
}
# ... and those of the estimators.
ESTIMATORS = {
    "face": {"persistence"},
    "labels": set(),
    "parquet": {"face"},
    "persistence": set(),
    "targets": {"labels"},
    "density": {"face"},
    "penalties": {"face"},
    "auto_encoders": {"face", "density", "penalties"},
    "images": {"face", "auto_encoders"},
    "recurrent": {"face", "auto_encoders", "density"},
    "stacks": {"face", "density", "auto_encoders", "targets"},
    "boltzmann": {"face", "density", "stacks"},
    "sparse": {"face", "images"},
    "supervised": {"face", "auto_encoders", "labels", "stacks", "tables", "targets"},
    "tangents": {"face", "auto_encoders", "stacks", "supervised", "targets"},
    "tables": {"face", "auto_encoders", "stacks"},
    "posterior": {"face", "supervised", "tangents"},
    "search": {"face"},
}
# End of the arrows.


@functools.cache
def imported_names(tree):
    """Dotted names of everything that is imported: "a.b" and, for names from it, "a.b.c"."""
    found = []
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def dotted(node):
    """ "a.b.c" for the expression a.b.c, or None if it is no such chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return None if start is None else f"{start}.{node.attr}"
    return None


@functools.cache
def uses(tree):
    """Every dotted name that the code mentions, with the line."""
    chains = [node for node in nodes(tree) if isinstance(node, ast.Attribute | ast.Name)]
    names = [(dotted(node), node.lineno) for node in chains]
    return [(name.replace("numpy.", "np.", 1), line) for name, line in names if name is not None]


def is_or_is_in(name, module):
    return name == module or name.startswith(f"{module}.")


def arrows(floor, n_parts):
    """(file, its part, imported part) of imports inside of a floor, for parts of some depth."""
    for file, tree in trees().items():
        parts = file.removesuffix(".py").split("/")
        if floor and parts[0] != floor:
            continue
        for name in imported_names(tree):
            inner = name.split(".")
            if inner[0] == "skae" and (not floor or inner[1] == floor) and len(inner) > n_parts:
                yield file, parts[n_parts - 1], inner[n_parts]


def wrong_arrows(floor, n_parts, allowed):
    return {
        f"{file} imports {target}"
        for file, part, target in arrows(floor, n_parts)
        if part != "__init__" and target not in allowed[part] | {part}
    }


@pytest.mark.parametrize(
    ("floor", "n_parts", "allowed"),
    [("", 1, FLOORS), ("engine", 2, ENGINE), ("estimators", 2, ESTIMATORS)],
    ids=["floors", "families of the engine", "families of estimators"],
)
def test_arrows_point_down(floor, n_parts, allowed):
    # An arrow that points up would make the parts one lump. A part that is new has to find its
    # place among the arrows first.
    assert wrong_arrows(floor, n_parts, allowed) == set()
    # And an arrow that nothing needs leaves the list.
    found = {(part, target) for _, part, target in arrows(floor, n_parts)}
    listed = {(part, target) for part, targets in allowed.items() for target in targets}
    assert listed - found == set()


@pytest.mark.parametrize("allowed", [FLOORS, ENGINE, ESTIMATORS])
def test_arrows_have_no_circle(allowed):
    remaining = dict(allowed)
    while remaining:
        lowest = [part for part, targets in remaining.items() if not targets & set(remaining)]
        # There is always a part that rests on nothing that is left.
        assert lowest, f"a circle among {sorted(remaining)}"
        for part in lowest:
            del remaining[part]


def test_the_engine_knows_no_scikit_learn():
    for file, tree in trees().items():
        if file.startswith("engine/"):
            for name in imported_names(tree):
                # The engine is functions on tensors: it sees no estimator.
                assert not is_or_is_in(name, "sklearn"), f"{file} imports {name}"


def test_private_names_of_scikit_learn_are_imported_in_one_place():
    for file, tree in trees().items():
        for name in imported_names(tree):
            # Private names change between releases; one file is where to look then.
            private = is_or_is_in(name, "sklearn") and "._" in f".{name}"
            assert not private or file == "_validation.py", f"{file} imports {name}"


# What may be around a public method, from the outside in: the order of `parameters.AROUND`, of
# `learning.learns`, and one form of rows.
AROUND = (
    ["keeps_namespace"],
    ["undisturbed"],
    ["learns"],
    ["with_callbacks"],
    ["fits_batches", "fits_batches_on", "returns_rows", "maps_batches", "maps_lazily"],
    ["maps_batches"],  # which maps_lazily has
)


def decorators_of(method):
    """The names of the decorators of a method, from the outside in.

    What scikit-learn puts around outputs, once in every class that has the method, is not ours.
    """
    found = []
    while hasattr(method, "__wrapped__"):
        found.append(method.__code__.co_qualname.split(".")[0])
        method = method.__wrapped__
    return [name for name in found if name != "_wrap_method_output"]


def test_decorators_stand_in_one_order():
    wrong, n_learning = [], 0
    for case in CASES:
        for name in dir(case.cls):
            member = inspect.getattr_static(case.cls, name)
            method = getattr(member, "fn", member)
            if name.startswith("_") or name == "set_params" or not inspect.isfunction(method):
                continue
            if not method.__module__.startswith("skae."):
                continue
            found = decorators_of(method)
            places = iter(AROUND)
            if not all(any(one in place for place in places) for one in found):
                wrong.append((case.cls.__name__, name, found))
            n_learning += "learns" in found
            # A model that a failed fit has changed would be neither the old one nor a new one.
            if name in ("fit", "partial_fit") and "learns" not in found:
                wrong.append((case.cls.__name__, name, found))
    assert wrong == []
    assert n_learning >= len(CASES)


def test_optimisers_are_used_in_one_place():
    rules = "skae.engine.optimisation.optimizers"
    for file, tree in trees().items():
        names = {*imported_names(tree), *(name for name, _ in uses(tree))}
        if file != "engine/optimisation/optimizers.py":
            # One loop, one optimiser: nobody else touches torch's.
            assert not any(is_or_is_in(name, "torch.optim") for name in names), file
        loops = "engine/optimisation/training.py", "engine/joint/training.py"
        if file not in loops and not file.startswith("estimators/"):
            # And only the loops, and the estimators that choose a rule by name, see ours.
            assert not any(is_or_is_in(name, rules) for name in names), file


FORBIDDEN = (
    "torch.manual_seed",
    "torch.seed",
    "torch.set_rng_state",
    "torch.default_generator",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "torch.random",
    "torch.compile",
    "torch.set_default_dtype",
    "torch.set_default_device",
    "torch.set_default_tensor_type",
)
# What np.random offers that has no global state behind it.
STATELESS = ("default_rng", "Generator", "RandomState", "SeedSequence")


def test_no_global_state_is_touched():
    for file, tree in trees().items():
        for name, line in uses(tree):
            # Settings of the process belong to the user; torch.compile costs half a minute.
            assert not any(is_or_is_in(name, bad) for bad in FORBIDDEN), f"{file}:{line} {name}"
            if is_or_is_in(name, "np.random") and name != "np.random":
                # np.random.<draw> reads and changes NumPy's global generator.
                assert name.split(".")[2] in STATELESS, f"{file}:{line} {name}"
            if name == "torch.set_num_threads":
                # The one place that restores it.
                assert file == "engine/optimisation/devices.py", f"{file}:{line}"
        for name in imported_names(tree):
            # The standard library's generator is global, too.
            assert not is_or_is_in(name, "random"), f"{file} imports {name}"
            assert not any(is_or_is_in(name, bad) for bad in FORBIDDEN), f"{file} imports {name}"


TORCH_DRAWS = {
    "bernoulli", "multinomial", "normal", "poisson", "rand", "randint", "randn", "randperm",
    "rand_like", "randn_like", "randint_like",
}  # fmt: skip
TENSOR_DRAWS = {
    "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_",
    "multinomial", "normal_", "random_", "uniform_",
}  # fmt: skip


def test_every_draw_has_a_generator():
    for file, tree in trees().items():
        for node in nodes(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            of = dotted(node.func.value)
            if of in ("rng", "self.rng"):
                continue  # a generator of NumPy
            if node.func.attr in (TORCH_DRAWS if of == "torch" else TENSOR_DRAWS):
                given = {keyword.arg for keyword in node.keywords}
                # Without ``generator=`` torch draws from its global one.
                assert "generator" in given, f"{file}:{node.lineno} draws without a generator"


def module_level(tree):
    """All statements that run at import: not those inside of functions."""
    pending = list(tree.body)
    while pending:
        node = pending.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            pending.extend(ast.iter_child_nodes(node))


def test_optional_packages_are_imported_where_they_are_used():
    # skae must import on a machine that has none of these.
    optional = ("matplotlib", "numba", "pandas", "polars", "rich", "skorch", "pyarrow", "dask")
    optional = (*optional, "distributed", "h5py", "zarr", "skl2onnx", "onnx")
    for file, tree in trees().items():
        for node in module_level(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for name in imported_names(node):
                    assert name.split(".")[0] not in optional, f"{file} imports {name} at its top"


# How large what may be


def n_code_lines(path, tree):
    """Lines that hold code: no comments, no blank lines, no strings that are statements."""
    quiet = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    quiet |= {tokenize.ENDMARKER, tokenize.ENCODING}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type not in quiet:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in nodes(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_files_are_short():
    n_lines = {file: n_code_lines(path, trees()[file]) for file, path in FILES.items()}
    assert {file: n for file, n in n_lines.items() if n > 300} == {}


def test_the_package_is_small():
    assert len(FILES) <= 225
    assert sum(len(path.read_text().splitlines()) for path in FILES.values()) < 45_000


def test_signatures_are_short():
    for file, tree in trees().items():
        for node in nodes(tree):
            if isinstance(node, ast.FunctionDef) and node.name != "__init__":
                given = node.args
                names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
                names = [name for name in names if name not in ("self", "cls")]
                # What needs more is a record that has no name yet.
                assert len(names) <= 12, f"{file}:{node.lineno} {node.name}"


# Inheritance


def own_classes(cls):
    """Those in whose place older versions of scikit-learn have nothing are not counted."""
    stand_in = "CallbackSupportMixin"
    own = [base for base in cls.__mro__ if is_or_is_in(base.__module__, "skae")]
    return [base for base in own if base.__name__ != stand_in]


@functools.cache
def estimator_classes():
    """All classes of the estimators' modules, public and private."""
    found = {}
    for module in pkgutil.walk_packages(skae.estimators.__path__, "skae.estimators."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and is_or_is_in(value.__module__, "skae"):
                found[f"{value.__module__}.{value.__name__}"] = value
    return list(found.values())


def test_inheritance_is_shallow():
    deep = {str(case): own_classes(case.cls) for case in CASES if len(own_classes(case.cls)) > 4}
    assert deep == {}


# What a subclass may say of itself; all of them return, and none acts.
HOOKS = {
    "_model",  # the engine's model that it is
    "_facts",  # attributes that are known before training, what it knows of the columns among them
    "_check_parameters",  # refuses parameters that do not go together
    "_loss_parameter",  # the name of the parameter that chooses units
    "_collapse_remedy",  # what to do about a code that carries nothing
    "_targets",  # of which kind the targets are that it predicts
    "_accepts_gaps",  # whether NaN stands for what was not observed
    "_made_by_one",  # why no processes can share a fit
}


def test_hooks_are_few():
    overridden = set()
    for cls in estimator_classes():
        for base in own_classes(cls)[1:]:
            if is_or_is_in(base.__module__, "skae.estimators"):
                overridden |= vars(cls).keys() & vars(base).keys()
    hooks = {
        name
        for name in overridden
        if name.startswith("_")
        and not name.startswith("__")
        # What the class decorator, scikit-learn and abstract classes write.
        and name not in ("_parameter_constraints", "_sklearn_auto_wrap_output_keys", "_abc_impl")
    }
    # Whoever reads a family has to know these, and no more.
    assert hooks == HOOKS
    assert len(HOOKS) <= 8


# Parts are registered once

REGISTERED = {
    "engine/networks/units.py": UNITS,
    "engine/networks/corruptions.py": CORRUPTIONS,
    "engine/networks/penalties.py": {**SPARSITY_PENALTIES, **CONTRACTIONS},
    "engine/networks/layers.py": ACTIVATIONS,
    "engine/optimisation/optimizers.py": OPTIMIZERS,
}
# Words that mean something else as well: parts of a model, and courses of a learning rate ...
AMBIGUOUS = {"encoder", "reconstruction", "linear"}
# ... and, in some places, weights of the units of a group, or stages of images.
ELSEWHERE = {("engine/sparse/groups.py", "gaussian"), ("engine/images.py", "relu")}


def compared_literals(tree):
    """Strings that something is compared with, with the line."""
    for node in nodes(tree):
        if isinstance(node, ast.Compare | ast.MatchValue):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                    yield inner.value, inner.lineno


def classes_asked_for(tree):
    """Names of classes that something is tested to be of, with the line."""
    for node in nodes(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in ("isinstance", "issubclass"):
            for inner in ast.walk(node.args[1]):
                if isinstance(inner, ast.Name | ast.Attribute):
                    yield (dotted(inner) or "").split(".")[-1], node.lineno


def test_nobody_asks_which_part_it_is():
    for file, tree in trees().items():
        parts = {home: table for home, table in REGISTERED.items() if home != file}
        names = {name for table in parts.values() for name in table} - AMBIGUOUS
        classes = {getattr(part, "__name__", "") for t in parts.values() for part in t.values()}
        # A part says what it is and can; who asks for its name or class has to be found and
        # changed for every part that is new.
        for literal, line in compared_literals(tree):
            known = literal in names and (file, literal) not in ELSEWHERE
            assert not known, f"{file}:{line} compares with {literal!r}"
        for name, line in classes_asked_for(tree):
            assert name not in classes - {""}, f"{file}:{line} asks for {name}"


# What an import and a fit do to the process


# What skae cannot be without. (scikit-learn itself imports pandas where it is installed, and its
# callbacks import rich.)
DEPENDENCIES = """
import contextlib, joblib, numpy as np, scipy.sparse, torch
import sklearn.base, sklearn.utils.validation
with contextlib.suppress(ImportError):
    import sklearn.callback
"""
HEAVY = (
    "matplotlib",
    "numba",
    "pandas",
    "polars",
    "rich",
    "skorch",
    "dask",
    "h5py",
    "zarr",
    "sympy",
    "torch._dynamo",
    "skae.plots",
)
# An import, and then a fit, in one process: it takes seconds until torch is there.
GUEST = f"""
import json, multiprocessing, os, random, sys, threading, warnings
{DEPENDENCIES}
def heavy():
    return [name for name in {HEAVY} if name in set(sys.modules) - before]

def state():
    tasks = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else None
    return (
        tasks,
        threading.active_count(),
        len(multiprocessing.active_children()),
        torch.cuda.is_initialized(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        np.geterr(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        len(warnings.filters),
    )

before, state_before = set(sys.modules), state()
import skae
state_after = state()
changed = [i for i, (a, b) in enumerate(zip(state_before, state_after)) if a != b]
by_import, before = heavy(), set(sys.modules)
X = np.random.default_rng(0).random((50, 5))
for optimizer in ("adam", "adamw", "sgd", "nesterov", "rmsprop", "adagrad"):
    model = skae.AutoEncoder(3, max_iter=2, device="cpu", optimizer=optimizer, random_state=0)
    model.fit(X).transform(X)
skae.PatchWhitener(patch_shape=(1, 2), image_shape=(1, 5)).fit(X)
print(json.dumps(dict(by_import=by_import, changed=changed, by_fit=heavy())))
"""


def test_import_and_fit_are_light_and_change_nothing():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", GUEST], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    guest = json.loads(done.stdout)
    # Every worker of a grid search pays for what an import drags in.
    assert guest["by_import"] == []
    # No thread, no process, no CUDA context, no draw, no setting: an import only defines.
    assert guest["changed"] == []
    # The import of torch's compiler costs a second in every worker; a training needs none of it.
    assert guest["by_fit"] == []
