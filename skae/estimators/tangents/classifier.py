"""The manifold tangent classifier: insensitive along the directions in which the data vary."""

from collections.abc import Sequence
from numbers import Integral, Real

from sklearn.utils.metaestimators import available_if

from skae._validation import Interval, StrOptions, check_is_fitted, check_pair, check_rows
from skae.estimators.face.outcomes import all_or_nothing
from skae.estimators.face.parameters import attribute, estimator, parameter, preset
from skae.estimators.face.scikit_learn import with_callbacks
from skae.estimators.face.transformer import Transformer
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.supervised.classifier import ClassifyingStack, StackedClassifier
from skae.estimators.supervised.fine_tuning import fit_stack
from skae.estimators.tangents.sources import SOURCES, SourceChoice
from skae.estimators.tangents.tuning import (
    pair,
    tangent_criterion,
    tangent_stack,
    uses_own_tangents,
)

_PENALTY = Interval(Real, 0, None, closed="left")
_LENGTH = Interval(Real, 0, None, closed="neither")


def _refuses_partial_fit(model):
    raise AttributeError(
        f"{type(model).__name__} has no partial_fit: the tangents at each row come from layers "
        "that were trained on all rows. Pre-train a StackedAutoEncoder on the stream with its "
        "partial_fit and pass its layers_ with pretraining='prefit' to fit."
    )


@estimator
class ManifoldTangentClassifier(ClassifyingStack):
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
    A pass of fine-tuning has each unlabelled row once, and labelled ones as often as it takes to
    make up a third of all.

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
    >>> from skae import ContractiveAutoEncoder, ManifoldTangentClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> some = y.copy()
    >>> some[100:] = -1                                   # 100 labels, the others unknown
    >>> layer = ContractiveAutoEncoder(contraction=0.06, learning_rate=2e-3, max_iter=60)
    >>> model = ManifoldTangentClassifier((128,), layer=layer, max_iter=30, random_state=0)
    >>> model = model.fit(X / 16, some)
    >>> bool(model.score(X[100:] / 16, y[100:]) > 0.84)
    True
    >>> model.tangents(X[:1] / 16).shape == (1, model.n_tangents_, 64)
    True
    """

    layer_sizes: Sequence[int] | int | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        doc="""tuple of int, int or None
        Numbers of units, from the data upwards. None: those of ``layers``, or two layers that
        have four units for each column of the data, but from 100 to 1000.""",
        kw_only=False,
    )
    layer: str | Transformer = parameter(
        default="contractive",
        constraints=StackedClassifier._parameter_constraints["layer"],
        doc="""{"auto", "denoising", "contractive", "rbm", "psd"} or estimator
        Kind of every layer: a name, or an estimator of which each layer is a copy with its
        number of units. "contractive" is a :class:`ContractiveAutoEncoder` whose contraction is
        0.001 for each column of its input, with ``batch_size=200`` and ``learning_rate=2e-3``,
        which falls linearly to zero. Layers chosen by name are trained for as many epochs as
        make up 10,000 steps, but from 5 to 400.""",
    )
    n_tangents: int | str = parameter(
        default="auto",
        constraints=[Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        doc="""int or "auto"
        Directions at each row, at most the number of columns and of the smallest layer's units.
        "auto": as many as hold three quarters of the squared norm of the Jacobian in the median
        row, and at most half the columns; for other tangents than those of the encoder, as many
        as there are, and 10 for local PCA.""",
    )
    tangent_source: SourceChoice = parameter(
        default="encoder",
        constraints=[StrOptions({"encoder"}), *SOURCES],
        doc="""{"encoder", "local_pca"}, ("local_pca", int), estimator or callable
        Where tangents come from: the pre-trained layers; the principal components of each row's
        nearest neighbours in the data of `fit`, 30 or as many as the tuple says; another encoder,
        of which a clone is fitted to the data of `fit` (one that is fitted is taken as it is if
        it is wrapped in :class:`~sklearn.frozen.FrozenEstimator`); or a function of X, of shape
        (n_samples, n_features), that returns directions in the units of the data, of shape
        (n_samples, n_tangents, n_features).""",
    )
    tangent_penalty: float = parameter(
        default=0.02,
        constraints=[_PENALTY],
        doc="""float
        Weight of the squared change of outputs along the tangents of labelled rows, for steps
        of a tenth of the rows' root mean square distance from their mean.""",
    )
    unlabelled_penalty: float | tuple[float, float] = parameter(
        default=(1.0, 1.0),
        constraints=[_PENALTY, tuple],
        doc="""tuple of two float, or float
        Weights of the divergence between the predictions at an unlabelled row and after the move
        that changes them most: within its tangent plane, and in any direction of the data, which
        is virtual adversarial training [4]_. One number is for both.""",
    )
    unlabelled_step: float | tuple[float, float] = parameter(
        default=(0.28, 0.2),
        constraints=[_LENGTH, tuple],
        doc="""tuple of two float, or float
        Lengths of these moves, as a part of the rows' root mean square distance from their
        mean.""",
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
    max_iter: int | str = parameter(  # type: ignore[assignment]
        default="auto",
        constraints=[Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        doc="""int or "auto"
        Epochs of fine-tuning. "auto": as many as make up 2,000 steps, but from 5 to 200.""",
    )
    output_penalty: float = preset(StackedClassifier, "output_penalty", default=0.01)
    learning_rate: float = preset(StackedClassifier, "learning_rate", default=1e-3)
    learning_rate_schedule: str = preset(
        StackedClassifier, "learning_rate_schedule", default="linear"
    )
    batch_size: int = preset(StackedClassifier, "batch_size", default=300)

    n_tangents_: int = attribute(
        """int
        Directions at each row."""
    )
    encoder_: StackedAutoEncoder = attribute(
        """StackedAutoEncoder
        The layers as pre-trained, before fine-tuning: the tangents are theirs."""
    )
    source_: object = attribute(
        """object
        What finds the tangents; that of local PCA keeps the rows of `fit`."""
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

    @with_callbacks
    @all_or_nothing
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
        return fit_stack(self, X, y, sample_weight, tangent_stack)

    def _criterion(self, task):
        return tangent_criterion(self, task)

    def _check_parameters(self):
        super()._check_parameters()
        check_pair("unlabelled_penalty", self.unlabelled_penalty, _PENALTY)
        check_pair("unlabelled_step", self.unlabelled_step, _LENGTH)
        within, _ = pair(self.unlabelled_penalty)
        learns_tangents = self.n_fine_tuned_layers != 0 and max(self.tangent_penalty, within) > 0
        if learns_tangents and self.pretraining is None and uses_own_tangents(self):
            raise ValueError(
                "pretraining=None leaves random layers, whose tangents say nothing of the data. "
                "Use tangent_source='local_pca', pre-train, or set tangent_penalty and "
                "unlabelled_penalty to 0."
            )
