"""The benchmark of Larochelle et al. in its published sizes."""

import numpy as np
from sklearn.utils import Bunch

from skae._validation import check_choice, check_count
from skae.datasets._digits import VARIATIONS, digits_or_mnist, make_digit_variation
from skae.datasets._generators import make_convex, make_rectangles, make_rectangles_image

_N_TEST = 50_000
# Rows for training and for validation.
_SIZES = dict.fromkeys(VARIATIONS, (10_000, 2000)) | {
    "rect": (1000, 200),
    "rect-img": (10_000, 2000),
    "convex": (7000, 1000),
}


def load_larochelle(
    name, *, n_test=None, images=None, labels=None, photographs=None, random_state=None
):
    """One data set of the benchmark of Larochelle et al., split as published.

    The rows are made anew, by the published rules, and differ from those of the paper.

    ============  =======  ==========  =======  ================================================
    name          train    validation  test     made by
    ============  =======  ==========  =======  ================================================
    "basic"       10,000   2000        50,000   :func:`make_digit_variation`
    "rot"         10,000   2000        50,000   :func:`make_digit_variation`
    "bg-rand"     10,000   2000        50,000   :func:`make_digit_variation`
    "bg-img"      10,000   2000        50,000   :func:`make_digit_variation`
    "bg-img-rot"  10,000   2000        50,000   :func:`make_digit_variation`
    "rect"        1000     200         50,000   :func:`make_rectangles`
    "rect-img"    10,000   2000        50,000   :func:`make_rectangles_image`
    "convex"      7000     1000        50,000   :func:`make_convex`
    ============  =======  ==========  =======  ================================================

    Parameters
    ----------
    name : {"basic", "rot", "bg-rand", "bg-img", "bg-img-rot", "rect", "rect-img", "convex"}
        Which one.
    n_test : int, default=None
        Rows of the test set; None for the published 50,000. No digit is used twice, so that the
        60,000 of :func:`load_mnist` leave 48,000 for the test.
    images : array-like of shape (n_images, height, width) or (n_images, n_pixels), default=None
        Digits that variations are made of. None: :func:`load_mnist`. Not used for "rect",
        "rect-img" and "convex".
    labels : array-like of shape (n_images,), default=None
        Their classes.
    photographs : array-like, default=None
        What patches are cut out of, as for :func:`make_digit_variation`. Only used for "bg-img",
        "bg-img-rot" and "rect-img".
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

    See Also
    --------
    make_digit_variation : The rows of the variations of digits, and how they are made.
    make_rectangles, make_rectangles_image, make_convex : Those of the shapes.

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
        images, labels = digits_or_mnist(images, labels)
        _check_enough(len(images), n - n_test, n_test)
        X, y = make_digit_variation(
            name, images, labels, n, photographs=photographs, random_state=random_state
        )
    splits = Bunch()
    stops = np.cumsum([n_train, n_validation])
    for part, rows, classes in zip(
        ("train", "validation", "test"),
        np.split(X, stops),
        [None] * 3 if y is None else np.split(y, stops),
        strict=True,
    ):
        splits[f"X_{part}"], splits[f"y_{part}"] = rows, classes
    return splits


def _check_enough(n_images, n_before_test, n_test):
    left = n_images - n_before_test
    if left < n_test:
        smaller = f"Ask for n_test={left} at most, or pass" if left > 0 else "Pass"
        raise ValueError(
            f"Training and validation take {n_before_test} of {n_images} digits, which leaves "
            f"{max(left, 0)} for a test set of n_test={n_test}. {smaller} more images: each is "
            "used once."
        )
