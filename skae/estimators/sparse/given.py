"""Dictionaries that the user gives to a sparse coder: arrays, or estimators that have one."""

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array

from skae._validation import check_is_fitted
from skae.estimators.face.outcomes import warn

# Where an estimator keeps vectors that add up to its input, first choice first.
_ATTRIBUTES = ("decoder_components_", "mixing_", "components_", "cluster_centers_")
# Cosine from which on two atoms count as one.
_SAME = 1 - 1e-6


def find_dictionary(dictionary, X, columns, positive=False):
    """The atoms of the ``dictionary`` parameter, and the columns that they are for.

    Parameters
    ----------
    dictionary : array-like of shape (n_components, n_features), or estimator
        An array is taken as it is. An estimator lends its decoder's components, components or
        cluster centres, at unit norm; one that is not fitted is fitted on X first.
    X : ndarray or CSR matrix of shape (n_samples, n_features)
    columns : Columns
        Of X, as they are.
    positive : bool
        Whether codes are at least 0, so that an atom and its negative are two.

    Returns
    -------
    atoms : ndarray of shape (n_components, n_features)
    columns : Columns
        With the shift and scale that the estimator gave its input.

    Raises
    ------
    ValueError
        If there are no atoms to be found, or not for as many features as X has.
    """
    atoms, shift, scale = dictionary, None, None
    if isinstance(dictionary, type):
        raise ValueError(f"dictionary={dictionary!r} is a class: pass an instance of it.")
    if hasattr(dictionary, "fit"):
        model = _fitted(dictionary, X)
        names = [name for name in _ATTRIBUTES if getattr(model, name, None) is not None]
        if not names:
            raise ValueError(
                f"dictionary={dictionary!r} has none of {', '.join(_ATTRIBUTES)} once it is "
                "fitted. Pass an estimator of one linear layer, or an array of atoms."
            )
        atoms = getattr(model, names[0])
        atoms = atoms.toarray() if sparse.issparse(atoms) else atoms
        atoms = check_array(atoms, dtype=np.float64, input_name=names[0])
        atoms = atoms.T if names[0] == "mixing_" else atoms
        norm = np.linalg.norm(atoms, axis=1, keepdims=True)
        atoms = atoms / np.where(norm > 0, norm, 1)
        if hasattr(model, "columns_"):
            shift, scale = model.columns_.shift, model.columns_.scale
        elif hasattr(model, "mean_"):
            shift = np.asarray(model.mean_, dtype=np.float64)
            scale = np.ones_like(shift)  # the components are of columns as they are
    else:
        atoms = _as_atoms(dictionary)
    if atoms.shape[1] != X.shape[1]:
        raise ValueError(
            f"The dictionary has atoms of {atoms.shape[1]} features, but X has {X.shape[1]}. Its "
            "shape has to be (n_components, n_features): one atom per row."
        )
    _warn_of_degenerate(atoms, positive)
    return atoms, columns if shift is None else columns._replace(shift=shift, scale=scale)


def _as_atoms(array):
    array = array.toarray() if sparse.issparse(array) else array
    try:
        # A copy: what the user does to the array does not change the model.
        return check_array(
            array, dtype=[np.float64, np.float32], copy=True, input_name="dictionary"
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "dictionary has to be a finite array of shape (n_components, n_features), one atom "
            f"per row, an estimator or None. {error}"
        ) from error


def _fitted(model, X):
    try:
        check_is_fitted(model)
    except NotFittedError:
        return clone(model).fit(X)
    return model


def _warn_of_degenerate(atoms, positive):
    atoms = atoms.astype(np.float64)
    norm = np.linalg.norm(atoms, axis=1)
    zero = np.flatnonzero(norm == 0)
    if len(zero):
        warn(
            f"{len(zero)} atoms of the dictionary, the first of them {zero[:5].tolist()}, are "
            "zero: they will not be used. Remove them.",
            UserWarning,
        )
    unit = atoms / np.where(norm > 0, norm, 1)[:, np.newaxis]
    cosine = unit @ unit.T
    same = np.triu((cosine if positive else np.abs(cosine)) > _SAME, k=1)
    if same.any():
        first, second = np.argwhere(same)[0]
        warn(
            f"Atoms {first} and {second} are the first of {same.sum()} pairs of atoms of the "
            "dictionary that are multiples of each other: codes are not unique. Remove one of "
            "each pair.",
            UserWarning,
        )
