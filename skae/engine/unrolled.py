"""The criterion of a stack that is unrolled into one deep auto-encoder.

Hinton & Salakhutdinov 2006: after pre-training, encoders and, in reverse order, decoders form one
network, all of which is trained on the reconstruction of the data.
"""

from skae.engine.backpropagation import AffineChain, decoder_maps, encoder_maps
from skae.engine.objectives import gradient_by_autograd
from skae.engine.stacks import decode_levels, encode_levels


class UnrolledReconstruction:
    """mean_i -log P(x_i | r(x_i)), r through all layers up and down.

    Parameters
    ----------
    levels : sequence of Level
    """

    reports_loss = True
    is_noisy = False

    def __init__(self, levels):
        self.levels, self.units, self.state = levels, levels[0].units, {}
        up, down = encoder_maps(levels), decoder_maps(levels)
        self._chain = AffineChain(up + down) if up and down else None

    @property
    def offset(self):
        """The part of the value that no parameter changes."""
        return self.units.offset

    @property
    def has_closed_form(self):
        """Whether `gradient` needs no autograd."""
        return self._chain is not None

    def value(self, theta, x, generator, row_weight=None):
        """The criterion on one batch.

        Parameters
        ----------
        theta : Parameters
        x : Tensor of shape (n_samples, n_features)
        generator : torch.Generator
            Not used.
        row_weight : Tensor of shape (n_samples,), default=None
            Sample weights, of mean 1 over the whole training set.

        Returns
        -------
        value : Tensor, a scalar
        """
        output = decode_levels(theta, encode_levels(theta, x, self.levels)[-1], self.levels)
        loss = self.units.negative_log_likelihood(output, x)
        return loss.mean() if row_weight is None else (loss * row_weight).mean()

    criterion = value

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out``; return the value, detached."""
        if self.has_closed_form:
            return self.value_and_gradient(theta, x, generator, out, row_weight)
        return gradient_by_autograd(self.value, theta, x, generator, out, row_weight)

    def value_and_gradient(self, theta, x, generator, out, row_weight=None):
        """The same by backpropagation through affine maps, without autograd."""
        self._chain.clear_others_(out)
        scale = 1.0 / len(x)
        output = self._chain.forward(theta, x)
        column_weight = None if row_weight is None else row_weight.unsqueeze(1).expand_as(x)
        value, residual = self.units.value_and_residual_(output, x, column_weight, scale)
        self._chain.backward_(theta, residual, out, scale)
        share = 1.0 if row_weight is None else row_weight.mean()
        return value + share * self.offset
