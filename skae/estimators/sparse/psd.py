"""Predictive sparse decomposition."""

from functools import partial
from numbers import Integral, Real

import torch

from skae._validation import Interval, Registered, StrOptions, check_is_fitted, check_rows
from skae.engine.optimisation.models import Model
from skae.engine.sparse.linear_maps import Dense
from skae.engine.sparse.predictive import (
    PREDICTORS,
    PredictiveDecomposition,
    excess_of_prediction,
    predictive_model,
)
from skae.engine.sparse.problem import largest_useful_alpha, ready_algorithm
from skae.estimators.face.parameters import estimator, parameter, preset
from skae.estimators.face.transformer import LAYERS, Transformer, layer_weights
from skae.estimators.sparse.inference import (
    LOSSES,
    SparseInference,
    describe_coded_columns,
    penalty_of,
    solve,
)


@LAYERS.named("psd")
@estimator
class PSD(SparseInference, Transformer):
    r"""Predictive sparse decomposition: sparse coding with an encoder that predicts the codes.

    Learns a dictionary D of unit-norm atoms together with a fast encoder f. It minimises,
    averaged over rows,

    .. math::

        \min_h\; \tfrac{1}{2} \|x - h D\|^2 + \alpha\, \Omega(h)
        + \tfrac{\lambda}{2} \|h - f(x)\|^2, \qquad f(x) = g \odot s(W x + b)

    on standardised columns, where :math:`\lambda` is ``prediction``. The penalty :math:`\Omega` is
    :math:`|h|_1` or, with ``group_shape``, the sum over neighbourhoods on a map of the norms of the
    codes in them, which makes the atoms a topographic map. For each batch the codes are inferred,
    starting at the encoder's, and held fixed while D, W, b and g take a gradient step.

    Use it where sparse codes are wanted at the price of one matrix product: afterwards
    `transform` needs no inference. :meth:`prediction_gap` tells what is lost by that.

    Read more in the :ref:`User Guide <psd>`.

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
    in; as ``prediction`` tends to 0 they are the same. On a CPU they are found several times as
    fast with the extra ``fast`` (``pip install "skae[fast]"``): see :ref:`sparse_coding`.

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
        doc="Number of atoms, and of the encoder's units.",
        kw_only=False,
    )
    alpha: float = preset(SparseInference, "alpha", default=0.1)
    prediction: float = parameter(
        default=10.0,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""Weight of the encoder's term. Small ones learn the dictionary of sparse coding and an
        encoder for it; large ones learn a dictionary whose codes are easy to predict.""",
    )
    inference: str = parameter(
        default="encoder",
        constraints=[StrOptions({"encoder", "optimal"})],
        kind='{"encoder", "optimal"}',
        doc="""What `transform` returns: the encoder's codes f(x), or those that minimise
        ``1/2 |x - h D|^2 + alpha * penalty(h)``, without the prediction term. Training does not
        depend on it, so it may be set after `fit`.""",
    )
    activation: str = parameter(
        default="shrinkage",
        constraints=[Registered(PREDICTORS)],
        kind="{{names}}",
        doc="""The encoder's s, with parameters that each unit learns:

        {summaries}""",
    )
    loss: str = parameter(
        default="auto",
        constraints=[str],
        kind='{"auto", "gaussian", "squared_error"}',
        doc="""The columns that are coded: "gaussian", which "auto" is here, standardises them by
        their mean and standard deviation, which are estimated in `fit`; "squared_error" takes
        them as they are. There is no visible bias: those should have mean 0.""",
    )

    components_ = layer_weights(
        "weight_0",
        "ndarray of shape (n_components, n_features_in_)",
        "Weights of the encoder, one filter per row, for (x - columns_.shift) / columns_.scale.",
    )
    decoder_components_ = layer_weights(
        "decoder_weight_0",
        "ndarray of shape (n_components, n_features_in_)",
        "The dictionary: atoms of norm 1, one per row.",
    )
    intercept_hidden_ = layer_weights(
        "hidden_bias_0",
        "ndarray of shape (n_components,)",
        "Biases of the encoder, where it has them.",
    )

    _collapse_remedy = (
        "Try a smaller alpha (largest_alpha(X) leaves no codes), fewer n_components or, for "
        "loss='squared_error', centred and scaled columns."
    )

    def prediction_gap(self, X):
        """What the encoder's codes cost above optimal ones, for each row of X.

        Returns
        -------
        gap : ndarray of shape (n_samples,)
            ``1/2 |x - h D|^2 + alpha * penalty(h)`` at h = f(x), less its minimum, as a part of
            the minimum.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, by_blocks=True)
        _, theta = fitted = self._fitted_model(X)
        penalty, linear_map = self._parts()

        def gap(x):
            excess, optimum = excess_of_prediction(
                theta,
                x,
                linear_map,
                penalty,
                self.activation,
                algorithm=ready_algorithm(penalty, linear_map, x.device),
                **self._accuracy,
            )
            # A row that is its columns' means, but for rounding, has the code 0, which is free.
            rounding = x.shape[1] * torch.finfo(x.dtype).eps
            return torch.where(excess > rounding, excess / optimum, 0.0)

        return fitted.map_rows(gap, X)

    def _check_parameters(self):
        super()._check_parameters()
        if self.loss not in LOSSES:
            raise ValueError(
                f"loss={self.loss!r}, but sparse codes minimise a squared error: use "
                "loss='gaussian' for standardised columns, also where values lie in [0, 1], "
                "loss='squared_error' for columns as they are, or an AutoEncoder."
            )
        penalty_of(self, int(self.n_components))

    def _facts(self, X, weight, original, *, is_whole):
        return {"columns_": describe_coded_columns(self, X, weight, original)}

    def _model(self, place):
        penalty, linear_map = self._parts()

        def largest_alpha(theta, x):
            return largest_useful_alpha(penalty, x @ theta["decoder_weight_0"].t())

        return model_of(self, place, linear_map, penalty, largest_alpha=largest_alpha)

    def _parts(self):
        """The penalty and the decoder's linear map."""
        n_components = int(self.n_components)
        return penalty_of(self, n_components), Dense(len(self.columns_.mean), n_components)


def model_of(estimator, place, linear_map, penalty, *, most_steps=None, **fields) -> Model:
    """The engine's model of an estimator, whose optimal codes take ``most_steps`` at most."""
    units = estimator.columns_.units(place.device)
    shift, scale = estimator.columns_.standardization(place)
    accuracy = {"tol": estimator.inference_tol, "max_iter": int(estimator.inference_max_iter)}
    objective = partial(
        PredictiveDecomposition,
        linear_map,
        penalty,
        estimator.prediction,
        estimator.activation,
        units.constant,
        **accuracy,
    )
    if estimator.inference == "optimal":
        # By the same algorithm for every row, whatever the others are.
        accuracy["max_iter"] = most_steps or accuracy["max_iter"]
        algorithm = ready_algorithm(penalty, linear_map, place.device)
        fields["solve"] = partial(solve, estimator, algorithm=algorithm, **accuracy)
    return predictive_model(objective, units, shift=shift, scale=scale, **fields)
