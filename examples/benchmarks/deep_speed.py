"""Time of a deep auto-encoder's `fit`: beside a loop written by hand, and with a contraction.

What is compared. 784-500-250-30 and back, sigmoid units, untied weights, linear output, squared
error, Adam at 1e-3, float32, batches of 100 rows of MNIST, the same number of epochs:

- ``AutoEncoder(hidden_layer_sizes=(500, 250))`` of skae;
- the same network as a torch module, trained by a loop written by hand: batches by index_select,
  autograd, Adam, the loss read once an epoch (``foreach`` and ``fused`` as torch chooses them, and
  fused);
- skae's with ``contraction=0.1``, by one, two and four random directions, and exactly.

    python examples/benchmarks/deep_speed.py [--rows N] [--epochs N] [--repeats N] [--cpu] [--quick]

Two tables of ratios, taken within each repeat. Set OMP_NUM_THREADS to fix the cores.
"""

import argparse
import time
import warnings
from itertools import pairwise

import sklearn
import torch
from measuring import (
    interleave,
    load_mnist_in_unit,
    print_machine,
    print_table,
    spread,
    verdict,
)

import skae
from skae import AutoEncoder

HIDDEN, N_CODES, BATCH_SIZE, LEARNING_RATE = (500, 250), 30, 100, 1e-3
DIRECTIONS = {"1 direction": 1, "2 directions": 2, "4 directions": 4, "exact": None}


def fit_skae(X, n_epochs, **parameters):
    model = AutoEncoder(
        N_CODES,
        hidden_layer_sizes=HIDDEN,
        loss="squared_error",
        tied_weights=False,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        max_iter=n_epochs,
        n_iter_no_change=None,
        device="cpu",
        random_state=0,
        **parameters,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few epochs
        return model.fit(X).loss_curve_[-1]


def fit_by_hand(X, n_epochs, *, fused):
    torch.manual_seed(0)
    x, sizes = torch.from_numpy(X), (X.shape[1], *HIDDEN, N_CODES)
    pairs = [*pairwise(sizes)]
    layers = []
    for n_in, n_out in [*pairs, *((above, below) for below, above in reversed(pairs))]:
        layers += [torch.nn.Linear(n_in, n_out), torch.nn.Sigmoid()]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=fused)
    for _ in range(n_epochs):
        total = torch.zeros(())
        for index in torch.randperm(len(x)).split(BATCH_SIZE):
            batch = x.index_select(0, index)
            optimizer.zero_grad()
            loss = 0.5 * (model(batch) - batch).square().sum() / len(batch)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        loss = total.item()
    return loss * BATCH_SIZE / len(x)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu", action="store_true", help="CPU time, of one thread")
    parser.add_argument("--quick", action="store_true", help="500 rows, once: does it run?")
    given = parser.parse_args()
    n_rows, n_repeats = (500, 1) if given.quick else (given.rows, given.repeats)
    X, n_epochs = load_mnist_in_unit(n_rows), given.epochs
    print_machine(sklearn, torch, skae)
    print(f"{len(X)} rows, {n_epochs} epochs, {torch.get_num_threads()} threads")

    runs = {
        "skae": lambda: fit_skae(X, n_epochs),
        "by hand": lambda: fit_by_hand(X, n_epochs, fused=None),
        "by hand, fused": lambda: fit_by_hand(X, n_epochs, fused=True),
    }
    for name, m in DIRECTIONS.items():
        contracts = {"contraction": 0.1, "contraction_directions": m}
        runs[name] = lambda contracts=contracts: fit_skae(X, n_epochs, **contracts)
    fit_skae(X[:BATCH_SIZE], 1), fit_by_hand(X[:BATCH_SIZE], 1, fused=None)  # imports are paid
    clock = time.process_time if given.cpu else time.perf_counter
    if given.cpu:
        torch.set_num_threads(1)
    seconds, losses = interleave(runs, n_repeats, clock)
    rows = []
    for name in runs:
        ratio, goal = seconds[name] / seconds["skae"], ""
        if name.startswith("by hand"):
            goal = verdict(1 / ratio, 1.1) + " (skae / by hand)"
        elif name == "2 directions":
            goal = verdict(ratio, 2.5)
        each = 1e3 * seconds[name] / n_epochs
        rows.append((name, spread(each, 0), spread(ratio), f"{losses[name]:.2f}", goal))
    header = "run", "ms an epoch", "times skae's plain", "last loss", "aim"
    print_table("784-500-250-30 and back", header, rows)


if __name__ == "__main__":
    main()
