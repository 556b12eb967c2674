"""
One fit of several processes
============================

    torchrun --nproc-per-node=2 examples/distributed_fit.py

Each process reads rows of its own, here every second row of the digits, and calls `fit` as it would
alone; ``distributed=True`` sums what they compute. All end with the same weights.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits

from skae import AutoEncoder


def main():
    # Where each process has a GPU of its own: torch.cuda.set_device(int(os.environ["LOCAL_RANK"])),
    # and "nccl" in the place of "gloo".
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    X = load_digits().data[rank::size].astype(np.float32)  # what a process reads is its own affair
    model = AutoEncoder(32, batch_size=100, max_iter=30, random_state=0, distributed=True)
    model.fit(X)
    loss, norm = model.loss_curve_[-1], np.linalg.norm(model.components_)
    print(f"process {rank} of {size}: {len(X)} rows, loss {loss:.6f}, weights of norm {norm:.6f}")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
