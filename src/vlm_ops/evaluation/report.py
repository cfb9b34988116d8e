"""The evaluation's report: for machines (``report.json``) and for people (``report.md``)."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.sections import EvaluateSettings
from vlm_ops.evaluation import statistics, words
from vlm_ops.evaluation.answers import read_answers
from vlm_ops.records import Answer, Difference, Score
from vlm_ops.tracker import Tracker

_MEANING = {
    "base": "before training",
    "sft": "after supervised fine-tuning",
    "candidate": "chosen on validation",
    "blind": "sft with every image gray",
    "candidate_gray": "candidate with every image gray",
    "majority": "most frequent training answer of each kind",
}

_COMPARED = (
    ("sft", "base"),
    ("sft", "blind"),
    ("sft", "majority"),
    ("candidate", "base"),
    ("candidate", "sft"),
    ("candidate", "candidate_gray"),
    ("candidate", "majority"),
)


class Comparison(NamedTuple):
    """Two models on the same rows."""

    model: str
    difference: Difference


def write_report(
    out: Path,
    sets: Mapping[str, AnswerSet],
    *,
    why: str,
    evaluate: EvaluateSettings,
    seed: int,
    tracker: Tracker,
) -> None:
    """Write ``report.json`` and ``report.md`` and hand both to the tracker.

    Args:
        out: Folder of the evaluation.
        sets: Test answers by name.
        why: The candidate's choice in words.
        evaluate: With the bootstrap's resamples.
        seed: Of the bootstrap.
        tracker: Keeps both files.
    """
    answers = {name: read_answers(found.folder) for name, found in sets.items()}
    compared = [
        comparison
        for comparison in _compare(answers, evaluate.resamples, seed)
        if sets[comparison.model].model != sets[comparison.difference.than].model
        or sets[comparison.model].blind != sets[comparison.difference.than].blind
    ]
    (out / "report.json").write_text(_as_json(sets, compared, why), encoding="utf-8")
    (out / "report.md").write_text(_as_markdown(sets, compared, why), encoding="utf-8")
    for name in ("report.json", "report.md"):
        tracker.file(out / name)


def _compare(
    answers: Mapping[str, list[Answer]], resamples: int, seed: int
) -> Iterable[Comparison]:
    for model, than in _COMPARED:
        found = statistics.difference(
            answers[model],
            answers[than],
            than=than,
            needed=0.0,
            resamples=resamples,
            seed=seed,
        )
        yield Comparison(model, found)


def _as_json(sets: Mapping[str, AnswerSet], compared: list[Comparison], why: str) -> str:
    report = {
        "why": why,
        "protocol": sets["candidate"].protocol,
        "models": {
            name: {
                "model": found.model,
                "overall": found.score.model_dump(),
                "by_kind": _dumped(found.by_kind),
                "by_group": _dumped(found.by_group),
            }
            for name, found in sets.items()
        },
        "differences": [
            {"model": model, **found.model_dump(exclude={"needed", "passed"})}
            for model, found in compared
        ],
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def _dumped(scores: Mapping[str, Score]) -> dict[str, dict[str, float]]:
    return {name: score.model_dump() for name, score in scores.items()}


def _as_markdown(sets: Mapping[str, AnswerSet], compared: list[Comparison], why: str) -> str:
    score = sets["candidate"].score
    overall = [
        [
            name,
            _MEANING[name],
            words.percent(found.score.relaxed_accuracy),
            words.spread(found.score),
            words.percent(found.score.exact_match),
        ]
        for name, found in sets.items()
    ]
    differences = [
        [f"{model} − {found.than}", words.difference(found)]  # noqa: RUF001  (minus)
        for model, found in compared
    ]
    parts = [
        "# Evaluation",
        f"{why[0].upper()}{why[1:]}.",
        f"{score.n} test rows on {score.n_images} charts of {score.n_groups} tables that no "
        f"training saw. Relaxed accuracy: numbers within 5 %, else exact. Intervals hold 95 % "
        f"and resample whole charts.",
        _table(["model", "what it is", "relaxed accuracy", "95 %", "exact match"], overall),
        "## Paired differences on the same rows",
        _table(["", "relaxed accuracy"], differences),
        "## By question kind",
        _breakdown("kind", {name: found.by_kind for name, found in sets.items()}),
        "## By table",
        _breakdown("table", {name: found.by_group for name, found in sets.items()}),
    ]
    return "\n\n".join(parts) + "\n"


def _breakdown(part: str, scores: Mapping[str, Mapping[str, Score]]) -> str:
    rows = [
        [
            name,
            str(score.n),
            *(words.percent(by_part[name].relaxed_accuracy) for by_part in scores.values()),
            words.spread(score),
        ]
        for name, score in scores["candidate"].items()
    ]
    return _table([part, "rows", *scores, "candidate, 95 %"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)
