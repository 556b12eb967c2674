"""The Jacobian of a model, by closed forms where there are some."""

from skae.engine.networks.jacobians import DifferentiatedJacobian, OutputJacobian
from skae.engine.networks.layers import linearized


def jacobian_of(model, theta, x, of="encoder"):
    """The Jacobian of a model's "encoder", or "reconstruction", at rows as the model sees them.

    Raises a ValueError if no gradient can go through the encoder.
    """
    if model.no_gradient is not None:
        raise ValueError(f"The code has no Jacobian: {model.no_gradient}.")
    if of == "encoder" and model.encoder is not None:
        return linearized(theta, x, model.encoder)[1]
    is_affine = model.denoise is None and None not in (model.encoder, model.decoder)
    if of == "reconstruction" and is_affine and hasattr(model.units, "jacobian_product"):
        return _reconstruction_jacobian(model, theta, x)

    def function(x):
        if of == "encoder":
            return model.code(theta, x)
        if model.denoise is not None:
            return model.units.mean(model.denoise(theta, x))
        return model.units.mean(model.decode(theta, model.code(theta, x)))

    return DifferentiatedJacobian(function, x)


def _reconstruction_jacobian(model, theta, x):
    """The Jacobian of a reconstruction by affine maps, and units whose mean has a known one."""
    *inner, last = model.decoder
    if model.units.activation is not None:
        last = last._replace(activation=model.units.activation)
        return linearized(theta, x, [*model.encoder, *inner, last])[1]
    output, jacobian = linearized(theta, x, [*model.encoder, *inner, last])
    return OutputJacobian(jacobian, model.units, output)
