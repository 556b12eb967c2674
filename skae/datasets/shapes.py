"""Shapes to tell apart: tall from wide rectangles, convex from other regions."""

import functools

import numpy as np

from skae._validation import check_count
from skae.datasets.images import draw_patches, make_rng

# Regions that are drawn at a time, of which many are refused.
_CANDIDATES = 2048


def make_rectangles(n_samples=1200, *, image_size=28, random_state=None):
    """Outlines of rectangles that are tall or wide.

    White lines, one pixel wide, on black. Height and width are uniform; they differ by 3 pixels
    at least. The position is uniform among those where the rectangle fits into the image.

    Parameters
    ----------
    n_samples : int, default=1200
        Number of images; the published training and validation sets have 1200.
    image_size : int, default=28
        Height and width of the images, 8 at least.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    X : ndarray of shape (n_samples, image_size ** 2), float32
        0 for black, 1 for white.
    y : ndarray of shape (n_samples,), int64
        1 for rectangles that are taller than wide, 0 for those that are wider than tall.

    Raises
    ------
    ValueError
        A parameter outside of its range.

    See Also
    --------
    make_rectangles_image : The same question, with patches of photographs.
    load_larochelle : The benchmark in its published sizes, and its paper.

    Notes
    -----
    That no side is shorter than 3 pixels, so that outlines enclose something, is a rule of ours.

    Examples
    --------
    >>> from skae.datasets import make_rectangles
    >>> X, y = make_rectangles(100, random_state=0)
    >>> X.shape, y.shape
    ((100, 784), (100,))
    """
    _check_sizes(n_samples, image_size)
    height, width, allowed = _sides(image_size, least=3)
    allowed &= abs(height - width) >= 3
    rectangle, inside, y = _draw_rectangles(n_samples, allowed, make_rng(random_state))
    return _rows(rectangle & ~inside), y


def make_rectangles_image(n_samples=12_000, *, photographs=None, image_size=28, random_state=None):
    """Rectangles that are tall or wide, filled with a patch of a photograph, on another patch.

    Height and width are uniform, under three conditions: both are at least 10 pixels, they
    differ by at least 5, and the rectangle covers between a quarter and three quarters of the
    image. The position is uniform among those where it fits into the image.

    Parameters
    ----------
    n_samples : int, default=12000
        Number of images; the published training and validation sets have 12,000.
    photographs : array-like of shape (n_photographs, height, width[, channels]), default=None
        What patches are cut out of, in [0, 1] or of dtype uint8; channels are averaged. None:
        the two photographs of :func:`sklearn.datasets.load_sample_images`.
    image_size : int, default=28
        Height and width of the images, 8 at least. Conditions in pixels hold for 28 and grow.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    X : ndarray of shape (n_samples, image_size ** 2), float32
        Values in [0, 1].
    y : ndarray of shape (n_samples,), int64
        1 for rectangles that are taller than wide, 0 for those that are wider than tall.

    Raises
    ------
    ValueError
        A parameter outside of its range, or photographs too small or without contrast.

    See Also
    --------
    make_rectangles : Outlines of rectangles.
    load_larochelle : The benchmark in its published sizes, and its paper.

    Notes
    -----
    Both patches are drawn independently, as for "bg-img" of :func:`make_digit_variation`: among
    those of a standard deviation of at least 0.1, though none is published for this data set.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.datasets import make_rectangles_image
    >>> photograph = np.random.default_rng(0).random((1, 100, 100))
    >>> X, y = make_rectangles_image(50, photographs=photograph, random_state=0)
    >>> X.shape, y.shape
    ((50, 784), (50,))
    """
    _check_sizes(n_samples, image_size)
    height, width, allowed = _sides(image_size, least=round(10 / 28 * image_size))
    allowed &= abs(height - width) >= round(5 / 28 * image_size)
    allowed &= (height * width >= image_size**2 / 4) & (height * width <= image_size**2 * 3 / 4)
    rng = make_rng(random_state)
    rectangle, _, y = _draw_rectangles(n_samples, allowed, rng)
    patches = draw_patches(photographs, 2 * n_samples, (image_size, image_size), rng)
    return _rows(np.where(rectangle, patches[:n_samples], patches[n_samples:])), y


def make_convex(n_samples=8000, *, image_size=28, random_state=None):
    """White regions on black that are convex or not.

    A set of pixels is convex if the convex hull of their centres contains the centre of no other
    pixel. Convex regions are intersections of random half-planes. The others are unions of two,
    three or four convex regions, redrawn until they are not convex.

    Parameters
    ----------
    n_samples : int, default=8000
        Number of images; the published training and validation sets have 8000.
    image_size : int, default=28
        Height and width of the images, 8 at least.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    X : ndarray of shape (n_samples, image_size ** 2), float32
        0 for black, 1 for white.
    y : ndarray of shape (n_samples,), int64
        1 for convex regions, 0 for others: half the rows each, in random order.

    Raises
    ------
    ValueError
        A parameter outside of its range.

    See Also
    --------
    load_larochelle : The benchmark in its published sizes, and its paper.

    Notes
    -----
    As published for 28 x 28 pixels, the number of half-planes is geometric with parameter 0.195,
    or 0.07 for the parts of unions; regions of fewer than 19 pixels, or 10 for parts, are refused
    (these bounds grow with the area of the image); the number of parts is uniform; and the
    classes do not differ in their mean area. This last statement holds if a geometric variable
    counts failures, as in MATLAB, in which the original was written, and here. Then about a third
    of the convex regions, those without a half-plane, are all white. A half-plane has a uniform
    direction, and its border goes through a point that is uniform in the image.

    The set is easier than that of the paper, and why is not known: a support vector machine errs at
    11.9 % (of what is not all white, at 14.5 %), where 19.13 % was published. It does so at 11.4 %
    where convex regions have at least one half-plane, but are smaller than the others, and at 11.7
    % where borders are at a uniform distance from the centre.

    References
    ----------
    The page "ConvexNonConvex" of the paper's online companion.

    Examples
    --------
    >>> from skae.datasets import make_convex
    >>> X, y = make_convex(100, random_state=0)
    >>> X.shape, int(y.sum())
    ((100, 784), 50)
    """
    _check_sizes(n_samples, image_size)
    rng = make_rng(random_state)
    y = rng.permutation(np.arange(n_samples) % 2)
    regions = np.empty((n_samples, image_size, image_size), dtype=bool)
    n_convex = int(y.sum())
    regions[y == 1] = _draw_convex(n_convex, 0.195, 19, image_size, rng)
    draw = functools.partial(_not_convex, image_size, rng)
    regions[y == 0] = _collect(n_samples - n_convex, draw, image_size)
    return _rows(regions), y


def _check_sizes(n_samples, image_size):
    check_count("n_samples", n_samples, least=1)
    check_count("image_size", image_size, least=8)


def _rows(images):
    return images.reshape(len(images), -1).astype(np.float32)


def _sides(image_size, least):
    """Heights, as a column, and widths, as a row, of rectangles; which ones are long enough."""
    height, width = np.ogrid[: image_size + 1, : image_size + 1]
    return height, width, np.minimum(height, width) >= least


def _draw_rectangles(n, allowed, rng):
    """Masks of rectangles and of what is inside their outlines, and which ones are tall."""
    image_size = len(allowed) - 1
    height, width = np.array(np.nonzero(allowed))[:, rng.integers(allowed.sum(), size=n)]
    start = [rng.integers(image_size - side + 1)[:, np.newaxis] for side in (height, width)]
    stop = [a + side[:, np.newaxis] for a, side in zip(start, (height, width), strict=True)]
    pixel = np.arange(image_size)
    masks = []
    for margin in (0, 1):
        rows, columns = (
            (pixel >= a + margin) & (pixel < b - margin) for a, b in zip(start, stop, strict=True)
        )
        masks.append(rows[:, :, np.newaxis] & columns[:, np.newaxis, :])
    return *masks, (height > width).astype(np.int64)


def _collect(n, draw, image_size):
    """The first n of the images that ``draw`` returns, called as often as it takes."""
    images = np.empty((0, image_size, image_size), dtype=bool)
    while len(images) < n:
        images = np.concatenate([images, draw()])
    return images[:n]


def _draw_convex(n, p, least, image_size, rng):
    """Intersections of half-planes that hold so many of 784 pixels, or the same part of them."""
    return _collect(n, lambda: _intersections(p, least, image_size, rng), image_size)


def _intersections(p, least, image_size, rng):
    least = least / 784 * image_size**2
    y, x = np.mgrid[:image_size, :image_size].reshape(2, -1)
    pixels = np.stack([x, y, np.ones_like(x)]).astype(np.float64)
    n_planes = rng.geometric(p, size=_CANDIDATES) - 1
    regions = np.ones((_CANDIDATES, image_size**2), dtype=bool)
    alive, large = np.arange(_CANDIDATES), np.ones(_CANDIDATES, dtype=bool)
    for plane in range(n_planes.max()):
        # One that is too small remains so: no further half-plane is wasted on it.
        alive = alive[(n_planes[alive] > plane) & large[alive]]
        angle = rng.uniform(0, 2 * np.pi, size=len(alive))
        through = rng.uniform(-0.5, image_size - 0.5, size=(len(alive), 2))
        normal = np.column_stack([np.cos(angle), np.sin(angle)])
        offset = (normal * through).sum(axis=1, keepdims=True)
        regions[alive] &= np.hstack([normal, -offset]) @ pixels >= 0
        large[alive] = regions[alive].sum(axis=1) >= least
    return regions[large].reshape(-1, image_size, image_size)


def _not_convex(image_size, rng):
    n_parts = rng.integers(2, 5, size=_CANDIDATES // 2)
    parts = _draw_convex(n_parts.sum(), 0.07, 10, image_size, rng)
    unions = np.logical_or.reduceat(parts, np.cumsum(n_parts) - n_parts, axis=0)
    unions = unions[~unions.all(axis=(1, 2))]
    return unions[_hull_areas(unions) > unions.sum(axis=(1, 2))]


def _hull_areas(regions):
    """Number of pixels whose centre is in the convex hull of a region's; integers throughout.

    In each row, the hull begins where the leftmost of all segments begins that join the first
    white pixels of two rows, one above and one below; and so on its right.
    """
    height, width = regions.shape[1:]
    white = regions.any(axis=2)
    # Segments to a row without white are so far out that they cut off nothing.
    far = 2 * height * width
    first = np.where(white, regions.argmax(axis=2), far)
    last = np.where(white, width - 1 - regions[:, :, ::-1].argmax(axis=2), -far)
    start, stop = first.copy(), last.copy()
    for top in range(height):
        for bottom in range(top + 1, height):
            rows, distance = slice(top, bottom + 1), bottom - top
            below = np.arange(distance + 1)
            # Sides of the segment, times the distance: rounded towards the inside of the hull.
            left = first[:, [top]] * below[::-1] + first[:, [bottom]] * below
            right = last[:, [top]] * below[::-1] + last[:, [bottom]] * below
            np.minimum(start[:, rows], -(-left // distance), out=start[:, rows])
            np.maximum(stop[:, rows], right // distance, out=stop[:, rows])
    return np.maximum(stop - start + 1, 0).sum(axis=1)
