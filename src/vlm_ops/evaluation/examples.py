"""Answers to look at: right and wrong ones with their images, and one to show."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from vlm_ops.artifacts import PreparedData
from vlm_ops.data.images import open_image
from vlm_ops.evaluation.answers import GRAY
from vlm_ops.evaluation.measured import Measured
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.terms import is_right
from vlm_ops.records import Answer, Row
from vlm_ops.store.files import write_whole
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker

_EACH = 12
"""How many right and how many wrong answers are kept with their pictures."""

_ASKED = ("base", "sft", "candidate", "sft_gray", "majority")
_NO_IMAGE_SIZE = (64, 64)


def log_examples(
    data: PreparedData,
    measured: Mapping[str, Measured],
    metric: Metric,
    *,
    seed: int,
    tracker: Tracker,
) -> None:
    """Hand a dozen right and a dozen wrong answers of the candidate to the tracker.

    Args:
        data: With rows and images.
        measured: By model.
        metric: Tells right answers from wrong ones.
        seed: Of the draw; every question kind gets its turn.
        tracker: Keeps them as the table ``answers.json``.
    """
    rows = {row.id: row for row in data.rows("test")}
    texts = {
        name: {answer.id: answer.text for answer in measured[name].answers}
        for name in ("base", "sft")
        if name in measured
    }
    candidate = measured["candidate"].answers
    wrong = spread([answer for answer in candidate if not is_right(answer, metric)], seed)
    right = spread([answer for answer in candidate if is_right(answer, metric)], seed)
    shown = [*wrong[:_EACH], *right[:_EACH]]
    tracker.table(
        "answers.json",
        {
            "image": [_picture(rows[answer.id], data) for answer in shown],
            "question": [rows[answer.id].transcript for answer in shown],
            "kind": [answer.kind for answer in shown],
            "expected": [" | ".join(dict.fromkeys(answer.expected)) for answer in shown],
            **{name: [said[answer.id] for answer in shown] for name, said in texts.items()},
            "candidate": [answer.text for answer in shown],
            "right": ["yes" if is_right(answer, metric) else "no" for answer in shown],
        },
    )


def write_showcase(
    out: Path, data: PreparedData, measured: Mapping[str, Measured], metric: Metric, *, seed: int
) -> None:
    """Write one test image where the base was wrong and the candidate is right.

    An image that ``sft_gray`` and ``majority`` get wrong too is preferred, and a question that is
    not answered by yes or no: there the picture, not luck, made the difference.

    Args:
        out: Gets ``showcase.json`` (id, kind, question, expected, answers by model, image) and
            the image beside it. If there is no such image, neither is there afterwards.
        data: With rows and images.
        measured: By model.
        metric: Tells right answers from wrong ones.
        seed: Of the draw among equally good images.
    """
    target = out / "showcase.json"
    target.unlink(missing_ok=True)
    answers = {
        name: {answer.id: answer for answer in measured[name].answers}
        for name in _ASKED
        if name in measured
    }
    found = _best(answers, metric, seed)
    if found is None:
        return
    row = next(row for row in data.rows("test") if row.id == found)
    image = out / "showcase.png"
    _picture(row, data).save(image)
    showcase = {
        "id": row.id,
        "kind": row.kind,
        "question": row.transcript,
        "expected": list(dict.fromkeys(row.answers)),
        "answers": {name: said[row.id].text for name, said in answers.items()},
        "image": image.name,
    }
    write_whole(target, json.dumps(showcase, indent=2, ensure_ascii=False) + "\n")


def _best(answers: Mapping[str, Mapping[str, Answer]], metric: Metric, seed: int) -> str | None:
    won = [
        answer
        for answer in answers["candidate"].values()
        if is_right(answer, metric) and not is_right(answers["base"][answer.id], metric)
    ]
    if not won:
        return None

    def luck(answer: Answer) -> tuple[int, str]:
        unseeing = [answers[name] for name in ("sft_gray", "majority") if name in answers]
        guessed = sum(is_right(said[answer.id], metric) for said in unseeing)
        yes_no = answer.expected[0].strip().casefold() in {"yes", "no"}
        return guessed + yes_no, fingerprint([seed, answer.id])

    return min(won, key=luck).id


def spread(answers: Sequence[Answer], seed: int) -> list[Answer]:
    """Shuffle answers by the seed, then let the kinds take turns."""
    turns: Counter[str] = Counter()
    ranked = []
    for answer in sorted(answers, key=lambda answer: fingerprint([seed, answer.id])):
        ranked.append((turns[answer.kind], answer))
        turns[answer.kind] += 1
    return [answer for _, answer in sorted(ranked, key=lambda pair: pair[0])]


def _picture(row: Row, data: PreparedData) -> Image.Image:
    if not row.images:
        return Image.new("RGB", _NO_IMAGE_SIZE, GRAY)
    return open_image(data.image_path(row.images[0].path))
