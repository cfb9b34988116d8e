"""The mapping from package files to tables is complete, and true to what the files hold."""

import importlib.util
import re
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest

from vlm_ops.charts import tables
from vlm_ops.charts.tables import Table, View, catalog, label, matrix, parts
from vlm_ops.errors import DataError

RUN = 6
"""Numbers in a row that two files must share to be the same source."""

DATE = re.compile(r"\d{4}-\d\d-\d\d|[A-Z][a-z]{2}[ -]\d+[ -]\d{4}|\d{8}$")


def owners() -> dict[str, str]:
    """Table id by file."""
    return {name: table.id for table in catalog().values() for name in table.files}


def runs_of(table: Table, name: str) -> set[tuple[str, ...]]:
    """Short runs of values of a file, column by column; dates and small counts say nothing."""
    options = table.prepare.get("read") if name == table.files[0] else None
    if name == "bokeh_sampledata/airports.json":
        options = {"records": "features"}
    rows = tables.read_file(name, options).head(3000)
    found = set()
    for column in rows.columns:
        texts = [f"{x:.6g}" if isinstance(x, float) else str(x) for x in rows[column].dropna()]
        if not texts or DATE.match(texts[0]):
            continue
        for start in range(len(texts) - RUN + 1):
            run = tuple(texts[start : start + RUN])
            small = all(text.lstrip("-").isdigit() and len(text) <= 4 for text in run)
            if len(set(run)) >= RUN - 2 and not small:
                found.add(run)
    return found


def test_every_file_is_mapped_or_excluded_with_a_reason() -> None:
    mapped = owners()
    found = tables.package_files()
    assert len(found) > 100
    lost = [name for name in found if name not in mapped and not tables.excluded(name)]
    assert lost == []
    both = [name for name in mapped if tables.excluded(name)]
    assert both == []


def test_every_mapped_file_exists_and_has_one_owner() -> None:
    names = [name for table in catalog().values() for name in table.files]
    assert len(names) == len(set(names))
    assert [name for name in names if not tables.file_path(name).is_file()] == []


def test_files_that_share_content_are_one_table() -> None:
    runs = {
        name: runs_of(table, name)
        for table in catalog().values()
        for name in table.files
        if not name.endswith("geojson.gz")
    }
    home = owners()
    shared = {
        (one, other): len(runs[one] & runs[other])
        for one, other in combinations(sorted(runs), 2)
        if home[one] != home[other]
    }
    assert {pair: count for pair, count in shared.items() if count >= 5} == {}
    assert runs["plotly/iris.csv.gz"] & runs["vega_datasets/iris.json"]
    assert runs["vega_datasets/cars.json"] & runs["bokeh_sampledata/auto-mpg.csv"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("plotly/gapminder.csv.gz", "bokeh_sampledata/gapminder.csv.gz"),
        ("vega_datasets/cars.json", "bokeh_sampledata/auto-mpg.csv"),
        ("plotnine/mpg.csv", "bokeh_sampledata/auto-mpg2.csv"),
        ("plotly/iris.csv.gz", "bokeh_sampledata/iris.csv"),
        ("plotnine/penguins.csv", "bokeh_sampledata/penguins.csv"),
        ("plotnine/anscombe-quartet.csv", "vega_datasets/anscombe.json"),
        ("vega_datasets/burtin.json", "bokeh_sampledata/antibiotics.csv"),
        ("vega_datasets/stocks.csv", "bokeh_sampledata/stocks.csv.gz"),
        ("plotly/stocks.csv.gz", "bokeh_sampledata/stocks.csv.gz"),
        ("bokeh_sampledata/unemployment1948.csv", "bokeh_sampledata/unemployment09.csv.gz"),
    ],
)
def test_the_same_source_in_two_files_is_one_table(first: str, second: str) -> None:
    assert owners()[first] == owners()[second]


def test_films_are_left_out() -> None:
    assert not any("movie" in name for name in owners())
    assert tables.excluded("bokeh_sampledata/movies.db")


def test_there_are_many_tables_and_each_view_gives_numbers() -> None:
    assert len(catalog()) >= 60
    for table in catalog().values():
        for index, view in enumerate(table.views):
            assert view.families(), (table.id, index)
            pieces = parts(table.id, index)
            largest = max(range(len(pieces)), key=lambda i: len(pieces[i][1]))
            numbers = matrix(table.id, index, largest)
            assert len(numbers) >= 3, (table.id, index)
            assert all(pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes)
            assert numbers.index.is_unique, (table.id, index)
            assert numbers.notna().to_numpy().any(), (table.id, index)


def test_numbers_are_those_of_the_file() -> None:
    nile = matrix("nile", 0, 0)
    assert nile.loc["1871", "Volume of the Nile"] == 1120
    people = tables.read_file("plotly/gapminder.csv.gz")
    index = next(i for i, view in enumerate(catalog()["gapminder"].views) if view.how == "sum")
    year = next(i for i, (text, _) in enumerate(parts("gapminder", index)) if text == "2007")
    expected = people[(people.year == 2007) & (people.continent == "Asia")]["pop"].sum()
    assert matrix("gapminder", index, year).loc["Asia", "Population"] == expected


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="'plotly', which is not installed"):
        tables.package_folder("plotly")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match=r"plotly/no-such\.csv"):
        tables.read_file("plotly/no-such.csv")


def test_families_follow_from_the_kind_of_numbers() -> None:
    assert View("year", ordered=True).families() == ("bar", "line")
    assert View("city", whole=True).families() == ("bar", "pie")
    assert View("year", ordered=True, charts=("line",)).families() == ("line",)


def test_whole_numbers_are_written_without_a_point() -> None:
    assert [label(value) for value in (3.0, 2.5, "a", 1999)] == ["3", "2.5", "a", "1999"]


def test_the_data_statement_names_every_file() -> None:
    text = (Path(__file__).parents[2] / "docs" / "charts.md").read_text(encoding="utf-8")
    for table in catalog().values():
        assert f"| `{table.id}` |" in text
        assert all(f"`{name.partition('/')[2]}`" in text for name in table.files)
