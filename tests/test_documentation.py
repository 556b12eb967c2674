"""The reference lists what is public, and examples keep the form that the gallery needs."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import skae
import skae.datasets
import skae.diagnostics
import skae.plots

ROOT = Path(__file__).parents[1]


def public_names(module):
    """Names of the functions and classes that a module defines."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


@pytest.mark.parametrize(
    "names",
    [
        set(skae.__all__),
        set(skae.datasets.__all__),
        set(skae.diagnostics.__all__),
        set(skae.plots.__all__),
    ],
    ids=["skae", "datasets", "diagnostics", "plots"],
)
def test_reference_lists_all_public_names(names):
    listed = {line.strip() for line in (ROOT / "doc" / "api.rst").read_text().splitlines()}
    # What is not in the reference does not exist for a reader.
    assert not names - listed


def test_examples_have_a_title_and_check_their_claims():
    failures = []
    for path in sorted((ROOT / "examples").glob("*.py")):
        tree = ast.parse(path.read_text())
        title, underline = ast.get_docstring(tree).splitlines()[:2]
        # The gallery takes a page's title from the docstring, and fails without one.
        if underline != "=" * len(title):
            failures.append(f"{path.name} has no title")
        # An example that asserts nothing would go on claiming what no longer holds.
        asserts = any(isinstance(node, ast.Assert) for node in ast.walk(tree))
        if path.name.startswith("plot_") and not asserts:
            failures.append(f"{path.name} asserts nothing")
    assert not failures


def test_links_of_markdown_pages_lead_to_files():
    missing = []
    for page in (ROOT / "README.md", ROOT / ".github" / "SECURITY.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        assert links
        missing += [link for link in links if not (page.parent / link).exists()]
    assert not missing
