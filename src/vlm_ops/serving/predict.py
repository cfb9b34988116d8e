"""Answers from a base, an adapter folder or a registered model."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vlm_ops.artifacts import ModelRef, TrainedAdapter
from vlm_ops.config.names import registered_name
from vlm_ops.config.sections import ModelSettings
from vlm_ops.data import cells as read
from vlm_ops.data.decoding import ImageRefused, decode
from vlm_ops.data.image_cells import ImageCell, ImageFile, Place, image_cells
from vlm_ops.errors import DataError, ModelError
from vlm_ops.models.generation import Progress, generate
from vlm_ops.models.loading import LoadedModel, base_ref
from vlm_ops.records import as_chat
from vlm_ops.store.artifact import read_record
from vlm_ops.store.files import growing
from vlm_ops.store.fingerprint import fingerprint, sha256_file
from vlm_ops.store.jsonl import json_line, read_objects
from vlm_ops.store.names import short


def find_model(model: str, *, tracking_uri: str | None, cache: Path) -> ModelRef:
    """Find a model by name.

    Args:
        model: ``tiny``, a hub id, a folder with weights, a step's folder with an adapter, or
            ``models:/name@alias``.
        tracking_uri: MLflow server for the last form.
        cache: Folder for what is downloaded.

    Raises:
        ModelError: There is no such model.
        RegistryError: There is no such version.
    """
    registered = registered_name(model)
    if registered is not None:
        if tracking_uri is None:
            raise ModelError(f"{model!r} needs an MLflow server: set MLFLOW_TRACKING_URI")
        # A base or a folder is asked without MLflow, which need not be installed.
        from vlm_ops.registry.registry import Registry

        name, version = registered
        return Registry(tracking_uri, name).download(version, cache)
    trained = read_record(Path(model), TrainedAdapter)
    return trained.model if trained is not None else base_ref(ModelSettings(id=model))


class AskedRow(NamedTuple):
    """A row of a file that asks.

    Attributes:
        where: As ``rows.jsonl:12``.
        cells: The whole row, as it stands there.
        question: What is asked.
        images: In the order the prompt shows them; what is no image stands for itself.
    """

    where: str
    cells: dict[str, Any]
    question: str
    images: tuple[ImageCell, ...]


class Questions(NamedTuple):
    """A file of questions whose rows were all looked at.

    Attributes:
        source: The file.
        place: Where its images are looked for.
        total: How many rows it has.
    """

    source: Path
    place: Place
    total: int

    def rows(self) -> Iterator[AskedRow]:
        """Read the rows, one at a time; images are not opened yet."""
        for where, cells in read_objects(self.source):
            yield _asked_row(where, cells, self.place)


class Answered(NamedTuple):
    """What became of a file of questions.

    Attributes:
        failed: Where the rows without an answer stand.
        kept: How many answers an interrupted call had written; they were not asked again.
    """

    failed: list[str]
    kept: int


def read_questions(source: Path, images_root: Path | None = None) -> Questions:
    """Look at every row of a file of questions; images are opened later.

    Args:
        source: JSONL with ``image`` (paths start at the file's folder) and ``query``;
            :func:`~vlm_ops.data.image_cells.image_cells` says what else an image may be.
        images_root: Folder that all images must lie in; None takes the file's own.

    Raises:
        DataError: The file can't be read, is empty, or a row has no image or no question.
    """
    questions = Questions(source, Place.of(source.parent, images_root), 0)
    total = sum(1 for _ in questions.rows())
    if not total:
        raise DataError(f"{source}: no rows; expected one JSON object a line")
    return questions._replace(total=total)


def answer(model: LoadedModel, question: str, images: Sequence[Path], max_new_tokens: int) -> str:
    """Answer one question about image files, with the prompt that the model was measured with.

    Raises:
        DataError: An image can't be opened.
    """
    anywhere = Place.of(Path.cwd(), Path("/"))
    pictures = []
    for path in images:
        try:
            pictures.append(_picture(ImageFile(str(path), anywhere)))
        except ImageRefused as error:
            raise DataError(f"{path}: {error}") from error
    return _answers(model, [(read.question(question), pictures)], max_new_tokens)[0]


def answer_file(
    model: LoadedModel,
    questions: Questions,
    target: Path,
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> Answered:
    """Answer rows, a batch of pictures at a time, into a file.

    Each line is the row and ``answer`` beside what it holds, or ``error`` where an image of it
    can't be opened. A batch is written as soon as it is answered, into a hidden file beside the
    target; the same call goes on from there after it was interrupted.

    Args:
        model: Loaded.
        questions: From :func:`read_questions`.
        target: JSONL to write; it appears when all rows are answered.
        max_new_tokens: Longest answer.
        batch_size: Rows at once.
        progress: Called with (rows done, rows in all).

    Raises:
        OutputError: The target can't be written.
    """
    place = [str(path) for path in questions.place]
    asked = fingerprint([sha256_file(questions.source), place, model.ref.content, max_new_tokens])
    failed: list[str] = []
    with growing(target, asked) as (before, write):
        rows = questions.rows()
        kept = 0
        for line, row in zip(before, rows, strict=False):
            kept += 1
            failed += [row.where] * ("error" in json.loads(line))
        done = kept
        while batch := list(islice(rows, batch_size)):
            lines = _answered(model, batch, max_new_tokens)
            failed += [row.where for row, line in zip(batch, lines, strict=True) if "error" in line]
            write([json_line(line) for line in lines])
            done += len(batch)
            if progress is not None:
                progress(done, questions.total)
    return Answered(failed, kept)


def _asked_row(where: str, cells: dict[str, Any], place: Place) -> AskedRow:
    missing = [name for name in ("image", "query") if name not in cells]
    if missing:
        raise DataError(
            f"{where}: no {' and no '.join(missing)}; found {', '.join(sorted(cells))}; expected "
            f"image (a path) and query (the question)"
        )
    try:
        question = read.question(cells["query"])
    except DataError as error:
        raise DataError(f"{where}: query is {error}") from error
    images = image_cells(cells["image"], place)
    if not images:
        raise DataError(
            f"{where}: image is empty: found {read.shown(cells['image'])}; expected image (a path, "
            f"or a list of paths) and query (the question)"
        )
    try:
        as_chat(question, len(images))
    except DataError as error:
        raise DataError(f"{where}: query: {error}") from error
    return AskedRow(where, cells, question, images)


def _answered(
    model: LoadedModel, rows: Sequence[AskedRow], max_new_tokens: int
) -> list[dict[str, Any]]:
    """Return the lines of one batch."""
    opened = [(row, _pictures(row)) for row in rows]
    asked = [(row.question, found) for row, found in opened if not isinstance(found, str)]
    answers = iter(_answers(model, asked, max_new_tokens))
    lines = []
    for row, found in opened:
        # What an earlier answering of the same rows left goes.
        cells = {k: v for k, v in row.cells.items() if k not in ("answer", "error")}
        said = {"error": found} if isinstance(found, str) else {"answer": next(answers)}
        lines.append({**cells, **said})
    return lines


def _pictures(row: AskedRow) -> list[Image.Image] | str:
    """Open a row's images; returns what is wrong with one instead."""
    pictures = []
    for cell in row.images:
        try:
            pictures.append(_picture(cell))
        except ImageRefused as error:
            named = f"{short(cell.name, 50)}: " if isinstance(cell, ImageFile) else ""
            return f"{error.what}: {named}{error}"
    return pictures


def _picture(cell: ImageCell) -> Image.Image:
    if isinstance(cell, ImageRefused):
        raise cell
    return decode(cell.read() if isinstance(cell, ImageFile) else cell).image


def _answers(
    model: LoadedModel, asked: Sequence[tuple[str, list[Image.Image]]], max_new_tokens: int
) -> list[str]:
    """Answer one batch."""
    return generate(
        model,
        [as_chat(model.ref.asked(question), len(pictures)) for question, pictures in asked],
        [pictures for _, pictures in asked],
        max_new_tokens=max_new_tokens,
        batch_size=max(1, len(asked)),
    )
