"""Doctests are collected from the pages written by hand only."""

collect_ignore = ["conf.py", "_build", "auto_examples", "api"]
