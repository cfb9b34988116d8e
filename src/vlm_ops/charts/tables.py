"""Real tables out of installed packages, and what can be charted of each.

Which table stands in which file is written down in ``sources.yaml``. The packages themselves
are never imported, only their folders are looked up: plotly or bokeh would take seconds.
"""

import fnmatch
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml

from vlm_ops.errors import DataError

SOURCES = Path(__file__).with_name("sources.yaml")
"""The mapping from files to tables, with the views of each table."""

How = Literal["rows", "mean", "sum", "count"]
Family = Literal["bar", "line", "pie"]

_COUNT = "Count"
_CODE = (".py", ".pyc", ".typed")


@dataclass(frozen=True)
class View:
    """One way to chart a table; ``sources.yaml`` explains every field.

    Attributes:
        by: Column that names the marks.
        of: Columns of numbers, and the names to show for them.
        how: How rows with the same name are put together.
        title: What stands above the chart; the picked value of ``split`` is added.
        split: Column of which one value is picked for a chart.
        lines: Column whose values become the series.
        across: Whether the columns are the marks.
        ordered: Whether the marks have an order that a chart must keep.
        whole: Whether the numbers are parts of a whole.
        charts: Families of charts that suit.
    """

    by: str
    of: Mapping[str, str] = field(default_factory=dict)
    how: How = "rows"
    title: str = ""
    split: str = ""
    lines: str = ""
    across: bool = False
    ordered: bool = False
    whole: bool = False
    charts: tuple[Family, ...] = ()

    def families(self) -> tuple[Family, ...]:
        """Families of charts that suit: as written down, or by the kind of numbers."""
        if self.charts:
            return self.charts
        line: tuple[Family, ...] = ("line",) if self.ordered and not self.across else ()
        pie: tuple[Family, ...] = ("pie",) if self.whole else ()
        return ("bar", *line, *pie)


@dataclass(frozen=True)
class Table:
    """A source: where it stands and what is charted of it.

    Attributes:
        id: Name of the source; all its charts are in one split.
        files: Every file that holds it, as ``package/path``; the first one is read.
        prepare: The keys of ``sources.yaml`` on reading and on new columns.
        views: What can be charted.
    """

    id: str
    files: tuple[str, ...]
    prepare: Mapping[str, Any]
    views: tuple[View, ...]


@cache
def _sources() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(SOURCES.read_text(encoding="utf-8"))
    return loaded


@cache
def catalog() -> Mapping[str, Table]:
    """All tables by id, in the order of their names.

    Returns:
        One :class:`Table` a source.
    """
    tables = {}
    for name, entry in sorted(_sources()["tables"].items()):
        views = tuple(
            View(**{**view, "charts": tuple(view.get("charts", ()))}) for view in entry["views"]
        )
        prepare = {key: entry[key] for key in entry if key not in ("files", "views")}
        tables[name] = Table(name, tuple(entry["files"]), prepare, views)
    return tables


def package_folder(package: str) -> Path:
    """The data folder of an installed package.

    Args:
        package: Import name, one of the keys of ``packages`` in ``sources.yaml``.

    Returns:
        The folder below which the package keeps its tables.

    Raises:
        DataError: If the package is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise DataError(
            f"The charts data set is built from tables in the package {package!r}, which is not"
            " installed. Install vlm-ops with its charts dependencies."
        )
    folder: str = _sources()["packages"][package]["folder"]
    return Path(found.submodule_search_locations[0]) / folder


def file_path(name: str) -> Path:
    """Where a file of ``sources.yaml`` lies on this machine.

    Args:
        name: ``package/path``.

    Returns:
        Its path; the file need not exist.

    Raises:
        DataError: If the package is not installed.
    """
    package, _, rest = name.partition("/")
    return package_folder(package) / rest


def package_files() -> tuple[str, ...]:
    """Every data file of the five packages, as ``package/path``, sorted.

    Program files and the packages' own tests are no data and left out.

    Returns:
        The names that ``sources.yaml`` has to map or to exclude.

    Raises:
        DataError: If a package is not installed.
    """
    names = []
    for package in _sources()["packages"]:
        folder = package_folder(package)
        for path in folder.rglob("*"):
            inner = path.relative_to(folder)
            if path.is_file() and path.suffix not in _CODE and "tests" not in inner.parts:
                names.append(f"{package}/{inner.as_posix()}")
    return tuple(sorted(names))


def excluded(name: str) -> str | None:
    """Why a file is no table of the data set.

    Args:
        name: ``package/path``.

    Returns:
        The reason, or None if no pattern of ``excluded`` fits.
    """
    reasons: dict[str, str] = _sources()["excluded"]
    return next((why for glob, why in reasons.items() if fnmatch.fnmatch(name, glob)), None)


def read_file(name: str, options: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Reads one CSV or JSON file as it is.

    Args:
        name: ``package/path``.
        options: Options of ``pandas.read_csv``, or ``records`` for JSON whose rows lie below
            that key.

    Returns:
        Its rows.

    Raises:
        DataError: If the package or the file is missing, or the file can't be read.
    """
    path, options = file_path(name), dict(options or {})
    try:
        if path.suffix == ".json":
            rows = _read_json(path, options.get("records"))
        else:
            rows = pd.read_csv(path, **options)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Can't read the table {name} at {path}: {error}. Expected the file as its package"
            " ships it; install the package again."
        ) from error
    return rows


def _read_json(path: Path, records: str | None) -> pd.DataFrame:
    """A list of records; fields below a field get names like ``medals.gold``."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return pd.json_normalize(found if records is None else found[records])


@cache
def read_table(table_id: str) -> pd.DataFrame:
    """Reads a table and adds the columns that its views need.

    Args:
        table_id: A key of :func:`catalog`.

    Returns:
        One row a record, text without spaces around it.

    Raises:
        DataError: If its package is missing or the file can't be read.
    """
    table = catalog()[table_id]
    steps = table.prepare
    rows = read_file(table.files[0], steps.get("read"))
    for column in rows.columns[[str(kind) in ("object", "str") for kind in rows.dtypes]]:
        rows[column] = rows[column].map(lambda x: x.strip(' "') if isinstance(x, str) else x)
    for column, names in steps.get("values", {}).items():
        rows[column] = rows[column].map(names)
    if "number" in steps:
        rows[steps["number"]] = range(1, len(rows) + 1)
    if melt := steps.get("melt"):
        rows = rows.drop(columns=melt["drop"]).melt(
            id_vars=melt["keep"], var_name=melt["variable"], value_name=melt["value"]
        )
    for column, text in steps.get("text", {}).items():
        rows[column] = [text.format_map(record) for record in rows.to_dict("records")]
    for column, (source, form) in steps.get("dates", {}).items():
        moments = _moments(rows[source]).sort_values(kind="stable")
        rows = rows.loc[moments.index]
        rows[column] = moments.dt.strftime(form)
    for column, (source, edges) in steps.get("bins", {}).items():
        names = [f"{low:g}–{high:g}" for low, high in pairwise(edges)]  # noqa: RUF001
        rows[column] = pd.cut(rows[source], edges, labels=names, include_lowest=True)
    return rows


def _moments(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Dates in the several spellings of the packages; those with a zone lose it."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return column
    text = column.astype(str).str.replace(r" [-+]\d{4}$", "", regex=True)
    compact = text.str.fullmatch(r"\d{8}").all()
    moments: pd.Series[Any] = pd.to_datetime(text, format="%Y%m%d" if compact else None)
    return moments


@cache
def parts(table_id: str, view_index: int) -> tuple[tuple[str, pd.DataFrame], ...]:
    """The rows of a view for each value of its ``split`` column.

    Args:
        table_id: A key of :func:`catalog`.
        view_index: Which of the table's views.

    Returns:
        The value as text and its rows; a single part with an empty text where nothing is split.

    Raises:
        DataError: If the table can't be read.
    """
    view, rows = catalog()[table_id].views[view_index], read_table(table_id)
    if not view.split:
        return (("", rows),)
    groups = rows.groupby(view.split, sort=True, observed=True)
    return tuple((label(value), part) for value, part in groups)


@cache
def matrix(table_id: str, view_index: int, part_index: int) -> pd.DataFrame:
    """The numbers of a view by mark and series.

    Args:
        table_id: A key of :func:`catalog`.
        view_index: Which of the table's views.
        part_index: Which of its :func:`parts`.

    Returns:
        Names of the marks as index, names of the series as columns; missing numbers are NaN.

    Raises:
        DataError: If the table can't be read.
    """
    view = catalog()[table_id].views[view_index]
    rows = parts(table_id, view_index)[part_index][1].dropna(subset=[view.by])
    numbers = _pivot(view, rows) if view.lines else _gather(view, rows)
    numbers.index = pd.Index([label(name) for name in numbers.index], dtype=object)
    numbers.columns = pd.Index([label(name) for name in numbers.columns], dtype=object)
    return numbers.T if view.across else numbers


def _gather(view: View, rows: pd.DataFrame) -> pd.DataFrame:
    """One row a mark, one column a name of ``of``."""
    if view.how == "rows":
        first = rows.drop_duplicates(view.by).set_index(view.by)[list(view.of)]
        found: pd.DataFrame = first.apply(pd.to_numeric, errors="coerce")
        return found.rename(columns=dict(view.of))
    groups = rows.groupby(view.by, sort=_sortable(rows[view.by]), observed=True)
    if view.how == "count":
        return groups.size().to_frame(_COUNT)
    found = groups[list(view.of)].agg(view.how, numeric_only=True)
    return found.rename(columns=dict(view.of))


def _pivot(view: View, rows: pd.DataFrame) -> pd.DataFrame:
    """One row a mark, one column a value of ``lines``."""
    groups = rows.groupby([view.by, view.lines], sort=_sortable(rows[view.by]), observed=True)
    if view.how == "count":
        return groups.size().unstack(fill_value=0)
    numbers = groups[next(iter(view.of))].agg("first" if view.how == "rows" else view.how)
    order = numbers.index.get_level_values(0).unique()
    wide: pd.DataFrame = numbers.unstack().reindex(order)
    return wide


def _sortable(column: "pd.Series[Any]") -> bool:
    """Whether marks sort by value: numbers, classes and hours; names keep the table's order."""
    if pd.api.types.is_numeric_dtype(column) or column.dtype == "category":
        return True
    return bool(column.astype(str).str.fullmatch(r"\d\d:00").all())


def label(value: object) -> str:
    """A cell as text: whole numbers without a decimal point.

    Args:
        value: A cell.

    Returns:
        What stands on the chart.
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
