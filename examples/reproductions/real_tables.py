"""Real tables for the reproductions on tables, and columns prepared as a careful user would.

The tables are read from the folder that the environment variable SKAE_DATA names:
``tables/index.json`` says target and task of each, ``tables/NAME.parquet`` has its columns as
people have them: text, categories, gaps.
"""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def folder():
    """Where the tables are; ends the program with a message if that is not said."""
    if "SKAE_DATA" not in os.environ:
        raise SystemExit("Set SKAE_DATA to the folder that has tables/index.json.")
    return Path(os.environ["SKAE_DATA"]) / "tables"


def table_names(task="classification"):
    """Names of the tables of a task, "classification" or "regression"."""
    index = json.loads((folder() / "index.json").read_text())
    return [name for name, facts in index.items() if facts["task"] == task]


def load_table(name):
    """The raw columns of a table, and its target: 0 and 1 (the rarer class), or numbers.

    Two things that a user has to do by hand are done: amounts such as "$12,345" become numbers, and
    dates that are text become dates.
    """
    facts = json.loads((folder() / "index.json").read_text())[name]
    frame = pd.read_parquet(folder() / f"{name}.parquet").rename(columns=str.strip)
    target = frame.pop(facts["target"])
    for column in frame.select_dtypes(exclude="number"):
        text = frame[column].dropna().astype(str)
        if text.str.fullmatch(r"\s*[$€£]?[\d.,]+\s*").all():
            frame[column] = pd.to_numeric(frame[column].str.replace(r"[^\d.]", "", regex=True))
        elif text.str.fullmatch(r"\d{1,4}[-/]\d{1,2}[-/]\d{1,4}").all():
            frame[column] = pd.to_datetime(frame[column], format="mixed")
    if facts["task"] == "regression":
        return frame, target.to_numpy(dtype=np.float64)
    return frame, (target == target.value_counts().index[-1]).to_numpy(dtype=np.int64)


class SmoothClip(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Numbers by median and interquartile range, z / sqrt(1 + (z / 3)^2)."""

    def fit(self, X, y=None):
        """Learn the quartiles of the columns."""
        X = _numbers(X)
        X[:, np.isnan(X).all(axis=0)] = 0  # a column without any value
        low, self.center_, high = np.nanpercentile(X, [25, 50, 75], axis=0)
        width = (high - low) / 1.349
        self.width_ = np.where(width > 0, width, np.nanstd(X, axis=0) + 1e-12)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        """The columns, between -3 and 3."""
        z = (_numbers(X) - self.center_) / self.width_
        return z / np.sqrt(1 + (z / 3) ** 2)


def _numbers(X):
    frame = pd.DataFrame(X)
    dates = frame.select_dtypes(["datetime", "datetimetz"])
    days = {name: (frame[name] - pd.Timestamp(0)) / pd.Timedelta(days=1) for name in dates}
    return frame.assign(**days).to_numpy(dtype=np.float64, copy=True)


def prepared_columns():
    """What codes are compared with: numbers clipped, gaps filled and marked, categories one-hot."""
    numbers = make_pipeline(
        SmoothClip(),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
    )
    dates = make_column_selector(dtype_include=["datetime", "datetimetz"])
    categories = make_column_selector(dtype_exclude=["number", "datetime", "datetimetz"])
    one_hot = OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=0.01, sparse_output=False
    )
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (numbers, dates),
        (one_hot, categories),
    )
