r"""Predictive sparse decomposition: a dictionary, and an encoder that predicts its sparse codes.

Kavukcuoglu, Ranzato & LeCun 2008. With the rows of D as atoms of unit norm,

    E(x, h) = 1/2 |x - h D|^2 + penalty(h) + prediction/2 |h - f(x)|^2

is minimised over codes h, dictionary and encoder at once. The codes are inferred for each batch,
h* = argmin_h E, and are constant in the gradient with respect to the rest: that is the exact
gradient of min_h E, since E does not change with h to first order at h*.

D is a matrix or, for images (NIPS 2010), a convolution: a linear map of
`skae.engine.sparse.linear_maps`. The encoder f(x) = g s(u) has products u = W x of a map of the
same kind, with weights W of its own, and a predictor s with a gain g and more parameters for each
unit. A predictor is registered in `PREDICTORS`, and has

- ``name`` and ``summary``, for users;
- the ``names`` of its parameters and their ``start``;
- its ``function`` of u and of them, the ``derivatives`` of that, and ``encode``, the same function
  in few passes;
- ``learns_from_zero``: whether W may start at 0.

Which parameters go with which u is the linear map's to say: they come spread.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from skae.engine.optimisation.models import Model
from skae.engine.optimisation.parameters import Parameters, Registry
from skae.engine.optimisation.runs import Objective
from skae.engine.sparse.dictionaries import normalize_atoms_
from skae.engine.sparse.linear_maps import squared_norm
from skae.engine.sparse.problem import SparseCodes, infer, make_quadratic, objective_and_gap

# Sharpness of a smooth bend, where training starts, in units of 1 / threshold.
_SHARPNESS = 4.0
# Iterations for the one step that training starts from, which need not be few.
_NORM_STEPS = 100
# Codes that are computed at a time.
_BLOCK_CODES = 2**21

PREDICTORS = Registry()


@PREDICTORS.register
class Tanh:
    """g tanh(u + b), as first published: never exactly 0, and bounded."""

    name = "tanh"
    summary = "tanh(p), bounded, and never exactly 0"
    names = ("hidden_bias_0", "gain")
    learns_from_zero = True

    @staticmethod
    def start(theta, threshold):
        """Set the parameters with which training begins."""
        theta["hidden_bias_0"].zero_()
        theta["gain"].fill_(1.0)

    @staticmethod
    def function(u, bias, gain):
        """The predicted codes."""
        return gain * torch.tanh(u + bias)

    @staticmethod
    def derivatives(u, bias, gain):
        """Those of `function` by u and by each parameter."""
        t = torch.tanh(u + bias)
        slope = gain * torch.addcmul(torch.ones_like(t), t, t, value=-1)
        return slope, (slope, t)

    @staticmethod
    def encode(linear_map, weight, x, bias, gain):
        """`function` of the products of x, in few passes: parameters come as they are."""
        return linear_map.analyze(weight, x, bias).tanh_().mul_(linear_map.spread(gain))


@PREDICTORS.register
class Shrinkage:
    """g sign(p) max(|p| - t, 0) with p = u + b: exactly 0 below the threshold t.

    Where weights are those of the dictionary times a step, and t is alpha times that step, it
    is the first step of iterated shrinkage.
    """

    name = "shrinkage"
    summary = "sign(p) max(abs(p) - t, 0) with a threshold t. Its codes are sparse"
    names = ("hidden_bias_0", "gain", "threshold")
    # Units that are 0 for all of the data have no slope to leave by.
    learns_from_zero = False

    @staticmethod
    def start(theta, threshold):
        """Set the parameters with which training begins."""
        Tanh.start(theta, threshold)
        theta["threshold"].fill_(threshold)

    @staticmethod
    def function(u, bias, gain, threshold):
        """The predicted codes."""
        p = u + bias
        # For autograd: at t = 0, that of p - clamp(p, -t, t) takes the wrong side.
        return gain * (torch.sign(p) * (p.abs() - threshold).clamp(min=0))

    @staticmethod
    def derivatives(u, bias, gain, threshold):
        """Those of `function` by u and by each parameter."""
        p = u + bias
        shrunk = p.sub_(p.clamp(-threshold, threshold))
        sign = shrunk.sign()
        slope = gain * sign.square()
        return slope, (slope, shrunk, sign.mul_(gain).neg_())

    @staticmethod
    def encode(linear_map, weight, x, bias, gain, threshold):
        """`function` of the products of x, in few passes: parameters come as they are."""
        # s is odd, so that g s(p) with the threshold t is s(g p) with |g| t.
        p = linear_map.analyze(gain.unsqueeze(1) * weight, x, gain * bias)
        threshold = linear_map.spread(gain.abs() * threshold)
        return p.sub_(p.clamp(-threshold, threshold))


@PREDICTORS.register
class SmoothShrinkage:
    """g sign(u) (log(e^(c t) + e^(c |u|) - 1) / c - t), c = e^log_sharpness.

    A soft threshold at t whose bend is smooth (NIPS 2010): the larger c, the nearer to it.
    """

    name = "smooth_shrinkage"
    summary = (
        "a soft threshold with a smooth bend, sign(p) (log(exp(c t) + exp(c abs(p)) - 1) / c - t) "
        "with t and a sharpness c, and no bias. Most of its codes are near 0"
    )
    names = ("threshold", "gain", "log_sharpness")
    learns_from_zero = True

    @staticmethod
    def start(theta, threshold):
        """Set the parameters with which training begins."""
        theta["threshold"].fill_(threshold)
        theta["gain"].fill_(1.0)
        theta["log_sharpness"].fill_(math.log(_SHARPNESS / threshold))

    @staticmethod
    def function(u, threshold, gain, log_sharpness):
        """The predicted codes."""
        sharpness = log_sharpness.exp()
        log_sum, _, _ = _log_sum(sharpness * u.abs(), sharpness * threshold)
        return gain * u.sign() * (log_sum / sharpness - threshold)

    @staticmethod
    def derivatives(u, threshold, gain, log_sharpness):
        """Those of `function` by u and by each parameter."""
        sharpness = log_sharpness.exp()
        size, sign = u.abs(), u.sign()
        log_sum, of_size, of_threshold = _log_sum(sharpness * size, sharpness * threshold)
        shrunk = log_sum / sharpness - threshold
        of_sharpness = of_size * size + of_threshold * threshold - log_sum / sharpness
        signed = gain * sign
        slopes = (signed * (of_threshold - 1), sign * shrunk, signed * of_sharpness)
        return gain * of_size, slopes

    @classmethod
    def encode(cls, linear_map, weight, x, *parameters):
        """`function` of the products of x: parameters come as they are."""
        u = linear_map.analyze(weight, x)
        return cls.function(u, *[linear_map.spread(values) for values in parameters])


def _log_sum(a, c):
    """L = log(e^a + e^c - 1) for a >= 0, and its derivatives by a and c."""
    top = torch.maximum(a, c)
    total = top + torch.log(torch.exp(a - top) + torch.exp(c - top) - torch.exp(-top))
    return total, torch.exp(a - total), torch.exp(c - total)


def predict(theta: Parameters, x: torch.Tensor, linear_map: Any, activation: str) -> torch.Tensor:
    """The encoder's codes f(x), of shape (n_samples, n_codes), differentiable."""
    parameters = _spread(theta, linear_map, activation)
    return PREDICTORS[activation].function(linear_map.analyze(theta["weight_0"], x), *parameters)


def encode(theta: Parameters, x: torch.Tensor, linear_map: Any, activation: str) -> torch.Tensor:
    """The same codes at the least cost, without derivatives."""
    kind = PREDICTORS[activation]
    parameters = [theta[name] for name in kind.names]
    return kind.encode(linear_map, theta["weight_0"], x, *parameters)


def _spread(theta, linear_map, activation):
    return [linear_map.spread(theta[name]) for name in PREDICTORS[activation].names]


def parameter_shapes(linear_map: Any, activation: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of each parameter, as `Parameters` takes them."""
    shape = linear_map.filters_shape
    shapes = {"weight_0": shape, "decoder_weight_0": shape}
    return shapes | {name: shape[:1] for name in PREDICTORS[activation].names}


def initialize_(
    theta: Parameters,
    linear_map: Any,
    activation: str,
    alpha: float,
    generator: torch.Generator,
    *,
    from_zero: bool = False,
) -> None:
    """Atoms in random directions, and an encoder to start with.

    For L, the largest eigenvalue of D D^T, W = D / L and thresholds of alpha / L are the first step
    of iterated shrinkage. ``from_zero`` starts at W = 0 where the predictor learns from there: what
    data do not tell of the encoder's weights, such as frequencies that smooth images have not,
    stays 0; noise there would stay noise.
    """
    kind, dictionary = PREDICTORS[activation], theta["decoder_weight_0"]
    # Drawn in float32 for every dtype, so that both start from the same atoms.
    draw = torch.empty(dictionary.shape, dtype=torch.float32, device=dictionary.device)
    dictionary.copy_(draw.normal_(generator=generator))
    normalize_atoms_(dictionary)
    if from_zero and kind.learns_from_zero:
        theta["weight_0"].zero_()
        kind.start(theta, alpha)
    else:
        step = 1.0 / squared_norm(linear_map, dictionary, _NORM_STEPS)
        torch.mul(dictionary, step, out=theta["weight_0"])
        kind.start(theta, alpha * step)


def project_(theta: Parameters) -> None:
    """Atoms of unit norm and thresholds of at least 0, which hold after every step."""
    normalize_atoms_(theta["decoder_weight_0"])
    if "threshold" in theta:
        theta["threshold"].clamp_(min=0.0)


def excess_of_prediction(
    theta: Parameters,
    x: torch.Tensor,
    linear_map: Any,
    penalty: Any,
    activation: str,
    **inference: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the predicted codes cost above the sparse optimum of 1/2 |x - h D|^2 + penalty(h), and
    that optimum, of each row. ``inference`` are the options of `infer`.
    """
    quadratic = make_quadratic(theta["decoder_weight_0"], x, linear_map)
    code = encode(theta, x, linear_map, activation)
    predicted, _ = objective_and_gap(quadratic, penalty, code)
    # From zero: a start that is good enough would be returned as it is.
    optimum = infer(quadratic, penalty, **inference).objective
    return (predicted - optimum).clamp_(min=0), optimum


class PredictiveDecomposition(Objective):
    """mean_i min_h 1/2 |x_i - h D|^2 + penalty(h) + prediction/2 |h - f(x_i)|^2 + floor.

    The penalty of a convolution's codes is `L1`; the floor is the part of the loss that no
    parameter changes; tol and max_iter are those of `infer`.
    """

    def __init__(
        self, linear_map, penalty, prediction, activation, floor=0.0, *, tol=1e-4, max_iter=1000
    ):
        self.state = {}
        self.linear_map, self.penalty, self.activation = linear_map, penalty, activation
        self.prediction, self.floor = prediction, floor
        self.tol, self.max_iter = tol, max_iter

    def infer(self, theta: Parameters, x: torch.Tensor, predicted: torch.Tensor) -> SparseCodes:
        """The `SparseCodes` h* of a batch, that start at the predicted ones."""
        dictionary, pull = theta["decoder_weight_0"], self.prediction
        return infer(
            make_quadratic(dictionary, x, self.linear_map, ridge=pull, attractor=predicted),
            self.penalty,
            tol=self.tol,
            max_iter=self.max_iter,
            start=predicted,
            # The ridge makes steps few, and the start is near: paths from zero would be longer.
            algorithm=self.penalty.solver,
        )

    def value(self, theta, x, generator=None, row_weight=None, code=None):
        """The criterion on one batch, at inferred codes or at those that are given."""
        predicted = predict(theta, x, self.linear_map, self.activation)
        if code is None:
            with torch.no_grad():
                code = self.infer(theta, x, predicted.detach()).codes
        residual = x - self.linear_map.synthesize(theta["decoder_weight_0"], code)
        surprise = code - predicted
        loss = 0.5 * ((residual * residual).sum(1) + self.prediction * (surprise * surprise).sum(1))
        return torch.matmul(_shares(x, row_weight), loss + self.penalty.value(code) + self.floor)

    def criterion(self, theta, x, generator=None, row_weight=None):
        """The value, where no derivatives are wanted."""
        result = self.infer(theta, x, encode(theta, x, self.linear_map, self.activation))
        return torch.matmul(_shares(x, row_weight), result.objective + self.floor)

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` at constant codes into ``out``; return the value.

        With r = x - h D, e = prediction (f - h), u = W x and any parameter p of the predictor:

            dD = -h^T r,  dW = (e f'(u))^T x,  dp = sum e df/dp
        """
        linear_map, kind = self.linear_map, PREDICTORS[self.activation]
        parameters = _spread(theta, linear_map, self.activation)
        u = linear_map.analyze(theta["weight_0"], x)
        predicted = kind.function(u, *parameters)
        code, loss, _, _ = self.infer(theta, x, predicted)
        shares = _shares(x, row_weight)

        error = linear_map.synthesize(theta["decoder_weight_0"], code).sub_(x)
        error.mul_(shares.unsqueeze(1))
        out["decoder_weight_0"].copy_(linear_map.filter_gradient(error, code))
        delta = predicted.sub_(code).mul_(self.prediction * shares.unsqueeze(1))
        slope, slopes = kind.derivatives(u, *parameters)
        for name, by_parameter in zip(kind.names, slopes, strict=True):
            out[name].copy_(linear_map.collect((delta * by_parameter).sum(0)))
        out["weight_0"].copy_(linear_map.filter_gradient(x, slope.mul_(delta)))
        return torch.matmul(shares, loss + self.floor)


def predictive_model(
    objective: Callable[[], PredictiveDecomposition],
    units: Any,
    *,
    from_zero: bool = False,
    solve: Callable[..., torch.Tensor] | None = None,
    **fields: Any,
) -> Model:
    """The `Model` of predictive sparse decomposition.

    ``objective`` makes a new one, which knows linear map, penalty and predictor; ``from_zero`` is
    that of `initialize_`. ``solve`` is (quadratic, penalty, start=predicted codes) -> the codes
    that are handed out, None for the predicted ones. ``fields`` are others of `Model`.
    """
    parts = objective()
    linear_map, penalty, activation = parts.linear_map, parts.penalty, parts.activation

    def code(theta, x):
        predicted = encode(theta, x, linear_map, activation)
        if solve is None:
            return predicted
        quadratic = make_quadratic(theta["decoder_weight_0"], x, linear_map)
        return solve(quadratic, penalty, start=predicted)

    def in_blocks(theta, x):
        n_rows = max(1, _BLOCK_CODES // linear_map.n_codes)
        if len(x) <= n_rows:
            return code(theta, x)
        return torch.cat([code(theta, block) for block in x.split(n_rows)])

    return Model(
        shapes=parameter_shapes(linear_map, activation),
        start_=lambda theta, rows, index, generator: initialize_(
            theta, linear_map, activation, penalty.alpha, generator, from_zero=from_zero
        ),
        encode=in_blocks,
        decode=lambda theta, h: linear_map.synthesize(theta["decoder_weight_0"], h),
        units=units,
        n_features=linear_map.n_features,
        n_codes=linear_map.n_codes,
        objective=objective,
        differentiable=lambda theta, x: predict(theta, x, linear_map, activation),
        project=project_,
        inference="predictions that have gains or thresholds of their own",
        no_gradient=None
        if solve is None
        else "inference='optimal' solves for its codes: use inference='encoder'",
        **fields,
    )


def _shares(x, row_weight):
    """Each row's share in the mean over the batch."""
    share = torch.ones_like(x[:, 0]) if row_weight is None else row_weight
    return share / len(x)
