"""A search on a cluster: the workers of dask train together what each of them has."""

from typing import Any

from joblib.parallel import get_active_backend

from skae.estimators.search.backend import MANY, TogetherBackend
from skae.estimators.search.parts import PartsBackend, together


def cluster_client() -> Any:
    """The client of dask that joblib's tasks go to in this context; None if they do not."""
    backend, _ = get_active_backend()
    return getattr(backend, "client", None)


class ClusterBackend(PartsBackend):
    """Gives each worker of a cluster a part of the tasks."""

    def __init__(self, client: Any = None, n_running: int = 1, size: int = MANY, **options):
        super().__init__(n_running, size, **options)
        self.client = client

    def _begin(self):
        return max(1, len(self.client.scheduler_info()["workers"]))

    def _results(self, parts, first):
        how = self.n_running, self.size
        futures = [self.client.submit(_together, part, *how, pure=False) for part in parts]
        return (future.result() for future in futures)


def _together(tasks, n_running, size):
    return together(tasks, TogetherBackend(n_running, size))
