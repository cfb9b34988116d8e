"""Answers from a base, an adapter folder or a registered model."""

import json
from collections.abc import Sequence
from datetime import date, time
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from vlm_ops.artifacts import ModelRef, TrainedAdapter
from vlm_ops.config.names import registered_name
from vlm_ops.config.sections import ModelSettings
from vlm_ops.data.cells import shown
from vlm_ops.data.sources import content_of
from vlm_ops.errors import DataError, ModelError
from vlm_ops.models.generation import Progress
from vlm_ops.models.loading import LoadedModel, base_ref
from vlm_ops.serving.asking import Answering, Asked, answers, too_long
from vlm_ops.serving.rows import AskedRow, Questions
from vlm_ops.store.artifact import read_record
from vlm_ops.store.files import growing
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.jsonl import json_line

GIVEN = "given_answer"
"""Where the column ``answer`` of a row stands beside what the model answered."""


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


class Answered(NamedTuple):
    """What became of a file of questions.

    Attributes:
        failed: Where the rows without an answer stand.
        kept: How many answers an interrupted call had written; they were not asked again.
    """

    failed: list[str]
    kept: int


def answer_file(
    model: LoadedModel,
    questions: Questions,
    target: Path,
    how: Answering,
    *,
    batch_size: int,
    progress: Progress | None = None,
) -> Answered:
    """Answer rows, a batch of pictures at a time, into a file.

    Each line is the row and ``answer`` beside what it holds, or ``error`` where it can't be asked;
    an ``answer`` that the row holds itself is called ``given_answer`` there.
    A batch is written as soon as it is answered, into a hidden file beside the target; the same
    call goes on from there after it was interrupted.

    Args:
        model: Loaded.
        questions: From :func:`~vlm_ops.serving.rows.read_questions`.
        target: JSONL to write; it appears when all rows are answered.
        how: Longest answer, and whether it is drawn; each batch has a draw of its own.
        batch_size: Rows at once.
        progress: Called with (rows done, rows in all), at first with those that are kept.

    Raises:
        OutputError: The target can't be written.
    """
    failed: list[str] = []
    with growing(target, _content(model, questions, how, batch_size)) as (before, write):
        rows = questions.rows()
        kept = 0
        for line, row in zip(before, rows, strict=False):
            kept += 1
            failed += [row.where] * ("error" in json.loads(line))
        done = kept
        if progress is not None:
            progress(done, questions.total)
        while batch := list(islice(rows, batch_size)):
            drawn = how.model_copy(update={"seed": how.seed + done})
            lines = _answered(model, batch, questions.wanted.frames, drawn)
            failed += [row.where for row, line in zip(batch, lines, strict=True) if "error" in line]
            write([json_line(line) for line in lines])
            done += len(batch)
            if progress is not None:
                progress(done, questions.total)
    return Answered(failed, kept)


def _content(model: LoadedModel, questions: Questions, how: Answering, batch_size: int) -> str:
    """Hash all that the answers hang on, the pictures among them."""
    wanted = questions.wanted
    said = [dict(wanted.columns), wanted.question, wanted.system, wanted.frames]
    place = [str(path) for path in questions.place]
    shown_there = (cell for row in questions.rows() for cell in (*row.images, *row.videos))
    source = content_of(wanted.source, shown_there)
    draws = batch_size if how.temperature else None  # each batch has a draw of its own
    return fingerprint([source, place, said, model.ref.content, how.model_dump(), draws])


def _answered(
    model: LoadedModel, rows: Sequence[AskedRow], frames: int, how: Answering
) -> list[dict[str, Any]]:
    """Return the lines of one batch."""
    opened = [_opened(model, row, frames, how) for row in rows]
    said = iter(answers(model, [each for each in opened if isinstance(each, Asked)], how))
    lines = []
    for row, found in zip(rows, opened, strict=True):
        # The error of an earlier answering goes.
        cells = {name: cell for name, cell in _writable(row.cells).items() if name != "error"}
        if "answer" in cells:
            cells.setdefault(GIVEN, cells.pop("answer"))
        ends = {"answer": next(said)} if isinstance(found, Asked) else {"error": found}
        lines.append({**cells, **ends})
    return lines


def _opened(model: LoadedModel, row: AskedRow, frames: int, how: Answering) -> Asked | str:
    """Open a row's pictures; returns what is wrong with it instead."""
    try:
        asked = row.open(frames)
    except DataError as error:
        return str(error) if row.cells else f"{row.where}: {error}"
    return too_long(model, asked, how) or asked


def _writable(cells: dict[str, Any]) -> dict[str, Any]:
    """Return cells as JSON holds them; what is no number there (NaN, infinity) is null."""
    text = json.dumps(cells, default=_as_text)
    held: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    return held


def _as_text(cell: Any) -> str:
    """Return what JSON has no form for as text; of bytes, how many they are."""
    if isinstance(cell, date | time):  # a datetime is a date
        return cell.isoformat()
    return shown(cell) if isinstance(cell, bytes | bytearray) else str(cell)
