r"""
Data sets of many factors of variation
======================================

Larochelle et al. (ICML 2007) made data sets that are hard for shallow models for known reasons:
what tells classes apart is not what makes images differ. Digits are turned, or lie on
backgrounds; rectangles are tall or wide wherever they are; regions are convex or not.
:mod:`skae.datasets` makes all of them, and an endless stream of deformed digits (Loosli et al.
2007). Here is what they look like and how hard they are.

What follows is checked:

- for digits that are turned or lie on photographs, a support vector machine makes more errors
  than for the same digits as they are, and most where they are and do both;
- it takes several pixels together to tell tall from wide, or convex from not: a linear classifier
  makes more than twice the errors of a support vector machine;
- 200 digits and deformations of them teach a classifier more than the 200 digits alone.

The digits are those that come with scikit-learn, enlarged, so that nothing is downloaded;
:func:`~skae.datasets.load_larochelle` makes the benchmark itself, in its published sizes, of MNIST.
"""

from itertools import islice

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from skae.datasets import (
    DeformedDigits,
    make_convex,
    make_digit_variation,
    make_rectangles,
    make_rectangles_image,
)

digits = load_digits()
images = np.clip(zoom(digits.images / 16, (1, 3.5, 3.5), order=1), 0, 1)

VARIATIONS = ("basic", "rot", "bg-rand", "bg-img", "bg-img-rot")
data = {
    name: make_digit_variation(name, images, digits.target, random_state=0) for name in VARIATIONS
}
data["rect"] = make_rectangles(1800, random_state=0)
data["rect-img"] = make_rectangles_image(1800, random_state=0)
data["convex"] = make_convex(1800, random_state=0)

# %%
# Pictures
# --------
# Ten of each. The same digits in each column of the first five rows. Of the shapes, those of
# class 0 are on the left and those of class 1 on the right: wide and tall, not convex and convex.
# A convex region may be all of the image: it is an intersection of any number of half-planes,
# none included.

figure, axes = plt.subplots(len(data), 10, figsize=(8, 7), layout="constrained")
for line, (name, (X, y)) in zip(axes, data.items(), strict=True):
    of_class = [np.flatnonzero(y == label)[:5] for label in (0, 1)]
    shown = np.arange(10) if name in VARIATIONS else np.concatenate(of_class)
    for ax, row in zip(line, X[shown], strict=True):
        ax.imshow(row.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
plt.show()

# %%
# How hard they are
# -----------------
# 1000 rows for training and the others for the test.


def error(classifier, X, y, n_train=1000):
    """Part of the test rows that are classified wrongly."""
    return 1 - classifier.fit(X[:n_train], y[:n_train]).score(X[n_train:], y[n_train:])


errors = {}
for name, (X, y) in data.items():
    errors[name] = error(LogisticRegression(C=0.01, max_iter=300), X, y), error(SVC(C=10), X, y)
    print(
        f"{name:10}  errors: linear {errors[name][0]:6.1%}, support vectors {errors[name][1]:6.1%}"
    )

machine = {name: by_machine for name, (_, by_machine) in errors.items()}
for name in ("rot", "bg-rand", "bg-img"):
    assert machine["basic"] < machine[name] < machine["bg-img-rot"]
for name in ("rect", "convex"):
    linear, by_machine = errors[name]
    assert linear > 0.3 > by_machine
    assert linear > 2 * by_machine

# %%
# Deformed digits
# ---------------
# Originals on the left, and deformations of each: small turns, changes of size, slants and shifts,
# and an elastic displacement that is smooth over a seventh of the image.

originals = images[[0, 1, 2, 3]]
batch, which = next(iter(DeformedDigits(originals, np.arange(4), batch_size=200, random_state=0)))
figure, axes = plt.subplots(4, 10, figsize=(8, 3.5), layout="constrained")
for number, line in enumerate(axes):
    rows = [originals[number].ravel(), *batch[which == number][:9]]
    for ax, row in zip(line, rows, strict=True):
        ax.imshow(row.reshape(28, 28), cmap="gray", vmin=0, vmax=1)
        ax.set_axis_off()
plt.show()

# %%
# What they are good for: no two rows of the stream are alike, so that what is learned from it is
# not learned by heart. A classifier that is given 4000 deformations of 200 digits learns what does
# not change their class.

X, y = digits.data / 16, digits.target
stream = DeformedDigits(X[:200], y[:200], batch_size=200, random_state=0)
batches, labels = zip(*islice(stream, 20), strict=True)
plain = SVC(C=10).fit(X[:200], y[:200])
deformed = SVC(C=10).fit(np.concatenate([X[:200], *batches]), np.concatenate([y[:200], *labels]))
wrong = [1 - classifier.score(X[200:], y[200:]) for classifier in (plain, deformed)]
print(f"errors: 200 digits {wrong[0]:.1%}, with deformations {wrong[1]:.1%}")
assert wrong[1] < 0.85 * wrong[0]

# %%
# Limits
# ------
# - The sets are made anew by the published rules. The photographs of the original are not
#   public; errors on images with photographs depend on them.
# - Deformations keep the class of most digits, not of all: too much of a slant makes a 7 of a 1.
