"""Our time as a multiple of the machine's limit, the matrix products, and how it grows.

What is compared. A whole call as a user makes it, ``fit`` or ``transform`` with all that it checks
and measures, and the matrix products that its steps cannot do without, at the same shapes, by
``torch.mm`` into memory that is there:

- one layer, per step: 5 products of 2 * batch * columns * units operations (plain, denoising,
  contractive, which adds none);
- several layers: 3 for each affine map, but for the lowest 2, of encoder and decoder;
- a deep contraction by 2 random directions: 3 more for each layer of the encoder, of 2 * batch
  rows;
- a Boltzmann machine, PCD-1: down for particles, up and outer products for both phases, 5 in 3;
- fine-tuning a classifier: 3 for each layer, but for the lowest 2;
- ``transform``: one for each layer; sparse codes: rows times atoms, once.

The first table is of the shapes of the other benchmarks; the others let the rows, the columns and
the units of a plain auto-encoder and of a machine grow, the rest being 64 columns and 64 units.

    python examples/benchmarks/limits.py [--cpu] [--repeats N] [--quick] [--only rows]

With ``--cpu``, seconds are of the CPU, on one thread: for machines that are not quiet. A call that
has few steps is mostly checks; ``us a step`` says how large what it is a multiple of is.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import sklearn
import torch
from measuring import load_digits_in_unit, load_mnist_in_unit, print_machine, print_table

import skae
from skae import (
    RBM,
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
    SparseCoder,
    StackedClassifier,
)

# Steps that a fit makes: so many that their products are 2e10 operations, within bounds.
FEWEST, MOST, OPERATIONS = 100, 2000, 2e10


class Work(NamedTuple):
    """A call, and the shapes (rows, inner, columns) of the products of one of its steps."""

    name: str
    call: Callable
    n_steps: int
    products: list


def steps_of(n_rows, batch_size, products):
    """Epochs that make enough steps, and how many steps they make."""
    each = max(1, round(n_rows / batch_size))
    operations = 2 * sum(n * k * m for n, k, m in products)
    wanted = int(np.clip(OPERATIONS / operations, FEWEST, MOST))
    n_epochs = max(1, -(-wanted // each))
    return n_epochs, n_epochs * each


def chain(n, sizes):
    """Products of a step of affine maps: forwards, and both ways back but for the input's."""
    pairs = list(pairwise(sizes))
    forward = [(n, n_in, n_out) for n_in, n_out in pairs]
    return [
        *forward,
        *((n_in, n, n_out) for n_in, n_out in pairs),
        *((n, n_out, n_in) for n_in, n_out in pairs[1:]),
    ]


def fit_of(model, X, n_units, *, batch_size=100, hidden=(), directions=0, name=None):
    """A fit of an auto-encoder."""
    sizes = (X.shape[1], *hidden, n_units)
    products = chain(batch_size, (*sizes, *sizes[-2::-1]))
    for n_in, n_out in pairwise(sizes):
        n = directions * batch_size
        products += [(n, n_out, n_in), (n_out, n, n_in), (n, n_in, n_out)] if directions else []
    n_epochs, n_steps = steps_of(len(X), batch_size, products)
    own = {"batch_size": batch_size, "max_iter": n_epochs, "n_iter_no_change": None}
    made = model(n_units, hidden_layer_sizes=hidden, device="cpu", random_state=0, **own)
    layers = "-".join(map(str, sizes))
    title = f"{name or model.__name__}, {layers}, {len(X)} rows, batch {batch_size}"
    return Work(title, lambda: made.fit(X), n_steps, products)


def machine_of(X, n_units, batch_size):
    """A fit of a Boltzmann machine by persistent chains."""
    n, n_visible = batch_size, X.shape[1]
    products = [(n, n_units, n_visible), (2 * n, n_visible, n_units), (n_units, 2 * n, n_visible)]
    n_epochs, n_steps = steps_of(len(X), batch_size, products)
    own = {"batch_size": batch_size, "max_iter": n_epochs, "n_iter_no_change": None}
    rules = {
        "persistent": True,
        "learning_rate": 1e-4,
        "centered": False,
        "optimizer": "sgd",
        "momentum": 0.0,
    }
    made = RBM(n_units, visible="bernoulli", device="cpu", random_state=0, **rules, **own)
    title = f"RBM, {n_visible}-{n_units}, {len(X)} rows, batch {n}"
    return Work(title, lambda: made.fit(X), n_steps, products)


def classifier_of(X, y, sizes):
    """Fine-tuning alone."""
    whole = (X.shape[1], *sizes, len(np.unique(y)))
    products = chain(100, whole)
    n_epochs, n_steps = steps_of(len(X), 100, products)
    made = StackedClassifier(
        sizes,
        pretraining=None,
        max_iter=n_epochs,
        n_iter_no_change=None,
        batch_size=100,
        device="cpu",
        random_state=0,
    )
    title = f"StackedClassifier, fine-tuning, {'-'.join(map(str, whole))}, {len(X)} rows"
    return Work(title, lambda: made.fit(X, y), n_steps, products)


def benchmarks(quick):
    """The shapes of the other benchmarks."""
    digits, labels = load_digits_in_unit()
    mnist = load_mnist_in_unit(1000 if quick else 5000)
    codes = AutoEncoder(256, max_iter=1, device="cpu", random_state=0)
    rows, columns = mnist.shape
    atoms = np.random.default_rng(0).normal(size=(256, 64))
    atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32)
    coder = SparseCoder(256, dictionary=atoms, alpha=0.2, device="cpu")
    kinds = AutoEncoder, DenoisingAutoEncoder, ContractiveAutoEncoder
    yield from (fit_of(kind, digits, 32, batch_size=32) for kind in kinds)
    yield from (fit_of(AutoEncoder, mnist, units) for units in (256, 1000))
    yield fit_of(ContractiveAutoEncoder, mnist, 256)
    yield fit_of(AutoEncoder, mnist, 30, hidden=(500, 250))
    yield fit_of(ContractiveAutoEncoder, mnist, 30, hidden=(500, 250), directions=2)
    yield from (machine_of(digits, 100, n) for n in (10, 100))
    yield from (machine_of(mnist, 256, n) for n in (10, 100))
    yield classifier_of(digits, labels, (100,))
    fitted = codes.fit(mnist[:200])
    yield Work(
        f"AutoEncoder.transform, {columns}-256, {rows} rows",
        lambda: fitted.transform(mnist),
        1,
        [(rows, columns, 256)],
    )
    coder.fit(digits)
    yield Work(
        f"SparseCoder.transform, 64 columns, 256 atoms, {len(digits)} rows",
        lambda: coder.transform(digits),
        1,
        [(len(digits), 64, 256)],
    )


def random_rows(n_rows, n_columns):
    return np.random.default_rng(0).random((n_rows, n_columns), dtype=np.float32)


def growing(over, quick):
    """Fits whose rows, columns or units grow."""
    values = {
        "rows": (1_000, 10_000, 100_000, 1_000_000),
        "columns": (10, 100, 1_000, 10_000),
        "units": (16, 64, 256, 1_024, 4_096),
    }[over]
    for value in values[:2] if quick else values:
        shape = {"rows": 2_000, "columns": 64, "units": 64, over: value}
        X = random_rows(shape["rows"], shape["columns"])
        yield fit_of(AutoEncoder, X, shape["units"])
        yield machine_of(X, shape["units"], 100)


def seconds_of_products(products, clock):
    """Of one step, the median of as many as take a fifth of a second."""
    pairs = [(torch.rand(n, k), torch.rand(k, m), torch.empty(n, m)) for n, k, m in products]
    times, ends = [], clock() + 0.2
    while clock() < ends or len(times) < 3:
        started = clock()
        for left, right, out in pairs:
            torch.mm(left, right, out=out)
        times.append(clock() - started)
    return float(np.median(times))


def measure(work, n_repeats, clock):
    """Seconds of a call and of its products; the smallest multiple's."""
    found = []
    for _ in range(n_repeats):
        limit = work.n_steps * seconds_of_products(work.products, clock)
        started = clock()
        work.call()
        found.append((clock() - started, limit))
    return min(found, key=lambda pair: pair[0] / pair[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="CPU time, of one thread")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few sizes, once: does it run?")
    parser.add_argument("--only", default="", help="a part of a table's name")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # of few epochs
    clock = time.process_time if given.cpu else time.perf_counter
    if given.cpu:
        torch.set_num_threads(1)
    n_repeats = 1 if given.quick else given.repeats
    print_machine(sklearn, torch, skae)
    tables = {"benchmarks": benchmarks}
    tables |= {over: partial(growing, over) for over in ("rows", "columns", "units")}
    AutoEncoder(2, max_iter=1, device="cpu").fit(random_rows(10, 3))  # imports are paid
    for name, make in tables.items():
        if given.only not in name:
            continue
        rows: list[tuple] = []
        for work in make(given.quick):
            seconds, limit = measure(work, n_repeats, clock)
            step, product = 1e6 * seconds / work.n_steps, 1e6 * limit / work.n_steps
            rows.append((work.name, f"{step:.0f}", f"{product:.0f}", f"{seconds / limit:.2f}"))
        header = "", "us a step", "its products", "times the limit"
        print_table(name, header, rows)


if __name__ == "__main__":
    main()
