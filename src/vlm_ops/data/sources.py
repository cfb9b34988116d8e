"""Where rows come from: charts of real tables, files of one's own, a data set on the hub."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from vlm_ops.config.pairs import Labelled
from vlm_ops.config.sections import (
    ChartsData,
    Columns,
    DataCommon,
    DataSettings,
    FilesData,
    HubData,
)
from vlm_ops.data import hub
from vlm_ops.data.cells import CellError
from vlm_ops.data.decoding import READING, check_file, reading
from vlm_ops.data.files import Cells, Placed, Table, read_table
from vlm_ops.data.forms import Form, find_form
from vlm_ops.data.image_cells import ImageCell, ImageFile, Place
from vlm_ops.data.parquet import holds_bytes_alone
from vlm_ops.data.progress import log_progress
from vlm_ops.data.rows import RawRow, check_columns
from vlm_ops.errors import DataError
from vlm_ops.records import SPLITS, Split
from vlm_ops.store.fingerprint import fingerprint, sha256_file

logger = logging.getLogger(__name__)

ALL = "all"
"""Kind of a row whose source knows no kinds."""
_TABLE_PACKAGES = (
    "statsmodels",
    "plotnine",
    "plotly",
    "vega_datasets",
    "bokeh_sampledata",
    "matplotlib",
)


@dataclass(frozen=True)
class Source:
    """Rows that are read as they are asked for.

    Attributes:
        name: Short, for data set inputs in the tracker.
        title: One line for people.
        rows: The rows; reading them may raise ``DataError``.
        own_splits: Whether each row brings its split.
        own_files: Whether the image files were made for this data set, so that they can be
            moved instead of copied.
    """

    name: str
    title: str
    rows: Iterator[RawRow]
    own_splits: bool
    own_files: bool = False


def open_source(data: DataSettings, *, seed: int, cache: Path) -> Source:
    """Open the source that a configuration names.

    Args:
        data: Which source.
        seed: Draws charts, and rows where there are more than ``max_rows``.
        cache: Folder for downloads and pictures; may be removed once the rows are read.

    Raises:
        DataError: The source can't be reached, or a column is not there.
    """
    cache.mkdir(parents=True, exist_ok=True)
    if isinstance(data, ChartsData):
        return _charts(data, seed, cache)
    if isinstance(data, FilesData):
        columns, rows = read_table(data.path, cache)
        form = find_form(data.form, data.columns, columns, data.question)
        check_columns(form.wanted(), columns, data.path.name)
        place = Place.of(data.path.parent, data.images_root)
        raw = _raw_rows(rows, form._replace(boxed=data.boxes), place, None)
        return Source(data.path.stem, str(data.path.name), raw, own_splits=False)
    named = [name for name in data.splits.model_dump().values() if name is not None]
    return hub_source(data, hub.fetch(data.id, data.revision, cache, data.subset, named), seed=seed)


def hub_source(data: HubData, files: hub.HubFiles, *, seed: int) -> Source:
    """Open a hub data set whose files are here already.

    Args:
        data: Which columns and splits.
        files: The data set's files.
        seed: Draws rows where there are more than ``data.max_rows``.

    Raises:
        DataError: A split or a column is not there.
    """
    tables: dict[Split, Table] = {}
    forms: dict[Split, Form] = {}
    names: dict[Split, str | None] = {split: getattr(data.splits, split) for split in SPLITS}
    for split, theirs in names.items():
        if theirs is None:  # it gets a share of train
            continue
        tables[split] = hub.read_split(files, theirs, data.max_rows, seed)
        there = tables[split][0]
        forms[split] = find_form(data.form, data.columns, there, data.question)
        check_columns(forms[split].wanted(), there, f"{data.id} {theirs}")

    def rows() -> Iterator[RawRow]:
        for split, (_, cells) in tables.items():
            form = forms[split]._replace(boxed=data.boxes)
            yield from _raw_rows(cells, form, Place.of(files.folder), split)

    title = f"{data.id} at {data.revision[:7]}"
    return Source(data.id, title, rows(), own_splits=True)


def source_content(data: DataCommon | Labelled) -> str:
    """Hash what a source reads from outside its settings.

    With it in a step's fingerprint, new rows or a changed picture run the step again, and the
    same rows in another folder do not.

    Args:
        data: A source of rows, of pairs or of thumbs.

    Returns:
        For files, a hash over the file and the images it names; for charts, over the packages
        that hold the tables; for the hub, whose commit is pinned, a constant.

    Raises:
        DataError: A file of rows can't be read.
    """
    if isinstance(data, ChartsData):
        return fingerprint({name: _version(name) for name in _TABLE_PACKAGES})
    if isinstance(data, FilesData):
        place = Place.of(data.path.parent, data.images_root)
        return _file_content(data.path, data, place)
    if isinstance(data, Labelled) and data.path is not None:
        return _file_content(data.path, data, Place.of(data.path.parent, data.images_root))
    return fingerprint("")


def touched(data: FilesData | Labelled) -> str:
    """Hash names, sizes and times of the files that a source reads, without opening a picture.

    It tells cheaply whether something may have changed; :func:`source_content`, whether it has.

    Args:
        data: A source that is a file.

    Raises:
        DataError: The file of rows can't be read.
    """
    assert data.path is not None
    place = Place.of(data.path.parent, data.images_root)
    with TemporaryDirectory() as cache:
        columns, rows = read_table(data.path, Path(cache))
        shown = _images(data.path, columns, rows, data, place)
        files = sorted(
            {Path(cell.name): cell for cell in shown if isinstance(cell, ImageFile)}.items()
        )
    return fingerprint(
        [_stat(data.path), [[str(name), _stat_if_there(file)] for name, file in files]]
    )


def count_rows(path: Path) -> int:
    """Count the rows of a file.

    Raises:
        DataError: It can't be read.
    """
    with TemporaryDirectory() as cache:
        return sum(1 for _ in read_table(path, Path(cache))[1])


def _stat(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _stat_if_there(file: ImageFile) -> list[int] | None:
    try:
        return _stat(file.find())
    except (DataError, OSError):
        return None


def _file_content(path: Path, data: FilesData | Labelled, place: Place) -> str:
    with TemporaryDirectory() as cache:
        columns, rows = read_table(path, Path(cache))
        return content_of(path, _images(path, columns, rows, data, place))


def content_of(path: Path, shown: Iterable[ImageCell]) -> str:
    """Hash a file of rows and the images that it names; those that it holds are part of the file.

    Args:
        path: The file.
        shown: The images and videos of all its rows.
    """
    files: set[ImageFile] = set()
    scaled = False
    for cell in shown:
        if isinstance(cell, ImageFile):
            files.add(cell)
        elif isinstance(cell, bytes):
            scaled = scaled or reading(cell) is not None
    by_path = sorted({Path(file.name): file for file in files}.items())
    with ThreadPoolExecutor(max_workers=4) as pool:
        hashes = list(pool.map(_hash_if_there, [file for _, file in by_path]))
    images = [[str(name), h] for (name, _), (h, _) in zip(by_path, hashes, strict=True)]
    # Only what is opened in another way than by earlier versions has a new hash.
    scaled = scaled or any(how is not None for _, how in hashes)
    return fingerprint([sha256_file(path), images, *([{"reading": READING}] if scaled else [])])


def _images(
    path: Path, columns: Sequence[str], rows: Placed, data: FilesData | Labelled, place: Place
) -> Iterator[ImageCell]:
    """Yield the images of all rows; none where the rows hold nothing but their bytes."""
    if isinstance(data, FilesData):
        form = find_form(data.form, data.columns, columns, data.question)
    else:
        form = Form(Columns(image=data.named["images"]), None)
    if form.chat is None and form.columns.video is None:
        column = form.columns.image
        in_file = path.suffix.lower() == ".parquet" and holds_bytes_alone(path, column)
        if in_file or column not in columns:
            return
    for _, row in rows:
        if not isinstance(row, CellError):  # what is no row is part of the file
            yield from form.named(row, place)


def _hash_if_there(file: ImageFile) -> tuple[str | None, int | None]:
    try:
        path = file.find()
        check_file(path, file.name)
        return sha256_file(path), reading(path)
    except (DataError, OSError):
        return None, None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _charts(data: ChartsData, seed: int, cache: Path) -> Source:
    from vlm_ops.charts.build import build_charts

    folder = build_charts(
        cache / "charts", data, seed=seed, progress=log_progress(logger, "charts drawn")
    )

    def rows() -> Iterator[RawRow]:
        columns = Columns(id="id", group="table_id", kind="kind")
        for split in SPLITS:
            _, cells = read_table(folder / f"{split}.jsonl", cache)
            yield from _raw_rows(cells, Form(columns, None), Place.of(folder), split)

    title = f"charts of real tables, drawn with seed {seed}"
    return Source("charts", title, rows(), own_splits=True, own_files=True)


def _raw_rows(
    rows: Placed,
    form: Form,
    place: Place,
    split: Split | None,
) -> Iterator[RawRow]:
    for number, (where, cells) in enumerate(rows, start=1):
        # On the hub the number in the split, so that a drawn row keeps its id.
        numbered = f"{split}-{where.rpartition(':')[2]}" if split else str(number)
        yield raw_row(where, numbered, cells, form, place, split)


def raw_row(
    where: str,
    numbered: str,
    cells: Cells | CellError,
    form: Form,
    place: Place,
    split: Split | None = None,
) -> RawRow:
    """Tell the cells of a row apart.

    Args:
        where: As ``rows.jsonl:12``.
        numbered: Its id where no column holds one.
        cells: By column, or why there are none.
        form: Where they stand.
        place: Where image files are looked for.
        split: The split that the source puts the row in.
    """
    columns = form.columns
    try:
        if isinstance(cells, CellError):
            raise cells
        chat = form.read_chat(cells)
    except CellError as error:
        return RawRow.without_cells(where, numbered, error, split)
    group = cells.get(columns.group) if columns.group else None
    return RawRow(
        where=where,
        id=cells.get(columns.id) if columns.id else numbered,
        images=form.images(cells, chat, place),
        videos=form.videos(cells, chat, place),
        question=None if chat else form.question or cells.get(columns.question),
        answers=None if chat else cells.get(columns.answers),
        options=cells.get(columns.options) if columns.options else None,
        boxes=form.boxes(cells),
        chat=chat,
        kind=cells.get(columns.kind) if columns.kind else ALL,
        group="" if columns.group and group is None else group,
        split=split,
        columns=columns.model_dump(exclude={"more_images"}),
    )
