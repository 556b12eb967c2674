"""Doctests are collected from the pages written by hand only."""

from importlib.metadata import version

collect_ignore = ["conf.py", "_build", "auto_examples", "api"]
# It shows callbacks, which scikit-learn has from 1.9 on.
if tuple(map(int, version("scikit-learn").split(".")[:2])) < (1, 9):
    collect_ignore.append("guide/training.rst")
