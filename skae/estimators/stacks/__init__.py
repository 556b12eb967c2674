"""Stacks of layers as transformers."""
