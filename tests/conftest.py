"""Fixtures that several test modules share.

What a fixture needs is imported by it: the process of ``pytest -n`` that hands out the tests
reads this file too, before the others start, and has no need of torch.
"""

import gc
import os

# Before SciPy is imported: lets scikit-learn's array API check run instead of skipping it.
os.environ["SCIPY_ARRAY_API"] = "1"
# Before torch is: many small problems, one process for each core. Threads would wait for others'.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from itertools import count

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collect no garbage while imports and cases pile up, and never what they have made.

    A million objects that stay would be looked at again and again: a fifth of the time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def no_earlier_interruption():
    """Each test's first Ctrl-C is the first."""
    from skae.estimators.face.interruption import forget_interruption

    forget_interruption()


def pytest_addoption(parser):
    """Let anybody ask whether claims hold for other draws."""
    parser.addoption(
        "--shift-seeds",
        type=int,
        default=0,
        metavar="K",
        help="Add 1000 K to every seed of torch's generators: what is claimed holds for all K.",
    )
    parser.addoption(
        "--elsewhere",
        action="store_true",
        help="Pretend that there is a CUDA device, and check the place of every tensor.",
    )


@pytest.fixture(autouse=True)
def pretended_accelerator(request):
    """With ``--elsewhere``, ``device="auto"`` finds one."""
    if not request.config.getoption("elsewhere"):
        yield
        return
    from elsewhere import accelerator

    with accelerator():
        yield


def pytest_configure(config):
    """Move the seeds, before anything draws, and register the markers."""
    for line in (
        "fresh_entropy: random_state=None takes entropy here, not the tests' fixed sequence.",
        "one_draw(reason): is about fixed draws, so it is left out where seeds are moved.",
    ):
        config.addinivalue_line("markers", line)
    shift = 1000 * config.getoption("shift_seeds")
    if shift:
        import torch

        class Shifted(torch.Generator):
            def manual_seed(self, seed):
                return super().manual_seed(seed + shift)

        torch.Generator = Shifted


def pytest_collection_modifyitems(config, items):
    """Leave out what moved seeds make meaningless."""
    if config.getoption("shift_seeds"):
        for item in items:
            if mark := item.get_closest_marker("one_draw"):
                item.add_marker(pytest.mark.skip(reason=mark.kwargs["reason"]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each process a half of the tests in their order, and the idle one a half of the rest.

    What a module's tests share is then made once, by the one process that has them all.
    """
    if config.getoption("dist") == "load":  # what ``-n 2`` means, unless another is asked for
        from xdist.scheduler import WorkStealingScheduling

        return WorkStealingScheduling(config, log)
    return None


@pytest.fixture(autouse=True)
def no_entropy(request, monkeypatch):
    """Let ``random_state=None`` take the seeds 2000, 2001, ... in each test.

    So no result is a chance. Global generators, from which others may draw, start anew.
    """
    import numpy as np
    import torch

    np.random.seed(0)  # noqa: NPY002
    torch.default_generator.manual_seed(0)
    if request.node.get_closest_marker("fresh_entropy") is None:
        seeds = count(2000)
        monkeypatch.setattr("skae._seeds.fresh_seed", lambda: next(seeds))


@pytest.fixture
def generator():
    """A seeded generator of torch on the CPU."""
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture
def random_theta(generator):
    """Makes float64 parameters of a network, biases included, all N(0, spread^2)."""
    import torch

    from skae.engine.optimisation.parameters import Parameters

    def make(network, spread=0.5):
        theta = Parameters(network.parameter_shapes, dtype=torch.float64)
        theta.flat.normal_(0.0, spread, generator=generator)
        return theta

    return make


@pytest.fixture(scope="session")
def digits():
    """The 1797 digits of 8 x 8 pixels in [0, 1], and their classes."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X / 16, y


@pytest.fixture
def set_threads():
    """`torch.set_num_threads`, whose effect ends with the test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
