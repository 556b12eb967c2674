"""Time of tangents: skae's leading singular vectors beside NumPy's SVD, row by row.

What is compared. The 15 leading right singular vectors of the encoder's Jacobian at rows of
MNIST, for 784 inputs and one or two layers of 1000 sigmoid units, float32:

- ``leading_singular_vectors`` of skae, all rows in one call;
- ``numpy.linalg.svd(J, full_matrices=False)`` of each row's J, which it is handed ready made.

The encoders. "trained" is an auto-encoder after a few epochs, with few units near 0 or 1.
"saturated" is the same with weights and biases thirty times as large: at any one row, nearly all
units are at 0 or 1 to many digits. "between", with eight times, has units of every kind. "random"
has uniform weights and no training: its spectrum is nearly flat, and leading spans are hard to tell
from what follows; it has no goal. "two layers" has another trained layer on the code of the first,
and "two, between" is the same with eight times all weights and biases. A product with two layers
is two to three times the work of one with one, and the SVD is handed a matrix of the same size.

What makes it fair. Time is per row, the SVD's over fewer rows. All run interleaved in one process.
Angles are the largest principal angles to the span that the SVD gives in float64, over the rows
where the 15th value and the 16th differ by more than 1 %.

    SKAE_DATA=... OMP_NUM_THREADS=1 python examples/benchmarks/tangent_speed.py [--repeats N]
"""

import argparse

import numpy as np
import torch
from measuring import interleave, load_mnist_in_unit, print_machine, print_table, spread, verdict
from scipy.special import expit

import skae
from skae import AutoEncoder
from skae.engine.networks.jacobians import LayeredJacobian
from skae.engine.networks.singular_vectors import leading_singular_vectors, principal_angles

N_UNITS, N_TANGENTS, GOAL = 1000, 15, 50.0


def encoders(X):
    """Weights and biases of the layers, by name."""
    one, code = trained_layer(X)
    two = [one, trained_layer(code)[0]]
    bound = np.sqrt(6 / (N_UNITS + X.shape[1]))
    random = np.random.default_rng(0).uniform(-bound, bound, one[0].shape).astype(np.float32)
    yield "trained", [one]
    yield "between", scaled([one], 8)
    yield "saturated", scaled([one], 30)
    yield "random", [(random, np.zeros_like(one[1]))]
    yield "two layers", two
    yield "two, between", scaled(two, 8)


def trained_layer(X):
    """Weight and bias of an auto-encoder, and its code."""
    model = AutoEncoder(N_UNITS, max_iter=5, n_iter_no_change=None, device="cpu", random_state=0)
    code = model.fit_transform(X)
    return (model.components_, model.intercept_hidden_), code


def scaled(layers, factor):
    """The layers with weights and biases so many times as large."""
    return [(factor * weight, factor * bias) for weight, bias in layers]


def jacobian_at(X, layers):
    """That of sigmoid units, and the code of the last layer."""
    slopes, code = [], X
    for weight, bias in layers:
        code = expit(code @ weight.T + bias)
        slopes.append(torch.from_numpy(code * (1 - code)))
    return LayeredJacobian(slopes, [torch.from_numpy(weight) for weight, _ in layers]), code


def largest_angle(jacobian, right):
    """Degrees, over the rows whose spans are defined; and how many these are."""
    matrices = jacobian.dense().double().numpy()
    _, values, expected = np.linalg.svd(matrices, full_matrices=False)
    defined = values[:, N_TANGENTS] < 0.99 * values[:, N_TANGENTS - 1]
    expected = torch.from_numpy(expected[defined, :N_TANGENTS])
    angles = principal_angles(right[torch.from_numpy(defined)].double(), expected)
    return np.rad2deg(angles.numpy()).max(initial=0.0), int(defined.sum())


def main(repeats=5, rows=400, svds=3, checked=20):
    """Time both, print ratios and angles."""
    print_machine(skae, torch, np)
    print(f"{torch.get_num_threads()} thread(s) of torch")
    X = load_mnist_in_unit(10_000)
    lines = []
    for name, layers in encoders(X):
        jacobian, code = jacobian_at(X[:rows], layers)
        matrices = jacobian.rows(slice(0, svds)).dense().numpy()
        runs = {
            "skae": lambda j=jacobian: leading_singular_vectors(j, N_TANGENTS),
            "svd": lambda m=matrices: [np.linalg.svd(a, full_matrices=False) for a in m],
        }
        seconds, results = interleave(runs, repeats)
        ours, theirs = seconds["skae"] / rows, seconds["svd"] / svds
        first = slice(0, checked)
        angle, n_defined = largest_angle(jacobian.rows(first), results["skae"].right[first])
        saturated = ((code < 0.05) | (code > 0.95)).mean()
        lines.append(
            (
                name,
                f"{saturated:.0%}",
                spread(1000 * ours),
                spread(1000 * theirs, 0),
                spread(theirs / ours, 1),
                "" if name == "random" else verdict(theirs / ours, GOAL, at_least=True),
                f"{angle:.3f} ({n_defined} of {checked})",
            )
        )
    header = ("encoder", "saturated", "ms a row", "ms an SVD", "SVD / skae", "goal", "angle (rows)")
    print_table(f"{N_TANGENTS} tangents, {N_UNITS} units a layer, {rows} rows", header, lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=400)
    main(**vars(parser.parse_args()))
