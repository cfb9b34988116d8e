"""Answers of one model to one split, judged, and stored once.

They lie in ``<runs>/answers-<fingerprint>/`` by model content, protocol and blindness: whoever
asks the same model the same rows in the same way finds them there. An interrupted attempt
goes on after its last whole batch.
"""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import ValidationError

from vlm_ops.artifacts import AnswerSet, ModelRef, PreparedData
from vlm_ops.config.sections import EvaluateSettings
from vlm_ops.data.images import open_image
from vlm_ops.data.progress import log_progress
from vlm_ops.errors import DataError, OutputError
from vlm_ops.evaluation import statistics
from vlm_ops.evaluation.asking import OneAtATime, Respondent
from vlm_ops.evaluation.judging import judge
from vlm_ops.evaluation.protocol import protocol, select_rows
from vlm_ops.records import Answer, Row, Split
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.frozen import Frozen
from vlm_ops.store.jsonl import read_jsonl, write_jsonl

logger = logging.getLogger(__name__)

GRAY = (128, 128, 128)
"""What every pixel is when a model is asked without its pictures."""

_ANSWERS = "answers.jsonl"
_PARTIAL = "partial.jsonl"
_CACHE = Path(".cache", "evaluate")


class _Reply(Frozen):
    id: str
    text: str


@dataclass(frozen=True)
class _Sheet:
    """The rows that one model is asked in one way, and where its answers go."""

    model: str
    protocol: str
    split: Split
    blind: bool
    rows: tuple[Row, ...]
    runs: Path
    label: str

    @property
    def fingerprint(self) -> str:
        gray = GRAY if self.blind else None
        return fingerprint(["answers", self.model, self.protocol, gray])

    @property
    def folder(self) -> Path:
        return self.runs / f"answers-{self.fingerprint[:SHORT]}"


def answer(
    model: ModelRef | Respondent,
    data: PreparedData,
    split: Split,
    *,
    evaluate: EvaluateSettings,
    seed: int,
    blind: bool,
    runs: Path,
    name: str = "model",
) -> AnswerSet:
    """Ask a model every row of a split, or find its answers if it was asked before.

    Args:
        model: A reference, loaded for this call if answers are missing, or a respondent that
            the caller keeps for several calls.
        data: The rows and images.
        split: Which of its splits.
        evaluate: Longest answer, batch size, row limit, bootstrap resamples.
        seed: Of the row limit's draw and of the bootstrap.
        blind: Replace every image by a gray one of the same size.
        runs: Folder that holds all outputs.
        name: What to call the model in the log.

    Returns:
        The answer set. Its ``protocol`` covers rows, prompt, decoding and metric but not
        blindness: a model and its blind self answer under one protocol.

    Raises:
        DataError: The split has no rows, or an image can't be opened.
        ModelError: The model can't be loaded.
        OutputError: The runs folder can't be written to.
    """
    if isinstance(model, ModelRef):
        with OneAtATime() as one:
            respondent = one.model(model)
            return answer(
                respondent,
                data,
                split,
                evaluate=evaluate,
                seed=seed,
                blind=blind,
                runs=runs,
                name=name,
            )
    sheet = _sheet(model.content, data, split, evaluate, seed, runs, name, blind)
    if (stored := _stored(sheet, evaluate, seed)) is not None:
        return stored
    started = time.monotonic()
    texts = _open(sheet, evaluate.batch_size)
    with (sheet.folder / _PARTIAL).open("a", encoding="utf-8") as partial:
        for replies in _ask(model, data, sheet, len(texts), evaluate):
            partial.writelines(reply.model_dump_json() + "\n" for reply in replies)
            partial.flush()
            texts += [reply.text for reply in replies]
    return _complete(sheet, texts, evaluate, seed, time.monotonic() - started)


def majority(
    data: PreparedData,
    split: Split,
    *,
    evaluate: EvaluateSettings,
    seed: int,
    runs: Path,
) -> AnswerSet:
    """Answer every question with the most frequent training answer of its kind.

    What a model must beat to show that it looks at all: this baseline sees neither image nor
    question. A kind that training lacks gets the most frequent answer of all; among equally
    frequent ones the alphabet decides.

    Args:
        data: The rows.
        split: Which of its splits is answered.
        evaluate: Row limit and bootstrap resamples; the answers count under its protocol.
        seed: Of the row limit's draw and of the bootstrap.
        runs: Folder that holds all outputs.

    Raises:
        DataError: There are no training rows, or none in the split.
    """
    trained = data.rows("train")
    if not trained:
        raise DataError(f"{data.folder}: majority needs training rows, found none")
    overall = _most_frequent([row.answers[0] for row in trained])
    kinds: dict[str, list[str]] = defaultdict(list)
    for row in trained:
        kinds[row.kind].append(row.answers[0])
    favorites = {kind: _most_frequent(said) for kind, said in kinds.items()}
    content = fingerprint(["majority", favorites, overall])
    sheet = _sheet(content, data, split, evaluate, seed, runs, "majority", blind=True)
    if (stored := _stored(sheet, evaluate, seed)) is not None:
        return stored
    _open(sheet, evaluate.batch_size)
    texts = [favorites.get(row.kind, overall) for row in sheet.rows]
    return _complete(sheet, texts, evaluate, seed, 0.0)


def read_answers(folder: Path) -> list[Answer]:
    """Read the judged rows of a complete answer set, in the order of the split.

    Raises:
        DataError: They are not there or not readable.
    """
    return list(read_jsonl(folder / _ANSWERS, Answer))


def _sheet(
    model: str,
    data: PreparedData,
    split: Split,
    evaluate: EvaluateSettings,
    seed: int,
    runs: Path,
    name: str,
    blind: bool,
) -> _Sheet:
    rows = tuple(select_rows(data, split, evaluate.max_rows, seed))
    return _Sheet(
        model=model,
        protocol=protocol(rows, split, evaluate),
        split=split,
        blind=blind,
        rows=rows,
        runs=runs,
        label=f"answers {name} on {split}",
    )


def _stored(sheet: _Sheet, evaluate: EvaluateSettings, seed: int) -> AnswerSet | None:
    """Return a complete set, scored with the resamples that are asked for now."""
    stored = read_record(sheet.folder, AnswerSet)
    if stored is None:
        return None
    logger.info("%s: %d rows found in %s", sheet.label, len(sheet.rows), sheet.folder.name)
    return stored.model_copy(update=_scores(read_answers(sheet.folder), evaluate, seed))


def _open(sheet: _Sheet, batch_size: int) -> list[str]:
    """Make the folder and return what an interrupted attempt left of whole batches.

    Whole batches only, so that rows share a batch with the same rows as without interruption.
    """
    partial = sheet.folder / _PARTIAL
    try:
        sheet.folder.mkdir(parents=True, exist_ok=True)
        lines = partial.read_text(encoding="utf-8").splitlines() if partial.exists() else []
        replies = list(_valid_replies(lines, sheet.rows))
        if len(replies) < len(sheet.rows):
            del replies[len(replies) - len(replies) % batch_size :]
        write_jsonl(partial, replies)
    except OSError as error:
        raise OutputError(f"{sheet.folder}: can't be written to ({error.strerror})") from error
    if replies:
        logger.info("%s: going on after %d rows", sheet.label, len(replies))
    return [reply.text for reply in replies]


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


def _ask(
    model: Respondent,
    data: PreparedData,
    sheet: _Sheet,
    done: int,
    evaluate: EvaluateSettings,
) -> Iterator[list[_Reply]]:
    """Ask the rows from ``done`` on, batch by batch, and say now and then how far it is."""
    report = log_progress(logger, sheet.label, before=done)
    for start in range(done, len(sheet.rows), evaluate.batch_size):
        batch = sheet.rows[start : start + evaluate.batch_size]
        images = _images(batch, data, blind=sheet.blind)
        texts = model.respond([row.question for row in batch], images, evaluate)
        yield [_Reply(id=row.id, text=text) for row, text in zip(batch, texts, strict=True)]
        report(start + len(batch), len(sheet.rows))


def _images(batch: Sequence[Row], data: PreparedData, *, blind: bool) -> list[list[Image.Image]]:
    """Open the images of a batch; rows that ask about one chart share it."""
    opened = {
        ref.path: Image.new("RGB", (ref.width, ref.height), GRAY)
        if blind
        else open_image(data.image_path(ref.path))
        for ref in {ref.path: ref for row in batch for ref in row.images}.values()
    }
    return [[opened[ref.path] for ref in row.images] for row in batch]


def _complete(
    sheet: _Sheet, texts: Sequence[str], evaluate: EvaluateSettings, seed: int, seconds: float
) -> AnswerSet:
    judged = judge(sheet.rows, texts, sheet.runs / _CACHE)
    write_jsonl(sheet.folder / _ANSWERS, judged)
    found = AnswerSet(
        folder=sheet.folder,
        fingerprint=sheet.fingerprint,
        content=fingerprint([sheet.protocol, list(texts)]),
        seconds=seconds,
        model=sheet.model,
        protocol=sheet.protocol,
        split=sheet.split,
        blind=sheet.blind,
        **_scores(judged, evaluate, seed),
    )
    write_record(found)
    (sheet.folder / _PARTIAL).unlink()
    return found


def _scores(answers: Sequence[Answer], evaluate: EvaluateSettings, seed: int) -> dict[str, Any]:
    return {
        "score": statistics.score(answers, evaluate.resamples, seed),
        "by_kind": statistics.by_kind(answers, evaluate.resamples, seed),
        "by_group": statistics.by_group(answers, evaluate.resamples, seed),
    }


def _most_frequent(answers: Sequence[str]) -> str:
    counts = Counter(answers)
    return min(counts, key=lambda said: (-counts[said], said))
