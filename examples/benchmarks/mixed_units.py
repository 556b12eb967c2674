"""Cost of a step on a table with many one-hot variables, beside a plain step of the same width.

What is compared. The gradient of the reconstruction criterion, one tied sigmoid layer of 256 units,
batches of 100 rows, float32, without the optimiser's update:

- plain: all columns Gaussian;
- mixed: a third of the columns Gaussian, some binary, the others 32 one-hot variables of 2 to 12
  categories, whose softmaxes are one operation;
- one by one: the same, each variable a part of its own.

    OMP_NUM_THREADS=1 python examples/benchmarks/mixed_units.py [--repeats N]
"""

import argparse
import itertools

import torch
from measuring import interleave, print_machine, print_table, spread, verdict

import skae
from skae.engine.networks.layers import Network
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.objectives import Reconstruction
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial, OneHotGroups
from skae.engine.optimisation.parameters import Parameters

N_GROUPS, N_ROWS, N_COMPONENTS, N_STEPS, GOAL = 32, 100, 256, 50, 1.5
SIZES = [2 + (5 * number) % 11 for number in range(N_GROUPS)]
N_ONE_HOT, N_BINARY = sum(SIZES), 16
N_GAUSSIAN = N_ONE_HOT // 2
N_COLUMNS = N_GAUSSIAN + N_BINARY + N_ONE_HOT


def make_batch(generator):
    """A batch of numbers, coins and categories, in this order."""
    x = torch.randn(N_ROWS, N_COLUMNS, generator=generator)
    coins = x[:, N_GAUSSIAN : N_GAUSSIAN + N_BINARY]
    coins.copy_((coins > 0).float())
    start = N_GAUSSIAN + N_BINARY
    for size in SIZES:
        index = torch.randint(size, (N_ROWS,), generator=generator)
        x[:, start : start + size] = torch.eye(size)[index]
        start += size
    return x


def make_units():
    """Units of the columns, by what they are called here."""
    first = N_GAUSSIAN + N_BINARY
    numbers = [(Gaussian(), slice(0, N_GAUSSIAN)), (Bernoulli(), slice(N_GAUSSIAN, first))]
    ends = torch.tensor([0, *SIZES]).cumsum(0) + first
    one_by_one = [
        (Multinomial(), torch.arange(start, stop))
        for start, stop in itertools.pairwise(ends.tolist())
    ]
    return {
        "plain": Gaussian(),
        "mixed": Mixed([*numbers, (OneHotGroups(SIZES), slice(first, N_COLUMNS))]),
        "one by one": Mixed([*numbers, *one_by_one]),
    }


def main(repeats=15):
    """Time the steps and print multiples of the plain one."""
    print_machine(skae, torch)
    print(f"{torch.get_num_threads()} thread(s) of torch")
    generator = torch.Generator().manual_seed(0)
    x = make_batch(generator)
    network = Network((N_COLUMNS, N_COMPONENTS), "sigmoid", True)
    theta = Parameters(network.parameter_shapes, dtype=torch.float32)
    theta.flat.normal_(std=0.05, generator=generator)
    out = theta.empty_like()

    def step(units):
        objective = Reconstruction(network, units)

        def run():
            for _ in range(N_STEPS):
                objective.gradient(theta, x, generator, out)

        return run

    with torch.no_grad():
        runs = {name: step(units) for name, units in make_units().items()}
        interleave(runs, 2)
        seconds, _ = interleave(runs, repeats)
    rows = []
    for name, values in seconds.items():
        ratio = values / seconds["plain"]
        goal = verdict(ratio, GOAL) if name == "mixed" else ""
        rows.append((name, spread(1e3 * values / N_STEPS), spread(ratio), goal))
    title = f"{N_COLUMNS} columns, {N_GROUPS} one-hot variables, {N_ROWS} rows"
    print_table(title, ("step", "ms", "of plain", "goal"), rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    main(**vars(parser.parse_args()))
