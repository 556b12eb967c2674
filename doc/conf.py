"""Sphinx settings. The build needs no network: nothing is fetched, formulas are MathML."""

import os
import re
import sys
from importlib.metadata import metadata
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the examples' models are small

import matplotlib
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import skae

matplotlib.use("Agg")

sys.path.append(str(Path(__file__).parents[1] / "examples" / "reproductions"))
from published import write_table
from recording import read_records

# The page of published figures holds what reproductions recorded.
write_table(Path(__file__).with_name("published_table.inc"), read_records())

project = "skae"
author = "the skae developers"
release = version = skae.__version__
project_copyright = author

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["templates"]
exclude_patterns = ["_build", "templates"]
default_role = "literal"
highlight_language = "python"

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False

# Copied are the commands, without prompts and without what they print.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    # Files named plot_*.py are run; others are shown.
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "ignore_pattern": r"(benchmarks|reproductions|distributed_fit)",
    # A claim that does not hold fails the build.
    "abort_on_example_error": True,
    # Each example in a process of its own, as many at a time as there are processors.
    "parallel": os.cpu_count(),
    "backreferences_dir": "api/generated/examples",
    "doc_module": ("skae",),
    "download_all_examples": False,
    "show_memory": False,
    # Those pages fetch scripts from the network.
    "write_computation_times": False,
    "show_signature": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"skae {release}"
html_show_sourcelink = False
html_copy_source = False
toc_object_entries_show_parents = "hide"
# Pages without pages below them have nothing to show on the left.
html_sidebars = {name: [] for name in ("getting_started", "published", "speed", "changelog")}
html_theme_options = {
    "header_links_before_dropdown": 4,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


# docutils sets the index of a letter with an accent under the letter, and the accent on the letter.
ACCENT_WITH_INDEX = re.compile(
    r'<munderover>\s*(<mi>[^<]*</mi>)(.*?)(<mo stretchy="false">[^<]*</mo>)\s*</munderover>',
    re.DOTALL,
)


def _mathml(formula, **options):
    in_place = ACCENT_WITH_INDEX.sub(
        r"<msub><mover>\1\3</mover>\2</msub>", tex2mathml(formula, **options)
    )
    return in_place.replace(' accent="true"', "")


def _visit_math(translator, node):
    translator.body.append(_mathml(node.astext()))
    raise nodes.SkipNode


def _visit_math_block(translator, node):
    formula = _mathml(node.astext(), as_block=True)
    translator.body.append(f'<div class="formula">{formula}</div>')
    raise nodes.SkipNode


def _escape_trailing_underscores(app, what, name, obj, options, lines):
    """In docstrings ``components_`` is a name; reStructuredText would read a reference."""
    for number, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...")):
            continue
        head, separator, text = line.rpartition(" : ")
        parts = re.split(r"(`+[^`]*`+)", text)
        # A reference ends before a space or punctuation; formulas have braces there.
        name = r"(\w)_(?=[\s'\")\]>/:.,;!?-]|$)"
        parts[::2] = [re.sub(name, r"\1\\_", part) for part in parts[::2]]
        lines[number] = head + separator + "".join(parts)


def _write_llms_txt(app, exception):
    """A list of all pages for programs that read them: https://llmstxt.org."""
    if exception or app.builder.name != "html":
        return
    titles = {name: title.astext() for name, title in app.env.titles.items()}

    def links(names):
        return [f"- [{titles[name]}]({name}.html)" for name in names]

    chapters = {"Guide": [], "Reference": [], "Examples": [], "Other pages": []}
    for name in sorted(titles):
        chapter = {"guide": "Guide", "api": "Reference", "auto_examples": "Examples"}
        chapters[chapter.get(name.split("/")[0], "Other pages")].append(name)
    lines = [f"# {project}", "", f"> {metadata(project)['Summary']}. Version {release}."]
    for chapter, names in chapters.items():
        lines += ["", f"## {chapter}", "", *links(names)]
    (Path(app.outdir) / "llms.txt").write_text("\n".join(lines) + "\n")


def setup(app):
    """Render formulas as MathML, which browsers show without a script."""
    app.connect("build-finished", _write_llms_txt)
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    # Before numpydoc reads the sections.
    app.connect("autodoc-process-docstring", _escape_trailing_underscores, priority=100)


html_math_renderer = "mathml"
