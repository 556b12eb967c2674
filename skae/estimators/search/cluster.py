"""A search on a cluster: the workers of dask train together what each of them has."""

from typing import Any

from joblib.parallel import get_active_backend

from skae.estimators.search.backend import MANY, TogetherBackend
from skae.estimators.search.parts import together


def cluster_client() -> Any:
    """The client of dask that joblib's tasks go to in this context; None if they do not."""
    backend, _ = get_active_backend()
    return getattr(backend, "client", None)


class ClusterWorkers:
    """The workers of a cluster, in each of which ``n_running`` tasks compute at a time."""

    def __init__(self, client: Any, n_running: int = 1, size: int = MANY):
        self.client, self.n_running, self.size = client, n_running, size
        self.unfinished: set[int] = set()

    def begin(self):
        """Return how many workers there are."""
        return max(1, len(self.client.scheduler_info()["workers"]))

    def results(self, parts, first):
        """What the tasks of each part return."""
        how = self.n_running, self.size
        futures = [self.client.submit(_together, part, *how, pure=False) for part in parts]
        return (future.result() for future in futures)

    def end(self):
        """Workers go on with what they have begun."""


def _together(tasks, n_running, size):
    return together(tasks, TogetherBackend(n_running, size))
