"""
A model that leaves the house
=============================

A fitted model goes on elsewhere: in a file that runs no code when it is loaded, as a plain module
of torch, or as an ONNX graph with the whole pipeline in it. Claims, checked on tumours of the
breast with thirty measurements each:

- the file gives the same probabilities, bit for bit, and is smaller than 100 kB;
- the module of torch and the graph give the same probabilities within 1e-5.

onnxruntime computes the graph; without it (and skl2onnx, ``pip install "skae[onnx]"``) that part is
left out.
"""

import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import DenoisingAutoEncoder, StackedClassifier
from skae.export import to_torch

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X.astype(np.float32), y, test_size=0.5, stratify=y, random_state=0
)

# %%
# A classifier in a file
# ----------------------
# A net of two layers, pre-trained and fine-tuned.

classifier = StackedClassifier((32, 16), output="linear", max_iter=30, random_state=0)
classifier.fit(X_train, y_train)
probability = classifier.predict_proba(X_test)[:, 1]
print(f"accuracy on the other tumours: {classifier.score(X_test, y_test):.1%}")
assert classifier.score(X_test, y_test) > 0.9

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "classifier.skae")
    skae.save(classifier, path)
    n_bytes = os.path.getsize(path)
    loaded = skae.load(path)
print(f"the file has {n_bytes / 1000:.0f} kB")
assert n_bytes < 100_000
assert (loaded.predict_proba(X_test)[:, 1] == probability).all()

# %%
# In torch
# --------
# The module takes measurements in their own units and returns probabilities.

module = to_torch(classifier)
with torch.no_grad():
    by_torch = module(torch.as_tensor(X_test))[:, 1].numpy()
print(module)
print(f"probabilities differ by {abs(by_torch - probability).max():.1e} at most")
assert abs(by_torch - probability).max() < 1e-5

# %%
# As a graph
# ----------
# Scaler, codes and logistic regression in one.

pipeline = make_pipeline(
    StandardScaler(),
    DenoisingAutoEncoder(32, learning_rate=5e-3, max_iter=50, random_state=0),
    LogisticRegression(),
).fit(X_train, y_train)
of_pipeline = pipeline.predict_proba(X_test)[:, 1]
differences = {"torch": abs(by_torch - probability)}
try:
    import onnxruntime

    from skae.export import to_onnx
except ImportError:
    print("onnxruntime or skl2onnx is not installed")
else:
    graph = to_onnx(pipeline, X_train[:1], options={"zipmap": False})
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    _, found = session.run(None, {session.get_inputs()[0].name: X_test})
    differences["ONNX"] = abs(found[:, 1] - of_pipeline)
    print(f"probabilities differ by {differences['ONNX'].max():.1e} at most")
    assert differences["ONNX"].max() < 1e-5

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for name, of_name in differences.items():
    ax.ecdf(np.maximum(of_name, 1e-9), label=name)
ax.axvline(1e-5, color="C3", linestyle="dashed", label="claimed")
ax.set(xscale="log", xlabel="difference from the model", ylabel="part of the tumours")
ax.legend()
plt.show()

# %%
# Limits
# ------
# - Modules and graphs are chains of affine maps and activations. Kernel outputs, which are the
#   default on tables of few labels, detectors and imputers stay in Python: `skae.save` keeps them
#   all. :ref:`export` has a table of what goes where.
# - Text, categories and dates of a data frame are refused by exports: encode them in the pipeline.
# - A file is safe to load, not true: it predicts whatever its author likes.
