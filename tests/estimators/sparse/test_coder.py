"""Sparse coding as an estimator: given and learned dictionaries, codes, errors, the contract."""

import pickle
import re

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import (
    PCA,
    DictionaryLearning,
    FastICA,
    MiniBatchDictionaryLearning,
    sparse_encode,
)
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, orthogonal_mp
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.random_projection import SparseRandomProjection

from skae import PSD, RBM, AutoEncoder, CollapsedCodeWarning, SparseCoder
from skae.engine.optimisation import compilation

EXACT = {"inference_tol": 1e-9, "inference_max_iter": 50_000}


def unit_rows(D):
    return D / np.linalg.norm(D, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def atoms():
    return unit_rows(np.random.default_rng(0).normal(size=(20, 12)))


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(1).normal(size=(60, 12))


@pytest.fixture(scope="module")
def standardized(digits):
    return StandardScaler().fit_transform(digits[0])


def objective(Z, D, alpha, code=None, ridge=0.0):
    """Mean over rows of the formula, at codes or at the best codes."""
    if code is None:
        code = SparseCoder(dictionary=D, alpha=alpha, inference_tol=1e-6).fit(Z).transform(Z)
    squares = 0.5 * ((Z - code @ D) ** 2).sum(1) + 0.5 * ridge * (code**2).sum(1)
    return (squares + alpha * np.abs(code).sum(1)).mean()


def used(codes):
    return (codes != 0).any(axis=0)


# Codes for a given dictionary


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_codes_are_those_of_scikit_learn(rows, atoms, positive, ridge):
    alpha = 0.4
    coder = SparseCoder(dictionary=atoms, alpha=alpha, positive=positive, ridge=ridge, **EXACT)
    codes = coder.fit(rows).transform(rows)
    options = {"fit_intercept": False, "positive": positive, "tol": 1e-12, "max_iter": 100_000}
    # scikit-learn divides the squared error by the number of features.
    reference = (
        ElasticNet(alpha=(alpha + ridge) / 12, l1_ratio=alpha / (alpha + ridge), **options)
        if ridge
        else Lasso(alpha=alpha / 12, **options)
    )
    expected = reference.fit(atoms.T, rows.T).coef_
    # One convex problem, two solvers: the same minimum,
    assert objective(rows, atoms, alpha, codes, ridge) == pytest.approx(
        objective(rows, atoms, alpha, expected, ridge), rel=1e-6
    )
    # and, as it is unique, the same support.
    np.testing.assert_array_equal(np.abs(codes) > 1e-4, np.abs(expected) > 1e-4)
    if not ridge:
        expected = sparse_encode(
            rows, atoms, algorithm="lasso_cd", alpha=alpha, positive=positive, max_iter=100_000
        )
        # sparse_encode's alpha is this one's.
        assert objective(rows, atoms, alpha, codes) == pytest.approx(
            objective(rows, atoms, alpha, expected), rel=1e-6
        )


def test_pursuit_is_that_of_scikit_learn(rows, atoms):
    coder = SparseCoder(dictionary=atoms, transform_algorithm="omp", n_nonzero_coefs=4).fit(rows)
    expected = orthogonal_mp(atoms.T, rows.T, n_nonzero_coefs=4).T
    # The same greedy choice, and least squares.
    np.testing.assert_allclose(coder.transform(rows), expected, atol=1e-9)
    # A tenth of the features, at least one.
    assert ((coder.set_params(n_nonzero_coefs=None).transform(rows) != 0).sum(1) == 1).all()


@pytest.mark.parametrize("positive", [False, True])
def test_the_threshold_is_its_formula(rows, atoms, positive):
    coder = SparseCoder(
        dictionary=atoms, transform_algorithm="threshold", alpha=0.3, positive=positive
    )
    c = rows @ atoms.T
    c = np.maximum(c, 0) if positive else c
    # sign(c) max(|c| - alpha, 0).
    expected = np.sign(c) * np.maximum(np.abs(c) - 0.3, 0)
    np.testing.assert_allclose(coder.fit_transform(rows), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_units_do_not_matter(rows, atoms, dtype, scale):
    expected = SparseCoder(dictionary=atoms, alpha=0.4, **EXACT).fit(rows).transform(rows)
    X = (rows * scale).astype(dtype)
    codes = SparseCoder(dictionary=atoms, alpha=0.4 * scale, inference_tol=1e-6).fit_transform(X)
    # h(s x; s alpha) = s h(x; alpha).
    reached = objective(rows, atoms, 0.4, codes.astype(float) / scale)
    assert reached == pytest.approx(objective(rows, atoms, 0.4, expected), rel=5e-6)
    # The type of the rows is that of the codes.
    assert codes.dtype == dtype


def test_codes_of_a_row_do_not_depend_on_the_others(rows, atoms):
    for options in ({}, {"transform_algorithm": "omp"}, {"group_shape": 2, "alpha": 0.05}):
        coder = SparseCoder(dictionary=atoms, **{**EXACT, **options}).fit(rows)
        # Every row has its own problem; a batch shares the arithmetic only.
        np.testing.assert_allclose(
            coder.transform(rows[7:9]), coder.transform(rows)[7:9], atol=2e-4
        )


def test_split_signs(rows, atoms):
    coder = SparseCoder(dictionary=atoms).fit(rows)
    codes, reconstructed = coder.transform(rows), coder.reconstruct(rows)
    split = coder.set_params(split_sign=True).transform(rows)
    # max(h, 0), then max(-h, 0),
    np.testing.assert_array_equal(split, np.hstack([np.maximum(codes, 0), np.maximum(-codes, 0)]))
    # which is twice as many features,
    assert len(coder.get_feature_names_out()) == 40
    # and from which nothing is lost.
    np.testing.assert_allclose(coder.inverse_transform(split), reconstructed, atol=1e-12)


@pytest.mark.parametrize("split_sign", [False, True])
def test_sparse_output(rows, atoms, split_sign):
    coder = SparseCoder(dictionary=atoms, split_sign=split_sign).fit(rows)
    dense, reconstructed = coder.transform(rows), coder.reconstruct(rows)
    codes = coder.set_params(sparse_output=True).transform(rows)
    # The same numbers, of which only those that are not zero are stored.
    assert codes.format == "csr"
    assert codes.nnz == np.count_nonzero(dense)
    np.testing.assert_array_equal(codes.toarray(), dense)
    np.testing.assert_allclose(coder.inverse_transform(codes), reconstructed, atol=1e-12)
    coder.set_output(transform="pandas")
    with pytest.raises(ValueError, match="sparse"):  # scikit-learn's own words
        coder.transform(rows)
    frame = coder.set_params(sparse_output=False).transform(rows)
    assert list(frame.columns) == list(coder.get_feature_names_out())


def test_sparse_input_is_dense_input(rows, atoms):
    X = np.where(np.abs(rows) > 1, rows, 0)
    coder = SparseCoder(dictionary=atoms, **EXACT).fit(X)
    # Zeros that are not stored are zeros all the same.
    np.testing.assert_allclose(
        coder.transform(sparse.csr_array(X)), coder.transform(X), rtol=0, atol=1e-9
    )
    learned = SparseCoder(5, max_iter=3, random_state=0).fit(X).components_
    again = SparseCoder(5, max_iter=3, random_state=0).fit(sparse.csr_array(X)).components_
    np.testing.assert_allclose(learned, again, atol=1e-6)


# Dictionaries of other models


def lenders():
    return {
        "PCA": (PCA(6), lambda m: (m.components_, m.mean_, 1)),
        "KMeans": (
            KMeans(6, n_init=1, random_state=0),
            lambda m: (unit_rows(m.cluster_centers_), 0, 1),
        ),
        "DictionaryLearning": (
            DictionaryLearning(6, max_iter=3, random_state=0),
            lambda m: (unit_rows(m.components_), 0, 1),
        ),
        "RBM": (
            RBM(6, max_iter=2, random_state=0),
            lambda m: (unit_rows(m.components_), m.columns_.shift, m.columns_.scale),
        ),
        "AutoEncoder": (
            AutoEncoder(6, loss="gaussian", tied_weights=False, max_iter=2, random_state=0),
            lambda m: (unit_rows(m.decoder_components_), m.columns_.shift, m.columns_.scale),
        ),
        "PSD": (
            PSD(6, max_iter=2, random_state=0),
            lambda m: (unit_rows(m.decoder_components_), m.columns_.shift, m.columns_.scale),
        ),
    }


@pytest.mark.parametrize("name", lenders())
def test_the_components_of_another_model(name, rows):
    X = 3 * rows + 5
    model, expect = lenders()[name]
    coder = SparseCoder(dictionary=model, alpha=0.1, **EXACT).fit(X)
    # The parameter is the user's: a clone of it is fitted,
    assert not [attribute for attribute in vars(model) if attribute.endswith("_")]
    fitted = clone(model).fit(X)
    D, shift, scale = expect(fitted)
    np.testing.assert_allclose(coder.components_, D, atol=1e-12)
    # and it is a dictionary for the columns as that model saw them.
    expected = SparseCoder(dictionary=D, alpha=0.1, **EXACT).fit_transform((X - shift) / scale)
    np.testing.assert_allclose(coder.transform(X), expected, atol=1e-6)
    # Reconstructions are in the units of the data.
    np.testing.assert_allclose(coder.reconstruct(X), (expected @ D) * scale + shift, atol=1e-5)
    # A model that is fitted already is used as it is; later parts of the data change nothing.
    again = SparseCoder(dictionary=fitted, alpha=0.1, **EXACT).partial_fit(X[:20])
    again.partial_fit(X[20:])
    np.testing.assert_array_equal(again.components_, coder.components_)


def test_folds_fit_their_own_lender_unless_it_is_frozen(rows):
    pca = PCA(4).fit(rows)
    search = {"param_grid": {"alpha": [0.1, 0.2]}, "cv": 3}
    loose = GridSearchCV(SparseCoder(dictionary=pca), **search, refit=False)
    # Clones are not fitted, so that no fold sees the rows that it is tested on.
    assert not hasattr(clone(loose.estimator).dictionary, "components_")
    loose.fit(rows)
    frozen = SparseCoder(dictionary=FrozenEstimator(pca))
    half = clone(frozen).fit(rows[:20])
    # FrozenEstimator is scikit-learn's way to keep a fit through clones.
    np.testing.assert_allclose(half.components_, pca.components_)
    assert not np.allclose(
        clone(SparseCoder(dictionary=pca)).fit(rows[:20]).components_, pca.components_
    )


def test_the_array_that_was_given_stays_the_users(rows, atoms):
    D = atoms.copy()
    coder = SparseCoder(dictionary=D).fit(rows)
    codes = coder.transform(rows)
    # An array is taken as it is, also where its atoms are not of norm 1,
    doubled = SparseCoder(dictionary=2 * atoms).fit(rows)
    np.testing.assert_array_equal(doubled.components_, 2 * atoms)
    # and what becomes of it later is not the fitted model's concern.
    D[:] = 0
    np.testing.assert_array_equal(coder.transform(rows), codes)


# Learning


@pytest.mark.parametrize("optimizer", ["block", "adam"])
def test_a_planted_dictionary_is_found(optimizer):
    rng = np.random.default_rng(0)
    D = unit_rows(rng.normal(size=(8, 16)))
    code = rng.normal(size=(800, 8)) * (rng.random((800, 8)) < 0.15)
    X = code @ D + 0.01 * rng.normal(size=(800, 16))
    coder = SparseCoder(
        12, alpha=0.1, loss="squared_error", optimizer=optimizer, learning_rate=1e-2,
        batch_size=100, max_iter=40, n_iter_no_change=None, random_state=0,
    ).fit(X)  # fmt: skip
    cosine = np.abs(D @ coder.components_.T)
    # Sparse factors of random signs are identified up to order and sign. With no atom to spare,
    # two that share two factors are a local minimum; with four, all factors are found.
    assert (cosine.max(axis=1) > 0.95).all()
    np.testing.assert_allclose(np.linalg.norm(coder.components_, axis=1), 1, rtol=1e-6)


def test_learning_is_not_worse_than_scikit_learns(standardized):
    standardized, alpha = standardized[:600], 1.0
    options = {"max_iter": 8, "batch_size": 64, "random_state": 0}
    ours = SparseCoder(16, alpha=alpha, loss="squared_error", **options).fit(standardized)
    theirs = MiniBatchDictionaryLearning(16, alpha=alpha, fit_algorithm="cd", **options)
    reached = objective(standardized, ours.components_, alpha)
    reference = objective(standardized, theirs.fit(standardized).components_, alpha)
    # Both descend on the same objective: over seeds it is 0.9 of scikit-learn's.
    assert reached < reference
    # Every atom has rows that it is for.
    assert used(ours.transform(standardized)).all()
    # The curve is the objective: it falls.
    assert ours.loss_curve_[-1] < ours.loss_curve_[0]
    adam = SparseCoder(
        16, alpha=alpha, loss="squared_error", optimizer="adam", learning_rate=1e-2, **options
    ).set_params(max_iter=15)
    # Another way down to nearly the same place, by more steps: within a tenth.
    assert objective(standardized, adam.fit(standardized).components_, alpha) < 1.1 * reached


def test_uneven_parts_are_a_fit(standardized):
    Z = standardized[:1200]
    options = {"alpha": 1.0, "loss": "squared_error", "batch_size": 100, "random_state": 0}
    whole = SparseCoder(12, max_iter=4, n_iter_no_change=None, **options).fit(Z)
    parts = SparseCoder(12, **options)
    for _ in range(4):
        for part in np.split(Z, [37, 600, 601, 1150]):
            parts.partial_fit(part)
    # Rows count alike in whatever parts they come; 3% is what the order of batches makes of it.
    assert objective(Z, parts.components_, 1.0) < 1.03 * objective(Z, whole.components_, 1.0)
    assert parts.n_iter_ == 20


def test_training_goes_on_by_another_optimizer(standardized):
    coder = SparseCoder(8, alpha=1.0, loss="squared_error", random_state=0, optimizer="adam")
    Z = standardized[:600]
    coder.partial_fit(Z)
    before = objective(Z, coder.components_, 1.0)
    # Statistics begin where they are first asked for.
    coder.set_params(optimizer="block").partial_fit(Z)
    assert objective(Z, coder.components_, 1.0) < before


def test_dead_atoms_come_alive(standardized):
    coder = SparseCoder(
        10, alpha=1.0, loss="squared_error", batch_size=64, max_iter=1, random_state=0,
        optimizer="adam",
    )  # fmt: skip
    dead = coder.fit(standardized).components_
    dead[1:] = np.eye(64)[0]  # a pixel that is always white
    coder.set_params(optimizer="block", max_iter=12, warm_start=True).fit(standardized)
    # Rows that are reconstructed badly take the place of atoms that none uses.
    assert used(coder.transform(standardized)).all()


def test_the_number_of_atoms_that_is_chosen(rows):
    options = {"max_iter": 1, "random_state": 0, "alpha": 0.1}
    # Twice the features, and a fifth of the rows at most.
    assert SparseCoder(**options).fit(rows[:, :4]).n_components_ == 8
    assert SparseCoder(**options).fit(rows).n_components_ == 12
    assert SparseCoder(**options).fit(rows[:3, :4]).n_components_ == 1
    wide = np.random.default_rng(0).normal(size=(1500, 200))
    # And 256 at most.
    assert SparseCoder(**options, loss="squared_error").set_params(alpha=9.0).fit(
        wide
    ).n_components_ == (256)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_seed_gives_the_same_bits(standardized, dtype):
    X = standardized[:300].astype(dtype)
    options = {"max_iter": 3, "alpha": 1.0, "loss": "squared_error"}
    first, again, other = (
        SparseCoder(6, random_state=seed, **options).fit(X).components_ for seed in (0, 0, 1)
    )
    # By the seed and by nothing else.
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    # Learned and kept in the type of the data.
    assert first.dtype == dtype


def test_the_course_of_a_training(standardized, capsys):
    X = standardized[:400]
    coder = SparseCoder(
        6, alpha=1.0, loss="squared_error", early_stopping=True, max_iter=8, random_state=0,
        verbose=True, warm_start=True,
    ).fit(X)  # fmt: skip
    # Rows are held out, and watched.
    assert len(coder.validation_curve_) == coder.n_iter_
    assert "SparseCoder" in "".join(capsys.readouterr())
    first = coder.components_.copy()
    coder.set_params(max_iter=1, learning_rate=1e-9, optimizer="adam", early_stopping=False)
    # A warm start begins where the last fit ended.
    np.testing.assert_allclose(coder.fit(X).components_, first, atol=1e-6)


def test_a_pickle_is_small_and_the_same_model(rows):
    coder = SparseCoder(6, max_iter=2, random_state=0).fit(rows)
    copy = pickle.dumps(coder)
    # The dictionary, what is known of its use (A, B and the random state), and none of the rows.
    assert len(copy) < 8 * (2 * 6 * 12 + 6 * 6 + 10 * 12) + 5056 + 4000
    np.testing.assert_array_equal(pickle.loads(copy).transform(rows), coder.transform(rows))


def test_grid_search(digits):
    X, y = 16 * digits[0][:200, 2:30], digits[1][:200]
    pipeline = make_pipeline(
        SparseCoder(max_iter=2, random_state=0), LogisticRegression(max_iter=500)
    )
    grid = {"sparsecoder__alpha": [1.0, 3.0], "sparsecoder__n_components": [8, 12]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    # Ten classes: codes carry what tells them apart, by whatever they are searched.
    assert search.best_score_ > 0.5


def test_neighbours_on_a_map_are_active_together(digits):
    images = digits[0][:100].reshape(-1, 8, 8)
    patches = np.vstack(
        [extract_patches_2d(i, (5, 5), max_patches=8, random_state=0).reshape(8, -1)
         for i in images]
    )  # fmt: skip
    coder = SparseCoder(
        36, alpha=0.05, group_shape=3, max_iter=4, inference_max_iter=200, random_state=0
    ).fit(patches)
    size = np.abs(coder.transform(patches))
    correlation = np.nan_to_num(np.corrcoef(size.T + 1e-9 * np.arange(len(size))))
    y, x = np.divmod(np.arange(36), 6)
    apart = [np.abs(a[:, None] - a) for a in (y, x)]
    distance = sum(np.minimum(a, 6 - a) for a in apart)
    near, far = correlation[distance == 1].mean(), correlation[distance >= 4].mean()
    # Units that share groups are cheap together; those that share none are not:
    # over seeds, near - far is 0.11 +- 0.02.
    assert near > far + 0.05


# Warnings


def test_codes_that_vanish_name_the_largest_useful_alpha(rows, atoms):
    coder = SparseCoder(dictionary=atoms, alpha=1e3)
    with pytest.warns(CollapsedCodeWarning, match="largest useful alpha") as caught:
        coder.fit(rows)
    named = float(re.search(r"largest useful alpha is ([\d.e+-]+)", str(caught[0].message))[1])
    largest = coder.largest_alpha(rows)
    assert named == pytest.approx(largest, rel=1e-3)
    # h = 0 is optimal if and only if all |x D^T| <= alpha.
    assert largest == pytest.approx(np.abs(rows @ atoms.T).max(), rel=1e-9)
    assert np.count_nonzero(coder.set_params(alpha=0.999 * largest).transform(rows)) == 1
    for sparse_output in (False, True):
        coder.set_params(alpha=1.001 * largest, sparse_output=sparse_output)
        with pytest.warns(CollapsedCodeWarning, match="largest useful alpha"):
            coder.transform(rows)
    # Rows of zeros are no reason for a warning.
    assert not coder.transform(np.zeros((2, 12))).toarray().any()


def test_the_largest_alpha_of_groups(rows):
    X = rows[:, :9]
    coder = SparseCoder(dictionary=np.eye(9), group_shape=2, alpha=1.0, **EXACT).fit(X)
    largest = coder.largest_alpha(X)
    with pytest.warns(CollapsedCodeWarning):
        coder.set_params(alpha=largest).transform(X)
    # A bound from above, and of the right size.
    assert coder.set_params(alpha=0.7 * largest).transform(X).any()


def test_degenerate_atoms_are_reported(rows, atoms):
    D = atoms.copy()
    D[3], D[7] = 0, -2 * D[5]
    with pytest.warns(UserWarning, match="dictionary") as caught:
        SparseCoder(dictionary=D).fit(rows)
    messages = [str(warning.message) for warning in caught]
    # A zero atom is never used, and of parallel ones any share is optimal.
    assert re.search(r"\[3\].*zero.*Remove", messages[0])
    assert re.search("Atoms 5 and 7.*not unique.*Remove", messages[1])
    # An atom and its negative are two where codes can not be negative.
    signed = SparseCoder(dictionary=np.vstack([atoms, -atoms]), positive=True)
    signed.fit(rows)


# Errors

BAD = {
    "features": ({"dictionary": np.ones((2, 5))}, "atoms of 5 features, but X has 12"),
    "one axis": ({"dictionary": np.ones(12)}, "shape .n_components, n_features.*one atom per row"),
    "NaN": ({"dictionary": np.full((2, 12), np.nan)}, "finite array"),
    "text": ({"dictionary": "pca"}, "finite array.*estimator or None"),
    "no components": ({"dictionary": StandardScaler()}, "has none of.*Pass an estimator"),
    "a class": ({"dictionary": PCA}, "is a class: pass an instance"),
    "an array by place": ({"n_components": np.eye(12)}, r"SparseCoder\(dictionary="),
    "groups": ({"n_components": 6, "map_shape": (2, 2), "group_shape": 2}, "n_components=6"),
    "large groups": ({"n_components": 6, "group_shape": 3}, "smaller groups"),
    "pursuit": ({"transform_algorithm": "omp", "positive": True}, "'lasso' or positive=False"),
    "threshold": ({"transform_algorithm": "threshold", "group_shape": 1}, "'lasso'.*no groups"),
    "alpha": ({"alpha": 0.0}, "alpha"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_before_training(name, rows, atoms, monkeypatch):
    parameters, message = BAD[name]
    fitted = SparseCoder(dictionary=atoms).fit(rows)
    codes, before = fitted.transform(rows), pickle.dumps(fitted.weights_)

    coder = SparseCoder(**parameters)

    def draw(*args):
        raise AssertionError("training started")

    monkeypatch.setattr(torch, "Generator", draw)
    # The parameter and the remedy, before any work is done.
    with pytest.raises((ValueError, TypeError), match=f"(?s){message}"):
        coder.fit(rows)
    assert not hasattr(coder, "weights_")
    with pytest.raises((ValueError, TypeError)):
        clone(fitted).set_params(**{"dictionary": None, **parameters}).fit(rows)
    with pytest.raises((ValueError, TypeError)):
        fitted.set_params(**{"dictionary": None, **parameters}).fit(rows)
    # What was fitted before is still there.
    assert pickle.dumps(fitted.weights_) == before
    fitted.set_params(**SparseCoder(dictionary=atoms).get_params(deep=False))
    np.testing.assert_array_equal(fitted.transform(rows), codes)


# Edges


@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
@pytest.mark.parametrize("loss", ["gaussian", "squared_error"])
def test_tables_that_say_little(rows, loss):
    tables = {
        "one row": rows[:1],
        "one column": rows[:, :1],
        "constant": np.ones((30, 3)),
        "zeros": np.zeros((30, 3)),
        "one constant column": np.hstack([rows, np.ones((60, 1))]),
    }
    for name, X in tables.items():
        for n_components in (None, 2 * len(X)):
            coder = SparseCoder(n_components, loss=loss, max_iter=2, random_state=0).fit(X)
            # Atoms have unit norm, whatever they were drawn from.
            np.testing.assert_allclose(
                np.linalg.norm(coder.components_, axis=1), 1, rtol=1e-6, err_msg=name
            )
            assert np.isfinite(coder.reconstruct(X)).all(), name
            assert np.isfinite(coder.score(X)), name


def test_sparse_dictionaries_are_atoms_like_others(rows):
    dense = np.eye(12)[:5] + 0.1
    expected = SparseCoder(dictionary=dense).fit_transform(rows)
    # The same numbers, however they are stored.
    np.testing.assert_array_equal(
        SparseCoder(dictionary=sparse.csr_array(dense)).fit_transform(rows), expected
    )
    lender = SparseRandomProjection(4, random_state=0).fit(rows)
    atoms = SparseCoder(dictionary=lender).fit(rows).components_
    # Components that are stored sparsely are scaled to norm 1 as others are.
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1.0)


def test_independent_components_lend_their_mixing_matrix():
    generator = np.random.default_rng(0)
    sources = generator.laplace(size=(1000, 4)) * (generator.random((1000, 4)) < 0.3)
    X = sources @ generator.normal(size=(4, 4))
    ica = FastICA(4, whiten="unit-variance", random_state=0).fit(X)
    coder = SparseCoder(dictionary=ica, alpha=0.01).fit(X)
    unmixing = SparseCoder(
        dictionary=ica.components_ / np.linalg.norm(ica.components_, axis=1, keepdims=True),
        alpha=0.01,
    ).fit(X)
    # The data are sums of the columns of the mixing matrix; the filters that take them apart
    # need more of the penalty for the same rows.
    cost = [
        0.5 * np.square(model.reconstruct(X) - X).sum() + 0.01 * np.abs(model.transform(X)).sum()
        for model in (coder, unmixing)
    ]
    assert cost[0] < cost[1]


def test_a_few_more_rows_hardly_move_what_many_have_taught(digits):
    X = 16 * digits[0]
    coder = SparseCoder(30, max_iter=5, random_state=0).fit(X)
    before, score = coder.components_.copy(), coder.score(X)
    coder.partial_fit(X[:10])
    # Ten rows after thousands: the statistics of the fit go on, and outweigh them.
    assert np.linalg.norm(coder.components_ - before, axis=1).max() < 0.1
    assert coder.score(X) > score - 0.1


def test_a_dictionary_that_changes(rows):
    first, second = np.eye(12)[:4], np.eye(12)[4:10]
    coder = SparseCoder(dictionary=first, warm_start=True).fit(rows)
    # There is nothing to continue in a dictionary that is given: the new one counts.
    np.testing.assert_array_equal(coder.set_params(dictionary=second).fit(rows).components_, second)
    learned = SparseCoder(4, max_iter=2, random_state=0).fit(rows)
    learned.set_params(dictionary=first).partial_fit(rows)
    np.testing.assert_array_equal(learned.components_, first)
    # Training would silently move the user's atoms.
    with pytest.raises(ValueError, match="a dictionary that was given"):
        learned.set_params(dictionary=None).partial_fit(rows)


def test_greedy_codes_do_not_vanish_with_alpha(rows):
    coder = SparseCoder(dictionary=np.eye(12), transform_algorithm="omp", alpha=1e6)
    # Matching pursuit has no alpha: no warning that it is too large, and codes.
    assert coder.fit_transform(rows).any()


def test_default_number_of_atoms_on_a_map(digits):
    X = 16 * digits[0][:395]
    settings = {"group_shape": 3, "max_iter": 1, "random_state": 0}
    # 79 atoms, a prime, would be a map on which no neighbourhood fits.
    assert SparseCoder(**settings).fit(X).n_components_ == 64
    assert SparseCoder(map_shape=(5, 6), **settings).fit(X).n_components_ == 30


def test_a_stream_is_not_judged_by_its_first_rows(digits):
    X = 16 * digits[0]
    # What suits five rows does not suit those to come.
    coder = SparseCoder(loss="squared_error", random_state=0).partial_fit(X[:5])
    assert coder.n_components_ == 128


@pytest.mark.skipif(not compilation.is_compiled(), reason="numba is not installed")
@pytest.mark.parametrize("positive", [False, True])
def test_codes_are_the_same_with_numba_and_without(positive, monkeypatch):
    X = np.random.default_rng(0).normal(size=(300, 20))
    options = {"alpha": 0.8, "positive": positive, "random_state": 0, "max_iter": 2, **EXACT}
    fast = SparseCoder(15, **options).fit(X)
    psd = PSD(15, alpha=0.8, inference="optimal", max_iter=2, random_state=0, **EXACT).fit(X)
    codes, optimal, gap = fast.transform(X), psd.transform(X), psd.prediction_gap(X)
    assert fast.inference_algorithm_ == "feature_sign"
    monkeypatch.setattr(compilation, "is_compiled", lambda: False)
    # A model that was learned with the extra codes the same where it is missing,
    there = pickle.loads(pickle.dumps(fast))
    np.testing.assert_allclose(there.transform(X), codes, rtol=0, atol=1e-7)
    psd = pickle.loads(pickle.dumps(psd))
    np.testing.assert_allclose(psd.transform(X), optimal, rtol=0, atol=1e-4)
    np.testing.assert_allclose(psd.prediction_gap(X), gap, rtol=0, atol=1e-7)
    # and a dictionary that is learned there, from codes to a hundredth, is nearly this one.
    plain = SparseCoder(15, **options).fit(X)
    np.testing.assert_allclose(plain.components_, fast.components_, rtol=0, atol=5e-2)
    assert plain.inference_algorithm_ != "feature_sign"
