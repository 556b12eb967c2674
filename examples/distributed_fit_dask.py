"""
One fit of the workers of a dask cluster
========================================

One worker is one process of the group.

    python examples/distributed_fit_dask.py

Nothing here is of skae but `fit`. Each worker needs a process of its own, with one thread.
"""

import numpy as np
import torch
from dask.distributed import Client, LocalCluster, wait
from sklearn.datasets import load_digits

from skae import AutoEncoder


def fit_part(model, X, rank, size, place):
    """What each worker does: join the others, fit, leave them."""
    torch.distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=size)
    try:
        return model.fit(X)
    finally:
        torch.distributed.destroy_process_group()


def main():
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        workers = list(client.scheduler_info()["workers"])
        host = workers[0].split("//")[1].split(":")[0]  # where the processes meet
        X = load_digits().data.astype(np.float32)
        model = AutoEncoder(32, batch_size=100, max_iter=30, random_state=0, distributed=True)
        fits = []
        for rank, worker in enumerate(workers):
            part = client.scatter(X[rank :: len(workers)], workers=[worker])
            own = rank, len(workers), f"tcp://{host}:29511"
            fits.append(client.submit(fit_part, model, part, *own, workers=[worker], pure=False))
        wait(fits)
        first, *others = client.gather(fits)
        same = all(np.array_equal(first.components_, other.components_) for other in others)
        print(f"{len(fits)} workers, loss {first.loss_curve_[-1]:.6f}, the same weights: {same}")


if __name__ == "__main__":
    main()
