"""Every public estimator, as small and quick as its constructor allows, with data for it.

The list is made from ``skae.__all__``: what becomes public is in every test that goes over it.
A test imports what it needs::

    @pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
    def test_codes(case):
        codes = case.fit().transform(case.X)

Where the code is one by construction, ``families(TRANSFORMERS)`` are enough.
"""

import copy
import inspect

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor

import skae
from skae._validation import BaseSearchCV

# A constructor that has one of these parameters gets its value.
SMALL = {
    "layer_sizes": (3,),
    "n_components": 3,
    "image_shape": (6, 6),
    "patch_shape": (3, 3),
    "n_patches": 200,
    "batch_size": 20,
    "max_iter": 3,
    "encoder": skae.AutoEncoder(3, max_iter=3, random_state=0),
    "estimator": skae.DenoisingAutoEncoder(3, max_iter=3, random_state=0),
    "n_estimators": 2,
    "random_state": 0,
    # What makes the outputs of all that learn codes alike: codes, of numbers as they are.
    "include_columns": False,
    "numbers": "auto",
}
# Three relu units may all be dead from the start.
SMALL_OF = {
    "DeepRecurrentAutoEncoder": {"layer_sizes": (4, 3), "n_steps": 3},
    "GenerativeStochasticNetwork": {"layer_sizes": (4, 3), "n_steps": 2, "hidden_noise": 0.1},
    "DeepBoltzmannMachine": {"layer_sizes": (4, 3), "n_gibbs_steps": 1, "n_chains": 5},
    "TableFeatures": {"activation": "tanh", "hidden_layer_sizes": ()},
    # Codes need not be accurate here, and each of a fit's many inferences takes a share of it.
    "SparseCoder": {"inference_tol": 1e-2},
    "PSD": {"inference_tol": 1e-2, "inference_max_iter": 4},
    "ConvolutionalPSD": {"inference_tol": 1e-2, "inference_max_iter": 2, "filter_shape": 3},
    # The layer's own epochs are not those of fine-tuning.
    "ManifoldTangentClassifier": {"layer": skae.ContractiveAutoEncoder(max_iter=3)},
    # The output alone is drawn, so that few moves are enough.
    "PosteriorEnsemble": {
        "estimator": skae.StackedClassifier(
            (3,), layer="auto", output="linear", n_fine_tuned_layers=0, max_iter=3, random_state=0
        ),
        "n_members": 8, "n_chains": 1, "burn_in": 10, "thinning": 1, "n_steps": 4,
    },
}  # fmt: skip


def _columns():
    """Forty rows of four correlated columns with different means and scales."""
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(40, 2))
    noise = generator.normal(size=(40, 4))
    return (hidden @ generator.normal(size=(2, 4)) + 0.3 * noise) * [1, 2, 5, 0.1] + [0, 3, -9, 1]


def _images():
    """Forty images of 6 x 6 pixels: a bright bar at some place, and noise."""
    generator = np.random.default_rng(0)
    images = generator.normal(0.0, 0.1, size=(40, 6, 6))
    for row, image in enumerate(images):
        image[row % 6] += 1.0
    return images.reshape(40, 36)


class Case:
    """A public estimator.

    Parameters
    ----------
    cls : type

    Attributes
    ----------
    X, y : ndarray
        Data for it; ``y`` is None where it learns from X alone.
    is_transformer, is_classifier, is_regressor : bool
    is_trained : bool
        Whether it makes gradient steps, epoch by epoch, and can continue.
    """

    def __init__(self, cls):
        self.cls, self._names = cls, set(inspect.signature(cls).parameters)
        model = self.make()
        self.is_transformer = hasattr(cls, "transform")
        self.is_classifier, self.is_regressor = is_classifier(model), is_regressor(model)
        self.is_trained = self.takes("max_iter")
        self.X = _images() if self.takes("image_shape") else _columns()
        self.y, self._fitted = None, None
        if self.is_classifier:
            self.y = np.array(["no", "yes"])[(self.X[:, 0] > np.median(self.X[:, 0])).astype(int)]
        if self.is_regressor:
            self.y = self.X @ np.arange(self.X.shape[1])

    def __str__(self):
        return self.cls.__name__

    def takes(self, name):
        """Whether the constructor has a parameter."""
        return name in self._names

    def make(self, **parameters):
        """A small one; parameters that this class does not have are an error."""
        given = {name: value for name, value in SMALL.items() if self.takes(name)}
        given |= SMALL_OF.get(self.cls.__name__, {}) | parameters
        if isinstance(given.get("layer"), skae.AutoEncoder):
            # One that is given shows its own training, where one by name is shown by its model.
            given["layer"] = clone(given["layer"]).set_params(verbose=given.get("verbose", False))
        return self.cls(**given)

    def fit(self, X=None, **parameters):
        """A small one that has learned from the data."""
        return self.make(**parameters).fit(self.X if X is None else X, self.y)

    @property
    def fitted(self):
        """A copy of what `fit` returns, for tests of what comes after it: it is trained once."""
        if self._fitted is None:
            self._fitted = self.fit()
        return copy.deepcopy(self._fitted)

    def output(self, model, X=None):
        """What it is there for: codes, or predictions."""
        X = self.X if X is None else X
        return model.transform(X) if self.is_transformer else model.predict(X)


def is_estimator(value):
    """Whether a public name is an estimator of this package.

    Searches are scikit-learn's, with its constructors; tests of their own have their contract.
    """
    is_class = isinstance(value, type) and issubclass(value, BaseEstimator)
    return is_class and not issubclass(value, BaseSearchCV)


CASES = [Case(cls) for cls in map(vars(skae).get, skae.__all__) if is_estimator(cls)]
TRAINED = [case for case in CASES if case.is_trained]
TRANSFORMERS = [case for case in CASES if case.is_transformer]
PREDICTORS = [case for case in CASES if case.is_classifier or case.is_regressor]
# Transformers that are trained: they continue, reconstruct and score.
LEARNERS = [case for case in TRAINED if case.is_transformer]
# Those that are one training, by a rule of the steps and a rate that their parameters choose.
GRADIENT_LEARNERS = [case for case in LEARNERS if not case.takes("layer_sizes")]


def families(cases):
    """The first case of each package of the face.

    For what the classes of a family have in common: a base class, a decorator or a function that
    checks. What a class does by itself is tested on all of them.
    """
    first = {}
    for case in cases:
        first.setdefault(case.cls.__module__.split(".")[2], case)
    return list(first.values())
