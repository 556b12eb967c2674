"""Time of `fit` of a restricted Boltzmann machine, beside scikit-learn's `BernoulliRBM`.

What is compared. Persistent chains with one Gibbs step for each gradient step (PCD-1, the
only rule of BernoulliRBM), as many chains as a batch has rows, plain stochastic gradient
ascent, float32, the same rows, hidden units, learning rate, batch size and number of epochs:

- ``RBM`` of skae, neither centred nor with momentum;
- ``BernoulliRBM`` of scikit-learn;
- the machine's limit: only the five matrix products of a step, 2 * batch * n_features *
  n_components floating-point operations each (particles given hidden units; hidden units
  and outer products, of the data and of the particles), in three calls of ``torch.mm``.

A second table sets other rules of skae beside that one: contrastive divergence with one and
five Gibbs steps, momentum, centred gradients. A third is the time of annealed importance
sampling, log Z of a machine of 784 and 500 units by 100 chains and 10,000 temperatures,
beside the two matrix products that each temperature needs. A fourth is the part of a Gaussian
machine's fit that the estimate of the loss after each epoch takes, which is to be a tenth at most,
by the rows, columns and hidden units.

What makes it fair. Both take the same NumPy array and pay for all that their user pays for
(validation, statistics of the columns, skae's estimate of the pseudo-likelihood after each
epoch, which BernoulliRBM computes only if verbose); all run interleaved in one process,
after one short warm-up each. BernoulliRBM is given skae's start before its first step, which
costs it nothing that can be measured: weights from the same distribution and biases that fit
the columns' means, where its own are zero and take it some epochs to learn (``--own-start``
leaves it its own). What still differs: skae shuffles the rows, BernoulliRBM takes them in
their order. The pseudo-log-likelihood of the first 500 rows, over all columns and by the same
code for both (skae's, with BernoulliRBM's weights put into a fitted RBM), is printed and
compared: they must have learned alike.

    python examples/benchmarks/rbm_speed.py [--quick] [--repeats N] [--only digits]

``--only`` takes part of a configuration's name: "digits", "MNIST", "batch 100", "annealing",
"probe".
Set OMP_NUM_THREADS or run under `taskset` to fix the cores; run on a quiet machine.
"""

import argparse
import time
import warnings
from functools import partial
from typing import NamedTuple
from unittest import mock

import numpy as np
import sklearn
import torch
from measuring import (
    interleave,
    load_digits_in_unit,
    load_mnist_in_unit,
    print_machine,
    print_table,
    spread,
    verdict,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import BernoulliRBM

import skae
from skae import RBM
from skae.engine.boltzmann.learning import ContrastiveDivergence
from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.optimisation.devices import suitable_threads

LEARNING_RATE = 0.05
# What other draws and the order of the rows make of few epochs: over five seeds, 2000 rows
# of MNIST and three epochs, each library's score moves by up to 5 percent, and that of
# BernoulliRBM with shuffled rows is the same as skae's.
SCORE_TOLERANCE = 0.05


class Configuration(NamedTuple):
    """One machine on one data set, and how many times faster skae is to be."""

    name: str
    load: object
    n_components: int
    batch_size: int
    n_epochs: int
    goal: float


CONFIGURATIONS = [
    Configuration("digits, batch 10", lambda: load_digits_in_unit()[0], 100, 10, 20, 1.0),
    Configuration("digits, batch 100", lambda: load_digits_in_unit()[0], 100, 100, 60, 1.0),
    Configuration("MNIST, batch 10", load_mnist_in_unit, 256, 10, 4, 3.0),
    Configuration("MNIST, batch 100", load_mnist_in_unit, 256, 100, 8, 2.0),
]

# Gaussian machines whose probe is timed: rows, columns, hidden units, epochs.
PROBED = [(5_000, 20, 16, 20), (10_000, 50, 16, 10), (5_000, 20, 256, 10), (10_000, 50, 256, 5)]

# Other rules, as parameters that differ from those of the comparison.
VARIANTS = {
    "PCD-1": {},
    "CD-1": {"persistent": False},
    "CD-5": {"persistent": False, "n_gibbs_steps": 5},
    "PCD-1, momentum": {"momentum": 0.5},
    "PCD-1, centred": {"centered": True},
    "CD-1, momentum, centred (default)": {"persistent": False, "momentum": 0.5, "centered": True},
}


# --- contestants: each fits and returns its parameters -------------------------------


def make_skae(size, **parameters):
    return RBM(
        size.n_components,
        **{
            "visible": "bernoulli",
            "optimizer": "sgd",
            "momentum": 0.0,
            "persistent": True,
            "n_gibbs_steps": 1,
            "centered": False,
            "learning_rate": LEARNING_RATE,
            "batch_size": size.batch_size,
            "max_iter": size.n_epochs,
            "n_iter_no_change": None,
            "n_scored_columns": None,
            "device": "cpu",
            "random_state": 0,
            **parameters,
        },
    )


def fit_skae(X, size):
    return make_skae(size).fit(X).weights_


class FromOurStart(BernoulliRBM):
    """BernoulliRBM whose first step starts from skae's distribution of parameters."""

    def fit(self, X, y=None):
        """Fit; scikit-learn's loop calls `_fit` once for each batch."""
        self._start = X.mean(0, dtype=np.float64).clip(1e-4, 1 - 1e-4)
        return super().fit(X, y)

    def _fit(self, v_pos, rng):
        if self._start is not None:
            shape, mean = self.components_.shape, self._start
            bound = ACTIVATIONS["sigmoid"].gain * (6.0 / sum(shape)) ** 0.5
            self.components_[:] = rng.uniform(-bound, bound, shape)
            self.intercept_visible_[:] = np.log(mean / (1 - mean))
            self._start = None
        super()._fit(v_pos, rng)


def fit_scikit_learn(X, size, own_start=False):
    model = (BernoulliRBM if own_start else FromOurStart)(
        size.n_components,
        learning_rate=LEARNING_RATE,
        batch_size=size.batch_size,
        n_iter=size.n_epochs,
        random_state=0,
    ).fit(X)
    return {
        "weight_0": np.ascontiguousarray(model.components_),
        "hidden_bias_0": model.intercept_hidden_,
        "visible_bias_0": model.intercept_visible_,
    }


def run_matrix_products(X, size):
    """The products of each step and nothing else, on the threads that skae takes."""
    n, n_visible, n_hidden = size.batch_size, X.shape[1], size.n_components
    visible, hidden = torch.rand(2 * n, n_visible), torch.rand(2 * n, n_hidden)
    particles, weight = torch.rand(n, n_visible), torch.rand(n_hidden, n_visible)
    gradient = torch.empty_like(weight)
    with suitable_threads(visible.device, weight.numel() * n):
        for _ in range(size.n_epochs * n_steps_per_epoch(X, size)):
            torch.mm(hidden[n:], weight, out=particles)
            torch.mm(visible, weight.t(), out=hidden)
            torch.mm(hidden.t(), visible, out=gradient)


PEERS = {
    "skae RBM": fit_skae,
    "scikit-learn BernoulliRBM": fit_scikit_learn,
    "matrix products": run_matrix_products,
}


# --- tables ---------------------------------------------------------------------------


def compare_peers(size, X, n_repeats, own_start):
    """Print how many times faster skae is, and whether both learned alike."""
    peers = dict(PEERS)
    if own_start:
        peers["scikit-learn BernoulliRBM"] = partial(fit_scikit_learn, own_start=True)
    for fit in peers.values():
        fit(X[: 2 * size.batch_size], size._replace(n_epochs=1))
    runs = {name: partial(fit, X, size) for name, fit in peers.items()}
    seconds, results = interleave(runs, n_repeats)
    ours = seconds["skae RBM"]
    scores = score_all(X, size, {name: r for name, r in results.items() if r is not None})
    n_steps = size.n_epochs * n_steps_per_epoch(X, size)
    print_table(
        f"{size.name}: {len(X)} x {X.shape[1]}, {size.n_components} hidden units, "
        f"{size.n_epochs} epochs, {n_repeats} repeats",
        ("", "s per epoch", "us per step", "this / skae", "pseudo-log-likelihood"),
        [
            (
                name,
                spread(times / size.n_epochs, 3),
                f"{np.median(times) / n_steps * 1e6:.0f}",
                spread(times / ours),
                f"{scores[name]:.2f}" if name in scores else "",
            )
            for name, times in seconds.items()
        ],
    )
    ratio = seconds["scikit-learn BernoulliRBM"] / ours
    print(
        f"  times faster than BernoulliRBM: {spread(ratio)}; "
        f"goal {verdict(ratio, size.goal, at_least=True)}"
    )
    limit = seconds["matrix products"]
    rate = 10 * n_steps * size.batch_size * X.shape[1] * size.n_components / limit
    print(
        f"  fraction of the machine's limit: {spread(limit / ours)}"
        f" (torch.mm at these shapes: {np.median(rate) / 1e9:.0f} GFLOP/s)"
    )
    start, (first, second) = scores["independent units"], list(scores.values())[:2]
    difference = abs(first - second) / abs(second)
    alike = "alike" if difference < SCORE_TOLERANCE else "NOT ALIKE: the work was not the same"
    print(
        f"  pseudo-log-likelihoods differ by {difference:.1%} (independent units of the columns'"
        f" means have {start:.2f}): {alike}",
        flush=True,
    )


def score_all(X, size, weights):
    """Exact pseudo-log-likelihood of the first 500 rows of each, by the same code."""
    scorer = make_skae(size._replace(n_epochs=1)).fit(X)
    mean = X.mean(0, dtype=np.float64).clip(1e-4, 1 - 1e-4)
    independent = {
        "weight_0": np.zeros_like(scorer.weights_["weight_0"]),
        "hidden_bias_0": np.zeros_like(scorer.weights_["hidden_bias_0"]),
        "visible_bias_0": np.log(mean / (1 - mean)).astype(X.dtype),
    }
    scores = {}
    for name, learned in {**weights, "independent units": independent}.items():
        scorer.weights_ = learned
        scores[name] = scorer.score(X[:500])
    return scores


def compare_variants(size, X, n_repeats):
    """Print the cost of other rules relative to PCD-1 without momentum, not centred."""

    def fit(parameters, n_epochs, X):
        make_skae(size._replace(n_epochs=n_epochs), **parameters).fit(X)

    for parameters in VARIANTS.values():
        fit(parameters, 1, X[: 2 * size.batch_size])
    n_epochs = max(1, size.n_epochs // 2)
    runs = {name: partial(fit, variant, n_epochs, X) for name, variant in VARIANTS.items()}
    seconds, _ = interleave(runs, n_repeats)
    print_table(
        f"{size.name}: rules of skae",
        ("", "s per epoch", "us per step", "this / PCD-1"),
        [
            (
                name,
                spread(times / n_epochs, 3),
                f"{np.median(times) / (n_epochs * n_steps_per_epoch(X, size)) * 1e6:.0f}",
                spread(times / seconds["PCD-1"]),
            )
            for name, times in seconds.items()
        ],
    )


def time_annealing(X, n_temperatures, n_repeats):
    """Print the seconds of annealed importance sampling and of its matrix products."""
    n_chains, size = 100, Configuration("", None, 500, 100, 1, 0.0)
    rbm = make_skae(size).fit(X)
    (n_hidden, n_visible), estimates = rbm.weights_["weight_0"].shape, []

    def anneal():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimates.append(
                rbm.log_partition_function("ais", n_chains=n_chains, n_temperatures=n_temperatures)
            )

    def multiply():
        weight = torch.rand(n_hidden, n_visible)
        visible, hidden = torch.rand(n_chains, n_visible), torch.rand(n_chains, n_hidden)
        for _ in range(n_temperatures):
            torch.mm(visible, weight.t(), out=hidden)
            torch.mm(hidden, weight, out=visible)

    seconds, _ = interleave({"AIS": anneal, "two matrix products": multiply}, n_repeats)
    ours, limit = seconds["AIS"], seconds["two matrix products"]
    print_table(
        f"annealing: log Z of {n_visible} x {n_hidden} units, {n_chains} chains, "
        f"{n_temperatures} temperatures, {n_repeats} repeats",
        ("", "s", "us per temperature"),
        [
            (name, spread(times, 1), f"{np.median(times) / n_temperatures * 1e6:.0f}")
            for name, times in seconds.items()
        ],
    )
    print(f"  log Z {estimates[-1].value:.2f} +- {estimates[-1].standard_error:.2f} nats")
    if n_temperatures == 10_000:
        print(f"  seconds: {spread(ours, 0)}; goal {verdict(ours, 180)}")
    else:
        print(f"  seconds of 10,000 temperatures: {spread(ours * 1e4 / n_temperatures, 0)}")
    rate = 4 * n_temperatures * n_chains * n_visible * n_hidden / limit
    print(
        f"  fraction of the machine's limit: {spread(limit / ours)}"
        f" (torch.mm at these shapes: {np.median(rate) / 1e9:.0f} GFLOP/s)",
        flush=True,
    )


def time_probe(n_repeats):
    """Print the part of a Gaussian fit that is spent on the loss after each epoch."""
    criterion, rows = ContrastiveDivergence.criterion, []
    for n, n_columns, n_components, n_epochs in PROBED:
        rng = np.random.default_rng(0)
        signal = np.tanh(rng.normal(size=(n, 4)) @ rng.normal(size=(4, n_columns)))
        X = (signal + 0.4 * rng.normal(size=(n, n_columns))).astype(np.float32)
        seconds, shares = [], []
        for _ in range(n_repeats):
            spent = 0.0

            def timed(*arguments):
                nonlocal spent
                started = time.perf_counter()
                value = criterion(*arguments)
                spent += time.perf_counter() - started
                return value

            model = RBM(
                n_components, visible="gaussian", max_iter=n_epochs, device="cpu", random_state=0
            )
            with mock.patch.object(ContrastiveDivergence, "criterion", timed):
                started = time.perf_counter()
                model.fit(X)
                seconds.append(time.perf_counter() - started)
            shares.append(spent / seconds[-1])
        size = f"{n} x {n_columns}, {n_components} hidden units"
        shares = np.array(shares)
        rows.append(
            (size, spread(np.array(seconds) / n_epochs, 3), spread(shares, 3), verdict(shares, 0.1))
        )
    print_table(
        f"the loss after each epoch of Gaussian machines, {n_repeats} repeats",
        ("", "s per epoch", "part of the fit", "goal"),
        rows,
    )


def n_steps_per_epoch(X, size):
    return -(-len(X) // size.batch_size)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer epochs and repeats")
    parser.add_argument("--repeats", type=int, default=None, help="default: 7, or 3 if quick")
    parser.add_argument("--only", default="", help="part of a configuration's name")
    parser.add_argument(
        "--own-start", action="store_true", help="leave BernoulliRBM its own initial parameters"
    )
    arguments = parser.parse_args()
    n_repeats = arguments.repeats or (3 if arguments.quick else 7)

    print_machine(torch, sklearn, skae)
    print(f"{torch.get_num_threads()} threads of torch")
    for size in CONFIGURATIONS:
        if arguments.only not in size.name:
            continue
        X = size.load()
        if arguments.quick:
            size = size._replace(n_epochs=max(1, size.n_epochs // 4))
        compare_peers(size, X, n_repeats, arguments.own_start)
        compare_variants(size, X, n_repeats)
    if arguments.only in "annealing":
        n_temperatures = 1000 if arguments.quick else 10_000
        time_annealing(load_mnist_in_unit(), n_temperatures, min(n_repeats, 3))
    if arguments.only in "probe":
        time_probe(n_repeats)


if __name__ == "__main__":
    main()
