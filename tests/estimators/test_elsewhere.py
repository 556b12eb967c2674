"""Every estimator on an accelerator, a pretended one: `elsewhere` says what it checks."""

import numpy as np
import pytest
import torch
from elsewhere import DEVICE, Elsewhere, accelerator
from registry import CASES

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one")
METHODS = {
    "transform": lambda model, X, y: model.transform(X),
    "inverse_transform": lambda model, X, y: model.inverse_transform(model.transform(X)),
    "reconstruct": lambda model, X, y: model.reconstruct(X),
    "score_samples": lambda model, X, y: model.score_samples(X),
    "score": lambda model, X, y: model.score(X, y),
    "predict": lambda model, X, y: model.predict(X),
    "predict_proba": lambda model, X, y: model.predict_proba(X),
    "decision_function": lambda model, X, y: model.decision_function(X),
    "kneighbors": lambda model, X, y: model.kneighbors(X),
    "tangents": lambda model, X, y: model.tangents(X),
    "free_energy": lambda model, X, y: model.free_energy(X),
    "gibbs": lambda model, X, y: model.gibbs(X, 2, random_state=0),
    "sample": lambda model, X, y: model.sample(2, burn_in=1, random_state=0),
    "partial_fit": lambda model, X, y: model.partial_fit(X, y) and None,
}
# Their codes on a device are those of other algorithms than on the CPU, equal up to a tolerance.
APPROXIMATE = {"SparseCoder", "PSD", "ConvolutionalPSD", "PatchFeatures"}


def learned(case, X, y):
    """What a small model does after a short training, by the name of the method."""
    short = {"max_iter": 1, "inference_max_iter": 5}
    options = {name: value for name, value in short.items() if case.takes(name)}
    if case.takes("corruption"):
        options["corruption"] = "gaussian"  # what `sample` needs
    model = case.make(**options).fit(X, y)
    return {
        name: np.asarray(method(model, X, y))
        for name, method in METHODS.items()
        if hasattr(model, name)
    }


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_method_works_on_a_device(case):
    X, y = case.X[:16], None if case.y is None else case.y[:16]
    on_cpu = learned(case, X, y)
    with accelerator():
        there = learned(case, X, y)
    assert set(there) == set(on_cpu)
    for name, result in there.items():
        if str(case) not in APPROXIMATE:
            np.testing.assert_array_equal(result, on_cpu[name], err_msg=name)
        assert result.shape == on_cpu[name].shape


def test_the_pretended_device_checks_places():
    with accelerator(), torch.no_grad():
        x = torch.ones(3, 2, device="cuda")
        assert isinstance(x, Elsewhere)
        assert (x @ x.t()).device == DEVICE
        assert (x + torch.tensor(1.0)).cpu().tolist() == [[2.0, 2.0]] * 3
        with pytest.raises(RuntimeError, match="two devices"):
            x + torch.ones(2)
        with pytest.raises(RuntimeError, match="one device draws for another"):
            x.normal_(generator=torch.Generator())
        with pytest.raises(TypeError, match="can't convert"):
            np.asarray(x)
