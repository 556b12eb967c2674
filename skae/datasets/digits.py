"""MNIST, variations of digits, and the benchmark of Larochelle et al. in its published sizes."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml, get_data_home
from sklearn.utils import Bunch

from skae._validation import check_choice, check_count
from skae.datasets.images import check_images, check_labels, draw_patches, make_rng, rotate_images
from skae.datasets.shapes import make_convex, make_rectangles, make_rectangles_image

_FILE, _N_TRAIN = "mnist_train.npz", 60_000
_REMEDY = (
    f"Set the environment variable SKAE_DATA to a folder with {_FILE} (X of shape (60000, 28, 28), "
    "uint8, and y), or use the digits that come with scikit-learn: "
    "sklearn.datasets.load_digits()."
)
_VARIATIONS = ("basic", "rot", "bg-rand", "bg-img", "bg-img-rot")
_N_TEST = 50_000
# Rows for training and for validation.
_SIZES = dict.fromkeys(_VARIATIONS, (10_000, 2000)) | {
    "rect": (1000, 200),
    "rect-img": (10_000, 2000),
    "convex": (7000, 1000),
}


def load_mnist(*, data_home=None, return_X_y=False, download_if_missing=True):
    """Load the training set of MNIST: 60,000 digits of 28 x 28 pixels.

    It is read from ``mnist_train.npz`` in the folder that the environment variable SKAE_DATA
    names, if there is one. Else it comes from OpenML by way of scikit-learn, which keeps it.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Folder in which scikit-learn keeps what it downloads, as for
        :func:`sklearn.datasets.fetch_openml`.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    download_if_missing : bool, default=True
        Whether to download data that are not there; otherwise they are an error.

    Returns
    -------
    mnist : Bunch, or tuple (data, target) if ``return_X_y``
        ``data`` of shape (60000, 784), float32 in [0, 1]; ``target`` of shape (60000,), int64;
        ``images``, the data in shape (60000, 28, 28); and ``DESCR``, where they come from.

    Raises
    ------
    OSError
        The data are not there and cannot or must not be downloaded.
    ValueError
        The file in SKAE_DATA holds something else.

    See Also
    --------
    make_digit_variation : Turned digits and digits on backgrounds.
    DeformedDigits : An endless stream of deformed digits.

    Notes
    -----
    The order is the usual one: papers train on the first 50,000 rows and validate on the rest.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE 86, 1998.

    Examples
    --------
    >>> from skae.datasets import load_mnist
    >>> X, y = load_mnist(return_X_y=True)  # doctest: +SKIP
    >>> X.shape, y.shape  # doctest: +SKIP
    ((60000, 784), (60000,))
    """
    folder = os.environ.get("SKAE_DATA")
    if folder and Path(folder, _FILE).is_file():
        origin = Path(folder, _FILE)
        images, target = _from_file(origin)
    else:
        origin = "openml.org"
        images, target = _from_openml(data_home, download_if_missing)
    images = check_images(images)
    data, target = images.reshape(len(images), -1), np.asarray(target).astype(np.int64)
    if return_X_y:
        return data, target
    description = f"MNIST, the training set, read from {origin}."
    return Bunch(data=data, target=target, images=images, DESCR=description)


def _from_file(path):
    with np.load(path) as arrays:
        if not {"X", "y"} <= set(arrays):
            raise ValueError(f"{path} holds {sorted(arrays)} instead of X and y. {_REMEDY}")
        return arrays["X"], arrays["y"]


def _from_openml(data_home, download_if_missing):
    # fetch_openml reads what is there and downloads the rest; it cannot be told not to.
    kept = Path(get_data_home(data_home), "openml").rglob("*mnist_784*")
    if not download_if_missing and not any(kept):
        raise OSError(f"MNIST is not there, and download_if_missing=False. {_REMEDY}")
    try:
        mnist = fetch_openml(
            "mnist_784",
            version=1,
            as_frame=False,
            data_home=data_home,
            # The slow parser is the one that needs no further package.
            parser="pandas" if find_spec("pandas") else "liac-arff",
        )
    except OSError as error:
        raise OSError(
            f"MNIST could not be downloaded from openml.org: {error}. {_REMEDY}"
        ) from error
    return mnist.data[:_N_TRAIN].astype(np.uint8), mnist.target[:_N_TRAIN]


def make_digit_variation(
    variation, images=None, labels=None, n_samples=None, *, photographs=None, random_state=None
):
    r"""Digits turned, or on backgrounds, or both, as in the benchmark of Larochelle et al.

    - "basic": the images as they are;
    - "rot": each is turned about its centre by an angle uniform in :math:`[0, 2 \pi)`, with
      bilinear interpolation;
    - "bg-rand": each pixel is the larger one of the digit and a draw uniform in [0, 1];
    - "bg-img": each pixel is the larger one of the digit and a patch of a photograph;
    - "bg-img-rot": turned digits, as by "rot", on patches as of "bg-img", which are not turned.

    Parameters
    ----------
    variation : {"basic", "rot", "bg-rand", "bg-img", "bg-img-rot"}
        What is done to the digits.
    images : array-like of shape (n_images, height, width) or (n_images, n_pixels), default=None
        Digits, light on dark, in [0, 1] or of dtype uint8. None: :func:`load_mnist`.
    labels : array-like of shape (n_images,), default=None
        Their classes.
    n_samples : int, default=None
        How many images to draw, without replacement. None: all of them, in their order.
    photographs : array-like of shape (n_photographs, height, width[, channels]), default=None
        What patches of "bg-img" and "bg-img-rot" are cut out of, in [0, 1] or of dtype uint8;
        channels are averaged. None: those of :func:`sklearn.datasets.load_sample_images`.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    X : ndarray of shape (n_samples, height * width), float32
        Values in [0, 1].
    y : ndarray of shape (n_samples,) or None
        Classes; None if images came without labels.

    Raises
    ------
    ValueError
        An unknown variation, images that are not grey images in [0, 1], more samples than there
        are images, or photographs too small or without contrast.
    OSError
        ``images=None``, and MNIST cannot be loaded.

    See Also
    --------
    load_larochelle : The benchmark in its published sizes, and its paper.

    Notes
    -----
    Published are the steps, but neither the photographs nor the threshold of variance below
    which patches were left out: here a patch is as large as a digit, and its standard deviation
    at least 0.1, where black is 0 and white is 1. It is uniform among all that qualify.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae.datasets import make_digit_variation
    >>> digits = load_digits()
    >>> X, y = make_digit_variation(
    ...     "bg-rand", digits.images / 16, digits.target, n_samples=100, random_state=0
    ... )
    >>> X.shape, y.shape
    ((100, 64), (100,))
    """
    check_choice("variation", variation, _VARIATIONS)
    rng = make_rng(random_state)
    images, labels = _digits_or_mnist(images, labels)
    if n_samples is not None:
        check_count("n_samples", n_samples, least=1)
        if n_samples > len(images):
            raise ValueError(
                f"n_samples={n_samples}, but there are only {len(images)} images, and each is "
                "used once. Pass more images or ask for fewer samples."
            )
        drawn = rng.permutation(len(images))[:n_samples]
        images, labels = images[drawn], None if labels is None else labels[drawn]
    if variation in ("rot", "bg-img-rot"):
        images = rotate_images(images, rng.uniform(0, 2 * np.pi, size=len(images)))
    if variation == "bg-rand":
        images = np.maximum(images, rng.random(images.shape, dtype=np.float32))
    elif variation in ("bg-img", "bg-img-rot"):
        patches = draw_patches(photographs, len(images), images.shape[1:], rng)
        images = np.maximum(images, patches)
    # A copy: what the caller changes in X stays out of the images.
    return images.reshape(len(images), -1).copy(), None if labels is None else labels.copy()


def _digits_or_mnist(images, labels):
    """Images of shape (n, height, width) and labels as given, or MNIST's."""
    if images is None:
        if labels is not None:
            raise ValueError("labels were given without images. Pass the images, too.")
        images, labels = load_mnist(return_X_y=True)
    images = check_images(images)
    return images, check_labels(labels, images)


def load_larochelle(
    name, *, n_test=None, images=None, labels=None, photographs=None, random_state=None
):
    """One data set of the benchmark of Larochelle et al., split as published.

    The rows are made anew, by the published rules, and differ from those of the paper. Training
    and validation sets have 1000 and 200 rows for "rect" (:func:`make_rectangles`), 7000 and
    1000 for "convex" (:func:`make_convex`), and 10,000 and 2000 for "rect-img"
    (:func:`make_rectangles_image`) and all others (:func:`make_digit_variation`).

    Parameters
    ----------
    name : {"basic", "rot", "bg-rand", "bg-img", "bg-img-rot", "rect", "rect-img", "convex"}
        Which one.
    n_test : int, default=None
        Rows of the test set; None for the published 50,000. The 60,000 digits of
        :func:`load_mnist` leave 48,000 at most, since none is used twice.
    images : array-like of shape (n_images, height, width) or (n_images, n_pixels), default=None
        Digits that variations are made of. None: :func:`load_mnist`. Not used for "rect",
        "rect-img" and "convex".
    labels : array-like of shape (n_images,), default=None
        Their classes.
    photographs : array-like, default=None
        What patches are cut out of, as for :func:`make_digit_variation`, and for "rect-img".
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    data : Bunch
        With the attributes ``X_train``, ``y_train``, ``X_validation``, ``y_validation``,
        ``X_test`` and ``y_test``: images as rows of float32 in [0, 1], and their classes.

    Raises
    ------
    ValueError
        An unknown name, or too few digits.
    OSError
        ``images=None``, and MNIST cannot be loaded.

    References
    ----------
    H. Larochelle, D. Erhan, A. Courville, J. Bergstra and Y. Bengio, "An empirical evaluation
    of deep architectures on problems with many factors of variation", ICML 2007.

    Examples
    --------
    >>> from skae.datasets import load_larochelle
    >>> data = load_larochelle("rect", n_test=500, random_state=0)
    >>> data.X_train.shape, data.X_validation.shape, data.X_test.shape
    ((1000, 784), (200, 784), (500, 784))
    """
    check_choice("name", name, _SIZES)
    n_test = _N_TEST if n_test is None else n_test
    check_count("n_test", n_test, least=1)
    n_train, n_validation = _SIZES[name]
    n = n_train + n_validation + n_test
    if name == "rect":
        X, y = make_rectangles(n, random_state=random_state)
    elif name == "rect-img":
        X, y = make_rectangles_image(n, photographs=photographs, random_state=random_state)
    elif name == "convex":
        X, y = make_convex(n, random_state=random_state)
    else:
        images, labels = _digits_or_mnist(images, labels)
        left = len(images) - (n - n_test)
        if left < n_test:
            smaller = f"Ask for n_test={left} at most, or pass" if left > 0 else "Pass"
            raise ValueError(
                f"Training and validation take {n - n_test} of {len(images)} digits, which leaves "
                f"{max(left, 0)} for a test set of n_test={n_test}. {smaller} more images: each is "
                "used once."
            )
        X, y = make_digit_variation(
            name, images, labels, n, photographs=photographs, random_state=random_state
        )
    stops = np.cumsum([0, n_train, n_validation, n_test])
    splits, rows = Bunch(), map(slice, stops, stops[1:])
    for part, of_part in zip(("train", "validation", "test"), rows, strict=True):
        splits[f"X_{part}"], splits[f"y_{part}"] = X[of_part], None if y is None else y[of_part]
    return splits
