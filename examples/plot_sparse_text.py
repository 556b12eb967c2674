r"""
Topics from a sparse word matrix
================================

A sparse matrix is made dense one batch at a time, never as a whole. Claims, checked here on
generated documents whose topics are known:

- training on the sparse matrix gives the same model as training on the dense one;
- documents that are near each other in the code share their topic, more often than by the words
  themselves or by a truncated SVD of the same size.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from skae import DenoisingAutoEncoder

# %%
# A document of 20 to 60 words has one of eight topics. A fifth of its words come from the
# topic, the others from a background that all documents share. What is kept is which words
# occur.

rng = np.random.default_rng(0)
n_documents, n_words, n_topics = 2000, 2000, 8
background = rng.dirichlet(np.full(n_words, 0.3))
topics = rng.dirichlet(np.full(n_words, 0.02), size=n_topics)
y = rng.integers(n_topics, size=n_documents)
counts = [rng.multinomial(rng.integers(20, 60), 0.8 * background + 0.2 * topics[t]) for t in y]
X = sparse.csr_array((np.array(counts) > 0).astype(np.float32))
print(f"{X.shape[0]} documents, {X.shape[1]} words, {X.nnz / np.prod(X.shape):.1%} non-zero")

X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

# %%
# Masking hides half of a document's words during training: the code has to hold what predicts
# words from other words, which is the topic.

dae = DenoisingAutoEncoder(
    32,
    activation="tanh",
    loss="bernoulli",
    corruption="masking",
    corruption_level=0.5,
    learning_rate=3e-3,
    learning_rate_schedule="cosine",
    batch_size=50,
    max_iter=20,
    n_iter_no_change=None,
    random_state=0,
).fit(X_train)


def accuracy(train, test):
    """Of the ten nearest neighbours' vote on the topic."""
    neighbours = KNeighborsClassifier(10, metric="cosine")
    return neighbours.fit(train, y_train).score(test, y_test)


svd = TruncatedSVD(32, random_state=0).fit(X_train)
on_words = accuracy(X_train, X_test)
on_svd = accuracy(svd.transform(X_train), svd.transform(X_test))
on_codes = accuracy(dae.transform(X_train), dae.transform(X_test))
print(
    f"neighbours share the topic: words {on_words:.1%}, truncated SVD {on_svd:.1%}, "
    f"codes {on_codes:.1%}"
)
assert on_codes > max(on_words, on_svd)

figure, ax = plt.subplots(figsize=(6, 2.2), layout="constrained")
ax.barh(["codes", "truncated SVD", "words"], [on_codes, on_svd, on_words])
ax.set_xlabel("documents whose neighbours tell the topic")
plt.show()

# %%
# The same from dense data, for two epochs:

dae.set_params(max_iter=2)
from_sparse = dae.fit(X_train).components_
from_dense = dae.fit(X_train.toarray()).components_
print("largest difference:", abs(from_sparse - from_dense).max())
assert np.allclose(from_sparse, from_dense, atol=1e-5)

# %%
# Limits
# ------
# Sparse input saves memory, not arithmetic: batches are dense, and the decoder predicts every
# word of the vocabulary. The documents are drawn from just the kind of regularity that masking
# looks for, with one topic each and no word order; with a larger share of topic words all three
# representations come close to each other.
