"""
Search among texts
==================

A query of few words should find texts that are about the same, also those in which none of the
words occurs. An auto-encoder whose training hides most words of a text learns which words go
together, and gives a query the code of texts in which its words would occur. Claims, checked on 150
queries of four words each, among generated texts whose topics are known:

- of the first twenty texts that are found by codes, more are of the query's topic than of those
  that are found by the words themselves or by a truncated SVD of the same size;
- among texts that have no word of the query, of which words by themselves know nothing, most of the
  first twenty are of its topic, and by eight points at least more than by the SVD.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from skae import DenoisingAutoEncoder

# %%
# The texts
# ---------
# Each has one of ten topics, from which a fifth of its words come; the others are words that all
# texts share.

rng = np.random.default_rng(0)
n_texts, n_words, n_topics, n_queries = 1500, 1000, 10, 150
words = np.array([f"word{k}" for k in range(n_words)])
shared = rng.dirichlet(np.full(n_words, 0.3))
topics = rng.dirichlet(np.full(n_words, 0.03), size=n_topics)
topic = rng.integers(n_topics, size=n_texts)
texts = [
    " ".join(rng.choice(words, p=0.8 * shared + 0.2 * topics[k], size=rng.integers(20, 60)))
    for k in topic
]
topic_of_query = rng.integers(n_topics, size=n_queries)
queries = [" ".join(rng.choice(words, p=topics[k], size=4)) for k in topic_of_query]
print("query:", queries[0])
print("text: ", texts[0][:60], "...")

# %%
# Codes
# -----
# Training hides up to nine in ten words, since a query is a text of which nearly all is hidden.

vectorizer = CountVectorizer(binary=True).fit(texts)
X, Q = (vectorizer.transform(rows).astype(np.float32) for rows in (texts, queries))
model = DenoisingAutoEncoder(
    32,
    activation="tanh",
    loss="bernoulli",
    corruption="masking",
    corruption_level=(0.3, 0.9),
    learning_rate=3e-3,
    learning_rate_schedule="cosine",
    batch_size=50,
    max_iter=30,
    n_iter_no_change=None,
    random_state=0,
).fit(X)
svd = TruncatedSVD(32, random_state=0).fit(X)
codes = model.transform(X)
center = codes.mean(axis=0)
likeness = {
    "words": cosine_similarity(Q, X),
    "truncated SVD": cosine_similarity(svd.transform(Q), svd.transform(X)),
    "codes": cosine_similarity(model.transform(Q) - center, codes - center),
}

# %%
# What is found
# -------------

about = topic_of_query[:, np.newaxis] == topic
no_word = (Q @ X.T).toarray() == 0
first = np.arange(1, 101)


def precision(likeness, among):
    """The part of the first texts that are of the query's topic, for each number of them."""
    order = np.where(among, likeness, -np.inf).argsort(axis=1)[:, ::-1][:, : first[-1]]
    hits = np.take_along_axis(about, order, axis=1)
    return (hits.cumsum(axis=1) / first).mean(axis=0)


curves = {}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
for ax, (name, among) in zip(
    axes,
    {"all texts": np.ones_like(no_word), "texts without a word of the query": no_word}.items(),
    strict=True,
):
    for of, values in likeness.items():
        curves[of, name] = precision(values, among)
        ax.plot(first, curves[of, name], label=of)
        print(f"{name}, {of}: {curves[of, name][19]:.0%} of the first twenty")
    ax.set(title=name, xlabel="texts looked at")
axes[0].set_ylabel("of the query's topic")
axes[0].legend()
plt.show()

everywhere, without = "all texts", "texts without a word of the query"
for of in ("words", "truncated SVD"):
    assert curves["codes", everywhere][19] > curves[of, everywhere][19] + 0.02
    assert curves["codes", without][19] > curves[of, without][19] + 0.08
assert curves["codes", without][19] > 0.6

# %%
# Limits
# ------
# - Each text has one topic, and topics are all there is to learn: just the kind of regularity that
#   masking looks for. Nothing was measured on real texts.
# - The SVD is that of the words as they are; weights of the words (tf-idf) were not tried.
# - Codes find what a text is about, not what it says. Where a name or a number is looked for,
#   search for the word itself.
# - Embeddings of a language model know more of words than counts do.
