"""Displays of tables draw what the functions behind them return, by the names of columns."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoder, DenoisingAutoEncoder, OutlierDetector, StackedAutoEncoder
from skae.diagnostics import (
    column_laws,
    jacobian_products,
    reconstruction_errors,
    unit_weights,
)
from skae.diagnostics.two_samples import column_distances, read_alike
from skae.frames.columns import read_columns
from skae.plots import (
    CodeDisplay,
    FilterDisplay,
    LossCurveDisplay,
    OutlierDisplay,
    ReconstructionDisplay,
    ReconstructionErrorDisplay,
    SampleColumnDisplay,
    SaturationDisplay,
    UnitWeightDisplay,
)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    h = rng.normal(size=200)
    X = pd.DataFrame(
        {
            "length": h + 0.1 * rng.normal(size=200),
            "noise": rng.normal(size=200),
            "count": rng.poisson(2, 200),
            "town": rng.choice(["Ulm", "Jena", "Trier"], 200, p=[0.5, 0.3, 0.2]),
            "member": h > 0,
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.round(100 * h), unit="D"),
        }
    )
    X.loc[::9, "noise"] = np.nan
    return X


@pytest.fixture(scope="module")
def fitted(table):
    """A model of the table."""
    return DenoisingAutoEncoder(4, max_iter=20, random_state=0).fit(table)


def test_codes_are_points_with_colors(table, fitted):
    codes = fitted.transform(table)
    display = CodeDisplay.from_estimator(fitted, table, color="town")
    expected = PCA(2).fit_transform(codes)
    np.testing.assert_allclose(np.abs(display.points), np.abs(expected), atol=1e-4)
    for town, points in display.scatters_.items():
        np.testing.assert_allclose(
            points.get_offsets(), display.points[table["town"] == town], atol=1e-6
        )
    display = CodeDisplay.from_estimator(fitted, table, color="noise", units=(2, -1))
    np.testing.assert_allclose(display.points, codes[:, [2, 3]])
    # Rows without a value are there, without a colour of the scale.
    assert len(display.scatters_["noise"].get_offsets()) == table["noise"].notna().sum()
    assert len(CodeDisplay.from_estimator(fitted, table, color=table["count"]).scatters_) > 3
    # Pipelines, arrays, frames of other libraries.
    X = table[["length", "count"]].to_numpy()
    pipeline = make_pipeline(StandardScaler(), AutoEncoder(3, max_iter=1)).fit(X)
    assert CodeDisplay.from_estimator(pipeline, X, color=1).color_name == "1"
    frame = pl.from_pandas(table)
    assert set(CodeDisplay.from_estimator(fitted, frame, color="town").scatters_) == {
        "Ulm", "Jena", "Trier",
    }  # fmt: skip


def test_units_have_the_names_of_columns(table, fitted):
    display = UnitWeightDisplay.from_estimator(fitted, n_units=2, n_columns=3)
    assert list(display.names) == list(fitted.encoding_.names)
    largest = np.abs(display.weights[0]).argmax()
    assert display.columns_[0, 0] == largest
    assert display.bars_[0][0].get_width() == display.weights[0, largest]
    np.testing.assert_array_equal(display.weights, fitted.components_[display.units])
    # The mean derivatives of any encoder are those of its Jacobian, along each column.
    X = table[["length", "count"]].astype(float)
    deep = AutoEncoder(2, hidden_layer_sizes=(5,), max_iter=2, random_state=0).fit(X)
    each = np.broadcast_to(np.diag(deep.columns_.scale), (len(X), 2, 2))
    expected = jacobian_products(deep, X, each).mean(axis=0).T
    np.testing.assert_allclose(unit_weights(deep, X).weights, expected, rtol=1e-5)
    assert UnitWeightDisplay.from_estimator(deep, X).measure == "mean derivative"


def test_errors_of_columns_and_cells(table, fitted):
    found = reconstruction_errors(fitted, table)
    back = fitted.reconstruct(table)
    share = (back["town"] != table["town"]).mean() / (table["town"] != "Ulm").mean()
    display = ReconstructionErrorDisplay.from_estimator(fitted, table, name="model")
    drawn = dict(zip(display.columns_, display.bars_["model"], strict=True))
    assert drawn[3].get_width() == pytest.approx(share)
    r2 = 1 - ((back["length"] - table["length"]) ** 2).mean() / table["length"].var(ddof=0)
    assert drawn[0].get_width() == pytest.approx(1 - r2)
    np.testing.assert_array_equal(np.isnan(found.errors[:, 1]), table["noise"].isna())
    # Why a row is odd, of a model that is no detector.
    odd = table.copy()
    odd.loc[7, "length"] = 40.0
    display = OutlierDisplay.from_estimator(fitted, odd, n_rows=1)
    assert display.rows[0] == 7
    assert display.ax_.get_yticklabels()[0].get_text() == "length = 40"
    assert "odd" not in display.ax_.texts[0].get_text()


def test_samples_beside_data(table, fitted):
    samples = fitted.sample(100, random_state=0)
    sets = {"drawn": samples, "itself": table}
    laws = column_laws(table, sets)
    read = [list(read_columns(X)) for X in (table, samples)]
    apart = column_distances(*read_alike(*read))
    distances = np.array([law.distances for law in laws])
    np.testing.assert_allclose(distances, np.column_stack([apart, np.zeros(6)]))
    for law in laws:
        np.testing.assert_array_equal(law.shares[0], law.shares[2])
        assert law.shares[0].sum() == pytest.approx(1), law.name
    town = laws[3]
    assert town.labels == ("Ulm", "Jena", "Trier")
    np.testing.assert_allclose(town.shares[1], [(samples["town"] == t).mean() for t in town.labels])
    display = SampleColumnDisplay.from_samples(table, sets, n_columns=4)
    assert len(display.axes_) == 4
    worst = max(range(6), key=lambda column: laws[column].distances.max())
    assert display.axes_[0].get_title() == table.columns[worst]
    _, ax = plt.subplots()
    assert display.plot(ax).axes_ == [ax]
    display = SampleColumnDisplay.from_estimator(fitted, table, n_samples=20, burn_in=5)
    assert display.names == ("DenoisingAutoEncoder",)


def test_curves_of_searches_and_pipelines(table):
    X = table[["length", "count"]]
    model = AutoEncoder(max_iter=2, early_stopping=True, random_state=0)
    search = GridSearchCV(model, {"n_components": [1, 2]}, cv=2).fit(X)
    display = LossCurveDisplay.from_search(search)
    (name,) = display.lines_
    assert name == f"n_components={search.best_params_['n_components']}"
    best = search.best_estimator_
    np.testing.assert_array_equal(display.lines_[name].get_ydata(), best.loss_curve_)
    assert name in display.validation_lines_
    stack = make_pipeline(StandardScaler(), StackedAutoEncoder((3, 2), max_iter=2))
    folds = cross_validate(stack, X, cv=2, return_estimator=True)
    assert len(LossCurveDisplay.from_search(folds).lines_) == 4  # two layers in two folds


def test_what_cannot_be_drawn_says_what_to_do(table, fitted):
    deep = AutoEncoder(2, hidden_layer_sizes=(3,), max_iter=1).fit(table[["length", "count"]])
    quick = AutoEncoder(2, max_iter=1)
    detector = OutlierDetector(quick, n_members=1, random_state=0).fit(table)
    one = AutoEncoder(1, max_iter=1, random_state=0).fit(table)
    plain = AutoEncoder(2, max_iter=1).fit(table[["length", "count"]])
    regression = LinearRegression().fit(table[["length"]], table["count"])
    unrefitted = GridSearchCV(plain, {}, refit=False)
    wrong = {}
    for expected, draw in {
        "Pass X": lambda: UnitWeightDisplay.from_estimator(deep),
        "from 0 to 3": lambda: UnitWeightDisplay.from_estimator(fitted, units=[4]),
        "UnitWeightDisplay": lambda: FilterDisplay.from_estimator(plain),
        "TangentDisplay": lambda: FilterDisplay.from_estimator(deep),
        "draw OutlierDisplay": lambda: ReconstructionErrorDisplay.from_estimator(detector, table),
        "has no samples": lambda: SampleColumnDisplay.from_estimator(detector, table),
        "no codes": lambda: CodeDisplay.from_estimator(detector, table),
        "no codes (inverse_tr": lambda: ReconstructionDisplay.from_estimator(detector, table),
        "no codes (transform)": lambda: SaturationDisplay.from_estimator(detector, table),
        "more units": lambda: CodeDisplay.from_estimator(one, table),
        "of which there are 4": lambda: CodeDisplay.from_estimator(fitted, table, units=(0, 9)),
        "no column of X": lambda: CodeDisplay.from_estimator(fitted, table, color="weight"),
        "200 rows": lambda: CodeDisplay.from_estimator(fitted, table, color=[1, 2]),
        "trained by gradient": lambda: LossCurveDisplay.from_estimator(regression),
        "refit=False": lambda: LossCurveDisplay.from_search(unrefitted),
        "return_estimator": lambda: LossCurveDisplay.from_search({"test_score": [1.0]}),
    }.items():
        try:
            draw()
        except ValueError as error:
            if expected not in str(error):
                wrong[expected] = str(error)
        else:
            wrong[expected] = "nothing raised"
    assert wrong == {}
