"""Stacks that predict targets."""
