"""Data sets follow the specification of their benchmark, and streams their law."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage, stats
from scipy.spatial import ConvexHull
from sklearn.svm import SVC
from sklearn.utils import Bunch

from skae import datasets
from skae.datasets import (
    DeformedDigits,
    deform_images,
    load_larochelle,
    load_mnist,
    make_convex,
    make_digit_variation,
    make_mixed_table,
    make_rectangles,
    make_rectangles_image,
)
from skae.datasets.images import _rotations, _smooth_waves, _warp
from skae.datasets.shapes import _hull_areas

STILL = dict.fromkeys(("rotation", "scaling", "shear", "translation", "elastic_amplitude"), 0)
# Below this, a fixed draw from the right law would be bad luck that nobody has.
UNLIKELY = 1e-3


@pytest.fixture(scope="module")
def noise():
    """A photograph whose pixels all differ: each tells where it comes from."""
    rng = np.random.default_rng(0)
    return (rng.permutation(60 * 60) / (60 * 60 - 1)).reshape(1, 60, 60).astype(np.float32)


def origin(image, photograph):
    """For each pixel, the position in the photograph minus the one in the image: (h, w, 2)."""
    order = np.argsort(photograph, axis=None)
    found = order[np.searchsorted(photograph.ravel()[order], image)]
    row, column = np.unravel_index(found, photograph.shape)
    return np.stack([row, column], axis=2) - np.moveaxis(np.indices(image.shape), 0, 2)


def box(mask):
    """Top, left, height and width of the smallest rectangle around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1


# Rectangles


def test_rectangles_follow_the_specification():
    X, y = make_rectangles(4000, random_state=0)
    boxes = []
    for row, label in zip(X.reshape(-1, 28, 28), y, strict=True):
        top, left, height, width = box(row)
        drawn = np.zeros((28, 28))
        drawn[top : top + height, left : left + width] = 1
        drawn[top + 1 : top + height - 1, left + 1 : left + width - 1] = 0
        # White lines one pixel wide, and nothing else.
        assert_array_equal(row, drawn)
        # The class is which side is the longer one.
        assert label == (height > width)
        boxes.append((top, left, height, width))

    boxes = np.array(boxes)
    counts = np.zeros((29, 29))
    np.add.at(counts, tuple(boxes[:, 2:].T), 1)
    sides = np.arange(29)
    allowed = abs(sides[:, None] - sides) >= 3
    allowed[:3] = allowed[:, :3] = False
    # Sides that are too short or too similar are refused.
    assert counts[~allowed].sum() == 0
    # All others are equally likely.
    assert stats.chisquare(counts[allowed]).pvalue > UNLIKELY
    for start, side in ((0, 2), (1, 3)):
        positions = 29 - boxes[:, side]
        expected = ((sides[:26] < positions[:, None]) / positions[:, None]).sum(axis=0)
        # Given the size, the position is uniform where the rectangle fits.
        observed = np.bincount(boxes[:, start], minlength=26)
        assert stats.chisquare(observed, expected).pvalue > UNLIKELY
    # Swapping height and width swaps the classes: they are equally likely.
    assert stats.binomtest(int(y.sum()), len(y)).pvalue > UNLIKELY


def test_rectangles_of_photographs_follow_the_specification(noise):
    X, y = make_rectangles_image(600, photographs=noise, random_state=0)
    sides, n_patches = [], set()
    for row, label in zip(X.reshape(-1, 28, 28), y, strict=True):
        shift = origin(row, noise[0])
        patches = np.unique(shift.reshape(-1, 2), axis=0)
        # Every pixel belongs to one of two patches.
        assert len(patches) <= 2
        n_patches.add(len(patches))
        candidates = []
        for patch in patches:
            mask = (shift == patch).all(axis=2)
            _, _, height, width = box(mask)
            fits = mask.sum() == height * width and min(height, width) >= 10
            if fits and abs(height - width) >= 5 and 196 <= height * width <= 588:
                candidates.append((height, width))
        if len(patches) == 2:
            # One of the patches is cut to a rectangle as specified, of the class that is said.
            assert label in [height > width for height, width in candidates]
            sides.append(candidates[0])
    # The two patches are drawn independently: hardly ever the same.
    assert 2 in n_patches
    # The conditions are reached, not only kept: sides of 10 and of 28, differences of 5.
    assert np.min(sides) == 10
    assert np.max(sides) == 28
    assert np.abs(np.diff(sides)).min() == 5
    # Swapping height and width swaps the classes: they are equally likely.
    assert stats.binomtest(int(y.sum()), len(y)).pvalue > UNLIKELY


def test_patches_come_from_where_there_is_contrast(noise):
    half = noise.copy()
    half[:, :, 30:] = 0.5
    black = np.zeros((500, 8, 8))
    X, _ = make_digit_variation("bg-img", black, photographs=half, random_state=0)
    # On a black image a patch is all that is seen; flat ones are left out.
    assert X.std(axis=1).min() >= 0.1
    # Colour photographs are turned grey: the mean over channels.
    colour = np.stack([noise, np.zeros_like(noise), np.zeros_like(noise)], axis=3)
    X, _ = make_digit_variation("bg-img", black, photographs=3 * colour / 3, random_state=0)
    assert X.max() <= 1 / 3 + 1e-6


def test_patches_are_uniform_over_positions(noise):
    X, _ = make_digit_variation(
        "bg-img", np.zeros((3000, 8, 8)), photographs=noise[:, :17, :17], random_state=0
    )
    corners = [origin(row, noise[0])[0, 0] for row in X.reshape(-1, 8, 8)]
    counts = np.zeros((10, 10))
    np.add.at(counts, tuple(np.transpose(corners)), 1)
    # All 10 x 10 patches of 8 x 8 pixels of noise have contrast, so all are equally likely.
    assert stats.chisquare(counts.ravel()).pvalue > UNLIKELY


def test_sample_photographs_have_patches():
    X, _ = make_rectangles_image(50, random_state=0)
    # The photographs that come with scikit-learn serve where none are passed.
    assert np.ptp(X, axis=1).min() > 0.1


# Convex sets


def is_convex(region):
    """By qhull: no black pixel's centre lies in the hull of the white ones' centres."""
    # Hulls of points on one line are not defined: a tiny square around each centre.
    corners = np.array([[a, b] for a in (-1e-6, 1e-6) for b in (-1e-6, 1e-6)])
    hull = ConvexHull((np.argwhere(region)[:, None] + corners).reshape(-1, 2))
    black = np.argwhere(~region)
    # A line through lattice points passes others at a distance of 1 / 40 at least.
    return (black @ hull.equations[:, :2].T + hull.equations[:, 2] > 1e-3).any(axis=1).all()


def test_convexity_agrees_with_qhull():
    X, y = make_convex(400, random_state=0)
    # The classes are what they are called, by an algorithm that shares nothing with ours.
    assert_array_equal([is_convex(row) for row in X.reshape(-1, 28, 28) > 0], y == 1)


def test_hull_of_scattered_pixels_agrees_with_qhull():
    rng = np.random.default_rng(0)
    regions = np.zeros((600, 9, 11), dtype=bool)
    for i, region in enumerate(regions):
        region.flat[rng.choice(99, size=1 + i % 6, replace=False)] = True
    convex = _hull_areas(regions) == regions.sum(axis=(1, 2))
    # Also where there are rows without white, and where all white is on one line.
    assert_array_equal(convex, [is_convex(region) for region in regions])
    # The sample has many of both kinds.
    assert 100 < convex.sum() < 500


def test_convex_sets_follow_the_specification():
    X, y = make_convex(2001, random_state=1)
    area = X.sum(axis=1)
    # As many of the one as of the other.
    assert abs(2 * y.sum() - len(y)) <= 1
    # Smaller convex regions are refused; at least two parts of 10 pixels that are not one.
    assert area[y == 1].min() >= 19
    assert area[y == 0].min() > 10
    # Published: the classes have the same mean area. (A geometric law on 1, 2, ... instead of
    # 0, 1, ... would make the means differ by a quarter of the image.)
    assert abs(area[y == 1].mean() - area[y == 0].mean()) < 0.05 * 784
    # Rows are in random order: no run of one class is long.
    runs = np.diff(np.flatnonzero(np.diff(y)))
    assert runs.max() < 30


# Digits


def test_basic_is_the_images(digits):
    X, y = digits
    rows, labels = make_digit_variation("basic", X, y)
    # All of them, in their order, in single precision.
    assert_array_equal(rows, X.astype(np.float32))
    assert_array_equal(labels, y)

    number = np.arange(1797)
    rows, drawn = make_digit_variation("basic", X, number, 500, random_state=0)
    # Without replacement, and labels go with their images.
    assert len(np.unique(drawn)) == 500
    assert_array_equal(rows, X[drawn].astype(np.float32))

    rows[:] = 0
    original = X.astype(np.float32)
    make_digit_variation("basic", original)[0][:] = -1
    # What a caller does to the rows does not reach the images.
    assert_array_equal(original, X.astype(np.float32))


def test_bytes_and_unit_interval_are_the_same_images():
    images = np.random.default_rng(0).integers(256, size=(5, 4, 6), dtype=np.uint8)
    # 255 is white.
    assert_allclose(
        make_digit_variation("basic", images)[0],
        make_digit_variation("basic", images / 255)[0],
        rtol=1e-6,
    )


def test_rotation_agrees_with_scipy(digits):
    images = np.pad(digits[0][:20].reshape(-1, 8, 8), ((0, 0), (4, 4), (4, 4)))
    for degrees in (0, 17, 90, 133, 251):
        turned = datasets.images.rotate_images(
            images.astype(np.float32), np.full(20, np.deg2rad(degrees))
        )
        # The same angle, the same sense, the same centre.
        expected = [ndimage.rotate(image, degrees, reshape=False, order=1) for image in images]
        assert_allclose(turned, expected, atol=1e-5)


def blob(x, y, size=41, width=2.0):
    """A round spot at (x, y) from the centre, y upwards."""
    grid = np.arange(size) - (size - 1) / 2
    return np.exp(-((grid - x) ** 2 + (grid[:, None] + y) ** 2) / (2 * width**2))


def centroids(rows):
    """Where the spots are: x and y."""
    images = rows.reshape(len(rows), 41, 41).astype(np.float64)
    grid = np.arange(41) - 20
    mass = images.sum(axis=(1, 2))
    return (images.sum(1) @ grid) / mass, -(images.sum(2) @ grid) / mass


def test_angles_are_uniform():
    images = np.repeat(blob(10, 0)[None], 2000, axis=0)
    rows, _ = make_digit_variation("rot", images, random_state=0)
    x, y = centroids(rows)
    # Turning keeps the distance from the centre ...
    assert_allclose(np.hypot(x, y), 10, atol=0.05)
    # ... and the angle is uniform on the whole circle.
    turn = np.arctan2(y, x) / (2 * np.pi) % 1
    assert stats.kstest(turn, "uniform").pvalue > UNLIKELY


def test_noise_background(digits):
    X, y = digits
    rows, labels = make_digit_variation("bg-rand", X, y, random_state=0)
    # Where the digit is black there is nothing but noise, uniform in [0, 1].
    assert stats.kstest(rows[X == 0], "uniform").pvalue > UNLIKELY
    # Elsewhere the larger one of the two: P(max(x, u) = x) = x.
    assert (rows >= X.astype(np.float32)).all()
    kept = (rows == X.astype(np.float32))[X == 0.5]
    assert stats.binomtest(int(kept.sum()), kept.size, 0.5).pvalue > UNLIKELY
    assert_array_equal(labels, y)


def test_turned_digits_on_photographs(digits, noise):
    X = digits[0][:200]
    turned, _ = make_digit_variation("rot", X, random_state=3)
    both, _ = make_digit_variation("bg-img-rot", X, photographs=0.6 * noise, random_state=3)
    # The larger one of the turned digit and the patch, whose values end at 0.6.
    assert (both >= turned).all()
    assert_array_equal(both[turned > 0.6], turned[turned > 0.6])
    assert both[turned <= 0.6].max() <= np.float32(0.6)
    background = both.reshape(-1, 8, 8)[:, 0, 0]
    # The patch is not turned: what shows at the corner is a pixel of the photograph.
    known = np.isin(background, (0.6 * noise).astype(np.float32))
    assert known[turned.reshape(-1, 8, 8)[:, 0, 0] == 0].all()


# MNIST


def not_called(*args, **kwargs):
    raise AssertionError("a download was started")


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.delenv("SKAE_DATA", raising=False)


@pytest.fixture
def few_digits(monkeypatch, tmp_path):
    """A folder in SKAE_DATA with 20 pictures in the place of MNIST."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(256, size=(20, 28, 28), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 10
    np.savez(tmp_path / "mnist_train.npz", X=X, y=y)
    monkeypatch.setenv("SKAE_DATA", str(tmp_path))
    monkeypatch.setattr(datasets.digits, "fetch_openml", not_called)
    return SimpleNamespace(X=X, y=y, folder=tmp_path)


def test_mnist_from_a_file(few_digits):
    mnist = load_mnist(download_if_missing=False)
    # The file's images in [0, 1]; its order.
    assert_allclose(mnist.images, few_digits.X / 255, rtol=1e-6)
    assert_array_equal(mnist.target, few_digits.y)
    assert mnist.data.dtype == mnist.images.dtype == np.float32
    assert mnist.target.dtype == np.int64
    X, y = load_mnist(return_X_y=True)
    # The tuple holds what the Bunch holds.
    assert_array_equal(X, mnist.data)
    assert_array_equal(y, mnist.target)
    rows, labels = make_digit_variation("basic")
    # Digits are MNIST's where none are passed.
    assert_array_equal(rows, X)
    assert_array_equal(labels, y)


def test_a_file_of_something_else_is_refused(few_digits):
    np.savez(few_digits.folder / "mnist_train.npz", images=few_digits.X)
    with pytest.raises(ValueError, match=r"\['images'\] instead of X and y.*load_digits"):
        load_mnist()


@pytest.mark.usefixtures("no_data")
def test_mnist_from_openml(monkeypatch, tmp_path):
    asked = {}

    def fetch(name, **options):
        asked.update(options, name=name)
        data = np.zeros((60_003, 784), dtype=np.uint8)
        data[:, 0] = np.arange(60_003) % 256
        return Bunch(data=data.astype(np.int16), target=(np.arange(60_003) % 10).astype(str))

    monkeypatch.setattr(datasets.digits, "fetch_openml", fetch)
    X, y = load_mnist(data_home=tmp_path, return_X_y=True)
    # Published is the version 1; the first 60,000 rows are the training set.
    assert (asked["name"], asked["version"], asked["as_frame"]) == ("mnist_784", 1, False)
    assert asked["data_home"] == tmp_path
    assert X.shape == (60_000, 784)
    assert X.dtype == np.float32
    assert_array_equal(X[:256, 0] * 255, np.arange(256))
    # OpenML's classes are strings.
    assert_array_equal(y[:10], np.arange(10))


@pytest.mark.usefixtures("no_data")
def test_mnist_is_not_downloaded_against_the_will(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.digits, "fetch_openml", not_called)
    # Nothing is there: no attempt, and what to do instead.
    with pytest.raises(OSError, match=r"download_if_missing=False.*SKAE_DATA.*load_digits"):
        load_mnist(data_home=tmp_path, download_if_missing=False)

    kept = tmp_path / "openml" / "openml.org" / "data" / "v1" / "download" / "mnist_784.arff.gz"
    kept.parent.mkdir(parents=True)
    kept.touch()
    # What scikit-learn has kept may be read.
    with pytest.raises(AssertionError, match="a download was started"):
        load_mnist(data_home=tmp_path, download_if_missing=False)


@pytest.mark.usefixtures("no_data")
def test_no_network(monkeypatch, tmp_path):
    def fetch(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(datasets.digits, "fetch_openml", fetch)
    # What failed, and two ways around it.
    with pytest.raises(OSError, match=r"Network is unreachable.*SKAE_DATA.*load_digits"):
        load_mnist(data_home=tmp_path)


# The benchmark


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("rect", (1000, 200)), ("rect-img", (10_000, 2000)), ("convex", (7000, 1000))],
)
def test_sizes_of_shapes(name, sizes, noise, monkeypatch):
    # As many convex sets would take seconds.
    monkeypatch.setattr(
        datasets.digits,
        "make_convex",
        lambda n, random_state: (np.zeros((n, 784)), np.arange(n) % 2),
    )
    data = load_larochelle(name, n_test=50, photographs=noise, random_state=0)
    for part, size in zip(("train", "validation", "test"), (*sizes, 50), strict=True):
        # The published sizes, and a test set cut to what was asked for.
        assert data[f"X_{part}"].shape == (size, 784)
        assert data[f"y_{part}"].shape == (size,)
        assert set(data[f"y_{part}"]) == {0, 1}


@pytest.mark.parametrize("name", ["basic", "rot", "bg-rand", "bg-img", "bg-img-rot"])
def test_sizes_of_digits(name, noise):
    images = np.random.default_rng(0).random((12_040, 3, 3))
    number = np.arange(12_040)
    data = load_larochelle(
        name, n_test=40, images=images, labels=number, photographs=noise, random_state=0
    )
    parts = [(data[f"X_{p}"], data[f"y_{p}"]) for p in ("train", "validation", "test")]
    assert [len(X) for X, _ in parts] == [10_000, 2000, 40]
    # Each digit is in one part only.
    assert len(np.unique(np.concatenate([y for _, y in parts]))) == 12_040
    # Without the draws for the background or the angle, the corner pixel may only grow lighter.
    if name in ("basic", "bg-rand", "bg-img"):
        for X, y in parts:
            assert (images[y].reshape(-1, 9).astype(np.float32) <= X).all()


def test_default_test_set_is_the_published_one():
    # 62,000 are needed; 60,000 digits leave 48,000.
    with pytest.raises(ValueError, match=r"leaves 48000 .* n_test=50000.*Ask for n_test=48000"):
        load_larochelle("rot", images=np.zeros((60_000, 1, 1)))
    with pytest.raises(ValueError, match=r"leaves 0 .* Pass more images"):
        load_larochelle("rot", images=np.zeros((20, 8, 8)), n_test=5)


# Deformations


def test_warp_agrees_with_scipy():
    rng = np.random.default_rng(0)
    images = rng.random((6, 7, 10)).astype(np.float32)
    linear = np.eye(2) + 0.4 * rng.normal(size=(6, 2, 2))
    shift = 2 * rng.normal(size=(6, 2))
    field = rng.normal(size=(6, 2, 70)).astype(np.float32)
    warped = _warp(images, linear, shift, field.reshape(12, 70))
    y, x = np.indices((7, 10)).reshape(2, -1)
    for image, found, a, t, u in zip(images, warped, linear, shift, field, strict=True):
        column, row = a @ np.stack([x - 4.5, y - 3]) + t[:, None] + u
        # Bilinear at the same points, with black all around.
        expected = ndimage.map_coordinates(
            image, [row + 3, column + 4.5], order=1, mode="grid-constant"
        )
        assert_allclose(found.ravel(), expected, atol=1e-5)


def test_matrices_of_rotation_turn_counter_clockwise():
    # On a picture, y points down: from the right, a quarter turn leads to the top.
    assert_allclose(_rotations(np.array([np.pi / 2]))[0] @ [1, 0], [0, -1], atol=1e-15)


@pytest.mark.parametrize(
    ("amount", "measure"),
    [
        ({"rotation": 20}, lambda x, y: np.rad2deg(np.arctan2(y, x)) / 20),
        ({"scaling": 0.2}, lambda x, y: (x / 12 - 1) / 0.2),
        ({"translation": 0.1}, lambda x, y: (x - 12) / 4.1),
        ({"translation": 0.1}, lambda x, y: y / 4.1),
    ],
    ids=["rotation", "scaling", "shift to the right", "shift upwards"],
)
def test_affine_deformations_are_uniform_within_their_bounds(amount, measure):
    images = np.repeat(blob(12, 0, width=1.5)[None], 1500, axis=0)
    deformed = deform_images(images, **{**STILL, **amount}, random_state=0)
    share = measure(*centroids(deformed))
    # In the units that are documented, 1 is the bound, on either side. (The centroid of a spot
    # of some pixels is not quite where its middle is.)
    assert np.abs(share).max() < 1.02
    assert stats.kstest((share + 1) / 2, "uniform").pvalue > UNLIKELY


def test_shear_leans_upright_strokes():
    images = np.repeat(blob(0, 12)[None], 1500, axis=0)
    x, y = centroids(deform_images(images, **{**STILL, "shear": 0.3}, random_state=0))
    # Height stays; the shift to the side is a uniform part of it.
    assert_allclose(y, 12, atol=0.05)
    assert np.abs(x).max() <= 0.3 * 12 + 0.05
    assert stats.kstest((x / 3.6 + 1) / 2, "uniform").pvalue > UNLIKELY


def test_images_are_slanted_before_they_are_turned():
    images = np.repeat(blob(12, 0)[None], 300, axis=0)
    deformed = deform_images(images, **{**STILL, "shear": 0.3, "rotation": 20}, random_state=0)
    # A slant leaves the horizontal axis as it is, and a turn keeps distances.
    assert_allclose(np.hypot(*centroids(deformed)), 12, atol=0.05)


def test_elastic_field_has_the_documented_covariance():
    height, width, smoothness = 12, 17, 3.0
    waves = _smooth_waves((height, width), smoothness)
    p = np.indices((height, width)).reshape(2, -1)
    distance = ((p[:, :, None] - p[:, None]) ** 2).sum(axis=0)
    # Weights are standard normal, so that the field's covariance is this product.
    assert_allclose(waves.T @ waves, np.exp(-distance / (4 * smoothness**2)), atol=2e-3)
    # Smooth fields are few numbers.
    assert len(waves) < height * width / 3

    smooth = ndimage.gaussian_filter(
        np.random.default_rng(0).normal(size=(400, 400)), smoothness, mode="wrap"
    )
    smooth /= smooth.std()
    # That is the covariance of smoothed noise, here 4 pixels apart.
    assert_allclose((smooth[:, 4:] * smooth[:, :-4]).mean(), np.exp(-16 / 36), atol=0.05)


def test_elastic_displacements_have_the_documented_size():
    images = np.repeat(blob(3, 5, width=1.0)[None], 1500, axis=0)
    displaced = deform_images(
        images, **{**STILL, "elastic_amplitude": 0.05}, elastic_smoothness=0.5, random_state=0
    )
    for position, start in zip(centroids(displaced), (3, 5), strict=True):
        # A smooth field moves a small spot as a whole: normal, with this standard deviation.
        assert_allclose((position - start).std(), 0.05 * 41, rtol=0.1)
        assert abs((position - start).mean()) < 4 * 0.05 * 41 / np.sqrt(1500)


@pytest.mark.parametrize(
    ("name", "amount"), [("rotation", 40), *((n, 0.2) for n in STILL if n != "rotation")]
)
def test_each_deformation_differs_from_row_to_row(name, amount, digits):
    images = np.repeat(digits[0][:1], 700, axis=0)
    deformed = deform_images(images, **{**STILL, name: amount}, random_state=0)
    # Every image after a draw of its own, also across the blocks in which they are made.
    assert len(np.unique(deformed, axis=0)) == 700


def test_deformed_images_keep_their_shape(digits):
    X = digits[0][:10]
    flat = deform_images(X, random_state=0)
    stacked = deform_images(X.reshape(-1, 8, 8), random_state=0)
    assert flat.shape == (10, 64)
    assert stacked.shape == (10, 8, 8)
    # The form of the rows is no part of the draw.
    assert_array_equal(flat, stacked.reshape(10, 64))
    X = X.astype(np.float32)
    X.flags.writeable = False
    # Read-only data, such as memory maps, serve as well, without a warning.
    assert_array_equal(deform_images(X, random_state=0), flat)


def test_stream_without_deformation_returns_the_originals(digits):
    X, _ = digits
    number = np.arange(len(X))
    stream = DeformedDigits(X, number, batch_size=3000, random_state=0, **STILL)
    batch, drawn = next(iter(stream))
    # Bit for bit, with the labels that belong to them.
    assert_array_equal(batch, X[drawn].astype(np.float32))
    # Originals are drawn uniformly, with replacement.
    counts = np.bincount(drawn, minlength=len(X))
    assert stats.chisquare(counts.reshape(-1, 3).sum(axis=1)).pvalue > UNLIKELY
    assert counts.max() > 1


def test_deformations_keep_the_class(digits):
    X, y = digits
    judge = SVC(gamma=1.0 / 64 / X.var()).fit(X, y)
    batch, labels = next(iter(DeformedDigits(random_state=0)))
    # The bundled digits are the default.
    assert batch.shape == (1000, 64)
    # Deformations change every row, but hardly any class.
    assert (batch[:, None] != X[None, :1].astype(np.float32)).any(axis=2).all()
    assert judge.score(batch, labels) > 0.9


def test_streams_repeat_themselves_and_do_not_end():
    stream = DeformedDigits(batch_size=60, random_state=0)
    first, second = (list(islice(stream, 40)) for _ in range(2))
    for (X, y), (X_again, y_again) in zip(first, second, strict=True):
        # Two iterators of one object: the same batches, bit for bit.
        assert_array_equal(X, X_again)
        assert_array_equal(y, y_again)
    # 40 batches are more rows than there are originals, and no two of them are alike.
    assert len(np.unique(np.concatenate([X for X, _ in first]), axis=0)) == 2400

    unseeded = DeformedDigits(batch_size=5)
    # Also with a seed that nobody chose; another object draws another one.
    assert_array_equal(next(iter(unseeded))[0], next(iter(unseeded))[0])
    assert (next(iter(unseeded))[0] != next(iter(DeformedDigits(batch_size=5)))[0]).any()


def test_a_stream_without_labels(digits):
    X, y = next(iter(DeformedDigits(digits[0], batch_size=2)))
    # None is what partial_fit takes for no classes.
    assert X.shape == (2, 64)
    assert y is None


# All of them

MAKERS = {
    "rectangles": lambda seed: make_rectangles(30, random_state=seed),
    "rectangles image": lambda seed: make_rectangles_image(10, random_state=seed),
    "convex": lambda seed: make_convex(8, image_size=8, random_state=seed),
    **{
        name: lambda seed, name=name: make_digit_variation(
            name, np.tri(8)[None].repeat(30, 0), np.arange(30), 20, random_state=seed
        )
        for name in ("basic", "rot", "bg-rand", "bg-img", "bg-img-rot")
    },
    "deform": lambda seed: (deform_images(np.tri(8)[None].repeat(30, 0), random_state=seed), None),
    "stream": lambda seed: next(iter(DeformedDigits(batch_size=30, random_state=seed))),
}


@pytest.mark.parametrize("name", MAKERS)
def test_seeds(name):
    make = MAKERS[name]
    X, y = make(0)
    # The form that is promised.
    assert X.dtype == np.float32
    assert X.min() >= 0
    assert X.max() <= 1
    for again in (make(0), make(np.int64(0))):
        # The same seed, the same bits.
        assert_array_equal(X, again[0])
        assert_array_equal(y, again[1])
    # A RandomState is used up, and two of the same seed are alike.
    states = [np.random.RandomState(0) for _ in range(2)]
    assert_array_equal(make(states[0])[0], make(states[1])[0])
    if name != "basic":
        assert (make(states[0])[0] != make(np.random.RandomState(0))[0]).any()
        # Another seed, another draw.
        assert (make(1)[0] != X).any()

    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make(None)
    # None takes fresh entropy and leaves NumPy's global generator alone.
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


IMAGES = np.full((3, 8, 8), 0.5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: make_rectangles(0), "n_samples=0 must be an integer of at least 1"),
        (lambda: make_rectangles(2.5), r"n_samples=2\.5 must be an integer"),
        (lambda: make_convex(5, image_size=7), "image_size=7 must be an integer of at least 8"),
        (lambda: make_convex(5, random_state="a"), "random_state='a' must be None, an integer"),
        (lambda: make_rectangles_image(5, photographs=IMAGES), "no smaller than the 28 x 28"),
        (
            lambda: make_rectangles_image(5, photographs=np.zeros((40, 40, 3))),
            "a single photograph needs a first axis",
        ),
        (
            lambda: make_rectangles_image(5, photographs=np.full((1, 40, 40), 0.5)),
            "no patch of 28 x 28 .* Pass photographs with more contrast",
        ),
        (
            lambda: make_digit_variation("bg-img", IMAGES, photographs=[[["a"]]]),
            "photographs must be one array of numbers.*Crop images",
        ),
        (
            lambda: make_digit_variation("turned", IMAGES),
            "variation='turned' must be one of 'basic', 'rot'",
        ),
        (lambda: make_digit_variation("rot", 16 * IMAGES), r"\[8, 8\]. Divide by the largest"),
        (lambda: make_digit_variation("rot", -IMAGES), r"must lie in \[0, 1\]"),
        (lambda: make_digit_variation("rot", IMAGES * np.nan), r"must lie in \[0, 1\]"),
        (lambda: make_digit_variation("rot", IMAGES[0, 0]), "images must have shape"),
        (lambda: make_digit_variation("rot", IMAGES[0, :, :5]), "images must have shape"),
        (lambda: make_digit_variation("rot", IMAGES[:0]), "at least one image"),
        (lambda: make_digit_variation("rot", IMAGES, [1, 2]), "Pass one label for each image"),
        (lambda: make_digit_variation("rot", labels=[1]), "labels were given without images"),
        (
            lambda: make_digit_variation("rot", IMAGES, n_samples=4),
            "n_samples=4, but there are only 3 images.*Pass more images",
        ),
        (lambda: load_larochelle("mnist"), "name='mnist' must be one of 'basic', "),
        (lambda: load_larochelle("rect", n_test=0), "n_test=0 must be an integer of at least 1"),
        (lambda: deform_images(IMAGES, rotation=-1), "rotation=-1 must be at least 0"),
        (lambda: deform_images(IMAGES, shear="much"), "shear='much' must be a finite number"),
        (lambda: deform_images(IMAGES, scaling=1), "scaling=1 must be below 1"),
        (
            lambda: deform_images(IMAGES, elastic_smoothness=0),
            "elastic_smoothness=0 must be positive. Set elastic_amplitude=0",
        ),
        (lambda: DeformedDigits(batch_size=0), "batch_size=0 must be an integer of at least 1"),
        (lambda: DeformedDigits(labels=[1]), "labels were given without images"),
        (lambda: DeformedDigits(IMAGES, [1]), "Pass one label for each image"),
        (lambda: DeformedDigits(IMAGES, translation=np.inf), "translation=inf must be a finite"),
    ],
)
def test_errors_name_the_remedy(call, match):
    # Before any draw: an iterator would hide the error until its first batch.
    with pytest.raises(ValueError, match=match):
        call()


def test_without_pillow(monkeypatch):
    def load():
        raise ImportError("The Python Imaging Library (PIL) is required.")

    monkeypatch.setattr(datasets.images, "load_sample_images", load)
    # scikit-learn does not depend on what it reads its photographs with.
    with pytest.raises(ImportError, match=r"PIL.*Install pillow.*or pass photographs"):
        make_rectangles_image(5)


def test_mixed_table_follows_its_law():
    X, y = make_mixed_table(20000, missing=0.2, random_state=0)
    again, _ = make_mixed_table(20000, missing=0.2, random_state=0)
    assert X.equals(again)
    assert not X.equals(make_mixed_table(20000, missing=0.2, random_state=1)[0])
    numbers = X.drop(columns=["colour", "shape"])
    assert_allclose(numbers.isna().mean(), 0.2, atol=0.02)
    assert not make_mixed_table(50, missing=0, random_state=0)[0].isna().any().any()
    # Factors of mean 0, seen with noise, cut at -1, 0 and 1.
    edge = stats.norm.cdf(-1 / np.hypot(1, 0.4))
    shares = X["shape"].value_counts(normalize=True)[["A", "B", "C", "D"]]
    assert_allclose(shares, [edge, 0.5 - edge, 0.5 - edge, edge], atol=0.02)
    assert_allclose(y.mean(), 0.5, atol=0.02)
    # No single column tells the class; two of them do.
    for column in numbers:
        seen = numbers[column].notna()
        assert abs(stats.spearmanr(numbers[column][seen], y[seen])[0]) < 0.05
    same_side = X["colour"].isin(["C", "D"]) == X["shape"].isin(["C", "D"])
    assert (same_side == y).mean() > 0.7
    for settings in ({"n_samples": 0}, {"missing": 1}, {"missing": -0.1}, {"missing": "few"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            make_mixed_table(**settings)
