"""A seed fixes every bit, and nobody else's random state, threads or defaults change."""

import random
from functools import cache

import joblib
import numpy as np
import pytest
import torch
from fresh import fit_of_a_model, in_fresh_process
from numpy.testing import assert_array_equal
from registry import CASES, LEARNERS, TRAINED, families
from sklearn.base import clone

from skae import AutoEncoder

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_trained = pytest.mark.parametrize("case", TRAINED, ids=str)
each_learner = pytest.mark.parametrize("case", LEARNERS, ids=str)

# Sources of randomness beside the weights and the batches.
NOISE = {
    "corruption": "masking",
    "hessian": 0.01,
    "n_gibbs_steps": 2,
    "persistent": True,
    "dropout": 0.2,
    "early_stopping": True,
}


def noisy(case, **parameters):
    """A model with every source of randomness that it has."""
    noise = {name: value for name, value in NOISE.items() if case.takes(name)}
    return case.make(**{**noise, **parameters})


def fitted(case, **parameters):
    return noisy(case, **parameters).fit(case.X, case.y)


@cache
def _reference(case, n_threads):
    return fitted(case)


def reference(case):
    """The same, trained once for all tests: what others are compared with."""
    return _reference(case, torch.get_num_threads())


def results(model, case):
    """Everything that the seed has a say in."""
    yield from getattr(model, "weights_", {}).values()
    for name in ("loss_curve_", "validation_curve_"):
        yield getattr(model, name, [])
    yield case.output(model)


def assert_same_bits(model, other, case):
    for mine, its in zip(results(model, case), results(other, case), strict=True):
        assert_array_equal(mine, its)


def differ(model, other, case):
    first, second = (next(results(one, case)) for one in (model, other))
    return (np.asarray(first) != np.asarray(second)).any()


@each_case
def test_same_seed_same_bits(case):
    first = fitted(case)
    assert_same_bits(first, reference(case), case)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    random.seed(7)
    torch.rand(10)
    # Weights, batches and noise come from random_state alone; a fit forgets an earlier one of
    # the same object, also in its random state.
    assert_same_bits(first.fit(case.X, case.y), reference(case), case)


@each_trained
def test_other_seed_other_bits(case):
    assert differ(reference(case), fitted(case, random_state=1), case)


@pytest.mark.parametrize("case", families(TRAINED), ids=str)
def test_random_state_instances(case):
    first = fitted(case, random_state=np.random.RandomState(3))
    second = noisy(case, random_state=np.random.RandomState(3))
    assert_same_bits(second.fit(case.X, case.y), first, case)
    # As everywhere in scikit-learn: an instance moves on, so a second fit differs.
    assert differ(second.fit(case.X, case.y), first, case)


@pytest.mark.fresh_entropy
@pytest.mark.parametrize("case", families(TRAINED), ids=str)
def test_no_seed_differs_from_fit_to_fit(case):
    models = []
    for _ in range(2):
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        models.append(fitted(case, random_state=None))
    # Fresh entropy, whatever anyone did to the global states.
    assert differ(*models, case)


def in_threads(function, *arguments):
    delayed = joblib.delayed(function)
    return joblib.Parallel(n_jobs=2, backend="threading")(map(delayed, *arguments))


def in_another_process(function, *arguments):
    return [in_fresh_process(function, *each) for each in zip(*arguments, strict=True)]


@pytest.mark.parametrize(
    "run",
    [
        in_threads,
        pytest.param(
            in_another_process,
            marks=pytest.mark.one_draw(reason="workers do not know moved seeds"),
        ),
    ],
)
def test_same_bits_elsewhere(run, set_threads):
    set_threads(1)
    cases = families(CASES)
    expected = list(map(reference, cases))
    data = [case.X for case in cases], [case.y for case in cases]
    models = run(fit_of_a_model, list(map(clone, expected)), *data)
    # A search gives the same models in parallel as one by one: neither the hash seed of a process
    # nor what it imported first has a say.
    for case, model, other in zip(cases, models, expected, strict=True):
        assert_same_bits(model, other, case)


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


def use_everything(case, **parameters):
    model = fitted(case, **parameters)
    output = case.output(model)
    if case in LEARNERS:
        model.inverse_transform(output)
        model.score(case.X)
    if hasattr(model, "partial_fit"):
        model.partial_fit(case.X, case.y)


# Without a seed some short chain is of few draws.
@pytest.mark.filterwarnings("ignore:The draws are worth:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_global_states_are_left_alone(case, set_threads):
    set_threads(2)
    before = global_state()
    for parameters in ({}, {"random_state": None})[: 1 + case.takes("random_state")]:
        use_everything(case, **parameters)
    # A model is a guest in its user's process.
    assert global_state() == before


@pytest.mark.parametrize("case", families(TRAINED), ids=str)
def test_global_states_are_left_alone_on_errors(case, fail_in_training, set_threads):
    set_threads(2)
    before = global_state()
    model = case.make(verbose=True)
    fail_in_training(RuntimeError("no more memory"))
    # The limit of threads was set when the epoch ended: it must be given back.
    with pytest.raises(RuntimeError, match="no more memory"):
        model.fit(case.X, case.y)
    with pytest.raises(ValueError, match="NaN"):
        case.make().fit(case.X * np.nan, case.y)
    assert global_state() == before


@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_defaults_of_torch_do_not_matter(case):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            model = fitted(case)
    finally:
        torch.set_default_dtype(torch.float32)
    # The data choose the precision, not a global setting; training turns gradients on where it
    # needs them.
    assert_same_bits(model, reference(case), case)


def test_number_of_threads_changes_rounding_only(X, set_threads):
    models = []
    for n_threads in (1, 2):
        set_threads(n_threads)
        models.append(AutoEncoder(3, max_iter=5, random_state=0).fit(X))
    np.testing.assert_allclose(models[0].transform(X), models[1].transform(X), rtol=1e-8)
