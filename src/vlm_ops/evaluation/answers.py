"""The answers step: one model's answers to one split, judged.

An interrupted attempt goes on after its last whole batch.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image
from pydantic import ValidationError

from vlm_ops.artifacts import ANSWERS, PROTOCOL, AnswerSet, ModelRef
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.data.progress import log_progress
from vlm_ops.errors import OutputError
from vlm_ops.evaluation.judging import judge
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.protocol import benchmark_protocol, protocol, select_rows
from vlm_ops.evaluation.respondent import ModelRespondent, OpenModel, Respondent
from vlm_ops.evaluation.shown import kept
from vlm_ops.evaluation.swapped import swapped
from vlm_ops.evaluation.terms import value_of
from vlm_ops.models.ground import DTYPE, dtype
from vlm_ops.models.pictures import Picture
from vlm_ops.models.replies import Reply
from vlm_ops.models.room import Room
from vlm_ops.records import Answer, Row, RowsRef
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.fits import rows_at_once
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

GRAY = (128, 128, 128)
"""What every pixel is when a model is asked on gray images."""

_PARTIAL = "partial.jsonl"


class _Reply(Reply):
    id: str


def ask(
    job: AnswersJob,
    *,
    rows: RowsRef,
    model: ModelRef,
    out: Path,
    tracker: Tracker,
    open_model: OpenModel | None = None,
) -> AnswerSet:
    """Ask a model every row of a split.

    Args:
        job: How: longest answer, row limit, with the images, gray ones or other rows'.
        rows: The rows.
        model: Who is asked, under its own prompt unless the job has one.
        out: Gets ``answers.jsonl``.
        tracker: Told nothing.
        open_model: Makes a respondent of a model; None loads it.

    Returns:
        The answers. Their ``protocol`` covers rows, decoding and metric; of a benchmark, more.

    Raises:
        DataError: The split has no rows, an image can't be opened, or the metric leaves its range.
        ModelError: The model can't be loaded.
    """
    asked = select_rows(rows, job.max_rows, job.seed, job.benchmark)
    job = job.model_copy(update={"batch_size": rows_at_once(job.batch_size, out)})
    open_model = open_model or partial(ModelRespondent, room=Room.beside(out, job.features))
    said = _resume(out, asked, job.batch_size)
    with (out / _PARTIAL).open("a", encoding="utf-8") as beside:
        respondent = open_model(_on_ground(model, job))
        for replies in _replies(respondent, _read(asked, model, job), len(said), rows, job):
            beside.writelines(reply.model_dump_json() + "\n" for reply in replies)
            beside.flush()
            said += replies
    terms = protocol(asked, job) if job.benchmark is None else _told(asked, job, model, out)
    return AnswerSet(
        folder=out,
        content=fingerprint([terms, [reply.text for reply in said]]),
        model=model.content,
        protocol=terms,
        split=job.split,
        gray=job.gray,
        swapped=job.swapped,
        metric=job.metric,
        value=_judge(asked, said, find(job.metric), out),
        ground=job.ground,
        benchmark=job.benchmark,
    )


def _read(asked: Sequence[Row], model: ModelRef, job: AnswersJob) -> list[Row]:
    """Return the rows as the model reads them: in its prompt, or in that of the benchmark."""
    shown = swapped(asked, job.seed) if job.swapped else asked
    prompt = model.prompt if job.prompt is None else job.prompt
    return [row.asked_with(prompt) for row in shown]


def _told(rows: Sequence[Row], job: AnswersJob, model: ModelRef, out: Path) -> str:
    """Write a benchmark's protocol down in words, and return its hash."""
    terms = benchmark_protocol(rows, job, model)
    write_whole(out / PROTOCOL, json.dumps(terms, ensure_ascii=False, indent=2) + "\n")
    return fingerprint(terms)


def _judge(rows: Sequence[Row], said: Sequence[_Reply], metric: Metric, out: Path) -> float:
    """Write the judged answers, which ends the asking, and return their score."""
    write_jsonl(out / ANSWERS, judged := _judged(rows, said, metric))
    value = value_of(judged, metric)
    # Where that is an error, what was said stays: it is judged again and not asked again.
    (out / _PARTIAL).unlink()
    return value


def _judged(rows: Sequence[Row], said: Sequence[_Reply], metric: Metric) -> list[Answer]:
    answers = judge(rows, [reply.text for reply in said], metric)
    return [
        answer.model_copy(update={"cut_off": reply.cut_off})
        for answer, reply in zip(answers, said, strict=True)
    ]


def _on_ground(model: ModelRef, job: AnswersJob) -> ModelRef:
    """Return the model as it computes in the ground's dtype, whatever it was trained in."""
    wanted = job.ground.get(DTYPE, dtype(model.settings))
    if dtype(model.settings) == wanted:
        return model
    settings = model.settings.model_copy(update={"dtype": wanted})
    return model.model_copy(update={"settings": settings})


def _resume(out: Path, rows: Sequence[Row], batch_size: int) -> list[_Reply]:
    """Return what an interrupted attempt left of whole batches.

    Whole batches only, so that rows share a batch with the same rows as without interruption.
    """
    partial = out / _PARTIAL
    try:
        # A crash may have cut the last line off inside a character.
        lines = partial.read_bytes().decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise OutputError(f"{partial}: can't be read ({error.strerror})") from error
    replies = list(_valid_replies(lines, rows))
    if len(replies) < len(rows):
        del replies[len(replies) - len(replies) % batch_size :]
    write_jsonl(partial, replies)
    if replies:
        logger.info("%s: going on after %d rows", out.name, len(replies))
    return replies


def _valid_replies(lines: Sequence[str], rows: Sequence[Row]) -> Iterator[_Reply]:
    """Yield replies up to the first line that a crash cut off or that fits no row."""
    for line, row in zip(lines, rows, strict=False):
        try:
            reply = _Reply.model_validate_json(line)
        except ValidationError:
            return
        if reply.id != row.id:
            return
        yield reply


def _replies(
    model: Respondent, asked: Sequence[Row], done: int, rows: RowsRef, job: AnswersJob
) -> Iterator[list[_Reply]]:
    """Ask the rows from ``done`` on, batch by batch, and say now and then how far it is."""
    seen = "gray images of " if job.gray else "other rows' images of " if job.swapped else ""
    label = f"answers on {seen}{job.benchmark or job.split}"
    report = log_progress(logger, label, before=done)
    for start in range(done, len(asked), job.batch_size):
        batch = asked[start : start + job.batch_size]
        said = model.respond(batch, _images(batch, rows, job.gray), job)
        yield [
            _Reply(id=row.id, text=reply.text, cut_off=reply.cut_off)
            for row, reply in zip(batch, said, strict=True)
        ]
        report(start + len(batch), len(asked))


def _images(batch: Sequence[Row], rows: RowsRef, gray: bool) -> list[list[Picture]]:
    """Return the images of a batch; gray ones of one size are one image."""
    if not gray:
        return [[*kept(row.images, rows.image_path)] for row in batch]
    sizes = {(image.width, image.height) for row in batch for image in row.images}
    blank = {size: Image.new("RGB", size, GRAY) for size in sizes}
    return [[blank[image.width, image.height] for image in row.images] for row in batch]
