"""Time of `fit`: skae beside scikit-learn, torch, skorch and a loop written by hand.

What is compared. One hidden layer of sigmoid units, untied weights, linear output,
squared error, Adam at 1e-3, float32, the same rows, batch size and number of epochs:

- ``AutoEncoder`` of skae;
- ``MLPRegressor`` of scikit-learn, fitted X -> X;
- torch as most people write it: ``nn.Module``, ``DataLoader``, ``optim.Adam``;
- ``NeuralNetRegressor`` of skorch on the same module;
- the best loop we can write by hand for this one model: one flat tensor, gradients in
  closed form into buffers made once, torch's fused Adam, the loss summed every step and
  read once per epoch, on the number of threads that suits the size;
- the machine's limit: only the five matrix products of a step, 2 * batch * n_features *
  n_components floating-point operations each, at the same shapes.

A second table sets the contractive and the denoising auto-encoder beside the plain one
(tied weights, their default loss).

What makes it fair. Every contestant takes the same NumPy array and pays for all that its
user pays for (validation, conversion, statistics of columns); all run interleaved in one
process, after one short warm-up each, so that nobody pays for imports. All start from
the same distribution of weights. MLPRegressor has its penalty and its stopping switched
off. The final loss of each, on all training rows, is printed and
compared: they must have learned alike.

    python examples/benchmarks/fit_speed.py [--quick] [--repeats N] [--only digits]

Set OMP_NUM_THREADS or run under `taskset` to fix the cores; run on a quiet machine.
"""

import argparse
import contextlib
import warnings
from functools import partial
from typing import NamedTuple

import numpy as np
import sklearn
import skorch
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
from sklearn.neural_network import MLPRegressor

import skae
from skae import AutoEncoder, ContractiveAutoEncoder, DenoisingAutoEncoder
from skae.engine.networks.activations import ACTIVATIONS

LEARNING_RATE = 1e-3
# Losses may differ by what initial weights and the order of rows make of few epochs.
LOSS_TOLERANCE = 0.25


class Configuration(NamedTuple):
    """One model size on one data set."""

    name: str
    load: object
    n_components: int
    batch_size: int
    n_epochs: int
    hand_written_threads: int | None


CONFIGURATIONS = [
    Configuration("digits, 32 units", lambda: load_digits_in_unit()[0], 32, 32, 100, 1),
    Configuration("MNIST, 256 units", load_mnist_in_unit, 256, 100, 4, None),
    Configuration("MNIST, 1000 units", load_mnist_in_unit, 1000, 100, 2, None),
]


# --- contestants: each fits and returns the function that reconstructs rows -----------


def fit_skae(X, size):
    model = AutoEncoder(
        size.n_components,
        loss="squared_error",
        tied_weights=False,
        activation="sigmoid",
        batch_size=size.batch_size,
        learning_rate=LEARNING_RATE,
        max_iter=size.n_epochs,
        n_iter_no_change=None,
        device="cpu",
        random_state=0,
    )
    return model.fit(X).reconstruct


def fit_mlp_regressor(X, size):
    model = MLPRegressor(
        hidden_layer_sizes=(size.n_components,),
        activation="logistic",
        solver="adam",
        alpha=0.0,
        batch_size=size.batch_size,
        learning_rate_init=LEARNING_RATE,
        max_iter=size.n_epochs,
        tol=0.0,
        n_iter_no_change=10**9,
        warm_start=True,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Two steps make its attributes; a warm start then begins from our weights.
        start = model.set_params(max_iter=1).fit(X[: 2 * size.batch_size], X[: 2 * size.batch_size])
        random = np.random.default_rng(0)
        bound = initial_bound(X.shape[1], size.n_components)
        start.coefs_ = [
            random.uniform(-bound, bound, w.shape).astype(X.dtype) for w in start.coefs_
        ]
        start.intercepts_ = [np.zeros(size.n_components, X.dtype), X.mean(0)]
        return start.set_params(max_iter=size.n_epochs).fit(X, X).predict


def initial_bound(n_features, n_components):
    """The weights that skae starts from are uniform within plus and minus this bound."""
    return ACTIVATIONS["sigmoid"].gain * (6.0 / (n_features + n_components)) ** 0.5


class TorchAutoEncoder(torch.nn.Module):
    """The model as a torch module, initialised like skae's."""

    def __init__(self, n_features, n_components, output_bias):
        super().__init__()
        self.encoder = torch.nn.Linear(n_features, n_components)
        self.decoder = torch.nn.Linear(n_components, n_features)
        with torch.no_grad():
            bound = initial_bound(n_features, n_components)
            for layer in (self.encoder, self.decoder):
                layer.weight.uniform_(-bound, bound)
            self.encoder.bias.zero_()
            self.decoder.bias.copy_(output_bias)

    def forward(self, x):
        """Reconstruct a batch."""
        return self.decoder(torch.sigmoid(self.encoder(x)))


def fit_torch(X, size):
    torch.manual_seed(0)
    x = torch.from_numpy(X)
    model = TorchAutoEncoder(X.shape[1], size.n_components, x.mean(0))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x), batch_size=size.batch_size, shuffle=True
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    criterion = torch.nn.MSELoss()
    for _ in range(size.n_epochs):
        total = 0.0
        for (batch,) in loader:
            optimizer.zero_grad()
            loss = criterion(model(batch), batch)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
    return lambda X: model(torch.from_numpy(X)).detach().numpy()


def fit_skorch(X, size):
    torch.manual_seed(0)
    net = skorch.NeuralNetRegressor(
        TorchAutoEncoder,
        module__n_features=X.shape[1],
        module__n_components=size.n_components,
        module__output_bias=torch.from_numpy(X.mean(0)),
        criterion=torch.nn.MSELoss,
        optimizer=torch.optim.Adam,
        lr=LEARNING_RATE,
        batch_size=size.batch_size,
        max_epochs=size.n_epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    return net.fit(X, X).predict


def fit_by_hand(X, size):
    with threads(size.hand_written_threads), torch.no_grad():
        return _fit_by_hand(X, size)


def _fit_by_hand(X, size):
    generator = torch.Generator().manual_seed(0)
    x = torch.from_numpy(X)
    (n_rows, n_features), n_components = x.shape, size.n_components
    shapes = [(n_components, n_features)] * 2 + [(n_components,), (n_features,)]
    theta = torch.zeros(sum(np.prod(shape) for shape in shapes))
    theta.grad = torch.zeros_like(theta)
    weight, decoder_weight, hidden_bias, visible_bias = views(theta, shapes)
    weight_grad, decoder_grad, hidden_grad, visible_grad = views(theta.grad, shapes)
    bound = initial_bound(n_features, n_components)
    theta[: 2 * weight.numel()].uniform_(-bound, bound, generator=generator)
    visible_bias.copy_(x.mean(0))
    optimizer = torch.optim.Adam([theta], lr=LEARNING_RATE, fused=True)

    full = torch.empty(size.batch_size, n_features)
    full_output, full_code = torch.empty_like(full), torch.empty(size.batch_size, n_components)
    full_delta, full_slope = torch.empty_like(full_code), torch.empty_like(full_code)
    weight_t, decoder_t = weight.t(), decoder_weight.t()
    for _ in range(size.n_epochs):
        total = torch.zeros(())
        order = torch.randperm(n_rows, generator=generator)
        for index in order.split(size.batch_size):
            n = len(index)
            batch, output, code = full[:n], full_output[:n], full_code[:n]
            delta, slope = full_delta[:n], full_slope[:n]
            torch.index_select(x, 0, index, out=batch)
            torch.addmm(hidden_bias, batch, weight_t, out=code).sigmoid_()
            torch.addmm(visible_bias, code, decoder_weight, out=output).sub_(batch)
            residual = output.view(-1)
            total.add_(torch.dot(residual, residual), alpha=0.5)
            torch.mm(code.t(), output, out=decoder_grad)
            torch.sum(output, 0, out=visible_grad)
            torch.mm(output, decoder_t, out=delta)
            torch.addcmul(code, code, code, value=-1, out=slope)
            delta.mul_(slope)
            torch.mm(delta.t(), batch, out=weight_grad)
            torch.sum(delta, 0, out=hidden_grad)
            theta.grad.div_(n)
            optimizer.step()
        total.item()

    def reconstruct(X):
        code = torch.sigmoid(torch.addmm(hidden_bias, torch.from_numpy(X), weight_t))
        return torch.addmm(visible_bias, code, decoder_weight).numpy()

    return reconstruct


def views(flat, shapes):
    parts = flat.split([int(np.prod(shape)) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def run_matrix_products(X, size):
    """The five products of each step and nothing else."""
    with threads(size.hand_written_threads):
        n, n_features, n_components = size.batch_size, X.shape[1], size.n_components
        x, residual = torch.rand(n, n_features), torch.rand(n, n_features)
        code, delta = torch.rand(n, n_components), torch.rand(n, n_components)
        weight = torch.rand(n_components, n_features)
        gradient = torch.empty_like(weight)
        for _ in range(size.n_epochs * round(len(X) / n)):
            torch.mm(x, weight.t(), out=code)
            torch.mm(code, weight, out=residual)
            torch.mm(residual, weight.t(), out=delta)
            torch.mm(code.t(), residual, out=gradient)
            torch.mm(delta.t(), x, out=gradient)


@contextlib.contextmanager
def threads(n_threads):
    """Run torch on a number of threads (None: as it is) and restore the limit."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


PEERS = {
    "skae AutoEncoder": fit_skae,
    "scikit-learn MLPRegressor": fit_mlp_regressor,
    "torch, DataLoader": fit_torch,
    "skorch": fit_skorch,
    "written by hand": fit_by_hand,
    "five matrix products": run_matrix_products,
}
LIBRARIES = ["scikit-learn MLPRegressor", "torch, DataLoader", "skorch"]


# --- tables ---------------------------------------------------------------------------


def compare_peers(size, X, n_repeats):
    """Print skae's time as a fraction of each peer's; return the goals that were missed."""
    runs = {name: partial(fit, X, size) for name, fit in PEERS.items()}
    for fit in PEERS.values():
        fit(X[: 2 * size.batch_size], size._replace(n_epochs=1))
    seconds, results = interleave(runs, n_repeats)
    ours = seconds["skae AutoEncoder"]
    n_steps = size.n_epochs * round(len(X) / size.batch_size)
    losses = {
        name: 0.5 * np.square(X - reconstruct(X)).sum(1).mean()
        for name, reconstruct in results.items()
        if reconstruct is not None
    }
    rows = []
    for name, times in seconds.items():
        rows.append(
            (
                name,
                spread(times / size.n_epochs, 3),
                f"{np.median(times) / n_steps * 1e6:.0f}",
                spread(ours / times),
                f"{losses[name]:.3f}" if name in losses else "",
            )
        )
    print_table(
        f"{size.name}: {len(X)} x {X.shape[1]}, batch {size.batch_size}, "
        f"{size.n_epochs} epochs, {n_repeats} repeats",
        ("", "s per epoch", "us per step", "skae / this", "final loss"),
        rows,
    )
    fastest = min(LIBRARIES, key=lambda name: np.median(seconds[name]))
    goals = [(f"skae / fastest library ({fastest})", ours / seconds[fastest], 1.0)]
    goals += [("skae / written by hand", ours / seconds["written by hand"], 1.2)]
    if size.n_components >= 1000:
        goals += [("skae / MLPRegressor", ours / seconds[LIBRARIES[0]], 0.6)]
    for label, ratio, goal in goals:
        print(f"  {label}: {spread(ratio)}; goal {verdict(ratio, goal)}")
    limit = seconds["five matrix products"]
    rate = 10 * n_steps * size.batch_size * X.shape[1] * size.n_components / limit
    print(
        f"  fraction of the machine's limit: {spread(limit / ours)}"
        f" (torch.mm at these shapes: {np.median(rate) / 1e9:.0f} GFLOP/s)"
    )
    worst = max(abs(loss / losses["skae AutoEncoder"] - 1) for loss in losses.values())
    alike = "alike" if worst < LOSS_TOLERANCE else "NOT ALIKE: the work was not the same"
    print(f"  final losses differ by at most {worst:.0%}: {alike}", flush=True)


def compare_variants(size, X, n_repeats):
    """Print the cost of contraction and of corruption relative to the plain model."""
    variants = {
        "AutoEncoder": AutoEncoder,
        "ContractiveAutoEncoder": ContractiveAutoEncoder,
        "DenoisingAutoEncoder": DenoisingAutoEncoder,
    }

    def fit(variant, n_epochs, X):
        model = variant(
            size.n_components,
            batch_size=size.batch_size,
            max_iter=n_epochs,
            n_iter_no_change=None,
            device="cpu",
            random_state=0,
        )
        return model.fit(X).loss_curve_[-1]

    for variant in variants.values():
        fit(variant, 1, X[: 2 * size.batch_size])
    runs = {name: partial(fit, variant, size.n_epochs, X) for name, variant in variants.items()}
    seconds, losses = interleave(runs, n_repeats)
    plain = seconds["AutoEncoder"]
    n_steps = size.n_epochs * round(len(X) / size.batch_size)
    print_table(
        f"{size.name}: variants, tied weights, Bernoulli units",
        ("", "s per epoch", "us per step", "this / plain", "loss"),
        [
            (
                name,
                spread(times / size.n_epochs, 3),
                f"{np.median(times) / n_steps * 1e6:.0f}",
                spread(times / plain),
                f"{losses[name]:.2f}",
            )
            for name, times in seconds.items()
        ],
    )
    ratio = seconds["ContractiveAutoEncoder"] / plain
    print(f"  contractive / plain: {spread(ratio)}; goal {verdict(ratio, 1.25)}", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer epochs and repeats")
    parser.add_argument("--repeats", type=int, default=None, help="default: 7, or 3 if quick")
    parser.add_argument("--only", default="", help="part of a configuration's name")
    arguments = parser.parse_args()
    n_repeats = arguments.repeats or (3 if arguments.quick else 7)

    print_machine(torch, sklearn, skorch, skae)
    print(f"{torch.get_num_threads()} threads of torch")
    for size in CONFIGURATIONS:
        if arguments.only not in size.name:
            continue
        X = size.load()
        if arguments.quick:
            size = size._replace(n_epochs=max(1, size.n_epochs // 4))
        compare_peers(size, X, n_repeats)
        compare_variants(size, X, n_repeats)


if __name__ == "__main__":
    main()
