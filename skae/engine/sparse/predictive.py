r"""Predictors of sparse codes: what an encoder makes of its products u with the data.

f(u) = g s(u), with a gain g and more parameters for each unit. A predictor has the ``names`` of
its parameters, their ``start``, its ``function`` of u and of them, and the ``derivatives`` of
that. Which parameters go with which u is the linear map's to say: they come spread.

Predictive sparse decomposition: a dictionary, and an encoder that predicts its sparse codes.

Kavukcuoglu, Ranzato & LeCun 2008. With the rows of D as atoms of unit norm,

    E(x, h) = 1/2 |x - h D|^2 + penalty(h) + prediction/2 |h - f(x)|^2

is minimised over codes h, dictionary and encoder at once. The codes are inferred for each batch,
h* = argmin_h E, and are constant in the gradient with respect to the rest: that is the exact
gradient of min_h E, since E does not change with h to first order at h*.

D is a matrix or, for images (NIPS 2010), a convolution: a map of
`skae.engine.sparse.linear_maps`. The encoder f is a map of the same kind with weights W of its
own, and a predictor that makes codes of the products W x.
"""

import math

import torch

from skae.engine.optimisation.parameters import Parameters
from skae.engine.sparse.dictionaries import normalize_atoms_
from skae.engine.sparse.inference import infer
from skae.engine.sparse.linear_maps import squared_norm
from skae.engine.sparse.problem import L1, make_quadratic, objective_and_gap

# Sharpness of a smooth bend, where training starts, in units of 1 / threshold.
_SHARPNESS = 4.0


class Tanh:
    """g tanh(u + b), as first published: never exactly 0, and bounded."""

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


class Shrinkage:
    """g sign(p) max(|p| - t, 0) with p = u + b: exactly 0 below the threshold t.

    Where weights are those of the dictionary times a step, and t is alpha times that step, it
    is the first step of iterated shrinkage.
    """

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


class SmoothShrinkage:
    """g sign(u) (log(e^(c t) + e^(c |u|) - 1) / c - t), c = e^log_sharpness.

    A soft threshold at t whose bend is smooth (NIPS 2010): the larger c, the nearer to it.
    """

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


PREDICTORS = {"tanh": Tanh, "shrinkage": Shrinkage, "smooth_shrinkage": SmoothShrinkage}


# Iterations for the one step that training starts from, which need not be few.
_NORM_STEPS = 100


def predict(theta, x, linear_map, activation):
    """The encoder's codes f(x), of shape (n_samples, n_codes), differentiable."""
    parameters = _spread(theta, linear_map, activation)
    return PREDICTORS[activation].function(linear_map.analyze(theta["weight_0"], x), *parameters)


def encode(theta, x, linear_map, activation):
    """The same codes at the least cost, without derivatives."""
    predictor = PREDICTORS[activation]
    parameters = [theta[name] for name in predictor.names]
    return predictor.encode(linear_map, theta["weight_0"], x, *parameters)


def _spread(theta, linear_map, activation):
    return [linear_map.spread(theta[name]) for name in PREDICTORS[activation].names]


def parameter_shapes(linear_map, activation):
    """Name and shape of each parameter, as `Parameters` takes them."""
    shape = linear_map.filters_shape
    shapes = {"weight_0": shape, "decoder_weight_0": shape}
    return shapes | {name: shape[:1] for name in PREDICTORS[activation].names}


def initialize(linear_map, activation, alpha, *, from_zero=False, dtype, device, generator):
    """Atoms in random directions, and an encoder to start with.

    For L, the largest eigenvalue of D D^T, W = D / L and thresholds of alpha / L are the first
    step of iterated shrinkage. From W = 0, what data do not tell of the encoder's weights, such
    as frequencies that smooth images have not, stays 0; noise there would stay noise.

    Parameters
    ----------
    linear_map : Dense or Convolution
    activation : str
        A key of `PREDICTORS`.
    alpha : float
        Weight of the penalty.
    from_zero : bool
        Whether W starts at 0 where the predictor learns from there.
    dtype, device : of the parameters
    generator : torch.Generator

    Returns
    -------
    theta : Parameters
    """
    theta = Parameters(parameter_shapes(linear_map, activation), dtype=dtype, device=device)
    predictor, dictionary = PREDICTORS[activation], theta["decoder_weight_0"]
    # Drawn in float32 for every dtype, so that both start from the same atoms.
    draw = torch.empty(dictionary.shape, dtype=torch.float32, device=device)
    dictionary.copy_(draw.normal_(generator=generator))
    normalize_atoms_(dictionary)
    if from_zero and predictor.learns_from_zero:
        theta["weight_0"].zero_()
        predictor.start(theta, alpha)
    else:
        step = 1.0 / squared_norm(linear_map, dictionary, _NORM_STEPS)
        torch.mul(dictionary, step, out=theta["weight_0"])
        predictor.start(theta, alpha * step)
    return theta


def project_(theta):
    """Atoms of unit norm and thresholds of at least 0, which hold after every step."""
    normalize_atoms_(theta["decoder_weight_0"])
    if "threshold" in theta:
        theta["threshold"].clamp_(min=0.0)


def excess_of_prediction(theta, x, linear_map, penalty, activation, **inference):
    """What the predicted codes cost above the sparse optimum, without the prediction term.

    Parameters
    ----------
    theta : Parameters
    x : Tensor of shape (n_samples, n_features)
    linear_map : Dense or Convolution
    penalty : L1 or GroupL2
    activation : str
        A key of `PREDICTORS`.
    **inference : tol, max_iter, algorithm
        Of the optimum.

    Returns
    -------
    excess, optimum : Tensor of shape (n_samples,)
        Of 1/2 |x - h D|^2 + penalty(h).
    """
    quadratic = make_quadratic(theta["decoder_weight_0"], x, linear_map)
    code = encode(theta, x, linear_map, activation)
    predicted, _ = objective_and_gap(quadratic, penalty, code)
    # From zero: a start that is good enough would be returned as it is.
    optimum = infer(quadratic, penalty, **inference).objective
    return (predicted - optimum).clamp_(min=0), optimum


class PredictiveDecomposition:
    """mean_i min_h 1/2 |x_i - h D|^2 + penalty(h) + prediction/2 |h - f(x_i)|^2 + offset.

    Parameters
    ----------
    linear_map : Dense or Convolution
    penalty : L1 or GroupL2
        Of codes of convolutions, L1.
    prediction : float
        Weight of the encoder's term.
    activation : str
        A key of `PREDICTORS`.
    offset : float, default=0.0
        The part of the loss that no parameter changes.
    tol, max_iter : float and int
        Of the inference: `skae.engine.sparse.inference.infer`.
    """

    reports_loss = True
    is_noisy = False

    def __init__(
        self, linear_map, penalty, prediction, activation, offset=0.0, *, tol=1e-4, max_iter=1000
    ):
        self.state = {}
        self.linear_map, self.penalty, self.activation = linear_map, penalty, activation
        self.prediction, self.offset = prediction, offset
        self.tol, self.max_iter = tol, max_iter

    def infer(self, theta, x, predicted):
        """The `SparseCodes` h* of a batch, that start at the predicted ones."""
        dictionary, pull = theta["decoder_weight_0"], self.prediction
        return infer(
            make_quadratic(dictionary, x, self.linear_map, ridge=pull, attractor=predicted),
            self.penalty,
            tol=self.tol,
            max_iter=self.max_iter,
            start=predicted,
            # The ridge makes steps few, and the start is near: paths from zero would be longer.
            algorithm="fista" if isinstance(self.penalty, L1) else "auto",
        )

    def value(self, theta, x, generator=None, row_weight=None, code=None):
        """The criterion on one batch, at inferred codes or at those that are given.

        Parameters
        ----------
        theta : Parameters
        x : Tensor of shape (n_samples, n_features)
        generator : torch.Generator, default=None
            Not used: inference draws nothing.
        row_weight : Tensor of shape (n_samples,), default=None
            Sample weights, of mean 1 over the whole training set.
        code : Tensor of shape (n_samples, n_codes), default=None

        Returns
        -------
        value : Tensor, a scalar
        """
        predicted = predict(theta, x, self.linear_map, self.activation)
        if code is None:
            with torch.no_grad():
                code = self.infer(theta, x, predicted.detach()).codes
        residual = x - self.linear_map.synthesize(theta["decoder_weight_0"], code)
        surprise = code - predicted
        loss = 0.5 * ((residual * residual).sum(1) + self.prediction * (surprise * surprise).sum(1))
        return torch.matmul(_shares(x, row_weight), loss + self.penalty.value(code) + self.offset)

    def criterion(self, theta, x, generator=None, row_weight=None):
        """The value, where no derivatives are wanted."""
        result = self.infer(theta, x, encode(theta, x, self.linear_map, self.activation))
        return torch.matmul(_shares(x, row_weight), result.objective + self.offset)

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` at constant codes into ``out``; return the value.

        With r = x - h D, e = prediction (f - h), u = W x and any parameter p of the predictor:

            dD = -h^T r,  dW = (e f'(u))^T x,  dp = sum e df/dp
        """
        linear_map, predictor = self.linear_map, PREDICTORS[self.activation]
        parameters = _spread(theta, linear_map, self.activation)
        u = linear_map.analyze(theta["weight_0"], x)
        predicted = predictor.function(u, *parameters)
        code, loss, _, _ = self.infer(theta, x, predicted)
        shares = _shares(x, row_weight)

        error = linear_map.synthesize(theta["decoder_weight_0"], code).sub_(x)
        error.mul_(shares.unsqueeze(1))
        out["decoder_weight_0"].copy_(linear_map.filter_gradient(error, code))
        delta = predicted.sub_(code).mul_(self.prediction * shares.unsqueeze(1))
        slope, slopes = predictor.derivatives(u, *parameters)
        for name, by_parameter in zip(predictor.names, slopes, strict=True):
            out[name].copy_(linear_map.collect((delta * by_parameter).sum(0)))
        out["weight_0"].copy_(linear_map.filter_gradient(x, slope.mul_(delta)))
        return torch.matmul(shares, loss + self.offset)


def _shares(x, row_weight):
    """Each row's share in the mean over the batch."""
    share = torch.ones_like(x[:, 0]) if row_weight is None else row_weight
    return share / len(x)
