"""PatchWhitener and PatchFeatures against the same made by hand from their parts."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skae import AutoEncoder
from skae.engine.images import pool_grid
from skae.estimators.images.patches import PatchFeatures
from skae.estimators.images.shapes import draw_patches
from skae.estimators.images.stages import (
    LocalContrastNormalizer,
    PatchWhitener,
    Pooling,
    Rectifier,
)

SHAPE = (7, 6, 2)


@pytest.fixture
def images():
    """Smooth images of two channels: neighbouring pixels are alike."""
    noise = np.random.default_rng(0).normal(size=(60, *SHAPE))
    smooth = noise.cumsum(1).cumsum(2) + noise.sum(3, keepdims=True)
    return smooth.reshape(60, -1)


def patch_rows(X, shape, stride=1):
    """All patches of rows that are images, by scikit-learn's own extraction."""
    return np.concatenate(
        [
            extract_patches_2d(image, shape).reshape(
                SHAPE[0] - shape[0] + 1, SHAPE[1] - shape[1] + 1, -1
            )[::stride, ::stride]
            for image in X.reshape(-1, *SHAPE)
        ]
    ).reshape(-1, shape[0] * shape[1] * SHAPE[2])


# Drawing patches


def test_all_patches_are_drawn_where_there_are_no_more(images):
    drawn = draw_patches(images, SHAPE, (3, 2, 2), (1, 1), 10**6, 0).numpy()
    # Each place once, in another order.
    expected = patch_rows(images, (3, 2))
    assert_array_equal(np.unique(drawn, axis=0), np.unique(expected, axis=0))
    assert len(drawn) == len(expected)
    assert (drawn != expected).any()


def test_drawn_patches_are_patches_of_all_images(images):
    drawn = draw_patches(images, SHAPE, (3, 2, 2), (2, 1), 300, 0).numpy()
    # Which patches are drawn is a matter of the seed, not of the form.
    in_rows = draw_patches(sparse.csr_array(images), SHAPE, (3, 2, 2), (2, 1), 300, 0).numpy()
    assert_array_equal(in_rows, drawn)
    places = {patch.tobytes(): i for i, patch in enumerate(patch_rows(images, (3, 2)))}
    found = [places[patch.tobytes()] for patch in drawn]
    # 300 different patches out of all 60 images, which have 25 places each, 15 on the stride.
    assert len(set(found)) == 300
    assert len({place // 25 for place in found}) == 60
    assert all(place % 25 // 5 % 2 == 0 for place in found)


def test_patches_are_drawn_from_more_images_than_are_read_at_a_time():
    # Each pixel tells its image and its place.
    X = np.arange(40_000.0)[:, np.newaxis] + np.arange(64) / 64
    drawn = draw_patches(X, (8, 8, 1), (2, 2, 1), (1, 1), 90_000, 0).numpy()
    number, place = np.floor(drawn), drawn % 1 * 64
    # All of a patch is of one image, and the same neighbours as in it.
    assert (number == number[:, :1]).all()
    assert_array_equal(place - place[:, :1], np.broadcast_to([0, 1, 8, 9], place.shape))
    # About two from each image, from the first to the last.
    counts = np.bincount(number[:, 0].astype(int), minlength=40_000)
    assert counts.min() >= 1
    assert counts.max() <= 4


# Whitening of rows


@pytest.fixture
def rows(images):
    return patch_rows(images, (3, 2))


def test_whitened_rows_have_covariance_one(rows):
    model = PatchWhitener(contrast=False, epsilon=0.0)
    # The definition, without regularisers.
    assert_allclose(np.cov(model.fit_transform(rows), rowvar=False), np.eye(12), atol=1e-8)
    single = model.fit_transform(rows.astype(np.float32))
    # float32 in, float32 out.
    assert single.dtype == np.float32
    assert_allclose(np.cov(single, rowvar=False), np.eye(12), atol=2e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contrast_takes_one_direction(rows, dtype):
    white = PatchWhitener(epsilon=0.0, contrast_epsilon=0.0).fit_transform(rows.astype(dtype))
    # Each row minus its mean lies in the plane of sum zero: there the covariance is one, and
    # rounding does not count as variance across it.
    centering = np.eye(12) - 1 / 12
    assert_allclose(np.cov(white, rowvar=False), centering, atol=5e-3)


def test_whitening_is_the_formula(rows):
    variance = rows.var(1)
    x = rows - rows.mean(1, keepdims=True)
    x /= np.sqrt(variance + 0.02 * variance.mean())[:, np.newaxis]
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    matrix = vectors @ np.diag((values + 0.3 * values.mean()) ** -0.5) @ vectors.T
    model = PatchWhitener(epsilon=0.3, contrast_epsilon=0.02).fit(rows)
    # z = V (D + e I)^(-1/2) V^T (x - mean), each regulariser a part of the mean variance.
    assert_allclose(model.transform(rows), (x - x.mean(0)) @ matrix, rtol=1e-8, atol=1e-10)
    assert_allclose(model.contrast_epsilon_, 0.02 * variance.mean())
    assert_allclose(model.whitening_, matrix, atol=1e-10)


@pytest.mark.parametrize("patch_shape", [None, 3])
def test_whitening_has_no_units(images, patch_shape):
    model = PatchWhitener(image_shape=SHAPE, patch_shape=patch_shape, random_state=0)
    # Pixels in [0, 1] and in 0, ..., 255 are the same pictures.
    assert_allclose(
        model.fit_transform(255 * images + 7), model.fit_transform(images), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_inverse_of_whitening(rows, method):
    model = PatchWhitener(contrast=False, method=method).fit(rows)
    # The contrast step alone cannot be undone.
    assert_allclose(model.inverse_transform(model.transform(rows)), rows, rtol=1e-8, atol=1e-8)
    model.set_params(contrast=True).fit(rows)
    back = model.inverse_transform(model.transform(rows))
    # With it, rows come back but for their mean and scale.
    assert_allclose(np.diag(np.corrcoef(back, rows)[: len(rows), len(rows) :]), 1, atol=1e-8)


def test_pca_gives_components_by_falling_variance(rows):
    white = PatchWhitener(contrast=False, method="pca", epsilon=0.0).fit_transform(rows)
    expected = PCA(whiten=True).fit_transform(rows)
    # scikit-learn's own, up to the signs of components.
    assert_allclose(np.abs(white), np.abs(expected), rtol=1e-5, atol=1e-7)


def test_degenerate_rows():
    generator = np.random.default_rng(0)
    few = generator.normal(size=(5, 20))
    white = PatchWhitener(epsilon=0.0, contrast=False).fit_transform(few)
    # Five rows span four directions around their mean; their whitened distances are all equal.
    assert_allclose(np.linalg.svd(white, compute_uv=False), [2, 2, 2, 2, 0], atol=1e-7)
    # One row is the mean.
    assert_array_equal(PatchWhitener().fit_transform(few[:1]), np.zeros((1, 20)))
    few[:, 3] = 1
    # A constant column does not vary, so nothing is made of it.
    assert_allclose(PatchWhitener(contrast=False).fit_transform(few)[:, 3], 0, atol=1e-12)
    flat = np.full((4, 6), 0.1) * [[1], [2], [3], [4]]
    # Patches without any contrast have nothing to whiten.
    assert_array_equal(PatchWhitener().fit_transform(flat), np.zeros((4, 6)))


# Whitening of images


@pytest.mark.parametrize(
    ("patch_shape", "contrast"),
    [((3, 3), True), ((4, 3), False), ((1, 2), True), ((1, 1), False), ((7, 6), True)],
)
def test_whitened_image_is_the_centre_of_whitened_patches(images, patch_shape, contrast):
    model = PatchWhitener(
        image_shape=SHAPE, patch_shape=patch_shape, contrast=contrast, n_patches=10**6
    )
    whitened = model.fit_transform(images).reshape(-1, *SHAPE)
    by_rows = PatchWhitener(contrast=contrast).fit(patch_rows(images, patch_shape))
    above, left = patch_shape[0] // 2, patch_shape[1] // 2
    mirrored = np.pad(
        images.reshape(-1, *SHAPE),
        [
            (0, 0),
            (above, patch_shape[0] - 1 - above),
            (left, patch_shape[1] - 1 - left),
            (0, 0),
        ],
        mode="reflect",
    )
    for image, result in zip(mirrored[:5], whitened[:5], strict=True):
        around = extract_patches_2d(image, patch_shape)
        white = by_rows.transform(around.reshape(len(around), -1))
        center = white.reshape(7, 6, *patch_shape, 2)[:, :, above, left]
        # Each pixel is the middle of its own patch; the border is mirrored.
        assert_allclose(result, center, rtol=1e-7, atol=1e-9)
    # Image in, image out.
    assert model.output_shape_ == SHAPE
    assert model.patch_shape_ == (*patch_shape, 2)


def test_whitened_images_are_uncorrelated(images):
    def correlation(X):
        maps = X.reshape(-1, *SHAPE)
        return np.corrcoef(maps[:, :, 1:].ravel(), maps[:, :, :-1].ravel())[0, 1]

    white = PatchWhitener(
        image_shape=SHAPE, patch_shape=3, contrast=False, epsilon=0.0, random_state=0
    ).fit_transform(images)
    # Neighbours of smooth images predict each other; after whitening they do not.
    assert correlation(images) > 0.7
    assert abs(correlation(white)) < 0.15


# Features of patches


class Absolute(TransformerMixin, BaseEstimator):
    """An encoder that shows what it is given: absolute values of the first columns."""

    def __init__(self, n_columns=3, output="array"):
        self.n_columns = n_columns
        self.output = output

    def fit(self, X, y=None):
        assert y is None
        self.seen_ = X
        return self

    def transform(self, X):
        codes = np.abs(X[:, : self.n_columns])
        return sparse.csr_matrix(codes) if self.output == "sparse" else codes


@pytest.mark.parametrize(
    ("pooling", "grid", "stride"),
    [("average", (2, 2), 1), ("max", (1, 3), 2), ("sum", 99, 1), ("average", None, 2)],
)
def test_features_are_those_made_by_hand(images, pooling, grid, stride):
    model = PatchFeatures(
        PCA(3), image_shape=SHAPE, patch_shape=(3, 2), stride=stride, pooling=pooling,
        pooling_grid=grid, n_patches=200, random_state=0,
    ).fit(images)  # fmt: skip
    counts = (5, 5) if stride == 1 else (3, 3)
    drawn = draw_patches(images, SHAPE, (3, 2, 2), (stride, stride), 200, 0).numpy()
    whitener = PatchWhitener().fit(drawn)
    encoder = PCA(3).fit(whitener.transform(drawn))
    codes = encoder.transform(whitener.transform(patch_rows(images, (3, 2), stride)))
    maps = torch.from_numpy(codes).view(60, *counts, 3)
    if grid is not None:
        maps = pool_grid(maps, pooling, (grid, grid) if grid == 99 else grid)
    # Extract, whiten, encode, pool.
    assert_allclose(model.transform(images), maps.reshape(60, -1), rtol=1e-8, atol=1e-10)
    assert model.output_shape_ == tuple(maps.shape[1:])
    assert model.patch_shape_ == (3, 2, 2)


def test_what_the_encoder_is_given(images):
    settings = {"image_shape": SHAPE, "patch_shape": 3, "random_state": 0}
    drawn = draw_patches(images, SHAPE, (3, 3, 2), (1, 1), 50_000, 0).numpy()
    raw = PatchFeatures(Absolute(), whitening=False, **settings).fit(images, np.arange(60))
    # Patches as they are; no labels, since a patch does not have that of its image.
    assert_array_equal(raw.encoder_.seen_, drawn)
    assert raw.whitener_ is None
    scaled = PatchFeatures(Absolute(), whitening=StandardScaler(), **settings).fit(images)
    # Any transformer may take the place of the whitening.
    assert_array_equal(scaled.encoder_.seen_, StandardScaler().fit_transform(drawn))


def test_what_is_given_stays_unfitted(images):
    encoder, whitening = Absolute(), PatchWhitener(epsilon=0.5)
    model = PatchFeatures(encoder, whitening=whitening, image_shape=SHAPE, patch_shape=3)
    model.fit(images)
    # The model works on clones.
    assert not hasattr(encoder, "seen_")
    assert not hasattr(whitening, "whitening_")
    assert model.whitener_.epsilon == 0.5


def test_blocks_and_forms_do_not_show(images):
    counts = np.round(images)
    model = PatchFeatures(Absolute(), image_shape=SHAPE, patch_shape=3, random_state=0)
    expected = model.fit_transform(counts)
    # Each image is mapped by itself, also where there are more than are mapped at a time.
    many = model.transform(np.tile(counts, (100, 1)))
    assert_allclose(many, np.tile(expected, (100, 1)), rtol=1e-10, atol=1e-12)
    # The same values in another form.
    assert_allclose(model.fit_transform(sparse.csr_array(counts)), expected, rtol=1e-12)
    model.set_params(encoder__output="sparse")
    # Nor does it matter in which form the parts hand over codes.
    assert_array_equal(model.fit_transform(counts), expected)
    with config_context(transform_output="pandas"):
        assert_array_equal(model.fit_transform(counts), expected)
    single = model.fit_transform(counts.astype(np.float32))
    # float32 in, float32 out.
    assert single.dtype == np.float32
    assert_allclose(single, expected, atol=1e-4)


def test_codes_are_never_all_in_memory():
    X = np.random.default_rng(0).random((2000, 20 * 20), dtype=np.float32)
    model = PatchFeatures(
        FunctionTransformer(lambda rows: np.repeat(rows[:, :1], 200, axis=1)),
        whitening=False, image_shape=(20, 20), patch_shape=3, n_patches=100,
    ).fit(X)  # fmt: skip
    tracemalloc.start()
    model.transform(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 2000 * 18^2 patches with 200 codes in float32 would be half a gigabyte.
    assert peak < 60 * 2**20


@pytest.mark.parametrize(
    "encoder", [AutoEncoder(5, max_iter=2), MiniBatchKMeans(5, n_init=1), None]
)
def test_the_same_seed_gives_the_same_features(encoder, images):
    if encoder is not None:
        encoder = clone(encoder).set_params(random_state=1)
    models = [
        PatchFeatures(encoder, image_shape=SHAPE, patch_shape=3, random_state=0).fit(images)
        for _ in range(2)
    ]
    # Patches are drawn by random_state, and so starts the encoder that is built in.
    assert_array_equal(*(model.transform(images) for model in models))
    other = PatchFeatures(encoder, image_shape=SHAPE, patch_shape=3, n_patches=99, random_state=5)
    assert (other.fit_transform(images) != models[0].transform(images)).any()


def test_parameters_of_the_parts_can_be_searched(digits):
    X, y = digits[0][:300], digits[1][:300]
    model = make_pipeline(
        PatchFeatures(
            PCA(2), whitening=PatchWhitener(), image_shape=(8, 8), patch_shape=4, pooling="max",
            n_patches=500, random_state=0,
        ),
        LogisticRegression(max_iter=500),
    )  # fmt: skip
    grid = {
        "patchfeatures__encoder__n_components": [1, 8],
        "patchfeatures__whitening__epsilon": [0.01, 1.0],
    }
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    # One component tells less than eight.
    assert search.best_params_["patchfeatures__encoder__n_components"] == 8
    found = search.best_estimator_[0]
    # What was found is what the parts have.
    assert found.output_shape_ == (2, 2, 8)
    assert found.encoder_.n_components == 8
    assert found.whitener_.epsilon == search.best_params_["patchfeatures__whitening__epsilon"]


def test_two_stages_of_filter_banks_are_a_pipeline(digits):
    X, y = digits

    def bank(n_filters, image_shape, patch_shape):
        return PatchFeatures(
            PCA(n_filters, random_state=0), image_shape=image_shape, patch_shape=patch_shape,
            pooling_grid=None, n_patches=3000, random_state=0,
        )  # fmt: skip

    model = make_pipeline(
        bank(6, (8, 8), 3),
        Rectifier("split", image_shape=(-1, -1, 6)),
        LocalContrastNormalizer(image_shape=(-1, -1, 12), size=3),
        Pooling(image_shape=(-1, -1, 12), size=2, stride=1),
        bank(12, (-1, -1, 12), 2),
        Rectifier(),
        LocalContrastNormalizer(image_shape=(-1, -1, 12), size=3),
        Pooling(image_shape=(-1, -1, 12), size=2, stride=1),
        LogisticRegression(max_iter=1000),
    ).fit(X[:900], y[:900])
    # 6 x 6 places of 3 x 3 patches in 8 x 8 pixels, pooled to 5 x 5, and 4 x 4 places in those.
    shapes = [model[i].output_shape_ for i in (0, 3, 4, 7)]
    assert shapes == [(6, 6, 6), (5, 5, 12), (4, 4, 12), (3, 3, 12)]
    # 108 features tell digits; chance is a tenth.
    assert model.score(X[900:], y[900:]) > 0.8


def test_names_and_copies(images):
    frame = pd.DataFrame(images, columns=[f"pixel{i}" for i in range(84)])
    whitener = PatchWhitener(image_shape=SHAPE, patch_shape=3).set_output(transform="pandas")
    # A whitened pixel keeps its place and name.
    assert list(whitener.fit_transform(frame).columns) == list(frame.columns)
    components = PatchWhitener(method="pca").set_output(transform="pandas").fit_transform(frame)
    # A component is a new column.
    assert list(components.columns) == [f"patchwhitener{i}" for i in range(84)]
    model = PatchFeatures(Absolute(1), image_shape=SHAPE, patch_shape=3).fit(frame)
    # As many as there are cells times codes.
    assert list(model.get_feature_names_out()) == [f"patchfeatures{i}" for i in range(4)]
    copied = pickle.loads(pickle.dumps(model))
    # What is fitted travels with the model, and a clone starts without it.
    assert_array_equal(copied.transform(frame), model.transform(frame))
    with pytest.raises(NotFittedError):
        clone(model).transform(frame)


# Bad input


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (PatchWhitener(image_shape=SHAPE, patch_shape=(8, 2)), r"\(8, 2\) is larger .* 7 x 6"),
        (PatchWhitener(image_shape=SHAPE, patch_shape=(0, 2)), r"patch_shape=\(0, 2\) must be"),
        (PatchWhitener(image_shape=SHAPE, patch_shape=2, method="pca"), "use method='zca', or"),
        (PatchWhitener(image_shape=(7, 7)), r"image_shape=\(7, 7\) does not fit"),
        (PatchWhitener(epsilon=-1.0), "'epsilon' parameter"),
        (PatchWhitener(contrast_epsilon=-1.0), "'contrast_epsilon' parameter"),
        (PatchFeatures(PCA(2), image_shape=SHAPE, patch_shape=7), "patch_shape=7 is larger"),
        (PatchFeatures(PCA(2), image_shape=(7, 7)), r"image_shape=\(7, 7\) does not fit"),
        (PatchFeatures(PCA(2), stride=(1, 0)), r"stride=\(1, 0\) must be"),
        (PatchFeatures(PCA(2), pooling_grid=(1, 0)), r"pooling_grid=\(1, 0\) must be"),
        (PatchFeatures(PCA(2), pooling="median"), "'pooling' parameter"),
        (PatchFeatures(PCA(2), n_patches=0), "'n_patches' parameter"),
        (PatchFeatures(PCA), "encoder=.* is a class: pass an instance of it"),
        (PatchFeatures("pca"), "encoder='pca' has to be a transformer"),
        (PatchFeatures(PCA(2), whitening="zca"), "whitening='zca' has to be a transformer"),
        (PatchFeatures(PCA(2), whitening=None), "whitening=None has to be a transformer"),
    ],
)
def test_bad_parameters_are_named(model, match, images):
    # Before any work, with the value and what is possible.
    with pytest.raises(ValueError, match=match):
        model.fit(images)
    # The estimator stays as it was before.
    with pytest.raises(NotFittedError):
        model.transform(images)


def test_a_failed_fit_keeps_the_last_one(images):
    model = PatchFeatures(PCA(2), image_shape=SHAPE, patch_shape=3).fit(images)
    before = model.transform(images)
    with pytest.raises(ValueError, match="n_components=50"):
        model.set_params(encoder=PCA(50)).fit(-images)
    # A new whitening with the old encoder would be wrong features.
    assert_array_equal(model.transform(images), before)


@pytest.mark.parametrize(
    ("model", "name", "value"),
    [
        (PatchWhitener(contrast=False), "contrast", True),
        (PatchWhitener(), "method", "pca"),
        (PatchWhitener(), "epsilon", 1.0),
        (PatchWhitener(), "contrast_epsilon", 1.0),
        (PatchWhitener(), "image_shape", (7, 12)),
        (PatchWhitener(patch_shape=(3, 3)), "patch_shape", None),
        (PatchFeatures(PCA(2)), "patch_shape", 3),
        (PatchFeatures(PCA(2)), "stride", 2),
        (PatchFeatures(PCA(2), patch_shape=3), "pooling_grid", (1, 4)),
        (PatchFeatures(PCA(2)), "pooling", "max"),
        (PatchFeatures(PCA(2)), "image_shape", (7, 12)),
    ],
)
def test_a_changed_parameter_needs_a_new_fit(model, name, value, images):
    model = clone(model).set_params(image_shape=SHAPE, random_state=0).fit(images)
    before, expected = getattr(model, name), model.transform(images)
    model.set_params(**{name: value})
    methods = [model.transform, pickle.loads(pickle.dumps(model)).transform]
    if isinstance(model, PatchWhitener):
        methods += [model.inverse_transform, lambda X: model.get_feature_names_out()]
    # What was learned belongs to the parameters of the fit.
    for method in methods:
        with pytest.raises(ValueError, match=f"{name} has changed since this .*call fit again"):
            method(images)
    # Both remedies of the message are some.
    assert_array_equal(model.set_params(**{name: before}).transform(images), expected)
    model.set_params(**{name: value}).fit(images).transform(images)


def test_what_only_a_fit_reads_may_change(images):
    model = PatchFeatures(PCA(2), image_shape=SHAPE, patch_shape=[3, 3], random_state=0).fit(images)
    expected = model.transform(images)
    model.set_params(
        encoder=None, whitening=False, n_patches=5, random_state=1, patch_shape=np.array([3, 3])
    )
    # The fitted parts are used, not those that a next fit would start from.
    assert_array_equal(model.transform(images), expected)


@pytest.mark.parametrize(
    ("scale", "dtype", "contrast", "patch_shape", "match"),
    [
        (1e200, np.float64, True, 3, "too large: their variance overflows in float64. Rescale X"),
        (1e200, np.float64, False, None, "too large: their variance overflows in float64. Resc"),
        (1e-200, np.float64, True, None, "too small: their variance underflows in float64. Resc"),
        (1e-200, np.float64, False, 3, "too small: their variance underflows in float64. Rescale"),
        (1e30, np.float32, True, None, "too large: their variance overflows in float32. Rescale"),
        (1e-30, np.float32, True, 3, "too small: their variance underflows in float32. Rescale X"),
    ],
)
def test_squares_out_of_range_are_refused(images, scale, dtype, contrast, patch_shape, match):
    model = PatchWhitener(
        image_shape=SHAPE, patch_shape=patch_shape, contrast=contrast, random_state=0
    )
    # A variance of infinity or zero would whiten everything to zero.
    with pytest.raises(ValueError, match=match):
        model.fit((scale * images).astype(dtype))
    with pytest.raises(NotFittedError):
        model.transform(images)
    # Whitening has no units: large and small data of which squares are in range are as others.
    root = np.sqrt(scale)
    assert_allclose(
        model.fit_transform((root * images).astype(dtype)),
        model.fit_transform(images.astype(dtype)),
        rtol=0,
        atol=1e-9 if dtype == np.float64 else 1e-4,
    )


def test_wrong_input_of_the_inverse(images):
    model = PatchWhitener().fit(images)
    with pytest.raises(ValueError, match="83 columns, but whitened patches have 84"):
        model.inverse_transform(images[:, 1:])
    model = PatchWhitener(image_shape=SHAPE, patch_shape=3).fit(images)
    # The central filters alone do not tell what the patches were.
    with pytest.raises(AttributeError, match="inverse_transform") as caught:
        model.inverse_transform(images)
    # Why, and what to do about it.
    assert "needs patch_shape=None" in str(caught.value.__cause__)
    assert not hasattr(model, "inverse_transform")


def test_too_many_columns_for_a_covariance():
    X = sparse.csr_matrix((2, 3_000_000))
    # 9e12 entries: said before it is tried.
    with pytest.raises(MemoryError, match=r"3000000 values needs .* Give a smaller patch_shape"):
        PatchWhitener().fit(X)
