r"""
Bound of a deep Boltzmann machine on MNIST
==========================================

Published (Salakhutdinov & Hinton, AISTATS 2009; binary MNIST, hidden layers of 500 and 1000
units, log Z by annealed importance sampling with 100 chains and 20,000 temperatures): a lower
bound of -84.62 nats on the mean log-likelihood of the test set, after pre-training each layer for
100 epochs and the whole for 300.

Here: the intensities of 60,000 images made binary by one draw each (seed 0), the first 50,000 to
train on, the last 10,000 to test on. Layers are pre-trained by CD-1 (rate 0.05, falling linearly);
the whole learns with 100 persistent chains of 5 Gibbs steps, centred, at a rate that falls
linearly to 0, in batches of 100.

Needs the environment variable SKAE_DATA to name a folder with ``mnist_train.npz`` (X of
shape (60000, 28, 28), y). Rerun, with the epochs of pre-training and of the whole, and the number
of temperatures:

    SKAE_DATA=... python examples/reproductions/mnist_deep_boltzmann.py 100 300 20000

Reached, by a run that is far shorter than the published one:

    SKAE_DATA=... python examples/reproductions/mnist_deep_boltzmann.py 4 2 2000

4 epochs for each layer and 2 for the whole (at most 10 sweeps; bounds are of up to 100), seed 0:
bound on the 10,000 test rows -101.58 nats, on 10,000 of the training rows -100.45; log Z
1319.27 +- 0.33 by 100 chains of 2,000 temperatures (seed 1), which rests on 8.4 of the chains, of
which skae warns. Fit 1565 s and annealing 178 s on a part of one core, with ten other jobs on two.
That is 17 nats below the published bound, and says nothing of what a full training reaches: the
loss still fell (85.70 after the first epoch of the whole, 84.25 after the second).
"""

import sys
import time

from mnist_rbm import load  # beside this file

from skae import RBM, DeepBoltzmannMachine


def main():
    """Fit the machine for as long as was asked for, and print what the docstring reports."""
    n_first, n_whole, n_temperatures = map(int, sys.argv[1:] or (100, 300, 20_000))
    train, test = load()
    lower = RBM(
        learning_rate=0.05,
        learning_rate_schedule="linear",
        batch_size=100,
        max_iter=n_first,
        verbose=True,
    )
    dbm = DeepBoltzmannMachine(
        (500, 1000),
        pretraining=lower,
        learning_rate=0.05,
        mean_field_steps=10,
        mean_field_tol=1e-3,
        max_iter=n_whole,
        random_state=0,
        verbose=True,
    )
    started = time.perf_counter()
    dbm.fit(train)
    fitted = time.perf_counter()
    print(f"fit {fitted - started:.0f} s", flush=True)
    dbm.set_params(mean_field_steps=100, mean_field_tol=1e-4)
    log_z = dbm.log_partition_function("ais", n_temperatures=n_temperatures, random_state=1)
    annealed = time.perf_counter()
    print(
        f"pre-training {n_first}, whole {n_whole} epochs, {n_temperatures} temperatures: "
        f"bound on test {dbm.score(test, log_partition=log_z):.2f}, "
        f"on 10,000 training rows {dbm.score(train[:10000], log_partition=log_z):.2f} nats, "
        f"log Z {log_z.value:.2f} +- {log_z.standard_error:.2f}, "
        f"fit {fitted - started:.0f} s, annealing {annealed - fitted:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
