"""What each process does in `tests/estimators/test_processes.py`.

Each writes what it found, a dict of JSON, to the folder of its argument. As torchrun does, they are
told by the environment who they are; they are forks of one, so that all is imported once.
"""

import json
import os
import socket
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch.distributed
from sklearn.base import clone

import skae
from skae import RBM, AutoEncoder, Distributed, SparseCoder
from skae.engine.optimisation.rows import digest
from skae.estimators import persistence

N_ROWS, N_OWN = 90, 50


def rows():
    """Rows of a few hidden causes on raw scales."""
    random = np.random.default_rng(0)
    causes = random.normal(size=(N_ROWS, 2))
    mixing = random.normal(size=(2, 6)) * [1, 2, 5, 0.1, 1, 1]
    return causes @ mixing + random.normal(size=(N_ROWS, 6))


def own(X, rank):
    """A process's part, which is not as large as the other's."""
    return X[:N_OWN] if rank == 0 else X[N_OWN:]


def bits(model):
    """A digest of what a model has learned."""
    return {name: digest(value).hex() for name, value in sorted(model.weights_.items())}


def caught(function):
    """The error of a call, and the seconds until it came."""
    started = time.monotonic()
    try:
        function()
    except Exception as error:
        return [f"{type(error).__name__}: {error}", time.monotonic() - started]
    return ["", time.monotonic() - started]


def differing(rank):
    """Fits that have to be refused, by what is wrong; of one process at least."""
    X = own(rows(), rank)
    made = {"max_iter": 2, "random_state": 0, "distributed": Distributed(timeout=60)}
    yield "parameters", AutoEncoder(2 + rank, **made), X
    yield "seeds", AutoEncoder(2, **made | {"random_state": rank}), X
    yield "an empty rank", AutoEncoder(2, **made), X[: len(X) * (1 - rank)]
    yield "columns", AutoEncoder(2, **made), X[:, : 6 - rank]
    broken = np.where(np.arange(6) == 3, np.inf, X) if rank == 1 else X
    yield "a process that raises", AutoEncoder(2, **made), broken


def gone(rank):
    """A fit amid which the other process ends."""

    def watch(model, X, y=None):
        if rank == 1:
            os._exit(0)
        return 0.0

    stopping = skae.EarlyStopping(rows(), scoring=watch)
    made = {"max_iter": 3, "random_state": 0, "distributed": Distributed(timeout=60)}
    return caught(lambda: AutoEncoder(2, callbacks=stopping, **made).fit(own(rows(), rank)))


def kept(rank, folder):
    """A fit of which a process fails when the other one writes, and what it is, called again."""
    made = {"random_state": 0, "max_iter": 4, "batch_size": 20, "distributed": True}
    checkpoint = skae.Checkpoint(Path(folder, "fit.skae"), every=0)
    model = skae.DenoisingAutoEncoder(3, callbacks=checkpoint, **made)
    write, n_left = persistence.write, iter(range(7))

    def fails(*args, **options):
        next(n_left)
        write(*args, **options)

    persistence.write = fails
    found = [caught(lambda: model.fit(own(rows(), rank)))]
    persistence.write = write
    whole = clone(model).set_params(callbacks=None).fit(own(rows(), rank))
    return [*found, bits(model.fit(own(rows(), rank))), bits(whole)]


def fit(folder):
    torch.distributed.init_process_group("gloo")
    rank, X = torch.distributed.get_rank(), rows()
    found = {}
    made = {"random_state": 0, "max_iter": 4, "batch_size": 20}
    for model in (
        AutoEncoder(3, hidden_layer_sizes=(5,), **made),
        RBM(3, **made),
        SparseCoder(4, **made),
    ):
        twice = [bits(model.set_params(distributed=True).fit(own(X, rank))) for _ in range(2)]
        found[type(model).__name__] = twice
    unseeded = AutoEncoder(3, distributed=True, max_iter=2).fit(own(X, rank))
    found["unseeded"] = bits(unseeded)
    apart = AutoEncoder(3, distributed=Distributed(average_every=2), **made)
    found["averaged"] = [bits(apart.fit(own(X, rank))) for _ in range(2)]
    # One batch of all rows is the same batch whatever the order.
    whole = {"random_state": 0, "max_iter": 20, "batch_size": N_ROWS}
    together = AutoEncoder(3, distributed=True, **whole).fit(own(X, rank))
    alone = AutoEncoder(3, **whole).fit(X)
    found["difference"] = max(
        float(np.abs(value - alone.weights_[name]).max())
        for name, value in together.weights_.items()
    )
    for what, model, part in differing(rank):
        found[what] = caught(lambda model=model, part=part: model.fit(part))
    found["kept"] = kept(rank, folder)
    found["after errors"] = [bits(together), bits(together.fit(own(X, rank)))]
    place = Path(folder, f"{rank}.json")
    place.write_text(json.dumps(found))
    found["gone"] = gone(rank)  # process 1 ends in it
    place.write_text(json.dumps(found))


def main(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2")
    children = []
    for rank in (0, 1):
        children.append(os.fork())
        if children[-1] == 0:
            os.environ["RANK"], status = str(rank), 1
            try:
                fit(folder)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


if __name__ == "__main__":
    main(sys.argv[1])
