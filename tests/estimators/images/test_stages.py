"""Rectifier, LocalContrastNormalizer and Pooling: flat rows as images of a shape."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skae.engine.images import local_contrast_normalize, pool, pool_grid, rectify
from skae.engine.optimisation import sources
from skae.estimators.images.shapes import resolve_image_shape
from skae.estimators.images.stages import LocalContrastNormalizer, Pooling, Rectifier

SHAPE = (6, 5, 3)


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(7, 90))


def as_images(X):
    return torch.from_numpy(X).view(-1, *SHAPE)


# Shapes


@pytest.mark.parametrize(
    ("image_shape", "n_features", "resolved"),
    [
        (None, 12, (1, 12, 1)),
        ((3, 4), 12, (3, 4, 1)),
        ([3, 2, 2], 12, (3, 2, 2)),
        ((-1, 4), 12, (3, 4, 1)),
        ((3, -1, 2), 12, (3, 2, 2)),
        ((-1, -1, 3), 12, (2, 2, 3)),
        ((-1, -1), 9, (3, 3, 1)),
        (np.array([3, 4]), 12, (3, 4, 1)),
    ],
)
def test_shapes_are_completed(image_shape, n_features, resolved):
    # height * width * channels = n_features has one solution.
    assert resolve_image_shape(image_shape, n_features) == resolved


@pytest.mark.parametrize(
    ("image_shape", "match"),
    [
        ((3, 5), r"tiles=\(3, 5\) does not fit .* n_features=12 .* 3 \* 5 is not 12\. Give"),
        ((-1, 5), r"s \* 5 is not 12 for any integer s"),
        ((-1, -1, 2), r"s \* s \* 2 is not 12 for any integer s"),
        ((-1, 3, -1), "not the shape"),
        ((0, 12), "not the shape"),
        ((3.0, 4.0), "not the shape"),
        ((True, 12), "not the shape"),
        ((12,), "not the shape"),
        ("34", "not the shape"),
    ],
)
def test_shapes_that_do_not_fit(image_shape, match):
    # The message names the parameter, both numbers and what is possible.
    with pytest.raises(ValueError, match=match):
        resolve_image_shape(image_shape, 12, "tiles")


# Each estimator is its kernel


KERNELS = {
    "abs": (Rectifier(), lambda x: rectify(x, "abs"), SHAPE),
    "relu": (Rectifier("relu", threshold=0.3), lambda x: rectify(x, "relu", 0.3), SHAPE),
    "split": (Rectifier("split"), lambda x: rectify(x, "split"), (6, 5, 6)),
    "contrast": (
        LocalContrastNormalizer(size=3),
        lambda x: local_contrast_normalize(x, 3, 0.75),
        SHAPE,
    ),
    "wide contrast": (
        LocalContrastNormalizer(sigma=5.0),
        lambda x: local_contrast_normalize(x, 9, 5.0),
        SHAPE,
    ),
    "pool": (Pooling(), lambda x: pool(x, "average", (2, 2), (2, 2)), (3, 3, 3)),
    "overlapping": (
        Pooling(size=(3, 2), stride=(2, 1), kind="max"),
        lambda x: pool(x, "max", (3, 2), (2, 1)),
        (3, 4, 3),
    ),
    "sparse windows": (
        Pooling(size=1, stride=4, kind="l2"),
        lambda x: pool(x, "l2", (1, 1), (4, 4)),
        (2, 2, 3),
    ),
    "one window": (Pooling(size=50), lambda x: pool(x, "average", (6, 5), (9, 9)), (1, 1, 3)),
    "grid": (Pooling(grid=2, kind="sum"), lambda x: pool_grid(x, "sum", (2, 2)), (2, 2, 3)),
    "fine grid": (Pooling(grid=(1, 99)), lambda x: pool_grid(x, "average", (1, 5)), (1, 5, 3)),
}


def stage(name):
    model, kernel, output_shape = KERNELS[name]
    return clone(model).set_params(image_shape=SHAPE), kernel, output_shape


@pytest.fixture(params=["split", "contrast", "overlapping", "grid"])
def model(request):
    """A stage of each kind."""
    return stage(request.param)[0]


@pytest.mark.parametrize("name", KERNELS)
def test_transform_is_the_kernel(name, images):
    model, kernel, output_shape = stage(name)
    before = images.copy()
    result = model.fit_transform(images)
    # Rows are images flattened with the channels last, in and out.
    assert_array_equal(result, kernel(as_images(images)).reshape(7, -1))
    # The data belong to the caller.
    assert_array_equal(images, before)
    # What the next step takes as its image_shape.
    assert model.output_shape_ == output_shape
    assert model.image_shape_ == SHAPE
    assert result.shape == (7, np.prod(output_shape))


def test_blocks_do_not_show(model, images, monkeypatch):
    expected = np.tile(model.fit_transform(images), (20, 1))
    # More rows than are mapped at a time.
    monkeypatch.setattr(sources, "_BLOCK", 20 * images[0].nbytes)
    many = np.tile(images, (20, 1))
    # Each image is mapped by itself.
    assert_allclose(model.transform(many), expected, rtol=1e-12, atol=1e-15)


def test_forms_of_data(model, images):
    counts = np.round(3 * images)
    expected = model.fit_transform(counts)
    # Rows of a sparse matrix are the rows it stands for.
    assert_allclose(model.fit_transform(sparse.csr_array(counts)), expected, rtol=1e-12)
    single = model.fit_transform(counts.astype(np.float32))
    # float32 in, float32 out, of the same values up to its rounding.
    assert single.dtype == np.float32
    assert expected.dtype == np.float64
    assert_allclose(single, expected, atol=1e-4)
    # Pixels in 0, ..., 255 are exact in float32.
    assert model.fit_transform((counts + 20).astype(np.uint8)).dtype == np.float32


@pytest.mark.parametrize("name", ["abs", "split", "contrast", "pool"])
def test_names_of_columns(name, images):
    model, _, output_shape = stage(name)
    names = [f"pixel{i}" for i in range(90)]
    frame = model.set_output(transform="pandas").fit_transform(pd.DataFrame(images, columns=names))
    if output_shape == SHAPE:
        # A column in has a column out at its place, which keeps its name.
        assert list(frame.columns) == names
    else:
        # New columns are named after the step.
        prefix = type(model).__name__.lower()
        assert list(frame.columns) == [f"{prefix}{i}" for i in range(np.prod(output_shape))]


def test_a_copy_is_the_same_model(model, images):
    copied = pickle.loads(pickle.dumps(model.fit(images)))
    # What is fitted travels with the model, and a clone starts without it.
    assert_array_equal(copied.transform(images), model.transform(images))
    with pytest.raises(NotFittedError):
        clone(model).transform(images)
    with pytest.raises(NotFittedError):
        clone(model).get_feature_names_out()


def test_two_stages_are_a_pipeline(digits):
    X, y = digits
    model = make_pipeline(
        LocalContrastNormalizer(image_shape=(8, 8), size=5),
        Rectifier("split", image_shape=(-1, -1)),
        Pooling(image_shape=(-1, -1, 2), size=2, stride=1),
        LocalContrastNormalizer(image_shape=(-1, -1, 2), size=3),
        Rectifier("split", image_shape=(-1, -1, 2)),
        Pooling(image_shape=(-1, -1, 4), grid=3),
        LogisticRegression(max_iter=300),
    ).fit(X[:900], y[:900])
    # Shapes follow from the columns: 8 x 8, pooled to 7 x 7, then to 3 x 3.
    assert [step.output_shape_ for step in model[:-1]] == [
        (8, 8, 1), (8, 8, 2), (7, 7, 2), (7, 7, 2), (7, 7, 4), (3, 3, 4)
    ]  # fmt: skip
    # 36 features still tell digits; chance is a tenth.
    assert model.score(X[900:], y[900:]) > 0.8


# Bad input


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Rectifier(image_shape=(6, 6, 3)), r"image_shape=\(6, 6, 3\) does not fit .*=90"),
        (LocalContrastNormalizer(size=4), "size=4 has no pixel in its middle; use size=5"),
        (LocalContrastNormalizer(size=0), "'size' parameter"),
        (LocalContrastNormalizer(sigma=0.0), "'sigma' parameter"),
        (Rectifier("square"), "'kind' parameter"),
        (Rectifier(threshold=-1.0), "'threshold' parameter"),
        (Pooling(size=(2, 0)), r"size=\(2, 0\) must be \(height, width\), two integers of at"),
        (Pooling(size=(2.0, 2)), r"size=\(2.0, 2\) must be"),
        (Pooling(stride=(1, -1)), r"stride=\(1, -1\) must be"),
        (Pooling(stride=0), "'stride' parameter"),
        (Pooling(grid=(0, 2)), r"grid=\(0, 2\) must be"),
        (Pooling(grid=2, stride=2), "stride=2 has no meaning; set one of them to None"),
        (Pooling(device="cuda:99"), "not available"),
        (Pooling(image_shape=5), "'image_shape' parameter"),
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
    model = Pooling(image_shape=SHAPE).fit(images)
    with pytest.raises(ValueError, match="image_shape"):
        model.fit(images[:, :70])
    # The shape of 90 columns with the number of 70 would be neither.
    assert model.transform(images).shape == (7, 27)


@pytest.mark.parametrize(
    ("model", "name", "value", "change"),
    [
        (Rectifier(), "kind", "split", "'abs' to 'split'"),
        (Rectifier(), "threshold", 0.5, "0.0 to 0.5"),
        (LocalContrastNormalizer(), "size", 5, "9 to 5"),
        (LocalContrastNormalizer(), "sigma", 1.0, "None to 1.0"),
        (Pooling(), "size", 4, r"\(2, 2\) to 4"),
        (Pooling(), "stride", 1, "None to 1"),
        (Pooling(grid=(8, 2)), "grid", (2, 8), r"\(8, 2\) to \(2, 8\)"),
        (Pooling(), "kind", "max", "'average' to 'max'"),
        (Pooling(), "image_shape", (5, 6, 3), r"\(6, 5, 3\) to \(5, 6, 3\)"),
    ],
)
def test_a_changed_parameter_needs_a_new_fit(model, name, value, change, images):
    model = clone(model).set_params(image_shape=SHAPE).fit(images)
    before = getattr(model, name)
    expected = model.transform(images)
    model.set_params(**{name: value})
    match = f"{name} has changed since this {type(model).__name__} was fitted .from {change}.*again"
    # The shapes that fit found are of another map, also in a copy of the model.
    for changed in (model, pickle.loads(pickle.dumps(model))):
        with pytest.raises(ValueError, match=match):
            changed.transform(images)
        with pytest.raises(ValueError, match=match):
            changed.get_feature_names_out()
    # Both remedies of the message are some.
    assert_array_equal(model.set_params(**{name: before}).transform(images), expected)
    model.set_params(**{name: value}).fit(images).transform(images)
    # A clone was not fitted, so that nothing has changed since.
    with pytest.raises(NotFittedError):
        clone(model).transform(images)


def test_a_failed_fit_does_not_hide_a_change(images):
    model = LocalContrastNormalizer(size=3).fit(images).set_params(size=4)
    with pytest.raises(ValueError, match="no pixel in its middle"):
        model.fit(images)
    # The model is still the one of the fit before.
    with pytest.raises(ValueError, match=r"size has changed .* 3 to 4"):
        model.transform(images)


def test_parameters_are_compared_by_value(images):
    shape, size = list(SHAPE), np.array([2, 3])
    model = Pooling(image_shape=shape, size=size).fit(images)
    expected = model.transform(images)
    # The same numbers in another form, or another device, are the same map.
    model.set_params(image_shape=SHAPE, size=[2, np.int64(3)], device="cpu")
    assert_array_equal(model.transform(images), expected)
    model.set_params(image_shape=shape)
    shape[:2] = 5, 6
    # A list that is changed in place is a change all the same.
    with pytest.raises(ValueError, match=r"image_shape has changed .* \(5, 6, 3\)"):
        model.transform(images)


@pytest.mark.parametrize("sigma", [1e-320, np.float32(1e-40), 0.02])
def test_the_narrowest_window_is_one_pixel(sigma, images):
    narrow = LocalContrastNormalizer(sigma=sigma, image_shape=SHAPE).fit_transform(images)
    # All weights but the middle one vanish as sigma does.
    one_pixel = LocalContrastNormalizer(size=1, image_shape=SHAPE).fit_transform(images)
    assert_array_equal(narrow, one_pixel)


@pytest.mark.parametrize("model", [Rectifier(), LocalContrastNormalizer(), Pooling()])
def test_missing_pixels_are_refused(model, images):
    images[2, 3] = np.nan
    # It would spread over its surroundings.
    with pytest.raises(ValueError, match=r"NaN in row 2, column 3\. Impute"):
        model.fit(images)
