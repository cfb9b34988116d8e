"""The evaluation's report: for machines (``report.json``) and for people (``report.md``)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vlm_ops.config.jobs import EvaluateJob
from vlm_ops.evaluation import statistics, words
from vlm_ops.evaluation.measured import Measured
from vlm_ops.evaluation.metrics import find
from vlm_ops.records import RELAXED_ACCURACY, Difference, Score
from vlm_ops.store.files import write_whole

_MEANING = {
    "base": "before training",
    "sft": "after supervised fine-tuning",
    "preferred": "after preference optimization",
    "candidate": "chosen on validation",
    "sft_gray": "sft on gray images",
    "candidate_gray": "candidate on gray images",
    "candidate_swapped": "candidate on other rows' images",
    "majority": "most frequent training answer of each kind",
}

_COMPARED = (
    ("sft", "base"),
    ("sft", "sft_gray"),
    ("sft", "majority"),
    ("preferred", "sft"),
    ("candidate", "base"),
    ("candidate", "candidate_gray"),
    ("candidate", "candidate_swapped"),
    ("candidate", "majority"),
)


class Comparison(NamedTuple):
    """Two models on the same rows."""

    model: str
    difference: Difference


class Findings(NamedTuple):
    """What is said beside the numbers.

    Attributes:
        why: The candidate's choice in words.
        protocol: Under which all models answered.
        notices: What seems to have gone wrong, in words.
    """

    why: str
    protocol: str
    notices: tuple[str, ...] = ()


def write_report(
    out: Path, measured: Mapping[str, Measured], said: Findings, job: EvaluateJob
) -> None:
    """Write ``report.json`` and ``report.md``.

    Args:
        out: Folder of the evaluation.
        measured: By model.
        said: What goes with the numbers.
        job: The bootstrap's resamples and seed.
    """
    compared = [
        Comparison(
            model,
            statistics.difference(
                measured[model].answers,
                measured[than].answers,
                statistics.Bar(metric=find(job.metric)),
                than=than,
                resamples=job.resamples,
                seed=job.seed,
            ),
        )
        for model, than in _COMPARED
        if {model, than} <= measured.keys() and _asked(measured[model]) != _asked(measured[than])
    ]
    write_whole(out / "report.json", _as_json(measured, compared, said))
    write_whole(out / "report.md", _as_markdown(measured, compared, said))


def _asked(found: Measured) -> tuple[str, bool, bool]:
    return found.model, found.gray, found.swapped


def _as_json(measured: Mapping[str, Measured], compared: list[Comparison], said: Findings) -> str:
    report = {
        "notices": said.notices,
        "why": said.why,
        "protocol": said.protocol,
        "models": {
            name: {
                "model": found.model,
                "overall": found.score.model_dump(),
                "by_kind": _dumped(found.by_kind),
                "by_group": _dumped(found.by_group),
            }
            for name, found in measured.items()
        },
        "differences": [
            {"model": model, **found.model_dump(exclude={"needed", "passed"})}
            for model, found in compared
        ],
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def _dumped(scores: Mapping[str, Score]) -> dict[str, dict[str, Any]]:
    return {name: score.model_dump() for name, score in scores.items()}


def _as_markdown(
    measured: Mapping[str, Measured], compared: list[Comparison], said: Findings
) -> str:
    score = measured["candidate"].score
    metric = words.plain(score.metric)
    overall = [
        [
            name,
            _MEANING[name],
            _scored(found.score),
            words.spread(found.score),
            words.percent(found.score.exact_match),
            *(
                words.percent(found.score.own[name]) if name in found.score.own else ""
                for name in score.own
            ),
        ]
        for name, found in measured.items()
    ]
    differences = [
        [f"{model} − {found.than}", words.difference(found)]  # noqa: RUF001  (minus)
        for model, found in compared
    ]
    parts = [
        "# Evaluation",
        *(f"**To be looked at:** {words.sentence(notice)}" for notice in said.notices),
        words.sentence(said.why),
        f"{score.n} test rows about {score.n_images} images in {score.n_groups} groups that no "
        f"training saw. {_rule(score.metric)}Intervals hold 95 % "
        f"and resample whole groups{words.few_groups(score.n_groups)}.",
        _table(["model", "what it is", metric, "95 %", "exact match", *score.own], overall),
        *_cut_off(measured),
        "## Paired differences on the same rows",
        _table(["", metric], differences),
        "## By question kind",
        _breakdown("kind", {name: found.by_kind for name, found in measured.items()}),
        "## By group",
        _breakdown("group", {name: found.by_group for name, found in measured.items()}),
    ]
    return "\n\n".join(parts) + "\n"


def _rule(metric: str) -> str:
    if metric != RELAXED_ACCURACY:
        return ""
    return "Relaxed accuracy: numbers within 5 %, else exact. "


def _scored(score: Score | None) -> str:
    return "" if score is None else words.scored(score.value, score.metric)


def _cut_off(measured: Mapping[str, Measured]) -> Iterator[str]:
    counts = {name: sum(one.cut_off for one in found.answers) for name, found in measured.items()}
    if any(counts.values()):
        told = [
            f"{name} {count} of {measured[name].score.n}" for name, count in counts.items() if count
        ]
        yield f"Answers cut off by `evaluate.max_new_tokens`: {', '.join(told)}."


def _breakdown(part: str, scores: Mapping[str, Mapping[str, Score]]) -> str:
    rows = [
        [
            name,
            str(score.n),
            *(_scored(by_part.get(name)) for by_part in scores.values()),
            words.spread(score),
        ]
        for name, score in scores["candidate"].items()
    ]
    return _table([part, "rows", *scores, "candidate, 95 %"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)
