r"""Predictors of sparse codes: what an encoder makes of its products u with the data.

f(u) = g s(u), with a gain g and more parameters for each unit. A predictor has the ``names`` of
its parameters, their ``start``, its ``function`` of u and of them, and the ``derivatives`` of
that. Which parameters go with which u is the linear map's to say: they come spread.
"""

import math

import torch

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
