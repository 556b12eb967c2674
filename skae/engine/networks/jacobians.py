"""Jacobians of layered maps, without building them where it can be avoided.

A layered map has the Jacobian J = D_L W_L ... D_2 W_2 D_1 W_1, where W_l are its
weight matrices and D_l = diag(slope_l) the slopes of its elementwise activations at
one input. Only the slopes depend on the row, so a norm needs the factor
F = D_L W_L ... W_2 D_1 alone: with the Gram matrix G = W_1 W_1^T,
|J|_F^2 = tr(F G F^T).

A Jacobian as an object gives products with J and J^T at all rows at once: that of a
layered map by its factors, that of any other function by automatic differentiation.
"""

import torch


def single_layer_squared_norm(slope, weight):
    """|diag(slope) W|_F^2 of each row: sum_j slope_j^2 sum_i W_ji^2.

    Of several maps at once, too: with an axis more, the first.
    """
    return ((slope * slope) @ weight.square().sum(-1, keepdim=True)).squeeze(-1)


def jacobian_factor(slopes, weights):
    """The row-dependent factor F, of shape (n_samples, n_L, n_1), of J = F W_1.

    ``slopes`` are the layers' from the input outwards, the l-th of shape (n_samples, n_l); the last
    may be None: slope 1. ``weights``, at least two, have shapes (n_l, n_{l-1}).
    """
    factor = weights[-1].unsqueeze(0)
    if slopes[-1] is not None:
        factor = slopes[-1].unsqueeze(-1) * factor
    for level in reversed(range(len(weights) - 1)):
        factor = factor * slopes[level].unsqueeze(-2)
        if level > 0:
            factor = factor @ weights[level]
    return factor


def factored_squared_norm(factor, weight):
    """|F W|_F^2 of each row, by whichever of F W and F (W W^T) is smaller.

    F has shape (n_samples, n_out, n_1), W (n_1, n_in).
    """
    n_hidden, n_in = weight.shape
    if n_in <= n_hidden:
        return (factor @ weight).square().sum((-2, -1))
    return ((factor @ (weight @ weight.t())) * factor).sum((-2, -1))


def squared_norm(slopes, weights):
    """|J|_F^2 of each row for a layered map of any depth, by its factors as in
    `jacobian_factor`.
    """
    if len(weights) == 1:
        return single_layer_squared_norm(slopes[0], weights[0])
    return factored_squared_norm(jacobian_factor(slopes, weights), weights[0])


def jacobian(slopes, weights):
    """J itself, of shape (n_samples, n_out, n_in): for small problems and diagnostics."""
    if len(weights) == 1:
        return slopes[0].unsqueeze(-1) * weights[0]
    return jacobian_factor(slopes, weights) @ weights[0]


def two_layer_squared_norm(slope, inner, outer):
    """|A^T diag(slope) W|_F^2 of each row, for W ``inner`` and A ``outer``.

    W has shape (n_hidden, n_in), A (n_hidden, n_out). With the Gram matrices of both sides this is
    slope^T (W W^T * A A^T) slope: no tensor with rows times features times units is ever made.
    """
    gram = (inner @ inner.t()) * (outer @ outer.t())
    return ((slope @ gram) * slope).sum(-1)


class LayeredJacobian:
    """J = D_L W_L ... D_1 W_1 at some rows, by its factors as in `jacobian_factor`."""

    def __init__(self, slopes, weights):
        self.slopes, self.weights = list(slopes), list(weights)
        if len(self.slopes) != len(self.weights) or self.slopes[0] is None:
            raise ValueError(
                f"{len(self.slopes)} slopes and {len(self.weights)} weights make no Jacobian: "
                "give one slope for each weight; only the last of several may be None"
            )
        self.n_rows = len(self.slopes[0])
        self.n_out, self.n_in = len(self.weights[-1]), self.weights[0].shape[1]
        self._shared = {}

    @property
    def like(self):
        """A tensor of the dtype and on the device of the products."""
        return self.slopes[0]

    @property
    def inner_gram(self):
        """W_1 W_1^T, computed once for all selections of rows."""
        if "gram" not in self._shared:
            self._shared["gram"] = self.weights[0] @ self.weights[0].t()
        return self._shared["gram"]

    def rows(self, index):
        """The Jacobian at some of the rows, by a slice or an index tensor."""
        slopes = [None if slope is None else slope[index] for slope in self.slopes]
        selected = LayeredJacobian(slopes, self.weights)
        selected._shared = self._shared
        return selected

    def average(self):
        """One row with each slope's root mean square: J^T J of one layer is then the mean."""
        means = [
            None if slope is None else slope.square().mean(0, keepdim=True).sqrt()
            for slope in self.slopes
        ]
        return LayeredJacobian(means, self.weights)

    def double(self):
        """The same in float64."""
        slopes = [None if slope is None else slope.double() for slope in self.slopes]
        return LayeredJacobian(slopes, [weight.double() for weight in self.weights])

    def times(self, directions):
        """J u of each row: (n_rows, m, n_in) -> (n_rows, m, n_out)."""
        return self._outwards(directions @ self.weights[0].t())

    def transposed_times(self, codirections):
        """J^T v of each row: (n_rows, m, n_out) -> (n_rows, m, n_in)."""
        return self._inwards(codirections) @ self.weights[0]

    def gram_times(self, codirections):
        """J J^T v of each row, through W_1 W_1^T where that is less work than W_1 twice."""
        if len(self.weights[0]) >= 2 * self.n_in:
            return self.times(self.transposed_times(codirections))
        return self._outwards(self._inwards(codirections) @ self.inner_gram)

    def dense(self):
        """J itself, of shape (n_rows, n_out, n_in)."""
        return jacobian(self.slopes, self.weights)

    def squared_norm(self):
        """|J|_F^2 of each row, of shape (n_rows,)."""
        return squared_norm(self.slopes, self.weights)

    def _outwards(self, product):
        # From the first layer's pre-activation to the output.
        for slope, weight in zip(self.slopes[:-1], self.weights[1:], strict=True):
            product = (product * slope.unsqueeze(1)) @ weight.t()
        return product if self.slopes[-1] is None else product * self.slopes[-1].unsqueeze(1)

    def _inwards(self, product):
        if self.slopes[-1] is not None:
            product = product * self.slopes[-1].unsqueeze(1)
        for slope, weight in zip(
            reversed(self.slopes[:-1]), reversed(self.weights[1:]), strict=True
        ):
            product = (product @ weight) * slope.unsqueeze(1)
        return product


class OutputJacobian:
    """U J of each row, J a `LayeredJacobian` and U that of units' means, which is symmetric.

    ``output``, of shape (n_rows, n_out), is the units' pre-activation.
    """

    def __init__(self, inner: LayeredJacobian, units, output: torch.Tensor):
        self.inner, self.units, self.output = inner, units, output
        self.n_rows, self.n_out, self.n_in = inner.n_rows, inner.n_out, inner.n_in

    @property
    def like(self):
        """A tensor of the dtype and on the device of the products."""
        return self.output

    def rows(self, index):
        """The Jacobian at some of the rows, by a slice or an index tensor."""
        return OutputJacobian(self.inner.rows(index), self.units, self.output[index])

    def times(self, directions):
        """U J u of each row: (n_rows, m, n_in) -> (n_rows, m, n_out)."""
        return self._of_units(self.inner.times(directions))

    def transposed_times(self, codirections):
        """J^T U v of each row: (n_rows, m, n_out) -> (n_rows, m, n_in)."""
        return self.inner.transposed_times(self._of_units(codirections))

    def gram_times(self, codirections):
        """U J J^T U v of each row."""
        return self._of_units(self.inner.gram_times(self._of_units(codirections)))

    def dense(self):
        """U J itself, of shape (n_rows, n_out, n_in)."""
        return self.units.jacobian_product(self.output, self.inner.dense())

    def squared_norm(self):
        """|U J|_F^2 of each row, of shape (n_rows,)."""
        return self.dense().square().sum((1, 2))

    def _of_units(self, vectors):
        product = self.units.jacobian_product(self.output, vectors.transpose(1, 2))
        return product.transpose(1, 2)


class DifferentiatedJacobian:
    """The Jacobian of any differentiable function at rows x, by automatic differentiation.

    The function goes from (n_rows, n_in) to (n_rows, n_out); each row of its output depends on the
    same row of its input alone.
    """

    def __init__(self, function, x):
        self.function = function
        with torch.inference_mode(False):
            # A tensor made in inference mode could not be differentiated; its copy can.
            self.x = x.detach().clone() if x.is_inference() else x.detach()
        self.n_rows, self.n_in = x.shape
        with torch.no_grad():
            self.n_out = function(self.x[:1]).shape[1]

    @property
    def like(self):
        """A tensor of the dtype and on the device of the products."""
        return self.x

    def rows(self, index):
        """The Jacobian at some of the rows, by a slice or an index tensor."""
        return DifferentiatedJacobian(self.function, self.x[index])

    def times(self, directions):
        """J u of each row: (n_rows, m, n_in) -> (n_rows, m, n_out)."""
        # v -> J^T v is linear, and the transpose of its own Jacobian is J: twice backwards
        # is forwards, and needs no derivative that every differentiable function has not.
        with torch.inference_mode(False):
            output, pull = torch.func.vjp(self.function, self.x)
            _, push = torch.func.vjp(lambda v: pull(v)[0], torch.zeros_like(output))
        return self._at_each(push, directions)

    def transposed_times(self, codirections):
        """J^T v of each row: (n_rows, m, n_out) -> (n_rows, m, n_in)."""
        with torch.inference_mode(False):
            _, pull = torch.func.vjp(self.function, self.x)
        return self._at_each(pull, codirections)

    def gram_times(self, codirections):
        """J J^T v of each row."""
        return self.times(self.transposed_times(codirections))

    def dense(self):
        """J itself, of shape (n_rows, n_out, n_in)."""
        n = min(self.n_out, self.n_in)
        basis = torch.eye(n, dtype=self.x.dtype, device=self.x.device).expand(self.n_rows, n, n)
        if self.n_out <= self.n_in:
            return self.transposed_times(basis)
        return self.times(basis).transpose(1, 2)

    def squared_norm(self):
        """|J|_F^2 of each row, of shape (n_rows,)."""
        return self.dense().square().sum((1, 2))

    def _at_each(self, product, vectors):
        with torch.inference_mode(False):
            vectors = vectors.clone() if vectors.is_inference() else vectors
            vectors = vectors.expand(self.n_rows, -1, -1)
            return torch.func.vmap(lambda v: product(v)[0], in_dims=1, out_dims=1)(vectors)
