"""
Texts as short lists of topics
==============================

A sparse code describes a text by few atoms, and atoms of words are topics. With
``positive=True`` and ``sparse_output=True`` codes are lists: which topics a text has, and how much
of each. Claims, checked on generated texts of one to three of eight topics, which no model was
told:

- each atom is a topic: among its ten heaviest words most are among the heaviest thirty of one
  topic, and each topic has an atom;
- lists are as short as the truth, and right: of what new texts are about, more than nine in ten is
  listed, and of what is listed more than nine in ten is right;
- a non-negative factorisation finds the same topics, but lists more than twice as many for a text.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import NMF
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

from skae import SparseCoder

# %%
# The texts
# ---------
# Half of the words are those that all texts share; the others come from the topics of the text.

rng = np.random.default_rng(0)
n_texts, n_words, n_topics = 1000, 600, 8
words = np.array([f"word{k}" for k in range(n_words)])
shared = rng.dirichlet(np.full(n_words, 0.3))
topics = rng.dirichlet(np.full(n_words, 0.03), size=n_topics)
has_topic = np.zeros((n_texts, n_topics), dtype=bool)
texts = []
for row in has_topic:
    some = rng.choice(n_topics, size=rng.integers(1, 4), replace=False)
    row[some] = True
    law = 0.5 * shared + 0.5 * rng.dirichlet(np.full(len(some), 4)) @ topics[some]
    texts.append(" ".join(rng.choice(words, p=law, size=rng.integers(60, 150))))
print(texts[0][:70], "...")

train, test, _, truth = train_test_split(texts, has_topic, test_size=0.3, random_state=0)
vectorizer = TfidfVectorizer(sublinear_tf=True).fit(train)
X_train, X_test = vectorizer.transform(train), vectorizer.transform(test)
vocabulary = vectorizer.get_feature_names_out()

# %%
# Lists of topics
# ---------------

coder = SparseCoder(
    n_topics,
    alpha=0.1,
    loss="squared_error",
    positive=True,
    sparse_output=True,
    max_iter=20,
    random_state=0,
).fit(X_train)
codes = coder.transform(X_test)
print(f"{codes.shape[0]} new texts, {codes.nnz / codes.shape[0]:.2f} topics for each")
print(f"in truth {truth.sum(axis=1).mean():.2f}")

# %%
# Atoms are topics
# ----------------
# Each topic gets the atom whose words are most like its own.

places = [np.flatnonzero(words == word)[0] for word in vocabulary]


def atoms_of_topics(components):
    """The atom of each topic."""
    likeness = np.corrcoef(topics[:, places], components)[:n_topics, n_topics:]
    return linear_sum_assignment(-likeness)[1]


atoms = atoms_of_topics(coder.components_)
for topic, atom in enumerate(atoms):
    heaviest = vocabulary[coder.components_[atom].argsort()[::-1][:10]]
    hits = np.isin(heaviest, words[topics[topic].argsort()[::-1][:30]]).sum()
    print(f"topic {topic}: {hits} of 10 words; " + " ".join(heaviest[:5]))
    assert hits >= 7

# %%
# Lists are right
# ---------------

factors = NMF(n_topics, init="nndsvda", max_iter=400, random_state=0).fit(X_train)
found = {
    "sparse codes": codes.toarray()[:, atoms] > 0,
    "factorisation": factors.transform(X_test)[:, atoms_of_topics(factors.components_)] > 0,
}
recall, precision = {}, {}
for name, listed in found.items():
    recall[name] = (listed & truth).sum() / truth.sum()
    precision[name] = (listed & truth).sum() / listed.sum()
    print(
        f"{name:<14} {listed.sum(axis=1).mean():.2f} topics for each text, {recall[name]:.0%} of "
        f"the true ones; {precision[name]:.0%} of those listed are true"
    )
assert min(recall["sparse codes"], precision["sparse codes"]) > 0.9
assert found["factorisation"].sum() > 2 * found["sparse codes"].sum()

# %%
# Forty new texts: grey is what is listed, orange frames are the truth.

figure, axes = plt.subplots(2, 1, figsize=(8, 4.2), layout="constrained")
for ax, (name, listed) in zip(axes, found.items(), strict=True):
    ax.imshow(listed[:40].T, cmap="Greys", vmax=2)
    text, topic = np.nonzero(truth[:40])
    ax.plot(text, topic, "s", color="C1", fillstyle="none", markersize=8)
    ax.set(title=name, ylabel="topic", xticks=[], yticks=[])
axes[1].set_xlabel("new texts")
plt.show()

# %%
# Limits
# ------
# - The number of topics is known here. With more atoms, some topics are split among two.
# - ``alpha`` decides how long lists are; a larger one leaves out what a text has little of. A
#   factorisation has short lists as well where one cuts small numbers off, if one knows where.
# - The texts are bags of words from just this kind of model. Real texts have no true topics, and
#   embeddings of a language model know more of words than counts do.
