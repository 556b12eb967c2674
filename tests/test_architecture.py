"""Which module may import which, and what no module may do."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import skae

PACKAGE = Path(skae.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}

# engine -> estimators -> skae/__init__; engine -> diagnostics -> plots. Each part
# may import itself and the parts named here.
ALLOWED = {
    "engine": set(),
    "_validation": {"engine"},
    "datasets": {"engine", "_validation"},
    "diagnostics": {"engine", "_validation"},
    "plots": {"engine", "diagnostics", "_validation"},
    "estimators": {"engine", "diagnostics", "_validation"},
}
each_file = pytest.mark.parametrize("file", sorted(FILES))


def part_of(file):
    """The part of the package that a file belongs to: "engine", "plots", ..."""
    return Path(file).parts[0].removesuffix(".py")


def imported_names(tree):
    """Dotted names of everything that is imported: "a.b" and, for names from it, "a.b.c"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node):
    """ "a.b.c" for the expression a.b.c, or None if it is no such chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        start = dotted(node.value)
        return None if start is None else f"{start}.{node.attr}"
    return None


def uses(tree):
    """Every dotted name that the code mentions, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = dotted(node)
            if name is not None:
                yield name.replace("numpy.", "np.", 1), node.lineno


def is_or_is_in(name, module):
    return name == module or name.startswith(f"{module}.")


@each_file
def test_arrows_point_down(file):
    part = part_of(file)
    if part == "__init__":
        return  # the public names: may import everything
    # A part that is new has to find its place among the arrows first.
    allowed = ALLOWED[part] | {part}
    for name in imported_names(TREES[file]):
        if is_or_is_in(name, "skae"):
            # An arrow that points up would make the parts one lump.
            assert name.split(".")[1] in allowed, f"{file} imports {name}"


@each_file
def test_the_engine_knows_no_scikit_learn(file):
    if part_of(file) == "engine":
        for name in imported_names(TREES[file]):
            # The engine is functions on tensors: it sees no estimator.
            assert not is_or_is_in(name, "sklearn"), f"{file} imports {name}"


@each_file
def test_private_names_of_scikit_learn_are_imported_in_one_place(file):
    if file == "_validation.py":
        return
    for name in imported_names(TREES[file]):
        # Private names change between releases; one file is where to look then.
        private = is_or_is_in(name, "sklearn") and any(p.startswith("_") for p in name.split("."))
        assert not private, f"{file} imports {name}"


@each_file
def test_optimisers_are_used_in_one_place(file):
    names = {*imported_names(TREES[file]), *(name for name, _ in uses(TREES[file]))}
    if file != "engine/optimisation/optimizers.py":
        # One loop, one optimiser: nobody else touches torch's.
        assert not any(is_or_is_in(name, "torch.optim") for name in names), file
    if file != "engine/optimisation/training.py" and part_of(file) != "estimators":
        # And only the loop, and the estimators that choose a rule by name, see ours.
        rules = "skae.engine.optimisation.optimizers"
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


@each_file
def test_no_global_state_is_touched(file):
    for name, line in uses(TREES[file]):
        # Settings of the process belong to the user; torch.compile costs half a minute.
        assert not any(is_or_is_in(name, bad) for bad in FORBIDDEN), f"{file}:{line} {name}"
        if is_or_is_in(name, "np.random") and name != "np.random":
            # np.random.<draw> reads and changes NumPy's global generator.
            assert name.split(".")[2] in STATELESS, f"{file}:{line} {name}"
        if name == "torch.set_num_threads":
            # The one place that restores it.
            assert file == "engine/optimisation/devices.py", f"{file}:{line}"
    for name in imported_names(TREES[file]):
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


@each_file
def test_every_draw_has_a_generator(file):
    for node in ast.walk(TREES[file]):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        of_torch = dotted(node.func.value) == "torch"
        if node.func.attr in (TORCH_DRAWS if of_torch else TENSOR_DRAWS):
            given = {keyword.arg for keyword in node.keywords}
            if dotted(node.func.value) in ("rng", "self.rng"):
                continue  # a generator of NumPy
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


@each_file
def test_optional_packages_are_imported_where_they_are_used(file):
    top = ast.Module([n for n in module_level(TREES[file]) if isinstance(n, ast.stmt)], [])
    for node in top.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported_names(node):
                # skae must import on a machine that has none of these.
                optional = ("matplotlib", "pandas", "polars", "rich", "skorch")
                assert name.split(".")[0] not in optional, f"{file} imports {name} at its top"


def run_python(code):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# What skae cannot be without. (scikit-learn itself imports pandas where it is installed, and its
# callbacks import rich.)
DEPENDENCIES = """
import contextlib, joblib, numpy as np, scipy.sparse, torch
import sklearn.base, sklearn.utils.validation
with contextlib.suppress(ImportError):
    import sklearn.callback
"""
HEAVY = ("matplotlib", "pandas", "polars", "rich", "skorch", "torch._dynamo", "skae.plots")


def test_import_is_light():
    code = f"""
import sys
{DEPENDENCIES}
before = set(sys.modules)
import skae
print(*(name for name in {HEAVY} if name in set(sys.modules) - before))
"""
    # Every worker of a grid search pays for what an import drags in.
    assert run_python(code) == ""


def test_import_starts_nothing_and_changes_nothing():
    code = f"""
import multiprocessing, os, random, threading, warnings
{DEPENDENCIES}
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

before = state()
import skae
after = state()
print([i for i, (a, b) in enumerate(zip(before, after)) if a != b])
"""
    # No thread, no process, no CUDA context, no draw, no setting: an import only defines.
    assert run_python(code) == "[]"


def test_a_fit_on_the_cpu_stays_light():
    code = f"""
import sys
{DEPENDENCIES}
import skae
before = set(sys.modules)
X = np.random.default_rng(0).random((50, 5))
for optimizer in ("adam", "sgd", "nesterov", "rmsprop", "adagrad"):
    model = skae.AutoEncoder(3, max_iter=2, device="cpu", optimizer=optimizer, random_state=0)
    model.fit(X).transform(X)
print(*(name for name in {HEAVY} if name in set(sys.modules) - before))
"""
    # The import of torch's compiler costs a second in every worker; a training needs none of it.
    assert run_python(code) == ""
