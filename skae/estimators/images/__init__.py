"""Stages of image pipelines."""
