r"""
Classes and images recalled by a deep Boltzmann machine, and log Z along its training
=====================================================================================

Rows are binary images of MNIST with their class as one more categorical variable: 784 + 10
columns. A small deep Boltzmann machine (two hidden layers of 300 units) learns their joint law in a
short run, on the likelihood or by multi-prediction (Goodfellow et al., NIPS 2013, whose machines of
500 and 1000 units make .88 % of errors, with a net on top that is not trained here). Then

- the pixels are clamped, all of them or a random half, and the class is inferred: by the mean
  field, and by Gibbs chains that draw it (the class that is drawn most often in 20 draws);
- the class is clamped, and images are drawn by Gibbs chains; nearest neighbours among the training
  images say which class they are;
- of the machine of the likelihood, log Z is estimated by temperatures and along the training's own
  checkpoints, and the bound on test rows is set beside what reverse annealing says by both paths.

The intensities of 60,000 images are made binary by one draw each (seed 0); the first 20,000 are
trained on, the last 10,000 tested on. Needs the environment variable SKAE_DATA to name a folder
with ``mnist_train.npz`` (X of shape (60000, 28, 28), y). Rerun, with the epochs of pre-training and
of the whole and a file that keeps the machine (train), or to evaluate that file (classes, log_z):

    export SKAE_DATA=...
    python examples/reproductions/mnist_class_recall.py train likelihood 4 10 a.skae
    python examples/reproductions/mnist_class_recall.py classes a.skae
    python examples/reproductions/mnist_class_recall.py train multi_prediction 0 8 b.skae
    python examples/reproductions/mnist_class_recall.py classes b.skae
    python examples/reproductions/mnist_class_recall.py train likelihood 0 16 c.skae
    python examples/reproductions/mnist_class_recall.py log_z c.skae 5000 1 2 7 29

Reached (seed 0; seconds are of CPU on one thread of a core that others used):

===============================================  ==========  ================
what                                             likelihood  multi-prediction
===============================================  ==========  ================
fit                                                    41 s              69 s
errors of classes, all pixels, mean field            7.24 %            6.70 %
the same by chains, 1,000 rows                       9.90 %            9.90 %
errors of classes, half the pixels, mean field       7.74 %            7.78 %
the same by chains, 1,000 rows                      11.10 %           11.20 %
squared error of missing pixels (mean: .0853)         .0377             .0365
images of a class recognised, 100 steps              55.2 %            18.7 %
the same, 1,000 steps (true images 92.2 %)           75.9 %            18.8 %
===============================================  ==========  ================

So after these short trainings both criteria infer equally well, and what was trained to predict is
no sampler; neither is near what classifiers reach. (On digits of 8 x 8 pixels multi-prediction
fills in far better than sweeps of the other machine do: see the gallery.)

log Z of the machine of the likelihood that began at small weights (c.skae), by 5,000 temperatures,
and the mean over 100 test rows of the bound by that log Z and of reverse annealing by 2,000; the
bound on all test rows is -101.34, -101.00 and -100.30 by the first three:

===================  ======  ===============  =============  ======  =================
path                 length  log Z            chains of 100  bound   reverse annealing
===================  ======  ===============  =============  ======  =================
temperatures           14.4  640.41 +- .20            20.7   -98.70             -98.68
1 of 29 checkpoints    19.8  640.07 +- .47             4.4   -98.36            -101.98
2 of 29 checkpoints    25.8  639.37 +- .27            12.0   -97.66            -101.08
all 29                178.9  597.68 +- .63             2.5   -55.97            not run
===================  ======  ===============  =============  ======  =================

With 20,000 (``log_z c.skae 20000 2``) temperatures say 640.26 +- .06 by 71.9 chains (bound on all
test rows -101.18, on the 100 -98.54), and two checkpoints 639.63 +- .58 by 2.9. Along few
checkpoints log Z agrees with that within 3.2 of the joint standard errors, which few chains make
too small. Along all of them the noise of the training makes the path 12 times as long: the
estimate is 43 nats too low, as the warning that it rests on 2.5 chains says. Of a machine that
began at layerwise pre-training (a.skae) all 26 checkpoints said 605.12 by 1.0 chains, temperatures
663.93 +- .33 by 8.6.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from mnist_rbm import load  # beside this file
from sklearn.neighbors import KNeighborsClassifier

import skae
from skae import RBM, DeepBoltzmannMachine
from skae.engine.boltzmann.trajectories import TrajectoryPath, checkpoint_machines
from skae.engine.optimisation.devices import place_of
from skae.estimators.boltzmann.machines import base_bias, machine_of

PIXELS, CLASSES = np.arange(784), np.arange(784, 794)
N_ROWS, SIZES = 20_000, (300, 300)


def rows():
    """Rows of pixels and class to train on and to test on, and the classes of both."""
    train, test = load()
    with np.load(Path(os.environ["SKAE_DATA"], "mnist_train.npz")) as data:
        labels = data["y"]
    one_hot = np.eye(10, dtype=np.float32)[labels]
    parts = (train[:N_ROWS], one_hot[:N_ROWS]), (test, one_hot[50000:])
    return [np.hstack(part) for part in parts], (labels[:N_ROWS], labels[50000:])


def train(criterion, n_first, n_whole, path):
    """Fit a machine by such a criterion and keep it in a file."""
    (X, _), _ = rows()
    lower = RBM(
        learning_rate=0.05,
        learning_rate_schedule="linear",
        batch_size=100,
        max_iter=max(1, n_first),
        verbose=True,
    )
    dbm = DeepBoltzmannMachine(
        SIZES,
        visible=[("bernoulli", PIXELS), ("multinomial", CLASSES)],
        criterion=criterion,
        pretraining=lower if n_first else None,
        learning_rate=0.05,
        momentum=0.5 if criterion == "likelihood" else 0.9,
        batch_size=100,
        mean_field_steps=10 if criterion == "likelihood" else 5,
        mean_field_tol=1e-3,
        n_checkpoints=40 if criterion == "likelihood" else 0,
        max_iter=n_whole,
        random_state=0,
        verbose=True,
    )
    started = time.process_time()
    dbm.fit(X)
    skae.save(dbm, path)
    print(f"{criterion}: fit {time.process_time() - started:.0f} s of CPU", flush=True)


def classes(path):
    """Print how well classes are inferred and drawn, and images of classes recognised."""
    (X, test), (y, y_test) = rows()
    dbm = skae.load(path).set_params(criterion="multi_prediction", mean_field_steps=30)
    random = np.random.default_rng(0)
    for part in (0.0, 0.5):
        asked = test.copy()
        asked[:, CLASSES] = np.nan
        gaps = random.random((len(test), 784)) < part
        asked[:, PIXELS] = np.where(gaps, np.nan, asked[:, PIXELS])
        started = time.process_time()
        means = dbm.denoise(asked)
        error = 100 * np.mean(means[:, CLASSES].argmax(1) != y_test)
        seconds = time.process_time() - started
        print(f"{part:.0%} of the pixels missing: mean field, {error:.2f} % wrong, {seconds:.0f} s")
        if part:
            squares = np.square(means - test)[:, PIXELS][gaps].mean()
            of_mean = np.square(X.mean(0) - test)[:, PIXELS][gaps].mean()
            print(f"missing pixels: squared error {squares:.4f}, of the mean {of_mean:.4f}")
        some, started = asked[:1000], time.process_time()
        # The k-th draw of every row comes before the next one of any.
        drawn = dbm.sample(
            20 * len(some), fixed=some, n_chains=len(some), burn_in=100, n_steps=5, random_state=0
        )
        votes = drawn[:, CLASSES].reshape(20, len(some), 10).sum(0)
        error = 100 * np.mean(votes.argmax(1) != y_test[:1000])
        seconds = time.process_time() - started
        print(f"  Gibbs chains, 1,000 rows, {error:.2f} % wrong, {seconds:.0f} s", flush=True)
    fixed = np.full((1000, 794), np.nan, dtype=np.float32)
    asked = np.repeat(np.arange(10), 100)
    fixed[:, CLASSES] = np.eye(10)[asked]
    nearest = KNeighborsClassifier(5).fit(X[:, PIXELS], y)
    of_test = 100 * nearest.score(test[:1000, PIXELS], y_test[:1000])
    for burn_in in (100, 1000):
        images = dbm.sample(1000, fixed=fixed, burn_in=burn_in, random_state=0)
        right = 100 * nearest.score(images[:, PIXELS], asked)
        print(
            f"images drawn given their class, after {burn_in} steps: {right:.1f} % recognised "
            f"(of true ones {of_test:.1f} %)",
            flush=True,
        )


def length(dbm, method, n_steps=1000):
    """Length of a path: the sum of the standard deviations of its log-weights, by 50 chains."""
    machine = machine_of(dbm)
    generator = torch.Generator(machine.theta.flat.device).manual_seed(0)
    bias = machine.widened(base_bias(dbm.columns_, place_of(machine.theta.flat)))
    path = machine.tempered(bias)
    if method == "trajectory":
        checkpoints = torch.as_tensor(dbm.trajectory_)
        path = TrajectoryPath(checkpoint_machines(machine, checkpoints), bias)
    total, before = 0.0, 0.0
    with torch.inference_mode():
        visible = path.start(50, generator)
        for beta in np.linspace(0, 1, n_steps + 1)[1:].tolist():
            energies = path.energies(visible)
            change = path.log_density(energies, beta) - path.log_density(energies, before)
            total, before = total + float(change.std()), beta
            visible = path.step(energies, beta, generator)
    return total


def log_z(path, n_temperatures, *numbers):
    """Print log Z by temperatures and along so many checkpoints, beside reverse annealing."""
    (X, test), _ = rows()
    dbm = skae.load(path).set_params(mean_field_steps=100, mean_field_tol=1e-4)
    some, every = test[:100], dbm.trajectory_
    for method, number in [("ais", 0), *(("trajectory", number) for number in numbers)]:
        name = f"{method} ({number} of {len(every)} checkpoints)" if number else method
        # Steps of a steady ratio apart, as all of them are.
        steps = np.linspace(0, len(every) - 1, number + 2).round().astype(int)[1:-1]
        dbm.trajectory_ = every if number == len(every) else every[steps]
        print(f"{name}: length {length(dbm, method):.1f}", flush=True)
        started = time.process_time()
        found = dbm.log_partition_function(method, n_temperatures=n_temperatures, random_state=1)
        print(
            f"{name}: log Z {found.value:.2f} +- {found.standard_error:.2f} by "
            f"{found.effective_chains:.1f} of 100 chains, {time.process_time() - started:.0f} s; "
            f"bound on test rows {dbm.score(test, log_partition=found):.2f}, on 10,000 training "
            f"rows {dbm.score(X[:10000], log_partition=found):.2f}, on 100 test rows "
            f"{dbm.score(some, log_partition=found):.2f}",
            flush=True,
        )
        started = time.process_time()
        backwards = dbm.annealed_likelihood(
            some, n_chains=2, n_temperatures=2000, method=method, random_state=1
        )
        print(
            f"{name}: reverse annealing of 100 test rows {backwards.scores.mean():.2f}, "
            f"{time.process_time() - started:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    command, *given = sys.argv[1:] or [""]
    if command == "train" and len(given) == 4:
        train(given[0], int(given[1]), int(given[2]), given[3])
    elif command == "classes" and len(given) == 1:
        classes(given[0])
    elif command == "log_z" and len(given) > 1:
        log_z(given[0], *map(int, given[1:]))
    else:
        sys.exit(
            "Say 'train CRITERION EPOCHS EPOCHS FILE', 'classes FILE' or 'log_z FILE NUMBERS'."
        )
