"""ConvolutionalPSD: what it learns, its shapes, its stages, and what it refuses."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import sparse_encode

from skae import CollapsedCodeWarning, ConvolutionalPSD
from skae.engine.sparse.linear_maps import Convolution
from skae.engine.sparse.problem import L1, fista, make_quadratic


@pytest.fixture(scope="module")
def bars():
    """Images of 9 x 9 pixels, each with three horizontal or vertical bars of length 5."""
    generator = np.random.default_rng(0)
    images = np.zeros((150, 9, 9))
    for image in images:
        for _ in range(3):
            i, j = generator.integers(0, 9), generator.integers(0, 5)
            (image if generator.random() < 0.5 else image.T)[i, j : j + 5] += 1.0
    return images.reshape(150, -1)


def small(**parameters):
    given = {"image_shape": (9, 9), "max_iter": 5, "random_state": 0, "padding": "valid"}
    return ConvolutionalPSD(**{"n_components": 6, **given, **parameters})


@pytest.fixture(scope="module")
def fitted(bars):
    return small(alpha=0.2, max_iter=12, padding="same").fit(bars)


def test_training_lowers_the_objective_and_explains_the_images(fitted, bars):
    curve = fitted.loss_curve_
    # Steps descend on the objective; what is left after 12 epochs is far below the start.
    assert curve[-1] < curve[4] < curve[0]
    error = np.square(fitted.reconstruct(bars) - bars).sum()
    # The encoder alone reconstructs most of what the mean image does not.
    assert error < 0.3 * np.square(bars - bars.mean(axis=0)).sum()


@pytest.fixture(scope="module")
def optimal(fitted, bars):
    """The optimal codes of the first images by the same model."""
    return copy.deepcopy(fitted).set_params(inference="optimal").transform(bars[:50])


def test_codes_are_not_collapsed(fitted, optimal, bars):
    codes = fitted.transform(bars).reshape(-1, 6)
    # Every filter answers to something ...
    assert (codes.std(axis=0) > 0.01).all()
    # ... takes part in the optimal codes, at some positions of some images ...
    use = (optimal.reshape(-1, 6) != 0).mean(axis=0)
    assert (use > 0).all()
    # ... and not everywhere: alpha makes codes sparse.
    assert use.mean() < 0.5


def test_learned_filters_code_new_images_better_than_random_ones():
    generator = torch.Generator().manual_seed(0)
    convolution = Convolution((10, 10, 1), (3, 3), 6)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    def unit(filters):
        return filters / filters.norm(dim=1, keepdim=True)

    true = unit(draw(6, 9))
    codes = draw(108, convolution.n_codes)
    codes *= torch.rand(codes.shape, generator=generator) < 0.02
    images = convolution.synthesize(true, codes)
    images /= images.std()
    model = ConvolutionalPSD(
        6, image_shape=(10, 10), filter_shape=3, padding="valid", alpha=0.3, batch_size=10,
        prediction=0.1, max_iter=30, loss="squared_error", random_state=0,
    )  # fmt: skip
    model.fit(images[:100].numpy())

    def cost(filters):
        quadratic = make_quadratic(filters, images[100:], convolution)
        return float(fista(quadratic, L1(0.3)).objective.mean())

    learned = cost(torch.tensor(model.decoder_components_))
    others = [cost(unit(draw(6, 9))) for _ in range(3)]
    # On images that were not seen, learned filters cost less than all random ones, and no less
    # than those whose sparse sums the images are.
    assert cost(true) < learned < min(others)
    assert learned - cost(true) < 0.75 * (np.mean(others) - cost(true))


def test_shapes(fitted, bars):
    # One map for each filter, as large as the images.
    assert fitted.image_shape_ == (9, 9, 1)
    assert fitted.output_shape_ == (9, 9, 6)
    assert fitted.transform(bars).shape == (150, 9 * 9 * 6)
    assert fitted.components_.shape == fitted.decoder_components_.shape == (6, 25)
    assert len(fitted.get_feature_names_out()) == 486
    # One bias for each filter of the encoder, and none of the images.
    assert fitted.intercept_hidden_.shape == (6,)
    assert not hasattr(fitted, "intercept_visible_")
    # The scale of a filter is the code's alone.
    np.testing.assert_allclose(np.linalg.norm(fitted.decoder_components_, axis=1), 1.0)


@pytest.mark.parametrize(
    ("parameters", "shape", "n_filters"),
    [
        ({"padding": "same"}, (9, 9, 6), 6),
        ({"padding": "full"}, (13, 13, 6), 6),
        ({"stride": 2, "filter_shape": (3, 4)}, (4, 3, 6), 6),
        ({"sharing": "tiled", "period": 3}, (5, 5, 6), 9 * 6),
        ({"sharing": "unshared", "filter_shape": 6}, (4, 4, 6), 16 * 6),
        ({"image_shape": None}, (1, 77, 6), 6),
        ({"image_shape": (3, 9, 3)}, (1, 5, 6), 6),
        ({"image_shape": (-1, 9)}, (5, 5, 6), 6),
    ],
)
def test_shapes_follow_the_parameters(parameters, shape, n_filters, bars):
    bars = bars[:50]
    model = small(max_iter=1, **parameters).fit(bars)
    # Positions along an axis of n pixels for filters of f: (n - f) // stride + 1 and so on.
    assert model.output_shape_ == shape
    assert len(model.components_) == n_filters
    codes = model.transform(bars)
    assert codes.shape == (50, math.prod(shape))
    assert model.inverse_transform(codes).shape == bars.shape


def test_shifted_images_have_shifted_codes(fitted):
    image = np.zeros((9, 9))
    image[2, 1:6] = 1.0
    codes = [fitted.transform(np.roll(image, (0, s), (0, 1)).reshape(1, -1)) for s in (0, 1)]
    here, there = (code.reshape(fitted.output_shape_) for code in codes)
    # All positions share their filters, and all pixels their scale and shift: where windows
    # lie in both images, codes move with what they see.
    np.testing.assert_allclose(there[:, 3:7], here[:, 2:6], atol=1e-12)


def test_units_and_offset_of_pixels_do_not_matter(bars):
    model = small(alpha=0.2, max_iter=3)
    codes = model.fit_transform(bars)
    for scale in (1 / 255, 1000.0):
        # One shift and one scale are taken off before: the same codes up to rounding.
        np.testing.assert_allclose(model.fit_transform(scale * bars + 7.0), codes, atol=1e-6)


def test_channels_have_their_own_means_and_one_scale():
    generator = np.random.default_rng(0)
    images = generator.normal([5.0, -3.0], [1.0, 4.0], size=(200, 4, 5, 2))
    X = images.reshape(200, -1)
    columns = ConvolutionalPSD(2, image_shape=(4, 5, 2), max_iter=1).fit(X).columns_
    shift = columns.shift.reshape(4, 5, 2)
    # Every pixel of a channel has the mean of the whole channel ...
    np.testing.assert_allclose(shift, np.broadcast_to(images.mean((0, 1, 2)), shift.shape))
    # ... and of all channels together the standard deviation around those means.
    expected = (images - images.mean((0, 1, 2))).std()
    np.testing.assert_allclose(columns.scale, expected)


def test_optimal_codes_of_whole_images_are_those_of_sparse_encode(bars):
    model = small(
        filter_shape=9, inference="optimal", prediction=0.0, alpha=0.4, loss="squared_error",
        inference_tol=1e-12, max_iter=2, n_components=20,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapsedCodeWarning)
        model.fit(bars)
    expected = sparse_encode(
        bars[:20], model.decoder_components_, algorithm="lasso_cd", alpha=0.4, max_iter=100_000
    )
    # Filters as large as the images are a dictionary, whose code is the lasso's; scikit-learn's
    # solver stops at a tolerance of 1e-4, so compare what the codes cost.
    codes = model.transform(bars[:20])

    def cost(h):
        error = np.square(bars[:20] - h @ model.decoder_components_).sum(axis=1)
        return 0.5 * error + 0.4 * np.abs(h).sum(axis=1)

    np.testing.assert_allclose(cost(codes), cost(expected), rtol=1e-3)
    assert (cost(codes) <= cost(expected) + 1e-9).all()


def test_predictions_point_where_optimal_codes_do(fitted, optimal, bars):
    codes = fitted.transform(bars[:50])

    def cosine(a, b):
        return (a * b).sum() / np.sqrt(np.square(a).sum() * np.square(b).sum())

    # The encoder is trained to predict the codes of each image; those of others are no match.
    assert cosine(codes, optimal) > 0.4
    assert abs(cosine(codes, np.roll(optimal, 1, axis=0))) < 0.2


@pytest.mark.parametrize("activation", ["shrinkage", "smooth_shrinkage"])
def test_shrinkage_predicts_sparse_codes(activation, bars):
    settings = {"alpha": 0.2, "max_iter": 15, "padding": "same", "inference_max_iter": 5}
    model = small(activation=activation, **settings).fit(bars)
    codes = model.transform(bars)
    error = np.square(model.inverse_transform(codes) - bars).sum()
    # Either kind learns, also from encoders that start at zero ...
    assert error < 0.5 * np.square(bars - bars.mean(axis=0)).sum()
    # ... and only the hard threshold has codes that are exactly 0, here most of them.
    assert ((codes == 0).mean() > 0.5) == (activation == "shrinkage")


def test_inference_needs_no_encoder(fitted, optimal, bars):
    codes, dictionary = optimal[:5], torch.tensor(fitted.decoder_components_)
    x = torch.tensor((bars[:5] - fitted.columns_.shift) / fitted.columns_.scale)
    convolution = Convolution((9, 9, 1), (5, 5), 6, padding="same")
    quadratic = make_quadratic(dictionary, x, convolution)
    minimum = fista(quadratic, L1(0.2), tol=1e-9, max_iter=20000).objective.numpy()
    error = np.square(x.numpy() - convolution.synthesize(dictionary, torch.tensor(codes)).numpy())
    cost = 0.5 * error.sum(axis=1) + 0.2 * np.abs(codes).sum(axis=1)
    # Optimal codes are those of sparse coding, to the relative gap that was asked for.
    assert (minimum * (1 - 1e-8) <= cost).all()
    assert (cost <= minimum * (1 + 2e-3)).all()


def test_two_stages(bars):
    first = small(alpha=0.2).fit(bars)
    maps = np.abs(first.transform(bars)).reshape(-1, 5, 5, 6)
    pooled = np.max([maps[:, i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1)], axis=0)
    second = small(n_components=5, image_shape=(4, 4, 6), filter_shape=3)
    pooled = pooled.reshape(len(pooled), -1)
    second.fit(pooled)
    # Maps are images with as many channels as there are filters.
    assert second.output_shape_ == (2, 2, 5)
    assert second.components_.shape == (5, 3 * 3 * 6)
    # There is something to learn in them.
    assert second.score(pooled) > clone(second).set_params(max_iter=1).fit(pooled).score(pooled)


def test_the_same_seed_gives_the_same_filters_of_each_place(bars):
    models = [small(sharing="unshared", max_iter=1).fit(bars[:40]) for _ in range(2)]
    # Nothing is drawn but from the generator.
    np.testing.assert_array_equal(models[0].components_, models[1].components_)


def test_dtypes_and_pickles(fitted, bars):
    images = bars.astype(np.float32)
    model = small(max_iter=2).fit(images)
    # float32 in, float32 out, filters included.
    assert model.transform(images).dtype == model.components_.dtype == np.float32
    loaded = pickle.loads(pickle.dumps(fitted))
    # Columns of images survive as such.
    np.testing.assert_array_equal(loaded.transform(bars), fitted.transform(bars))


def test_partial_fit_continues(bars):
    model = small()
    scores = [model.partial_fit(bars).score(bars) for _ in range(10)]
    # Ten passes are better than one.
    assert scores[-1] > scores[0]
    assert model.n_iter_ == 10


def test_partial_fit_needs_contrast(bars):
    # Black borders are no reason to warn, and an image alone has a scale ...
    small(random_state=0).partial_fit(bars[:1])
    # ... unless it is empty.
    with pytest.warns(UserWarning, match="are constant: pass more rows"):
        small().partial_fit(np.zeros((3, 81)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"image_shape": (8, 9)}, "does not fit rows of n_features=81"),
        ({"filter_shape": (3, 10)}, "larger than the images, which are 9 x 9 pixels"),
        ({"filter_shape": (3, 0)}, "filter_shape"),
        ({"filter_shape": (3, 3, 3)}, "filter_shape"),
        ({"filter_shape": 3, "stride": 4}, "stride=4 is larger than the filters of 3 x 3"),
        ({"stride": 0}, "stride"),
        ({"period": 0, "sharing": "tiled"}, "period"),
        ({"alpha": 0.0}, "alpha"),
        ({"prediction": 0.0}, "use a positive prediction, or inference='optimal'"),
        ({"loss": "bernoulli"}, "loss"),
    ],
)
def test_what_cannot_be_is_refused(parameters, message, bars):
    model = small(**parameters)
    # The parameter is named, before any work is done ...
    with pytest.raises(ValueError, match=message):
        model.fit(bars)
    # ... and nothing is half fitted.
    assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.parametrize("method", ["transform", "partial_fit", "fit"])
def test_a_changed_size_of_filters_is_noticed(bars, method):
    model = small(max_iter=1, filter_shape=3, warm_start=True).fit(bars)
    # It would go on with the filters that there are, whatever was asked for.
    with pytest.raises(ValueError, match=r"filter_shape, .* have changed since"):
        getattr(model.set_params(filter_shape=2), method)(bars)


def test_changed_geometry_is_noticed(bars):
    model = small(max_iter=1).fit(bars).set_params(stride=2)
    # Filters would fit, but the codes would be others than those that were announced.
    with pytest.raises(ValueError, match="have changed since"):
        model.transform(bars)


def test_batches_that_cannot_fit_are_refused(bars):
    # The memory that is asked for is that of a batch of codes: 10^12 rows have none.
    with pytest.raises(MemoryError, match="Use a smaller batch_size"):
        small(batch_size=10**12).fit(bars)
