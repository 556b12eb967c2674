"""The constructor parameters of training, which all learned models share."""

from numbers import Integral, Real

import torch

from skae._validation import Interval, StrOptions
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.training import SCHEDULES
from skae.estimators.face.parameters import estimator, parameter


@estimator
class TrainingParameters:
    """Parameters of `skae.engine.optimisation.training.train`, as constructor parameters."""

    batch_size: int = parameter(
        default=100,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""int
        Rows per gradient step. An epoch's batches differ in size by one row at most.""",
    )
    learning_rate: float = parameter(
        default=1e-3,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""float
        Step size of the optimiser. Objectives are means over rows, so it does not
        depend on ``batch_size``.""",
    )
    learning_rate_schedule: str = parameter(
        default="constant",
        constraints=[StrOptions(set(SCHEDULES))],
        doc="""{"constant", "linear", "cosine"}
        Course of the learning rate over ``max_iter`` epochs: constant, or falling to
        zero linearly or along a half cosine.""",
    )
    optimizer: str = parameter(
        default="adam",
        constraints=[StrOptions(set(OPTIMIZERS))],
        doc="""{"adam", "sgd", "nesterov", "rmsprop", "adagrad"}
        The rule of the gradient steps, by torch's kernels.""",
    )
    momentum: float = parameter(
        default=0.9,
        constraints=[Interval(Real, 0, 1, closed="left")],
        doc="""float
        Momentum of "sgd", "nesterov" and "rmsprop".""",
    )
    max_iter: int = parameter(
        default=100,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""int
        Epochs at most.""",
    )
    tol: float = parameter(
        default=1e-4,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Progress that counts, as a fraction of the loss's whole fall so far.""",
    )
    n_iter_no_change: int = parameter(
        default=10,
        constraints=[Interval(Integral, 1, None, closed="left"), None],
        doc="""int or None
        Epochs without progress after which training ends. None: never before
        ``max_iter``.""",
    )
    early_stopping: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""bool
        Whether to hold out a part of the rows, watch the loss there instead of the
        training loss, and keep the weights of the best epoch.""",
    )
    validation_fraction: float = parameter(
        default=0.1,
        constraints=[Interval(Real, 0, 1, closed="neither")],
        doc="""float
        Part of the rows that ``early_stopping`` holds out.""",
    )
    warm_start: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""bool
        Whether `fit` continues from the weights of the last fit.""",
    )
    device: str = parameter(
        default="auto",
        constraints=[str, torch.device],
        doc="""str or torch.device
        "auto" takes CUDA, then MPS or XPU, then the CPU, when `fit` is called; or any
        device of torch, such as "cpu" or "cuda:1".""",
    )
    verbose: bool = parameter(
        default=False,
        constraints=["verbose"],
        doc="""bool or int
        Whether to show a progress line with losses and time left.""",
    )
    random_state: int = parameter(
        default=None,
        constraints=["random_state"],
        doc="""int, RandomState instance or None
        Seed of weights, batches and noise. The same int gives the same bits on the
        same device and number of threads.""",
    )

    _attributes_doc = """
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had string names.
    weights_ : dict of str to ndarray
        All learned parameters by name.
    columns_ : Columns
        Losses, shift, scale, mean and range of the columns; the network sees
        (x - columns_.shift) / columns_.scale.
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Training objective of each epoch, in nats per row: a mean over the epoch's
        batches, so it includes the epoch's progress.
    validation_curve_ : list of float
        Objective on the held-out rows after each epoch; empty without early stopping.
    stopping_reason_ : str
        "max_iter", "converged", "stopped" (by a callback), "interrupted" (Ctrl-C: the
        model so far was kept) or "diverged" (the best finite weights were kept).
    device_ : str
        Where the model was trained.
    """
