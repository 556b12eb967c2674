"""A column of a table as a variable of a network: numbers on a scale, 0 and 1, or one-hot."""

import re
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import ndtri

from skae.frames.columns import Cells
from skae.frames.dtypes import dtype_of, text_of

# Where the smooth clip bends: z / sqrt(1 + (z / 3)^2) lies between -3 and 3.
BEND = 3.0
_MOST_DECIMALS = 6
_MOST = np.nextafter(np.float32(BEND), np.float32(0))
# The interquartile range of a normal distribution, in standard deviations.
_QUARTILES = 1.349
# Part of the rows from which on a value is frequent, and knots of a column at most.
_OFTEN, _MOST_KNOTS = 0.01, 1000
# Hours, minutes and seconds of a day.
PARTS_OF_DAYS = {24: "hours", 1440: "minutes", 86400: "seconds"}
# A column of text with so many values or more, all different, says nothing but which row it is.
_IDENTIFIERS = 5
_READS_AS_NUMBER = re.compile(
    r"\s*[-+(]?\s*[$€£¥]?\s*[-+]?\d[\d,.\s']*([eE][-+]?\d+)?\s*[%$€£¥)]?\s*"
)
VECTORIZER = "skrub's TableVectorizer makes numbers of text; pd.to_datetime makes dates of it"


@dataclass(frozen=True)
class Variable:
    """A column of the user's table, and what it is as encoded.

    - ``name``; ``kind``: "number", "date" (days, also of durations), "binary" or "category"; or
      "nothing", of a column that was never observed, which has no encoded columns.
    - ``columns``: the slice of the encoded columns that it has.
    - ``categories``: what each of a category's columns stands for, or the value that is 0 and the
      one that is 1; ``pooled``: rare values that share the last column, the most frequent first.
      ``is_exact``: other numbers than these are no categories. Else, of two, the nearer one counts.
    - ``center``, ``width``, ``clips``: a number is z = (x - center) / width and, if it is clipped,
      z / sqrt(1 + (z / 3)^2).
    - ``knots``, ``scores``: of a number as normal scores, some of its values, from the least to the
      greatest, and what they are encoded as; between them it is interpolated. Where a value has
      several scores, it is frequent, and is encoded as the middle one.
    - ``minimum``, ``maximum``: of the training rows; ``is_whole``, whether all are whole, or whole
      multiples of 1 / ``parts``: dates on the hour have 24; ``decimals``, that all have at most, or
      None.
    - ``holds``, ``dtype``, ``objects``: what `Cells` say of the column.
    """

    name: str
    kind: str
    columns: slice
    holds: str
    dtype: Any
    categories: tuple = ()
    pooled: tuple = ()
    is_exact: bool = False
    center: float = 0.0
    width: float = 1.0
    clips: bool = False
    knots: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    minimum: float = np.nan
    maximum: float = np.nan
    is_whole: bool = False
    decimals: int | None = None
    parts: int = 1
    objects: str = ""

    def __getstate__(self) -> dict[str, Any]:
        # Dtypes of polars and pyarrow as text: readers of other files than pickles crash on them.
        state = {f.name: getattr(self, f.name) for f in fields(self)}
        library = type(getattr(self.dtype, "pyarrow_dtype", self.dtype)).__module__
        if library.partition(".")[0] in ("polars", "pyarrow"):
            state["dtype"] = text_of(self.dtype)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if isinstance(self.dtype, str):
            vars(self)["dtype"] = dtype_of(self.dtype)

    @property
    def is_numeric(self) -> bool:
        """Whether its one column is a number, on a scale."""
        return self.kind in ("number", "date")

    @property
    def is_empty(self) -> bool:
        """Whether it was never observed."""
        return self.kind == "nothing"

    @property
    def names(self) -> list[str]:
        """Names of its encoded columns."""
        if self.is_empty:
            return []
        if self.kind == "category":
            values = [*self.categories[: -1 if self.pooled else None]]
            return [f"{self.name}_{v}" for v in values] + [f"{self.name}_infrequent"] * bool(
                self.pooled
            )
        if self.kind == "binary" and self.holds in ("texts", "categories") and self.categories:
            return [f"{self.name}_{self.categories[-1]}"]
        return [self.name]

    @cached_property
    def positions(self) -> dict:
        """The place of every known value among the categories."""
        kept = self.categories[:-1] if self.pooled else self.categories
        places = {value: number for number, value in enumerate(kept)}
        return places | dict.fromkeys(self.pooled, len(self.categories) - 1)

    @cached_property
    def _middles(self) -> tuple[np.ndarray, np.ndarray]:
        """The values of the knots, each once, and the middle of its scores."""
        values, first = np.unique(self.knots, return_index=True)
        last = np.append(first[1:], len(self.knots)) - 1
        scores = np.asarray(self.scores)
        return values, 0.5 * (scores[first] + scores[last])

    def shown(self, value: float) -> str:
        """A number as people read it: a date as such."""
        if self.holds != "dates":
            return f"{value:.6g}"
        return str(np.datetime64(round(value * 86400), "s"))

    def log_slope(self, encoded: np.ndarray) -> np.ndarray:
        """Log d encoded / d x of a number, where it is ``encoded``."""
        if self.knots:
            values, scores = self._middles
            slopes = np.diff(scores) / np.diff(values)
            return np.log(slopes)[np.searchsorted(scores[1:-1], encoded)]
        slope = np.full(len(encoded), -np.log(self.width))
        return slope + 1.5 * np.log1p(-np.square(encoded / BEND)) if self.clips else slope

    def encode(self, cells: Cells, out: np.ndarray) -> None:
        """Write the encoded columns; NaN where nothing is known of a row."""
        if self.is_empty:
            return
        known = cells.observed
        if known.any():
            self._check(cells)
        if self.is_numeric:
            z = cells.numbers if cells.numbers is not None else np.full(len(known), np.nan)
            if self.knots:
                z = np.interp(z, *self._middles)
            else:
                z = (z - self.center) / self.width
            if self.clips:
                np.clip(z, -1e6, 1e6, out=z)
                z /= np.sqrt(1 + np.square(z / BEND))
                np.clip(z, -_MOST, _MOST, out=z)
            out[:, 0] = z
        elif self.kind == "binary" and self.holds in ("numbers", "booleans") and not self.is_exact:
            # One value alone is 0, as a text is that is the only one.
            assert cells.numbers is not None
            ends = np.asarray(self.categories or (0, 1), dtype=np.float64)
            width = float(ends[-1] - ends[0]) or 1.0
            out[:, 0] = np.clip((cells.numbers - ends[0]) / width, 0, 1)
        else:
            cells = cells.as_values()
            places = [self.positions.get(value, -1) for value in cells.values]
            # The code -1 of what is missing finds the last entry.
            place = np.array([*places, -1])[cells.codes]
            if self.kind == "binary":
                out[:, 0] = place
            else:
                out[:] = 0
                out[np.arange(len(place)), place] = 1
            out[place < 0] = np.nan

    def decode(self, values: np.ndarray, *, rounds: bool = False) -> Any:
        """Numbers, or a list of values, of encoded columns: what they are nearest to.

        With ``rounds``, numbers have the decimals of the training rows at most.
        """
        if self.is_empty:
            missing = np.full(len(values), self.center)
            return [None] * len(values) if self.holds in ("texts", "categories") else missing
        if self.is_numeric:
            z = values[:, 0].astype(np.float64)
            if self.clips:
                z = np.clip(z, -_MOST, _MOST)
                z = z / np.sqrt(1 - np.square(z / BEND))
            x = (
                np.interp(z, self.scores, self.knots)
                if self.knots
                else z * self.width + self.center
            )
            x = np.clip(x, self.minimum, self.maximum)
            if rounds and self.decimals is not None:
                return np.round(x, self.decimals)
            return np.round(x * self.parts) / self.parts if self.is_whole else x
        if self.kind == "binary":
            place = (values[:, 0] >= 0.5).astype(int) if len(self.categories) > 1 else None
            place = np.zeros(len(values), dtype=int) if place is None else place
        else:
            place = values.argmax(axis=1)
        if self.holds in ("numbers", "booleans"):
            return np.array(self.options, dtype=np.float64)[place]
        return [self.options[p] for p in place]

    @property
    def options(self) -> list:
        """The values that categories are decoded to: of those that are pooled the most frequent."""
        return [*self.categories[:-1], self.pooled[0]] if self.pooled else [*self.categories]

    def _check(self, cells):
        texts = ("texts", "categories")
        takes = {
            "numbers": ("numbers", "booleans"),
            "booleans": ("numbers", "booleans"),
            "texts": texts,
            "categories": texts,
            "dates": ("dates",),
            "durations": ("durations",),
        }[self.holds]
        if self.kind == "category" or self.holds in texts:
            # Numbers may be categories, too.
            are_text = all(isinstance(value, str) for value in self.positions)
            takes = texts if are_text else (*texts, "numbers", "booleans")
        if cells.holds not in takes:
            now = "text" if cells.holds == "texts" else cells.holds
            before = "text" if self.holds == "texts" else self.holds
            raise ValueError(
                f"Column {self.name!r} held {before} in fit, but holds {now} now. Convert it to "
                "what it was."
            )


def decimals_of(x: np.ndarray, size: float = 1.0) -> int | None:
    """The decimals that all of some numbers have at most; None if some have more than six.

    They are rounded as numbers up to ``size`` are, if that is larger than they.
    """
    size = max(1.0, size, float(np.abs(x).max(initial=0.0)))
    rounding = 4 * size * float(np.finfo(x.dtype).eps)
    possible = [n for n in range(_MOST_DECIMALS + 1) if rounding <= 0.1 * 10.0**-n]
    # Most columns have more decimals than that, which one look tells.
    if not possible or _rest(x, possible[-1]) > 2 * rounding:
        return None
    return next((n for n in possible if _rest(x, n) <= rounding), None)


def have_more_decimals(x: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Of which columns of x it is plain at one look that `decimals_of` finds none.

    ``size``, of shape (n_columns,), is what numbers of each column are at most. False is no answer.
    """
    rounding = 4 * np.maximum(size, 1.0) * float(np.finfo(x.dtype).eps)
    with np.errstate(invalid="ignore", over="ignore"):
        most = np.floor(-np.log10(10 * rounding)).clip(max=_MOST_DECIMALS)
        scale = 10.0**most
        scaled = x * scale
        rest = np.fmax.reduce(np.abs(scaled - np.rint(scaled)), axis=0, initial=0.0) / scale
        # A product is rounded, too.
        return (most >= 0) & (rest > 3 * rounding) & np.isfinite(size)


def _rest(x: np.ndarray, decimals: int) -> float:
    """What is left of numbers behind so many decimals, at most."""
    return float(np.abs(x - np.round(x, decimals)).max(initial=0.0))


def normal_scores(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Values of a column, and the normal quantiles of their ranks: `Variable.knots`, ``scores``.

    A value that a hundredth of the rows or more have stands at both ends of its ranks.
    """
    values, counts = np.unique(x, return_counts=True)
    end = np.cumsum(counts) / len(x)
    begin, is_often = end - counts / len(x), counts >= max(2, _OFTEN * len(x))
    rank = np.concatenate([0.5 * (begin + end), begin[is_often], end[is_often]])
    knots = np.concatenate([values, values[is_often], values[is_often]])
    order = np.lexsort((rank, knots))
    rank, knots = rank[order], knots[order]
    if len(knots) > _MOST_KNOTS:
        of_often = np.isin(knots, values[is_often])
        of_often[[0, -1]] = True
        kept = np.searchsorted(rank, np.linspace(0, 1, _MOST_KNOTS)).clip(max=len(rank) - 1)
        kept = np.union1d(kept, np.flatnonzero(of_often))
        rank, knots = rank[kept], knots[kept]
    scores = ndtri(np.clip(rank, 0.5 / len(x), 1 - 0.5 / len(x)))
    return tuple(knots.tolist()), tuple(scores.tolist())


def number_variable(column, counted, name, clips, ranks=False):
    """The variable of a column of numbers, truth values, dates or durations, of counted rows."""
    kind = "date" if column.holds in ("dates", "durations") else "number"
    variable = Variable(name, kind, slice(0, 1), column.holds, column.dtype, objects=column.objects)
    known = column.observed & counted
    if not known.any():
        return empty_variable(variable)
    if column.holds == "booleans":
        return replace(variable, kind="binary", categories=(0.0, 1.0))
    x = column.numbers[known]
    minimum, maximum, whole = x.min(), x.max(), bool((x == np.round(x)).all())
    parts = 1
    if kind == "date" and not whole:
        parts = next((n for n in PARTS_OF_DAYS if np.abs(x * n - np.round(x * n)).max() < 1e-4), 1)
    if kind == "number" and whole and minimum < maximum and ((x == minimum) | (x == maximum)).all():
        return replace(variable, kind="binary", categories=(float(minimum), float(maximum)))
    low, center, high = np.percentile(x, [25, 50, 75])
    with np.errstate(over="ignore", invalid="ignore"):
        width = (high - low) / _QUARTILES or x.std()
        constant = width <= 1e-12 * np.abs(x).max()
    if not np.isfinite(width):
        raise ValueError(
            f"Column {name!r} is so large that its standard deviation overflows. Rescale it."
        )
    knots = scores = ()
    if ranks and not constant and minimum < maximum:
        knots, scores = normal_scores(x)
    if not clips:
        center, width = (center if kind == "date" else 0.0), 1.0
    return replace(
        variable,
        center=float(center),
        width=1.0 if constant else float(width),
        clips=clips,
        knots=knots,
        scores=scores,
        minimum=float(minimum),
        maximum=float(maximum),
        is_whole=whole or parts > 1,
        parts=parts,
        decimals=decimals_of(x[:: max(1, len(x) // 10_000)]),
    )


def category_variable(column, count, name, parameters):
    """The variable of a column of values, of which each has so many rows, and which part of its
    rows has been pooled.
    """
    values = column.values
    n_rows, n_values = count.sum(), np.count_nonzero(count)
    if n_values == n_rows and n_rows >= _IDENTIFIERS:
        raise ValueError(
            f"Column {name!r} has a different value in every row, so that it says nothing of a row "
            f"but which one it is. Drop it; or, if it is text to be read, {VECTORIZER}."
        )
    # By frequency, and values that are as frequent by their text: whatever order rows have.
    present = sorted(np.flatnonzero(count), key=lambda c: (-count[c], str(values[c])))
    least = parameters.min_frequency
    least = least * n_rows if isinstance(least, float) else least
    kept = [c for c in present if count[c] >= (least or 0)]
    most = parameters.max_categories
    if most is not None and len(kept) + (len(kept) < len(present)) > most:
        kept = kept[: most - 1]
    rare = present[len(kept) :]
    if len(rare) == 1 and (most is None or len(present) <= most):
        kept, rare = present, []
    variable = Variable(
        name, "category", slice(0, 0), column.holds, column.dtype, is_exact=True,
        objects=column.objects,
    )  # fmt: skip
    order = sorted(kept, key=lambda c: _sortable(values[c]))
    categories = tuple(values[c] for c in order)
    if not present:
        return empty_variable(variable), 0.0
    pooled = tuple(values[c] for c in rare)
    share = count[rare].sum() / n_rows if rare else 0.0
    if rare:
        categories = (*categories, "infrequent")
    if len(categories) <= 2:
        return replace(variable, kind="binary", categories=categories, pooled=pooled), share
    return replace(variable, categories=categories, pooled=pooled), share


def empty_variable(variable: Variable) -> Variable:
    """The variable of a column that was never observed: whatever comes, it is missing."""
    return replace(variable, kind="nothing", columns=slice(0, 0), center=np.nan)


def _sortable(value):
    is_text = isinstance(value, str)
    return (is_text, value if is_text or isinstance(value, int | float) else str(value))


def refuse_numbers_as_text(column, name):
    """Raise a ValueError for text that should be numbers."""
    if len(column.values) and all(_READS_AS_NUMBER.fullmatch(value) for value in column.values):
        examples = ", ".join(map(repr, column.values[:3]))
        raise ValueError(
            f"Column {name!r} is text, but all its values read as numbers ({examples}). Convert it "
            "with pd.to_numeric, after removing signs such as ',' and '$'; or, if they are "
            f"categories, name it in categorical_features or make it one: astype('category')."
        )
