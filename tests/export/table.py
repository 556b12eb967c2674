"""Which estimators can be exported how, as a table of the guide: ``python tests/export/table.py``.

It fits every public estimator, tries every way, and writes ``doc/guide/exports.inc``; a test
compares that file with what happens.
"""

import io
import sys
import tempfile
import warnings
from pathlib import Path

import joblib
import skops.io

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from registry import CASES  # noqa: E402

import skae  # noqa: E402
from skae.export import to_onnx, to_torch  # noqa: E402

PAGE = ROOT / "doc" / "guide" / "exports.inc"
# Why there is no module, by a word of the error.
_REASONS = {
    "cannot be exported": "does other things with rows than an encoder",
    "more with rows": "does more with rows than its encoder",
    "solved for each row": "codes are solved for",
    "mean field": "codes come from sweeps of the mean field",
    "recurrence": "codes come from a recurrence",
    "gains": "filters of images with gains of their own",
    "kernel of rows": "the output compares rows; with output='linear'",
}


def fitted(case):
    """A small model; one that predicts, with an output that is fine-tuned."""
    return case.fit(output="linear") if case.takes("output") else case.fitted


def row_of(case):
    """What becomes of an estimator: joblib, skops, a file of skae, torch, ONNX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of models that are hardly trained
        model = fitted(case)
        joblib.dump(model, io.BytesIO())
        types = skops.io.get_untrusted_types(data=skops.io.dumps(model))
        trusts = all(name.startswith("skae.") or name == "numpy.dtype" for name in types)
        with tempfile.TemporaryDirectory() as folder:
            skae.save(model, Path(folder) / "model")
        parts = [part for part in ("encoder", "decoder", "predictor") if _has(model, part)]
    cells = ["yes", "yes" if trusts else "yes, with trust in more types", "yes"]
    if not parts:
        return [*cells, f"no: {_reason(model)}", "no"]
    if parts == ["decoder"]:
        return [*cells, f"decoder; no encoder: {_reason(model)}", "no"]
    options = {id(model): {"zipmap": False}} if case.is_classifier else None
    graph = to_onnx(model, case.X[:1], options=options)
    says = ["predict", "predict_proba"] if len(graph.graph.output) == 2 else []
    says = says or ["transform" if case.is_transformer else "predict"]
    return [*cells, ", ".join(parts), ", ".join(f"`{name}`" for name in says)]


def _has(model, part):
    try:
        to_torch(model, part)
    except (TypeError, ValueError):
        return False
    return True


def _reason(model):
    try:
        to_torch(model)
    except (TypeError, ValueError) as error:
        return next(reason for word, reason in _REASONS.items() if word in str(error))
    raise AssertionError("it can be exported")


def table():
    """The page's table, as reStructuredText."""
    head = ["Estimator", "joblib, pickle", "skops", "`skae.save`", "torch", "ONNX"]
    rows = [head, *([f":class:`~skae.{case}`", *row_of(case)] for case in CASES)]
    lines = [
        ".. tests/export/table.py writes this.",
        "",
        ".. list-table::",
        "   :class: dense",
        "   :header-rows: 1",
        "   :widths: 26 10 10 10 28 16",
        "",
    ]
    for row in rows:
        lines += [f"   {'* -' if n == 0 else '  -'} {cell}" for n, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(table())
