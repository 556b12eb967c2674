"""Figures that were published, what we aim at, and which script measures them.

This is the one list of them: `recording.record` takes names from it, `published.py` makes the
guide's table of it. Errors are of test sets where they were published, and of the last 10,000
images of MNIST's training set here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One published figure."""

    what: str
    # The value, or what was published in words if there is no one number to compare with.
    published: float | str
    # At or below it (above, where higher is better); None: what was published.
    aim: float | None = None
    # The script beside this file that measures it. None: not written yet.
    script: str | None = None
    better: str = "lower"
    # Whether the script's docstring tells of a run that left no record.
    earlier: bool = True

    @property
    def goal(self):
        """What to reach: our own aim, or else the published value."""
        return self.published if self.aim is None else self.aim


@dataclass(frozen=True)
class Group:
    """Figures of one experiment: title, paper, unit, and figures by name."""

    title: str
    source: str
    unit: str
    figures: dict


def _rows(published, script=None, **options):
    """Figures that differ in what they are of, and in their value."""
    return {
        name: Figure(what, value, script=script, **options)
        for name, (what, value) in published.items()
    }


GROUPS = [
    Group(
        "MNIST, one hidden layer of 1000 units, pre-trained and fine-tuned",
        "Rifai et al., ICML 2011 and ECML 2011",
        "error, %",
        _rows(
            {
                "one-layer-auto": ("auto-encoder", 1.78),
                "one-layer-masking": ("denoising, masking", 1.57),
                "one-layer-gaussian": ("denoising, Gaussian noise", 1.18),
                "one-layer-rbm": ("RBM", 1.30),
                "one-layer-contractive": ("contractive", 1.14),
                "one-layer-hessian": ("contractive with Hessian term", 1.04),
            },
            "mnist_stacks.py",
        ),
    ),
    Group(
        "MNIST, three hidden layers",
        "Bengio et al. 2006; Larochelle et al. 2009; Vincent et al. 2010; Rifai et al., ICML 2011",
        "error, %",
        _rows(
            {
                "three-layers-rbm": ("RBMs", 1.2),
                "three-layers-auto": ("auto-encoders", 1.4),
                "three-layers-denoising": ("denoising auto-encoders", 1.2),
                "two-layers-contractive": ("two contractive layers", 1.04),
                "three-layers-supervised": ("supervised greedy", 2.0),
                "three-layers-random": ("no pre-training", 2.4),
            },
            "mnist_stacks.py",
        ),
    ),
    Group(
        "MNIST, codes of one layer, frozen, and a logistic regression of all labels",
        "Rifai et al., ECML 2011",
        "error, %",
        _rows(
            {
                "frozen-auto": ("auto-encoder", 2.17),
                "frozen-rbm": ("RBM", 2.04),
                "frozen-denoising": ("denoising", 2.05),
                "frozen-contractive": ("contractive", 1.82),
                "frozen-hessian": ("contractive with Hessian term", 1.20),
            },
            "mnist_stacks.py",
        ),
    ),
    Group(
        "MNIST, manifold tangent classifier",
        "Rifai et al., NIPS 2011",
        "error, %",
        {
            **_rows(
                {
                    f"tangents-published-{n}": (f"published criterion, {n} labels", error)
                    for n, error in ((100, 12.03), (600, 5.13), (1000, 3.64), (3000, 2.57))
                },
                "semi_supervised_mnist.py",
            ),
            **{
                f"tangents-bare-{n}": Figure(
                    f"bare constructor, {n} labels", error, aim, "semi_supervised_mnist.py"
                )
                for n, error, aim in (
                    (100, 12.03, 1.5),
                    (600, 5.13, 1.3),
                    (1000, 3.64, 1.2),
                    (3000, 2.57, 1.1),
                )
            },
            "tangents-all-labels": Figure("all labels", 0.81, 0.75, "full_mnist.py"),
        },
    ),
    Group(
        "Larochelle's sets, the best of the published models, and the best of ours by its "
        "validation error",
        "Larochelle et al., ICML 2007; Vincent et al. 2010; Rifai et al., ICML 2011",
        "error, %",
        _rows(
            {
                f"larochelle-{name}": (name, error)
                for name, error in {
                    "basic": 2.48,
                    "rot": 9.53,
                    "bg-rand": 6.73,
                    "bg-img": 15.50,
                    "bg-img-rot": 43.76,
                    "rect": 1.21,
                    "rect-img": 21.54,
                    "convex": 18.41,
                }.items()
            },
            "larochelle.py",
        ),
    ),
    Group(
        "MNIST, order of seven kinds of codes",
        "Rifai et al., ICML 2011, table 1",
        "rank correlation with the published order",
        _rows(
            {
                "cae-table-jacobian": ("mean norm of the Jacobian", 1.0),
                "cae-table-saturation": ("share of saturated units", 1.0),
            },
            "cae_table.py",
            better="higher",
        ),
    ),
    Group(
        "Forest cover (a sample of 12,120 rows, where 581,012 were published)",
        "Rifai et al., NIPS 2011",
        "difference of errors, points",
        {
            "forest-cover-svm": Figure(
                "manifold tangent classifier less support vectors",
                "3.13 - 4.11",
                0.0,
                "forest_cover.py",
            ),
            "forest-cover-boosting": Figure(
                "manifold tangent classifier less boosting", "-", 0.0, "forest_cover.py"
            ),
        },
    ),
    Group(
        "CIFAR-10 (10,000 images, where 50,000 were published): sparse codes less the model's own",
        "Coates and Ng, ICML 2011",
        "difference of accuracies, points",
        {
            "explaining-away-auto": Figure(
                "atoms of an auto-encoder", "76.5 - 72.9", 0.0, "explaining_away.py", "higher"
            ),
            "explaining-away-rbm": Figure(
                "atoms of an RBM", "76.7 - 74.1", 0.0, "explaining_away.py", "higher"
            ),
        },
    ),
    Group(
        "An endless stream of digits: pre-trained nets less random weights at its end",
        "Erhan et al. 2010",
        "difference of errors, points",
        {
            "endless-digits": Figure(
                "10 million rows", "the advantage persists", 0.0, "endless_digits.py", earlier=False
            ),
        },
    ),
    Group(
        "Binary MNIST, log-likelihood of test rows",
        "Salakhutdinov and Murray, ICML 2008; Salakhutdinov and Hinton, AISTATS 2009",
        "nats",
        {
            **_rows(
                {
                    "rbm-cd1": ("RBM, 500 units, CD-1", -125.5),
                    "rbm-cd3": ("RBM, 500 units, CD-3", -105.5),
                    "rbm-cd25": ("RBM, 500 units, CD-25", -86.3),
                },
                "mnist_rbm.py",
                better="higher",
            ),
            "rbm-long": Figure(
                "RBM, 500 units, persistent chains", -86.3, None, "mnist_rbm_long.py", "higher"
            ),
            "deep-boltzmann": Figure(
                "deep Boltzmann machine, bound", -84.62, None, "mnist_deep_boltzmann.py", "higher"
            ),
        },
    ),
    Group(
        "MNIST, a deep Boltzmann machine fine-tuned with all labels",
        "Salakhutdinov and Hinton, AISTATS 2009",
        "error, %",
        _rows({"deep-boltzmann-error": ("500 and 1000 units", 0.95)}, "mnist_deep_boltzmann.py"),
    ),
    Group(
        "MNIST, 30 numbers for an image",
        "Hinton and Salakhutdinov, Science 2006",
        "squared error of an image",
        _rows(
            {"deep-auto-encoder": ("deep auto-encoder", 3.00), "pca": ("PCA", 13.87)},
            "mnist_deep_autoencoder.py",
        ),
    ),
    Group(
        "MNIST, 10,000 samples: Parzen log-likelihood of test rows",
        "Rifai et al., ICML 2012; Bengio et al., NIPS 2013; Bengio et al., ICML 2014",
        "nats",
        _rows(
            {
                "samples-cae-1": ("one contractive layer", 68),
                "samples-cae-2": ("two contractive layers", 121),
                "samples-dbn-2": ("deep belief network", 138),
                "samples-dae": ("denoising auto-encoder", 144),
            },
            "mnist_samples.py",
            better="higher",
        ),
    ),
]
FIGURES = {name: figure for group in GROUPS for name, figure in group.figures.items()}
