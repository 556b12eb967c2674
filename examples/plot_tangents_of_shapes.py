r"""
Tangents of shifted and rotated shapes
======================================

Images of one shape, shifted along both axes and rotated, lie on a manifold of three dimensions.
Its tangents are known: derivatives of the rendering by both shifts and by the angle. The plane
that they span is compared with that of a contractive auto-encoder's tangents and with that
of local PCA, by the mean of the three principal angles. Claims, checked here:

- both are closer to the truth than a random plane;
- with many rows under strong noise the learned plane is closer than that of local PCA with its
  default of 20 neighbours, which sees little but noise;
- under weak noise local PCA is closer, and with the best number of neighbours it is closer
  throughout: a shape that turns leaves every plane soon, and one layer of sigmoid units finds
  two of the three tangents roughly and the third hardly.
"""

import numpy as np

from skae import ContractiveAutoEncoder
from skae.diagnostics import local_pca_tangents, principal_angles, tangents
from skae.plots import TangentDisplay

side = 10
rows, columns = np.mgrid[:side, :side] - (side - 1) / 2


def render(poses):
    """Images of a soft bar, for poses (shift to the right, shift downwards, angle)."""
    right, down, angle = poses.T[:, :, np.newaxis, np.newaxis]
    along = (columns - right) * np.cos(angle) + (rows - down) * np.sin(angle)
    across = (rows - down) * np.cos(angle) - (columns - right) * np.sin(angle)
    return np.exp(-((along / 3.2) ** 2) - (across / 1.3) ** 2).reshape(len(poses), -1)


def draw_poses(n_samples, rng):
    shifts = rng.uniform(-1.5, 1.5, (n_samples, 2))
    return np.column_stack([shifts, rng.uniform(0, np.pi, n_samples)])


def true_tangents(poses, step=1e-3):
    """Derivatives of the rendering, by central differences."""
    ends = [(render(poses + d), render(poses - d)) for d in step * np.eye(3)]
    return np.stack([(ahead - behind) / (2 * step) for ahead, behind in ends], axis=1)


def fit(X):
    """One layer, for 2250 steps however many rows there are."""
    return ContractiveAutoEncoder(
        60,
        contraction=0.3,
        loss="squared_error",
        learning_rate=3e-3,
        learning_rate_schedule="linear",
        batch_size=50,
        max_iter=112_500 // len(X),
        n_iter_no_change=None,
        random_state=0,
    ).fit(X)


# %%
# Mean principal angle to the true tangent plane, in degrees, at 200 rows that were not learned
# from. The best number of neighbours is chosen by the truth.

rng = np.random.default_rng(0)
test_poses = draw_poses(200, rng)
truth = true_tangents(test_poses)


def error(directions):
    """Mean of the principal angles over rows."""
    return np.degrees(principal_angles(directions, truth)).mean(axis=0)


chance = error(rng.normal(size=truth.shape)).mean()
errors, each_angle = {}, {}
print("  rows  noise  local PCA of 20  local PCA, best      contractive           random")
for n_samples in (300, 2000):
    for noise in (0.1, 0.3):
        clean = render(draw_poses(n_samples, rng))
        train = clean + noise * rng.normal(size=clean.shape)
        test = render(test_poses) + noise * rng.normal(size=(200, side**2))
        local = {
            k: error(local_pca_tangents(train, 3, n_neighbors=k, query=test).directions).mean()
            for k in (10, 20, 40, 80, 160)
            if k <= n_samples / 2
        }
        model = fit(train)
        each_angle[n_samples, noise] = error(tangents(model, test, 3).directions)
        row = local[20], min(local.values()), each_angle[n_samples, noise].mean()
        errors[n_samples, noise] = row
        degrees = (f"{value:16.1f}" for value in (*row, chance))
        print(f"{n_samples:>6}  {noise:5.1f}", *degrees)
        if (n_samples, noise) == (2000, 0.1):
            shown = model, train, test

for (_, noise), (fixed, best, learned) in errors.items():
    assert max(best, learned) < chance - 10
    assert noise == 0.3 or fixed < learned
    assert best < learned
assert errors[2000, 0.3][2] < errors[2000, 0.3][0] - 5

# %%
# The three principal angles of the learned plane one by one, with 2000 rows and a noise of 0.1:

first, second, third = each_angle[2000, 0.1]
print(f"learned: {first:.0f}, {second:.0f} and {third:.0f} degrees")
assert first < second < 60 < third

# %%
# Four of these rows beside the truth, in which the columns are the shift to the right, the
# shift downwards and the rotation. The others are bases of their planes, the strongest direction
# first, which need not be the same basis.

import matplotlib.pyplot as plt

model, train, test = shown
TangentDisplay.from_sources(
    {
        "truth": lambda some: truth[: len(some)],
        "contractive": model,
        "local PCA, 20": lambda some: local_pca_tangents(train, 3, query=some).directions,
        "local PCA, 160": lambda some: (
            local_pca_tangents(train, 3, n_neighbors=160, query=some).directions
        ),
    },
    test,
    n_tangents=3,
    n_images=4,
)
plt.show()
