"""The manifold tangent classifier: insensitive along the directions in which the data vary."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import gen_even_slices
from sklearn.utils.metaestimators import available_if

from skae._validation import Interval, StrOptions, check_is_fitted, check_rows
from skae.engine.optimisation.devices import require_memory
from skae.engine.optimisation.rows import make_rows
from skae.engine.tangents.semi_supervised import Moves, SemiSupervised, Span
from skae.estimators.auto_encoders import ContractiveAutoEncoder
from skae.estimators.face.parameters import estimator, parameter, preset
from skae.estimators.supervised.classifier import StackedClassifier
from skae.estimators.tangents.sources import EncoderTangents, GivenTangents, LocalTangents
from skae.estimators.tangents.tuning import frozen_planes, seen_directions, spread

# "auto": the contraction of a layer for each column of its input.
_CONTRACTION = 1e-3
# Layers by default: units for each column of the data, their fewest and their most.
_N_LAYERS, _UNITS = 2, (4, 100, 1000)
# Penalties are about steps so long, as a part of the rows' distance from their mean.
_LENGTH = 0.1
# Rows whose tangents are found at a time.
_ROWS = 5000
# "auto": steps, and the fewest and most epochs that these may be.
_PRETRAINING = 10_000, 5, 400
_FINE_TUNING = 2_000, 5, 200
_CPU = torch.device("cpu")


def _refuses_partial_fit(model):
    raise AttributeError(
        f"{type(model).__name__} has no partial_fit: the tangents at each row come from layers "
        "that were trained on all rows. Pre-train a StackedAutoEncoder on the stream with its "
        "partial_fit and pass its layers_ with pretraining='prefit' to fit."
    )


@estimator
class ManifoldTangentClassifier(StackedClassifier):
    r"""A classifier that is insensitive along the tangents of the data's manifold.

    Contractive auto-encoders, one on the other, learn from all rows, labelled or not, in which
    few directions the data vary: the leading right singular vectors
    :math:`B_x = \{u_1, \ldots, u_m\}` of the Jacobian :math:`\partial h / \partial x` of the top
    code h. An output layer o is added, and the whole net minimises

    .. math::

        \frac{1}{|L|} \sum_{x \in L} \bigl[ -\log P(y \mid o(x))
        + \beta \sum_{u \in B_x} \| \frac{\partial o}{\partial x} u \|^2 \bigr]
        + \frac{1}{|U|} \sum_{x \in U} \bigl[ \gamma\,
        \mathrm{KL}\bigl(P(\cdot \mid o(x)) \,\|\, P(\cdot \mid o(x + v_x))\bigr)
        + \eta\, H(P(\cdot \mid o(x))) \bigr]
        + \kappa\, \mathrm{KL}\bigl(\bar{P}_U \,\|\, \bar{P}_L\bigr)

    over labelled rows L and unlabelled rows U, with :math:`\beta` = ``tangent_penalty``,
    :math:`\gamma` = ``unlabelled_penalty``, :math:`\eta` = ``entropy_penalty`` and :math:`\kappa` =
    ``balance_penalty``. The first sum is the published criterion [1]_. The others need no labels:
    the classifier is to be sure of itself (the entropy H [3]_), to stay so along each row's
    tangents, and to find the classes as often as they occur (as transductive machines do [5]_):
    :math:`\bar{P}_U` are mean probabilities, :math:`\bar{P}_L` the frequencies of the labels,
    drawn towards equal ones as far as chance explains the difference [6]_. Of the moves of
    length ``unlabelled_step`` along the tangents, :math:`v_x` is the one that changes the
    prediction most, or nearly so.

    Use it where classes are separated by regions of low density and labels are few, as for
    images of objects. o is the output before the softmax.

    Read more in the :ref:`User Guide <manifold_tangents>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    TangentDistanceClassifier : Nearest neighbours that read the same tangents.
    StackedClassifier : The same without tangents, for any kind of layer.
    skae.diagnostics.tangents : The tangents of any encoder.

    Notes
    -----
    A step draws one random combination of each labelled row's tangents, with independent signs,
    which has the same expected penalty as all of them: it costs that of twice the rows, however
    many tangents there are.

    With J the Jacobian of the code as pre-trained, :math:`J_o` that of the output now and M the
    Fisher information of the prediction, :math:`v_x \propto J^T J J_o^T M \epsilon` for a normal
    :math:`\epsilon`: what would change the prediction, weighted along each singular direction of
    J by its squared singular value. No singular vectors are computed for unlabelled rows. For
    tangents from elsewhere J has them as its rows; they are held in memory,
    n_samples * n_tangents * n_features numbers.

    References
    ----------
    .. [1] S. Rifai, Y. Dauphin, P. Vincent, Y. Bengio, X. Muller. The manifold tangent
       classifier. NIPS 2011.
    .. [2] P. Simard, B. Victorri, Y. LeCun, J. Denker. Tangent prop: a formalism for specifying
       selected invariances in an adaptive network. NIPS 1991.
    .. [3] Y. Grandvalet, Y. Bengio. Semi-supervised learning by entropy minimization. NIPS 2004.
    .. [4] T. Miyato, S. Maeda, M. Koyama, S. Ishii. Virtual adversarial training: a
       regularization method for supervised and semi-supervised learning. IEEE Transactions on
       Pattern Analysis and Machine Intelligence 41(8), 2019.
    .. [5] T. Joachims. Transductive inference for text classification using support vector
       machines. ICML 1999.
    .. [6] J. Hausser, K. Strimmer. Entropy inference and the James-Stein estimator, with
       application to nonlinear gene association networks. Journal of Machine Learning
       Research 10, 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ManifoldTangentClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> some = y.copy()
    >>> some[100:] = -1                                   # 100 labels, the others unknown
    >>> model = ManifoldTangentClassifier(
    ...     (128,), pretraining_max_iter=150, max_iter=50, random_state=0
    ... ).fit(X / 16, some)
    >>> bool(model.score(X[100:] / 16, y[100:]) > 0.84)
    True
    >>> model.tangents(X[:1] / 16).shape == (1, model.n_tangents_, 64)
    True
    """

    layer_sizes: tuple = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        doc="""tuple of int, int or None
        Numbers of units, from the data upwards. None: those of ``layers``, or two layers that
        have four units for each column of the data, but from 100 to 1000.""",
        kw_only=False,
    )
    layer: str = preset(StackedClassifier, "layer", default="contractive")
    n_tangents: int = parameter(
        default="auto",
        constraints=[Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        doc="""int or "auto"
        Directions at each row, at most the number of columns and of the smallest layer's units.
        "auto": as many as hold three quarters of the squared norm of the Jacobian in the median
        row, and at most half the columns; for other tangents than those of the encoder, as many
        as there are, and 10 for local PCA.""",
    )
    tangent_penalty: float = parameter(
        default=0.02,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Weight of the squared change of outputs along the tangents of labelled rows, for steps
        of a tenth of the rows' root mean square distance from their mean.""",
    )
    unlabelled_penalty: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Weight of the divergence between the predictions at an unlabelled row and after the
        move within its tangent plane that changes them most.""",
    )
    unlabelled_step: float = parameter(
        default=0.28,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""float
        Length of that move, as a part of the rows' root mean square distance from their mean.""",
    )
    adversarial_penalty: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        The same weight for the worst move in any direction of the data: virtual adversarial
        training [4]_.""",
    )
    adversarial_step: float = parameter(
        default=0.2,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""float
        Length of that move, measured alike.""",
    )
    entropy_penalty: float = parameter(
        default=0.3,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Weight of the entropy of the distribution of classes at unlabelled rows.""",
    )
    balance_penalty: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Weight of the divergence between the classes' mean probabilities over a batch's
        unlabelled rows and their frequencies, which labels tell: equal ones where the labels
        of the classes are about as many. Use 0 where labelled rows were not drawn like the
        others, or with few labels of classes that are not equally frequent.""",
    )
    tangent_source: str = parameter(
        default="encoder",
        constraints=[StrOptions({"encoder", "local_pca"}), callable],
        doc="""{"encoder", "local_pca"} or callable
        Where tangents come from: the pre-trained layers; the principal components of each row's
        nearest neighbours in the data of `fit`; or a function of X, of shape
        (n_samples, n_features), that returns directions in the units of the data, of shape
        (n_samples, n_tangents, n_features).""",
    )
    n_neighbors: int = parameter(
        default=30,
        constraints=[Interval(Integral, 2, None, closed="left")],
        doc="""int
        Neighbours of each row in ``tangent_source="local_pca"``.""",
    )
    labelled_share: float = parameter(
        default=1 / 3,
        constraints=[Interval(Real, 0, 1, closed="left")],
        doc="""float
        Least share of labelled rows among those of a pass of fine-tuning, in which unlabelled
        rows occur once: labelled ones occur as often as that takes.""",
    )
    contraction: float = parameter(
        default="auto",
        constraints=[Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        doc="""float or "auto"
        Weight of the squared norm of the Jacobian in pre-training, as in
        :class:`ContractiveAutoEncoder`; with a prototype in ``layer`` or with ``layers``, theirs
        counts instead, as for all parameters of pre-training. "auto": 0.001 for each column of
        the layer's input.""",
    )
    hessian: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Weight of the change of the Jacobian between nearby points, as in
        :class:`ContractiveAutoEncoder`.""",
    )
    pretraining_max_iter: int = parameter(
        default="auto",
        constraints=[Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        doc="""int or "auto"
        Epochs of each layer's pre-training. "auto": as many as make up 10,000 steps, but from
        5 to 400.""",
    )
    pretraining_learning_rate: float = parameter(
        default=2e-3,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""float
        Its step size, which falls linearly to zero.""",
    )
    max_iter: int = parameter(
        default="auto",
        constraints=[Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        doc="""int or "auto"
        Epochs of fine-tuning. "auto": as many as make up 2,000 steps, but from 5 to 200.""",
    )
    alpha: float = preset(StackedClassifier, "alpha", default=0.01)
    learning_rate: float = preset(StackedClassifier, "learning_rate", default=1e-3)
    learning_rate_schedule: str = preset(
        StackedClassifier, "learning_rate_schedule", default="linear"
    )
    batch_size: int = preset(StackedClassifier, "batch_size", default=300)

    _attributes_doc = (
        """
    n_tangents_ : int
        Directions at each row.
    encoder_ : StackedAutoEncoder
        The layers as pre-trained, before fine-tuning: the tangents are theirs.
    source_ : object
        What finds the tangents; with ``tangent_source="local_pca"`` it keeps the rows of `fit`."""
        + StackedClassifier._attributes_doc
    )

    partial_fit = available_if(_refuses_partial_fit)(StackedClassifier.partial_fit)

    def tangents(self, X):
        """Directions along which the classifier learned to be insensitive, at rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        directions : ndarray of shape (n_samples, n_tangents_, n_features)
            In the units of the data. Those of the encoder have unit length, and are orthogonal,
            in standardised columns.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)
        return self.source_.directions(X)

    def fit(self, X, y, sample_weight=None):
        """Pre-train the layers, find the tangents, and train all with the output on both.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes, of which ``unlabelled`` stands for an unknown one.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a row of weight 0 is left out.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            Before any layer is trained: if a parameter is out of its range, more tangents are
            asked for than there are columns or units, layers do not fit each other, X is not
            finite, or y has no labels or one class.
        """
        return super().fit(X, y, sample_weight)

    @property
    def _learns_tangents(self):
        """Whether fine-tuning has a use for tangents."""
        penalties = self.tangent_penalty, self.unlabelled_penalty
        return self.n_fine_tuned_layers != 0 and max(penalties) > 0

    @property
    def _uses_unlabelled(self):
        penalties = (
            self.unlabelled_penalty,
            self.adversarial_penalty,
            self.entropy_penalty,
            self.balance_penalty,
        )
        return max(penalties) > 0 or self._keeps_unsupervised

    def _validate_parameters(self):
        super()._validate_parameters()
        if self.tangent_source == "encoder" and self.pretraining is None and self._learns_tangents:
            raise ValueError(
                "pretraining=None leaves random layers, whose tangents say nothing of the data. "
                "Use tangent_source='local_pca', pre-train, or set tangent_penalty and "
                "unlabelled_penalty to 0."
            )

    def _stack_parameters(self):
        parameters = super()._stack_parameters()
        # "auto" becomes a number with the data, and so do sizes.
        given = self.pretraining_max_iter
        parameters["max_iter"] = 1 if given == "auto" else given
        if self.layers is not None:
            return parameters
        if self.layer_sizes is None:
            # Until the data tell their width, one that a prototype allows.
            n_units = getattr(self.layer, "n_components", None) or max(_UNITS)
            parameters["layer_sizes"] = (n_units,) * _N_LAYERS
        if isinstance(self.layer, str) and self.layer == "contractive":
            parameters["layer"] = ContractiveAutoEncoder(
                contraction=0.0 if self.contraction == "auto" else self.contraction,
                hessian=self.hessian,
                learning_rate=self.pretraining_learning_rate,
                learning_rate_schedule="linear",
                batch_size=200,
                max_iter=parameters["max_iter"],
                device=self.device,
                verbose=self.verbose,
            )
        return parameters

    def _adapt(self, stack, layers, data):
        n_samples, n_features = data.shape
        if self.layer_sizes is None and self.layers is None:
            n_units = _n_units(n_features)
            for layer in layers:
                layer.set_params(n_components=n_units)
            stack.set_params(layer_sizes=(n_units,) * len(layers))
            stack._check_layers(layers)
        sizes = [n_features, *(layer.n_components for layer in layers)]
        if self.n_tangents != "auto":
            self._check_n_tangents(n_features, min(sizes))
        if not isinstance(self.layer, str) or self.layers is not None:
            return
        for layer, width in zip(layers, sizes, strict=False):
            if self.pretraining_max_iter == "auto":
                n_batches = n_samples / layer.batch_size
                layer.set_params(max_iter=_epochs(n_batches, *_PRETRAINING))
            if self.contraction == "auto" and self.layer == "contractive":
                layer.set_params(contraction=_CONTRACTION * width)
        if layers:
            stack.set_params(max_iter=layers[0].max_iter)

    def _n_epochs(self, labelled):
        if self.max_iter != "auto":
            return self.max_iter
        n_known = labelled.sum()
        n_rows = n_known
        if self._uses_unlabelled:
            n_others = len(labelled) - n_known
            n_rows = n_others + max(n_known, self._wanted(n_others))
        return _epochs(n_rows / self.batch_size, *_FINE_TUNING)

    def _check_n_tangents(self, n_features, most):
        if self.tangent_source == "encoder" and self.n_tangents > most:
            raise ValueError(
                f"n_tangents={self.n_tangents}, but the data have {n_features} columns and the "
                f"code a rank of at most {most}: ask for at most {most}, use n_tangents='auto', or "
                "make the layers larger."
            )
        if self.tangent_source == "local_pca" and self.n_tangents >= min(
            self.n_neighbors, n_features + 1
        ):
            raise ValueError(
                f"n_tangents={self.n_tangents}, but n_neighbors={self.n_neighbors} rows of "
                f"{n_features} columns span {min(self.n_neighbors - 1, n_features)} directions at "
                "most. Ask for fewer, use n_tangents='auto' or more neighbours."
            )

    def _start_output(self, data, weight, targets):
        super()._start_output(data, weight, targets)
        self.encoder_ = self.stack_._shallow_copy()
        self.source_ = self._make_source(data if weight is None else data[weight > 0])
        self.n_tangents_ = self.source_.n_tangents

    def _make_source(self, data):
        if self.tangent_source == "encoder":
            return EncoderTangents(self.encoder_, self.n_tangents, data)
        if self.tangent_source == "local_pca":
            columns = self.encoder_.columns_
            return LocalTangents(columns, self.n_tangents, self.n_neighbors, data)
        return GivenTangents(self.tangent_source, self.n_tangents, data)

    def _make_criterion(self, task, levels, units, **options):
        length = self._spread(task)
        prior = task.targets.class_frequencies(self.n_labelled_).to(task.theta.flat)
        return SemiSupervised(
            levels,
            units,
            planes=self._make_planes(task, levels),
            tangent_penalty=self.tangent_penalty,
            within=Moves(self.unlabelled_penalty, self.unlabelled_step * length),
            anywhere=Moves(self.adversarial_penalty, self.adversarial_step * length),
            entropy_penalty=self.entropy_penalty,
            balance_penalty=self.balance_penalty,
            prior=prior,
            **options,
        )

    def _make_planes(self, task, levels):
        """How the tangent planes of unlabelled rows are found, or None."""
        if self.unlabelled_penalty == 0 or self.n_tangents_ == 0:
            return None
        if self.tangent_source != "encoder":
            return lambda x, directions: Span(directions())
        planes = frozen_planes(task.theta, levels)
        return lambda x, directions: planes(x)

    def _make_directions(self, task):
        needed = np.flatnonzero(self._needs_directions(task.labelled))
        if not len(needed) or self.n_tangents_ == 0:
            return None, None
        theta = task.theta.flat
        width = self.encoder_.layers_[task.first].n_features_in_
        shape = len(needed), self.n_tangents_, width
        require_memory(
            math.prod(shape) * theta.element_size(), _CPU, "Holding the tangents of the rows"
        )
        length = _LENGTH * self._spread(task)
        found = np.empty(shape, dtype=np.float64 if theta.dtype == torch.float64 else np.float32)
        for part in gen_even_slices(len(found), math.ceil(len(found) / _ROWS)):
            rows = task.data[needed[part]]
            directions = self.source_.directions(rows)
            found[part] = seen_directions(self.encoder_, task.first, rows, directions)
            found[part] *= length
        place = torch.full((len(task.labelled),), -1)
        place[needed] = torch.arange(len(found))
        rows = found.reshape(len(found), -1)
        rows = make_rows(rows, dtype=theta.dtype, device=theta.device)
        return rows, place.to(theta.device)

    def _spread(self, task):
        """How far rows are from their mean, of which lengths of moves are a part."""
        return spread(self.encoder_.layers_[task.first].columns_, task.rows, task.weight)

    def _needs_directions(self, labelled):
        """Rows whose tangents are held: those of others are found at each step, or not needed."""
        needed = np.zeros(len(labelled), dtype=bool)
        if self.tangent_penalty > 0:
            needed |= labelled
        if self.unlabelled_penalty > 0 and self.tangent_source != "encoder":
            needed |= ~labelled
        return needed

    def _proportioned(self, index, labelled):
        known, others = index[labelled[index]], index[~labelled[index]]
        wanted = self._wanted(len(others))
        if 0 < len(known) < wanted:
            index = torch.cat([others, known.repeat(math.ceil(wanted / len(known)))])
        return super()._proportioned(index, labelled)

    def _wanted(self, n_others):
        """Labelled rows that an epoch with so many others should have, at least."""
        return self.labelled_share / (1 - self.labelled_share) * n_others


def _n_units(n_features):
    """Of each layer, where the user does not say."""
    per_column, fewest, most = _UNITS
    return min(max(per_column * n_features, fewest), most)


def _epochs(n_batches, n_steps, fewest, most):
    """As many as make up the steps, within bounds."""
    return int(np.clip(round(n_steps / max(n_batches, 1)), fewest, most))
