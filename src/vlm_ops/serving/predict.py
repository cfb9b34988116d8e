"""Answers from a base, an adapter folder or a registered model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vlm_ops.artifacts import ModelRef, TrainedAdapter
from vlm_ops.config.sections import ModelSettings
from vlm_ops.data import cells as cell
from vlm_ops.data.images import read_image
from vlm_ops.data.rows import image_cells
from vlm_ops.errors import DataError, ModelError
from vlm_ops.models.generation import Progress, generate
from vlm_ops.models.loading import LoadedModel, base_ref
from vlm_ops.serving.names import registered_name
from vlm_ops.store.artifact import read_record
from vlm_ops.store.jsonl import read_objects, write_jsonl


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
        images: Files, in the order the prompt shows them.
    """

    where: str
    cells: dict[str, Any]
    question: str
    images: tuple[Path, ...]


def read_questions(source: Path) -> list[AskedRow]:
    """Read a file of questions, and look at every row; images are opened later.

    Args:
        source: JSONL with ``image`` (a path from the file's folder, or a list) and ``query``.

    Raises:
        DataError: The file can't be read, is empty, or a row has no image or no question.
    """
    rows = [_asked_row(where, cells, source.parent) for where, cells in read_objects(source)]
    if not rows:
        raise DataError(f"{source}: no rows; expected one JSON object a line")
    return rows


def answer(model: LoadedModel, question: str, images: Sequence[Path], max_new_tokens: int) -> str:
    """Answer one question about image files, with the prompt that the model was measured with.

    Raises:
        DataError: An image can't be opened.
    """
    pictures = [read_image(path) for path in images]
    return _answers(model, [(cell.question(question), pictures)], max_new_tokens)[0]


def answer_file(
    model: LoadedModel,
    rows: Sequence[AskedRow],
    target: Path,
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[str]:
    """Answer rows, a batch of pictures at a time, into a file.

    Each line is the row and ``answer`` beside what it holds, or ``error`` where an image of it
    can't be opened.

    Args:
        model: Loaded.
        rows: From :func:`read_questions`.
        target: JSONL to write; it appears whole or not at all.
        max_new_tokens: Longest answer.
        batch_size: Rows at once.
        progress: Called with (rows done, rows in all).

    Returns:
        Where the rows without an answer stand.

    Raises:
        OutputError: The target can't be written.
    """
    lines: list[dict[str, Any]] = []
    failed: list[str] = []
    for start in range(0, len(rows), batch_size):
        opened = [(row, _pictures(row)) for row in rows[start : start + batch_size]]
        asked = [(row.question, found) for row, found in opened if not isinstance(found, str)]
        answers = iter(_answers(model, asked, max_new_tokens))
        for row, found in opened:
            # What an earlier answering of the same rows left goes.
            cells = {k: v for k, v in row.cells.items() if k not in ("answer", "error")}
            if isinstance(found, str):
                failed.append(row.where)
                lines.append({**cells, "error": found})
            else:
                lines.append({**cells, "answer": next(answers)})
        if progress is not None:
            progress(len(lines), len(rows))
    write_jsonl(target, lines)
    return failed


def _asked_row(where: str, cells: dict[str, Any], folder: Path) -> AskedRow:
    missing = [name for name in ("image", "query") if name not in cells]
    if missing:
        raise DataError(
            f"{where}: no {' and no '.join(missing)}; found {', '.join(sorted(cells))}; expected "
            f"image (a path) and query (the question)"
        )
    try:
        question = cell.question(cells["query"])
    except DataError as error:
        raise DataError(f"{where}: query is {error}") from error
    images = tuple(i for i in image_cells(cells["image"], folder) if isinstance(i, Path))
    if not images:
        raise DataError(
            f"{where}: image is empty: found {cell.shown(cells['image'])}; expected image (a path, "
            f"or a list of paths) and query (the question)"
        )
    return AskedRow(where, cells, question, images)


def _pictures(row: AskedRow) -> list[Image.Image] | str:
    """Open a row's images; returns what is wrong with one instead."""
    try:
        return [read_image(path) for path in row.images]
    except DataError as error:
        return str(error)


def _answers(
    model: LoadedModel, asked: Sequence[tuple[str, list[Image.Image]]], max_new_tokens: int
) -> list[str]:
    """Answer one batch."""
    return generate(
        model,
        [model.ref.asked(question) for question, _ in asked],
        [pictures for _, pictures in asked],
        max_new_tokens=max_new_tokens,
        batch_size=max(1, len(asked)),
    )
