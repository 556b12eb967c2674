"""A seed fixes every bit, and nobody else's random state, threads or defaults change."""

import random
import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from skae import (
    PSD,
    RBM,
    AutoEncoder,
    ContractiveAutoEncoder,
    ConvolutionalPSD,
    DenoisingAutoEncoder,
    SparseCoder,
)

# Sources of randomness beside the weights, the batches and the rows that are held out.
CORRUPTION = {"corruption": "masking", "hessian": 0.01}
CHAINS = {"n_gibbs_steps": 2, "persistent": True}


@pytest.fixture(params=[np.float64, np.float32])
def data(request, X):
    return X.astype(request.param)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noisy(make_model, **parameters):
    """A model with every source of randomness: weights, batches, noise, held-out rows."""
    noise = CORRUPTION if make_model.is_auto_encoder else {}
    noise = CHAINS if make_model.units == "visible" else noise
    return make_model(**{**noise, "early_stopping": True, **parameters})


def first_weights(model):
    return next(iter(model.weights_.values()))


def assert_same_bits(model, other):
    for name, weight in model.weights_.items():
        assert_array_equal(weight, other.weights_[name])
    assert model.loss_curve_ == other.loss_curve_
    assert model.validation_curve_ == other.validation_curve_


def test_same_seed_same_bits(make_model, data):
    first = noisy(make_model).fit(data)
    assert_same_bits(first, noisy(make_model).fit(data))
    # A fit forgets an earlier one of the same object, also in its random state.
    assert_same_bits(first.fit(data), noisy(make_model).fit(data))
    assert_array_equal(first.transform(data), first.transform(data))


def test_other_seed_other_bits(make_model, data):
    first, second = noisy(make_model).fit(data), noisy(make_model, random_state=1).fit(data)
    assert (first_weights(first) != first_weights(second)).all()


def test_global_seeds_do_not_matter(make_model, data):
    first = noisy(make_model).fit(data)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    random.seed(7)
    torch.rand(10)
    # Weights, batches and noise come from random_state alone.
    assert_same_bits(noisy(make_model).fit(data), first)


def noisy_models():
    settings = {"max_iter": 3, "batch_size": 16, "random_state": 0}
    classes = (AutoEncoder, DenoisingAutoEncoder, ContractiveAutoEncoder)
    coders = [
        model(3, early_stopping=True, **settings) for model in (SparseCoder, PSD, ConvolutionalPSD)
    ]
    machines = [
        RBM(16, persistent=persistent, early_stopping=True, **settings)
        for persistent in (False, True)
    ]
    auto_encoders = [cls(3, **CORRUPTION, early_stopping=True, **settings) for cls in classes]
    return auto_encoders + machines + coders


@pytest.mark.usefixtures("one_thread")
def test_same_bits_in_another_process(X, tmp_path):
    np.save(tmp_path / "X.npy", X)
    models = [model.fit(X) for model in noisy_models()]
    joblib.dump(models, tmp_path / "models.joblib")
    script = f"""
        import torch
        torch.set_num_threads(1)
        import joblib, numpy
        from sklearn.base import clone
        X = numpy.load({str(tmp_path / "X.npy")!r})
        for model in joblib.load({str(tmp_path / "models.joblib")!r}):
            again = clone(model).fit(X)
            for name, weight in model.weights_.items():
                assert (again.weights_[name] == weight).all()
            assert again.loss_curve_ == model.loss_curve_
        """
    # Neither the hash seed of a process nor what it imported first has a say.
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=300)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_same_bits_in_joblib_workers(X, backend):
    expected = [model.fit(X) for model in noisy_models()]
    jobs = [joblib.delayed(type(model).fit)(model, X) for model in noisy_models()]
    # A search gives the same models in parallel as one by one.
    for model, other in zip(
        joblib.Parallel(n_jobs=2, backend=backend)(jobs), expected, strict=True
    ):
        assert_same_bits(model, other)


def test_random_state_instances(make_model, data):
    first = noisy(make_model, random_state=np.random.RandomState(3)).fit(data)
    state = np.random.RandomState(3)
    second = noisy(make_model, random_state=state)
    assert_same_bits(second.fit(data), first)
    # As everywhere in scikit-learn: an instance moves on, so a second fit differs.
    assert (first_weights(second.fit(data)) != first_weights(first)).all()


def test_no_seed_differs_from_fit_to_fit(make_model, data):
    models = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        models.append(noisy(make_model, random_state=None).fit(data))
    # Fresh entropy, whatever anyone did to the global states.
    assert (first_weights(models[0]) != first_weights(models[1])).all()


def global_state():
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "numpy": (name, keys.tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warnings": torch.is_warn_always_enabled(),
        "errors": np.geterr(),
    }


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("random_state", [None, 0])
def test_global_states_are_left_alone(make_model, data, n_threads, random_state):
    threads_before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        before = global_state()
        model = noisy(make_model, random_state=random_state).fit(data)
        model.partial_fit(data)
        codes = model.transform(data)
        model.inverse_transform(codes)
        model.score(data)
        # A model is a guest in its user's process.
        assert global_state() == before
    finally:
        torch.set_num_threads(threads_before)


def test_global_states_are_left_alone_on_errors(make_model, X, monkeypatch):
    threads_before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = global_state()

        def failing(*args):
            raise RuntimeError("no more memory")

        monkeypatch.setattr("skae.engine.optimisation.optimizers.Adam.update_", failing)
        # The limit of threads was set when the step failed: it must be given back.
        with pytest.raises(RuntimeError, match="no more memory"):
            make_model(optimizer="adam").fit(X)
        with pytest.raises(ValueError, match="NaN"):
            make_model().fit(X * np.nan)
        assert global_state() == before
    finally:
        torch.set_num_threads(threads_before)


def test_default_dtype_of_torch_does_not_matter(make_model, data):
    expected = noisy(make_model).fit(data)
    codes = expected.transform(data)
    torch.set_default_dtype(torch.float64)
    try:
        model = noisy(make_model).fit(data)
        other_codes = model.transform(data)
    finally:
        torch.set_default_dtype(torch.float32)
    # The data choose the precision, not a global setting.
    assert_same_bits(model, expected)
    assert_array_equal(other_codes, codes)


def test_user_without_gradients(make_model, X):
    layers = {"hidden_layer_sizes": (4,)} if make_model.is_auto_encoder else {}
    expected = make_model(**layers).fit(X)
    with torch.no_grad():
        model = make_model(**layers).fit(X)
    # Training turns gradients on where it needs them.
    assert_same_bits(model, expected)


def test_number_of_threads_changes_rounding_only(X):
    settings = {"n_components": 3, "max_iter": 5, "random_state": 0}
    threads_before = torch.get_num_threads()
    models = []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            models.append(AutoEncoder(**settings).fit(X))
    finally:
        torch.set_num_threads(threads_before)
    np.testing.assert_allclose(models[0].transform(X), models[1].transform(X), rtol=1e-8)


def test_importing_has_no_side_effects():
    script = """
        import random, threading
        import numpy, torch
        import sklearn.base, sklearn.utils, sklearn.callback
        before = random.getstate(), torch.get_rng_state(), torch.get_num_threads()
        state = numpy.random.get_state()[1].copy()
        import skae
        assert random.getstate() == before[0]
        assert (torch.get_rng_state() == before[1]).all()
        assert torch.get_num_threads() == before[2]
        assert (numpy.random.get_state()[1] == state).all()
        assert not torch.cuda.is_initialized()
        assert threading.active_count() == 1
        """
    # Nothing is seeded, started or initialised until fit is called.
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=300)
