"""Cost of a step with tangents, as a multiple of the plain step, beside the arithmetic it adds.

What is compared. The gradient of a fine-tuning step of a net 784-1000-1000-10, batches of 300 rows,
float32, without the optimiser's update:

- plain: the labels' loss alone, all rows labelled;
- tangents: all rows labelled, with the squared change of the output along 15 tangents;
- unlabelled: 100 rows labelled, with tangents; 200 without, twice more as moved by the worst move
  within the tangent plane and by the worst of all, with entropy and balance: the default of
  ManifoldTangentClassifier.

The arithmetic is counted in multiplications of a row by a matrix. With W the entries of all
matrices and W_1 those of the first, a row costs 3 W - W_1 to go forth and back, a direction as
much as a row, and finding a row's move 5 W (the output and its slopes, the encoder's, one product
backwards, one forwards and one backwards through the encoder).

    OMP_NUM_THREADS=1 python examples/benchmarks/tangent_penalty_cost.py [--repeats N]
"""

import argparse
import itertools

import torch
from measuring import interleave, print_machine, print_table, spread

import skae
from skae.engine.networks.differentials import jacobian_of
from skae.engine.networks.layers import Network
from skae.engine.networks.objectives import auto_encoder
from skae.engine.networks.units import Bernoulli, Multinomial
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import Labelled
from skae.engine.optimisation.runs import Objective
from skae.engine.stacks.stacking import stacked
from skae.engine.stacks.supervised import Supervised, with_output
from skae.engine.tangents.semi_supervised import Moves, SemiSupervised

SIZES, N_ROWS, N_LABELLED, N_TANGENTS, N_STEPS = (784, 1000, 1000, 10), 300, 100, 15, 10


def make_net(generator):
    """Models of the hidden layers, and parameters of all."""
    models = []
    for below, above in itertools.pairwise(SIZES[:-1]):
        network = Network((below, above), "sigmoid")
        models.append(auto_encoder(network, Bernoulli(), torch.zeros(below), Objective))
    shapes = with_output(models, Multinomial(), SIZES[-1]).shapes
    theta = Parameters(shapes, dtype=torch.float32, device="cpu")
    theta.flat.normal_(std=0.05, generator=generator)
    return models, theta


def main(repeats=7):
    """Time the three steps and print multiples."""
    print_machine(skae, torch)
    print(f"{torch.get_num_threads()} thread(s) of torch")
    generator = torch.Generator().manual_seed(0)
    models, theta = make_net(generator)
    x = torch.rand(N_ROWS, SIZES[0], generator=generator)
    directions = torch.randn(N_ROWS, N_TANGENTS, SIZES[0], generator=generator)
    target = torch.eye(SIZES[-1])[torch.randint(SIZES[-1], (N_ROWS,), generator=generator)]
    some = target.clone()
    some[N_LABELLED:] = 0
    layers, frozen = stacked(models), Parameters(theta.shapes, theta.flat.clone())
    units = Multinomial()
    all_rows = Labelled(x, target, None, directions)
    few_rows = Labelled(x, some, None, directions[:N_LABELLED], torch.arange(N_ROWS))
    steps = {
        "plain": (Supervised(models, units), all_rows),
        "tangents": (SemiSupervised(models, units, tangent_penalty=0.1), all_rows),
        "unlabelled": (
            SemiSupervised(
                models,
                units,
                planes=lambda x, _: jacobian_of(layers, frozen, x),
                tangent_penalty=0.1,
                within=Moves(1.0, 2.0),
                anywhere=Moves(1.0, 1.5),
                entropy_penalty=0.3,
                balance_penalty=1.0,
                prior=torch.full(SIZES[-1:], 1 / SIZES[-1]),
                labelled_fraction=N_LABELLED / N_ROWS,
            ),
            few_rows,
        ),
    }
    out = theta.empty_like()

    def run(objective, batch):
        with torch.no_grad():
            for _ in range(N_STEPS):
                objective.gradient(theta, batch, generator, out)

    seconds, _ = interleave(
        {name: lambda step=step: run(*step) for name, step in steps.items()}, repeats
    )
    first = SIZES[0] * SIZES[1]
    whole = first + SIZES[1] * SIZES[2] + SIZES[2] * SIZES[3]
    there_and_back, n_others = 3 * whole - first, N_ROWS - N_LABELLED
    plain = N_ROWS * there_and_back
    arithmetic = {
        "plain": plain,
        "tangents": 2 * plain,
        "unlabelled": (2 * N_LABELLED + 3 * n_others) * there_and_back + 5 * n_others * whole,
    }
    print_table(
        f"a step of {N_ROWS} rows through {'-'.join(map(str, SIZES))}",
        ["step", "ms", "multiple of plain", "arithmetic"],
        [
            (
                name,
                spread(1000 * taken / N_STEPS, 1),
                spread(taken / seconds["plain"]),
                f"{arithmetic[name] / plain:.2f}",
            )
            for name, taken in seconds.items()
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    main(**vars(parser.parse_args()))
