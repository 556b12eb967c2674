"""Time and memory of a fit on sparse rows, beside the same rows made dense.

What is compared. ``AutoEncoder`` on a CSR matrix like that of a text (20,000 rows, 5,000
columns, half a percent of entries, tf-idf weights of words drawn from topics) and on the
same matrix as a dense float32 array of 400 MB.

What makes it fair. The two fits take the same batches from the same start, so that their
losses agree; each runs in a fresh process, and they alternate. Peak memory counts what
the fit needs beyond the imports and its own input, which is made before.

    python examples/benchmarks/sparse_speed.py [--quick] [--repeats N]

Linux only: it reads /proc/self/status.
"""

import argparse
import sys
import time

import numpy as np
import sklearn
import torch
from measuring import PeakMemory, in_fresh_process, interleave, print_machine, print_table, spread
from scipy import sparse
from sklearn.feature_extraction.text import TfidfTransformer

import skae
from skae import AutoEncoder


def make_documents(n_rows, n_words=5000, n_topics=20, words_per_row=27):
    """Tf-idf weights of documents, each of words from its topic, as CSR in float32."""
    random = np.random.default_rng(0)
    popularity = 1 / np.arange(3, n_words + 3)
    topics = random.gamma(0.2, size=(n_topics, n_words)) * popularity
    topics /= topics.sum(1, keepdims=True)
    words = [
        random.choice(n_words, (n_rows // n_topics, words_per_row), p=topic) for topic in topics
    ]
    columns = random.permutation(np.concatenate(words))
    rows = np.repeat(np.arange(len(columns)), words_per_row)
    counts = sparse.csr_matrix(
        (np.ones(columns.size, np.float32), (rows, columns.ravel())), (len(columns), n_words)
    )
    return TfidfTransformer().fit_transform(counts)


def fit(form, n_rows, n_epochs):
    """Fit on one form of the data; return seconds, peak memory, size of the input, loss."""
    X = make_documents(n_rows)
    density = X.nnz / np.prod(X.shape)
    size = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    if form == "dense":
        X = X.toarray()
        size = X.nbytes
    model = AutoEncoder(64, max_iter=n_epochs, n_iter_no_change=None, device="cpu", random_state=0)
    with PeakMemory() as memory:
        start = time.perf_counter()
        model.fit(X)
        seconds = time.perf_counter() - start
    return seconds, memory.peak["VmRSS"], size, density, model.loss_curve_[-1]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="4,000 rows, 1 epoch, 1 repeat")
    parser.add_argument("--repeats", type=int, default=None, help="default: 5, or 1 if quick")
    arguments = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.exit(message="This benchmark reads /proc/self/status: Linux only.\n")
    n_repeats = arguments.repeats or (1 if arguments.quick else 5)
    n_rows, n_epochs = (4_000, 1) if arguments.quick else (20_000, 3)

    print_machine(torch, sklearn, skae)
    kept = {"dense": [], "sparse": []}
    runs = {
        form: lambda form=form: kept[form].append(in_fresh_process(fit, form, n_rows, n_epochs))
        for form in kept
    }
    interleave(runs, n_repeats)
    columns = {
        form: [np.array(column) for column in zip(*kept[form], strict=True)] for form in kept
    }
    dense_seconds, dense_peak = columns["dense"][0], columns["dense"][1]
    rows = []
    for form, (seconds, peak, size, _, loss) in columns.items():
        rows.append(
            (
                form,
                spread(seconds / n_epochs, 3),
                spread(seconds / dense_seconds),
                f"{size[0] / 1e6:.0f}",
                spread(peak / 1e6, 0),
                spread(peak / dense_peak),
                f"{loss[0]:.3f}",
            )
        )
    print_table(
        f"{n_rows} x 5000, {columns['sparse'][3][0]:.2%} of entries, 64 components, "
        f"{n_epochs} epochs, {n_repeats} repeats",
        (
            "",
            "s per epoch",
            "this / dense",
            "input MB",
            "peak MB beyond it",
            "this / dense",
            "loss",
        ),
        rows,
    )


if __name__ == "__main__":
    main()
