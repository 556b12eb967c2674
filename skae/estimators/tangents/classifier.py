"""The manifold tangent classifier: insensitive along the directions in which the data vary."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_even_slices
from sklearn.utils.metaestimators import available_if

from skae._validation import Interval, StrOptions, check_is_fitted, check_rows, column_names
from skae.diagnostics import jacobian_products
from skae.engine.networks.differentials import jacobian_of
from skae.engine.optimisation.devices import require_memory
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import make_rows
from skae.engine.stacks.stacking import stacked
from skae.engine.tangents.semi_supervised import Moves, SemiSupervised, Span
from skae.estimators.auto_encoders import ContractiveAutoEncoder
from skae.estimators.face.learning import learns
from skae.estimators.face.parameters import attribute, check_pair, estimator, parameter, preset
from skae.estimators.face.transformer import Transformer
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.supervised.fine_tuning import fit_stack, stack_of
from skae.estimators.supervised.predictors import ClassifyingStack, StackedClassifier
from skae.estimators.supervised.tasks import (
    Criterion,
    Task,
    labelled_criterion,
    layers_below,
    spread_of,
)
from skae.estimators.tangents.sources import (
    N_NEIGHBORS,
    SOURCES,
    EncoderTangents,
    SourceChoice,
    check_source,
    is_of_choice,
    learned_source,
)

_PENALTY = Interval(Real, 0, None, closed="left")
_STEP = Interval(Real, 0, None, closed="neither")
# Layers by default: how many, and units for each column of the data, their fewest and their most.
_N_LAYERS, _UNITS = 2, (4, 100, 1000)
# A contractive layer by name: its contraction for each column of its input, and its training.
_CONTRACTION = 1e-3
_TRAINING: dict[str, Any] = {
    "learning_rate": 2e-3,
    "learning_rate_schedule": "linear",
    "batch_size": 200,
}
# "auto": steps, and the fewest and most epochs that these may be.
_PRETRAINING = 10_000, 5, 400
_FINE_TUNING = 10_000, 5, 200
# The least part of the rows of an epoch that is labelled.
_LABELLED_FRACTION = 1 / 3
# Penalties are about steps so long, as a part of the rows' distance from their mean.
_LENGTH = 0.1
# Rows whose tangents are found at a time.
_ROWS = 5000


def pair(value: float | tuple[float, float]) -> tuple[float, float]:
    """A weight for each of two terms: one number holds for both."""
    return value if isinstance(value, tuple) else (value, value)


def tangent_stack(model, data) -> StackedAutoEncoder:
    """The layers of a tangent classifier, as wide and trained for as long as data ask for."""
    n_samples, n_features = data.shape
    sizes = model.layer_sizes
    if sizes is None and model.layers is None:
        per_column, fewest, most = _UNITS
        sizes = (min(max(per_column * n_features, fewest), most),) * _N_LAYERS
    elif isinstance(sizes, Integral):
        sizes = (sizes,)
    is_named = model.layers is None and isinstance(model.layer, str)
    is_contractive = is_named and model.layer == "contractive"
    batch_size = _TRAINING["batch_size"] if is_contractive else model.batch_size
    max_iter = _epochs(n_samples / batch_size, *_PRETRAINING)
    stack = stack_of(model, data, layer_sizes=sizes, max_iter=max_iter)
    # Others are refused where the stack is checked.
    are_sizes = sizes is not None and all(isinstance(n, Integral) and int(n) > 0 for n in sizes)
    if is_contractive and are_sizes and model.pretraining != "prefit":
        stack.layers = [
            ContractiveAutoEncoder(
                int(size),
                contraction=_CONTRACTION * width,
                max_iter=max_iter,
                device=model.device,
                verbose=model.verbose,
                **_TRAINING,
            )
            for width, size in zip((n_features, *sizes), sizes, strict=False)
        ]
    if model.tangent_source == "encoder":
        widths = [getattr(layer, "n_components", None) for layer in stack.layers or ()]
        widths += tuple(sizes) if are_sizes else ()
        most = min(filter(None, [n_features, *widths]))
        if model.n_tangents != "auto" and model.n_tangents > most:
            raise ValueError(
                f"n_tangents={model.n_tangents}, but the data have {n_features} columns and the "
                f"code a rank of at most {most}: ask for at most {most}, use n_tangents='auto', or "
                "make the layers larger."
            )
    else:
        source = model.tangent_source, model.n_tangents
        check_source(*source, data, N_NEIGHBORS, column_names(model))
    return stack


def tangent_criterion(model, task: Task) -> Criterion:
    """What the whole of a tangent classifier descends on."""
    encoder, source = (task.stack, None) if task.is_fresh else (model.encoder_, model.source_)
    own = model.tangent_source == "encoder"
    if source is None or not is_of_choice(source, model.tangent_source, model.n_tangents, encoder):
        counted = task.data if task.weight is None else task.data[task.weight > 0]
        if own:
            source = EncoderTangents(encoder, model.n_tangents, counted)
        else:
            choice = model.tangent_source, model.n_tangents, counted, N_NEIGHBORS
            source = learned_source(*choice, encoder.columns_)
    facts = {"encoder_": encoder, "source_": source, "n_tangents_": source.n_tangents}
    if not task.models:
        return labelled_criterion(task)._replace(facts=facts)
    (within, anywhere), steps = pair(model.unlabelled_penalty), pair(model.unlabelled_step)
    entropy_penalty, balance_penalty = pair(model.entropy_penalty)
    uses_others = max(within, anywhere, entropy_penalty, balance_penalty) > 0
    index = _with_labelled(task) if uses_others else task.known
    spread = spread_of(task)
    planes = None
    if within > 0 and source.n_tangents > 0:
        planes = _frozen_planes(task) if own else lambda x, directions: Span(directions())
    needed = task.labelled & (model.tangent_penalty > 0)
    if planes is not None and not own:
        needed |= ~task.labelled
    prior = task.targets.class_frequencies()

    def objective():
        return SemiSupervised(
            task.models,
            planes=planes,
            tangent_penalty=model.tangent_penalty,
            within=Moves(within, steps[0] * spread),
            anywhere=Moves(anywhere, steps[1] * spread),
            entropy_penalty=entropy_penalty,
            balance_penalty=balance_penalty,
            prior=prior.to(task.place.device, task.place.dtype),
            labelled_fraction=task.fraction(index),
            **task.options,
        )

    directions, position = _directions(encoder, source, task, needed, _LENGTH * spread)
    max_iter, n_known, n_others = model.max_iter, len(task.known), len(task.others)
    if max_iter == "auto":
        n_rows = n_others + max(n_known, _wanted(n_others)) if uses_others else n_known
        max_iter = _epochs(n_rows / model.batch_size, *_FINE_TUNING)
    return Criterion(objective, index, directions, position, max_iter, facts)


def _epochs(n_batches, n_steps, fewest, most):
    """As many as make up the steps, within bounds."""
    return int(np.clip(round(n_steps / max(n_batches, 1)), fewest, most))


def _wanted(n_others):
    """Labelled rows that an epoch with so many others should have, at least."""
    return _LABELLED_FRACTION / (1 - _LABELLED_FRACTION) * n_others


def _with_labelled(task):
    """Rows of which each unlabelled one is there once, and labelled ones as often as it takes."""
    wanted = _wanted(len(task.others))
    if len(task.known) == 0 or len(task.known) >= wanted:
        return task.index
    return torch.cat([task.others, task.known.repeat(math.ceil(wanted / len(task.known)))])


def _frozen_planes(task):
    """The Jacobians of the code at any rows, with the parameters of the start."""
    layers, place = stacked(task.models, task.first), task.place
    weights = {name: task.weights[name] for name in layers.shapes}
    theta = Parameters.from_numpy(weights, dtype=place.dtype, device=place.device)
    return lambda x, directions: jacobian_of(layers, theta, x)


def _directions(encoder, source, task, needed, length):
    """Directions of the rows that need some, as the lowest tuned layer sees them, and whose."""
    needed = np.flatnonzero(needed)
    if not len(needed) or source.n_tangents == 0:
        return None, None
    columns, place = encoder.layers_[task.first].columns_, task.place
    shape = len(needed), source.n_tangents, len(columns.scale)
    n_bytes = math.prod(shape) * place.dtype.itemsize
    require_memory(n_bytes, torch.device("cpu"), "Holding the tangents of the rows")
    found = np.empty(shape, dtype=np.float64 if place.dtype == torch.float64 else np.float32)
    for part in gen_even_slices(len(found), math.ceil(len(found) / _ROWS)):
        rows = task.data[needed[part]]
        directions = source.directions(rows)
        if task.first > 0:
            directions = jacobian_products(layers_below(encoder, task.first), rows, directions)
        found[part] = directions
    if columns.is_standardized:
        found /= columns.scale.astype(found.dtype)
    found *= length
    position = torch.full((len(task.labelled),), -1)
    position[needed] = torch.arange(len(found))
    rows = make_rows(found.reshape(len(found), -1), dtype=place.dtype, device=place.device)
    return rows, position.to(place.device)


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
    :math:`\gamma` = ``unlabelled_penalty``, :math:`\eta` and :math:`\kappa` those of
    ``entropy_penalty``. The first sum is the published criterion [1]_. The others need no labels:
    the classifier is to be sure of itself (the entropy H [3]_), to stay so along each row's
    tangents, and to find the classes as often as they occur (as transductive machines do [5]_):
    :math:`\bar{P}_U` are mean probabilities, :math:`\bar{P}_L` the frequencies of the labels,
    drawn towards equal ones as far as chance explains the difference [6]_. Of the moves of
    length ``unlabelled_step`` along the tangents, :math:`v_x` is the one that changes the
    prediction most, or nearly so.

    Use it where classes are separated by regions of low density and labels are few, as for
    images of objects. Tables are not so: there the output is that of :class:`StackedClassifier`,
    a kernel's where ``output="auto"`` finds one, and the tangents have no part in it.
    o is the output before the softmax.

    Read more in the :ref:`User Guide <manifold_tangents>`.

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
    >>> layer = ContractiveAutoEncoder(contraction=0.06, learning_rate=2e-3, max_iter=20)
    >>> model = ManifoldTangentClassifier((64,), layer=layer, max_iter=10, random_state=0)
    >>> model = model.fit(X / 16, some)
    >>> bool(model.score(X[100:] / 16, y[100:]) > 0.8)
    True
    >>> model.tangents(X[:1] / 16).shape == (1, model.n_tangents_, 64)
    True
    """

    layer_sizes: Sequence[int] | int | None = parameter(
        default=None,
        constraints=StackedClassifier._parameter_constraints["layer_sizes"],
        kind="tuple of int, int or None",
        doc="""Numbers of units, from the data upwards. None: those of ``layers``, or two layers
        that have four units for each column of the data, but from 100 to 1000.""",
        kw_only=False,
    )
    layer: str | Transformer = parameter(
        default="contractive",
        constraints=StackedClassifier._parameter_constraints["layer"],
        kind='{"auto", "denoising", "contractive", "rbm", "psd"} or estimator',
        doc="""Kind of every layer: a name, or an estimator of which each layer is a copy with its
        number of units. "contractive" is a :class:`ContractiveAutoEncoder` whose contraction is
        0.001 for each column of its input, with ``batch_size=200`` and ``learning_rate=2e-3``,
        which falls linearly to zero. Layers chosen by name are trained for as many epochs as
        make up 10,000 steps, but from 5 to 400.""",
    )
    n_tangents: int | str = parameter(
        default="auto",
        constraints=[Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        kind='int or "auto"',
        doc="""Directions at each row, at most the number of columns and of the smallest layer's
        units. "auto": as many as hold three quarters of the squared norm of the Jacobian in the
        median row, and at most half the columns; for other tangents than those of the encoder, as
        many as there are, and 10 for local PCA.""",
    )
    tangent_source: SourceChoice = parameter(
        default="encoder",
        constraints=[StrOptions({"encoder"}), *SOURCES],
        kind='{"encoder", "local_pca"}, ("local_pca", int), estimator or callable',
        doc="""Where tangents come from: the pre-trained layers; the principal components of each
        row's nearest neighbours in the data of `fit`, 30 or as many as the tuple says; another
        encoder, of which a clone is fitted to the data of `fit` (one that is fitted is taken as it
        is if it is wrapped in :class:`~sklearn.frozen.FrozenEstimator`); or a function of X, of
        shape (n_samples, n_features), that returns directions in the units of the data, of shape
        (n_samples, n_tangents, n_features).""",
    )
    tangent_penalty: float = parameter(
        default=0.02,
        constraints=[_PENALTY],
        doc="""Weight of the squared change of outputs along the tangents of labelled rows, for
        steps of a tenth of the rows' root mean square distance from their mean.""",
    )
    unlabelled_penalty: float | tuple[float, float] = parameter(
        default=(1.0, 1.0),
        constraints=[_PENALTY, tuple],
        kind="tuple of two float, or float",
        doc="""Weights of the divergence between the predictions at an unlabelled row and after the
        move that changes them most: within its tangent plane, and in any direction of the data,
        which is virtual adversarial training [4]_. One number is for both.""",
    )
    unlabelled_step: float | tuple[float, float] = parameter(
        default=(0.28, 0.2),
        constraints=[_STEP, tuple],
        kind="tuple of two float, or float",
        doc="""Lengths of these moves, as a part of the rows' root mean square distance from their
        mean.""",
    )
    entropy_penalty: float | tuple[float, float] = parameter(
        default=(0.3, 1.0),
        constraints=[_PENALTY, tuple],
        kind="tuple of two float, or float",
        doc="""Weights, first, of the entropy of the distribution of classes at each unlabelled row;
        and of the divergence between the classes' mean probabilities over a batch's unlabelled
        rows and their frequencies, which labels tell: equal ones where the labels of the classes
        are about as many. Let the second be 0 where labelled rows were not drawn like the others,
        or with few labels of classes that are not equally frequent. One number is for both.""",
    )
    max_iter: int | str = parameter(
        default="auto",
        constraints=[Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        kind='int or "auto"',
        doc="""Epochs of fine-tuning. "auto": as many as make up 10,000 steps, but from 5 to
        200. On images whose labels are few a fifth of that costs half a percentage point of
        error.""",
    )
    output_penalty: float = preset(StackedClassifier, "output_penalty", default=0.01)
    learning_rate: float = preset(StackedClassifier, "learning_rate", default=1e-3)
    learning_rate_schedule: str = preset(
        StackedClassifier, "learning_rate_schedule", default="linear"
    )
    batch_size: int = preset(StackedClassifier, "batch_size", default=300)

    n_tangents_: int = attribute("int", "Directions at each row.")
    encoder_: StackedAutoEncoder = attribute(
        "StackedAutoEncoder",
        "The layers as pre-trained, before fine-tuning: the tangents are theirs.",
    )
    source_: object = attribute(
        "object", "What finds the tangents; that of local PCA keeps the rows of `fit`."
    )

    partial_fit = available_if(_refuses_partial_fit)(StackedClassifier.partial_fit)

    def tangents(self, X):
        """Directions along which the classifier learned to be insensitive, at rows of X.

        Returns
        -------
        directions : ndarray of shape (n_samples, n_tangents_, n_features)
            In the units of the data. Those of the encoder have unit length, and are orthogonal,
            in standardised columns.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)
        return self.source_.directions(X)

    _made_by_one = "the tangents of its layers are of rows that one process has"

    @learns(callbacks=True)
    def fit(self, X, y, sample_weight=None):
        """Pre-train the layers, find the tangents, and train all with the output on both.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes, of which ``unlabelled`` stands for an unknown one.

        Raises
        ------
        ValueError
            Before any layer is trained: if a parameter is out of its range, more tangents are
            asked for than there are columns or units, layers do not fit each other, X is not
            finite, or y has no labels or one class.
        """
        return fit_stack(self, X, y, sample_weight, tangent_stack, tangent_criterion)

    def _check_parameters(self):
        super()._check_parameters()
        check_pair("unlabelled_penalty", self.unlabelled_penalty, _PENALTY)
        check_pair("unlabelled_step", self.unlabelled_step, _STEP)
        check_pair("entropy_penalty", self.entropy_penalty, _PENALTY)
        within, _ = pair(self.unlabelled_penalty)
        learns_tangents = self.n_fine_tuned_layers != 0 and max(self.tangent_penalty, within) > 0
        if learns_tangents and self.pretraining is None and self.tangent_source == "encoder":
            raise ValueError(
                "pretraining=None leaves random layers, whose tangents say nothing of the data. "
                "Use tangent_source='local_pca', pre-train, or set tangent_penalty and "
                "unlabelled_penalty to 0."
            )
