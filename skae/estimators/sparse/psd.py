"""Predictive sparse decomposition."""

from numbers import Integral, Real

import torch

from skae._validation import Interval, StrOptions, check_is_fitted, check_rows
from skae.engine.sparse import predictive
from skae.engine.sparse.linear_maps import Dense
from skae.engine.sparse.predictive import PREDICTORS, PredictiveDecomposition
from skae.engine.sparse.problem import make_quadratic
from skae.estimators.face.layers import LayerAttributes
from skae.estimators.face.parameters import estimator, parameter, preset
from skae.estimators.face.transformer import TrainedTransformer
from skae.estimators.sparse.inference import SparseInference, solve


@estimator
class PredictedCodes(LayerAttributes, TrainedTransformer):
    """What predictive sparse decompositions share, whatever linear map their decoder is.

    A subclass has a ``_linear_map``, a ``_penalty``, and the options of `infer` for codes while
    learning, ``_inference``, and for those that are handed out, ``_optimal_inference``.
    """

    inference: str = parameter(
        default="encoder",
        constraints=[StrOptions({"encoder", "optimal"})],
        doc="""{"encoder", "optimal"}
        What `transform` returns: the encoder's codes f(x), or those that minimise
        ``1/2 |x - h D|^2 + alpha * penalty(h)``, without the prediction term. Training does not
        depend on it, so it may be set after `fit`.""",
    )
    activation: str = parameter(
        default="shrinkage",
        constraints=[StrOptions(set(PREDICTORS))],
        doc="""{"shrinkage", "tanh", "smooth_shrinkage"}
        The encoder's s, with parameters that each unit learns:

        - "shrinkage": sign(p) max(abs(p) - t, 0) with a threshold t. Its codes are sparse;
        - "tanh": tanh(p), bounded, and never exactly 0;
        - "smooth_shrinkage": a soft threshold with a smooth bend, sign(p) (log(exp(c t) +
          exp(c abs(p)) - 1) / c - t) with t and a sharpness c, and no bias. Most of its codes
          are near 0.""",
    )

    # Whether the encoder's weights start at 0, where its activation learns from there.
    _starts_from_zero = False

    @property
    def _loss_choice(self):
        return "gaussian" if self.loss == "auto" else self.loss

    def _parameter_shapes(self):
        return predictive.parameter_shapes(self._linear_map, self.activation)

    def _initial_parameters(self, dtype, device, generator):
        return predictive.initialize(
            self._linear_map,
            self.activation,
            self.alpha,
            from_zero=self._starts_from_zero,
            dtype=dtype,
            device=device,
            generator=generator,
        )

    def _make_objective(self, theta):
        return PredictiveDecomposition(
            self._linear_map,
            self._penalty,
            self.prediction,
            self.activation,
            self.columns_.units(theta.flat.device).offset,
            **self._inference,
        )

    def _make_projection(self, objective):
        return predictive.project_

    @property
    def _hindered_gradient(self):
        if self.inference == "optimal":
            return "inference='optimal' solves for its codes: use inference='encoder'"
        return None

    def _differentiable_code(self, theta, x):
        return predictive.predict(theta, x, self._linear_map, self.activation)

    def _encode(self, theta, x):
        predicted = predictive.encode(theta, x, self._linear_map, self.activation)
        if self.inference == "encoder":
            return predicted
        quadratic = make_quadratic(theta["decoder_weight_0"], x, self._linear_map)
        return solve(self, quadratic, self._penalty, start=predicted, **self._optimal_inference)

    def _decode(self, theta, code):
        return self._linear_map.synthesize(theta["decoder_weight_0"], code)


@estimator
class PSD(SparseInference, PredictedCodes):
    r"""Predictive sparse decomposition: sparse coding with an encoder that predicts the codes.

    Learns a dictionary D of unit-norm atoms together with a fast encoder f. It minimises,
    averaged over rows,

    .. math::

        \min_h\; \tfrac{1}{2} \|x - h D\|^2 + \alpha\, \Omega(h)
        + \tfrac{\lambda}{2} \|h - f(x)\|^2, \qquad f(x) = g \odot s(W x + b)

    on standardised columns, where :math:`\lambda` is ``prediction``. The penalty
    :math:`\Omega` is :math:`|h|_1` or, with ``group_shape``, the sum over neighbourhoods on
    a map of the norms of the codes in them, which makes the atoms a topographic map. For
    each batch the codes are inferred, starting at the encoder's, and held fixed while D, W,
    b and g take a gradient step.

    Use it where sparse codes are wanted at the price of one matrix product: afterwards
    `transform` needs no inference. :meth:`prediction_gap` tells what is lost by that.

    Read more in the :ref:`User Guide <psd>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    SparseCoder : Sparse codes by inference, without an encoder.
    AutoEncoder : With ``sparsity_penalty="l1"``, what PSD tends to as ``prediction`` grows.
    sklearn.decomposition.DictionaryLearning : Dictionaries by alternating minimisation.

    Notes
    -----
    The published encoder has ``activation="tanh"``, which is never exactly 0: its codes are
    dense. The default shrinks, as the later convolutional form [2]_ does, but with an exact
    zero; its codes are sparse and much nearer to the optimum.

    ``inference="optimal"`` leaves the prediction term out, so that its codes are those of the
    lasso on the learned dictionary, whatever the encoder. The paper's optimal codes have it
    in; as ``prediction`` tends to 0 they are the same.

    The gap along a training can be watched by calls of `partial_fit`, with
    :meth:`prediction_gap` between them.

    References
    ----------
    .. [1] K. Kavukcuoglu, M. Ranzato, Y. LeCun. Fast inference in sparse coding algorithms
       with applications to object recognition. Technical report CBLL-TR-2008-12-01, New York
       University, 2008.
    .. [2] K. Kavukcuoglu, P. Sermanet, Y.-L. Boureau, K. Gregor, M. Mathieu, Y. LeCun.
       Learning convolutional feature hierarchies for visual recognition. NIPS 2010.
    .. [3] K. Kavukcuoglu, M. Ranzato, R. Fergus, Y. LeCun. Learning invariant features
       through topographic filter maps. CVPR 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import PSD
    >>> X, _ = load_digits(return_X_y=True)
    >>> psd = PSD(32, alpha=1.0, learning_rate=0.005, max_iter=10, random_state=0).fit(X)
    >>> codes = psd.transform(X)
    >>> codes.shape, bool((codes != 0).mean() < 0.5)
    ((1797, 32), True)
    >>> bool(psd.prediction_gap(X).mean() < 0.1)
    True
    """

    n_components: int = parameter(
        default=256,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""int
        Number of atoms, and of the encoder's units.""",
        kw_only=False,
    )
    alpha: float = preset(SparseInference, "alpha", default=0.1)
    prediction: float = parameter(
        default=10.0,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""float
        Weight of the encoder's term. Small ones learn the dictionary of sparse coding and an
        encoder for it; large ones learn a dictionary whose codes are easy to predict.""",
    )
    inference: str = preset(PredictedCodes, "inference", default="encoder")
    activation: str = preset(PredictedCodes, "activation", default="shrinkage")
    loss: str = parameter(
        default="auto",
        constraints=[str],
        doc="""{"auto", "gaussian", "squared_error"}
        The columns that are coded: "gaussian", which "auto" is here, standardises them by
        their mean and standard deviation, which are estimated in `fit`; "squared_error" takes
        them as they are. There is no visible bias: those should have mean 0.""",
    )

    _attributes_doc = (
        """
    components_ : ndarray of shape (n_components, n_features_in_)
        Weights of the encoder, one filter per row, for
        (x - columns_.shift) / columns_.scale.
    decoder_components_ : ndarray of shape (n_components, n_features_in_)
        The dictionary: atoms of norm 1, one per row.
    intercept_hidden_ : ndarray of shape (n_components,)
        Biases of the encoder, where it has them."""
        + TrainedTransformer._attributes_doc
    )

    def prediction_gap(self, X):
        """What the encoder's codes cost above optimal ones, for each row of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        gap : ndarray of shape (n_samples,)
            ``1/2 |x - h D|^2 + alpha * penalty(h)`` at h = f(x), less its minimum, as a part of
            the minimum.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)

        def gap(theta, x):
            excess, optimum = predictive.excess_of_prediction(
                theta,
                x,
                self._linear_map,
                self._penalty,
                self.activation,
                **self._optimal_inference,
            )
            # A row that is its columns' means has the code 0, which is free.
            return torch.where(excess > 0, excess / optimum, 0.0)

        return self._map_rows(X, gap, (), standardize=True)

    _dictionary_name = "decoder_weight_0"
    _collapse_remedy = (
        "Try a smaller alpha (largest_alpha(X) leaves no codes), fewer n_components or, for "
        "loss='squared_error', centred and scaled columns."
    )

    def _validate_parameters(self):
        super()._validate_parameters()
        if self._loss_choice not in ("gaussian", "squared_error"):
            raise ValueError(
                f"loss={self.loss!r}, but sparse codes minimise a squared error: use "
                "loss='gaussian' for standardised columns, also where values lie in [0, 1], "
                "loss='squared_error' for columns as they are, or an AutoEncoder."
            )
        self._make_penalty(int(self.n_components))

    @property
    def _penalty(self):
        return self._make_penalty(int(self.n_components))

    @property
    def _linear_map(self):
        return Dense(self.n_features_in_, int(self.n_components))

    @property
    def _optimal_inference(self):
        # From the prediction, and the same for every row, whatever the others are.
        return {**self._inference, "algorithm": "fista" if self.group_shape is None else "admm"}
