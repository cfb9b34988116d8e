"""The evaluate step: every model's answers to the test rows, scored and compared."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm_ops.artifacts import (
    MAJORITY,
    AnswerSet,
    Choice,
    Evaluation,
    PreparedData,
    TrainedAdapter,
)
from vlm_ops.config.jobs import EvaluateJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation import words
from vlm_ops.evaluation.examples import log_examples, write_showcase
from vlm_ops.evaluation.measured import Measured, majority, measure
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.protocol import select_rows
from vlm_ops.evaluation.report import Findings, write_report
from vlm_ops.evaluation.statistics import hashed
from vlm_ops.evaluation.symptoms import symptoms
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import Tracker

logger = logging.getLogger(__name__)

_LOGGED = ("base", "sft", "candidate")


def evaluate(
    job: EvaluateJob,
    *,
    data: PreparedData,
    choice: Choice,
    out: Path,
    tracker: Tracker,
    sft: TrainedAdapter | None = None,
    **answers: AnswerSet,
) -> Evaluation:
    """Score what every model said to the test rows, and compare them pair by pair.

    Args:
        job: The bootstrap's resamples and seed.
        data: Training rows for the baseline, test rows for their images.
        choice: The candidate.
        out: Gets ``report.json``, ``report.md``, ``majority.jsonl`` (the most frequent answers,
            judged, for the gate) and, if there is such an image, ``showcase.json`` with it.
        tracker: Gets models, scores, the report and answers with pictures.
        sft: The SFT model, if one was trained.
        **answers: To the test rows, by model with ``_answers`` behind its name: ``base``,
            ``candidate``, ``candidate_gray``, ``candidate_swapped`` and, if there are such models,
            ``sft``, ``sft_gray`` and ``preferred``.

    Returns:
        The evaluation. Its scores hold ``majority`` beside the models.

    Raises:
        DataError: There are no training rows.
    """
    for split in ("validation", "test"):
        rows = data.splits[split].rows
        tracker.dataset(split, data.content, context=split, rows=rows, source=data.source)
    models = {"base": choice.model.untrained}
    models |= {} if sft is None else {"sft": sft.model}
    models |= {"candidate": choice.model}
    logged = {name: tracker.model(name, ref) for name, ref in models.items()}
    measured = _measure(job, data, answers)
    _track(tracker, job.metric, choice, measured)
    terms = answers["candidate_answers"].protocol
    notices = (*choice.warnings, *_symptoms(measured, job.metric))
    _tell(tracker, notices)
    write_report(out, measured, Findings(choice.why, terms, notices), job)
    write_jsonl(out / MAJORITY, measured["majority"].answers)
    for name in ("report.json", "report.md"):
        tracker.file(out / name)
    metric = find(job.metric)
    log_examples(data, measured, metric, seed=job.seed, tracker=tracker)
    write_showcase(out, data, measured, metric, seed=job.seed)
    return Evaluation(
        folder=out,
        content=_content(choice, answers, measured),
        candidate=choice.candidate,
        why=choice.why,
        validation=choice.validation,
        model=choice.model,
        start=choice.start,
        metric=job.metric,
        scores={name: found.score for name, found in measured.items()},
        logged_models={name: uri for name, uri in logged.items() if uri is not None},
        protocol=terms,
        warnings=notices,
    )


def _symptoms(measured: Mapping[str, Measured], metric: str) -> tuple[str, ...]:
    """Look at each model's answers once, under its first name, and at none on wrong images."""
    asked = ("base", "sft", "preferred", "candidate")
    own = {name: measured[name] for name in asked if name in measured}
    first = {found.model: name for name, found in reversed(own.items())}
    once = {name: own[name].answers for name in own if name in first.values()}
    return symptoms(once, find(metric))


def _tell(tracker: Tracker, notices: tuple[str, ...]) -> None:
    for notice in notices:
        logger.warning("%s", notice)
    if notices:
        tracker.tags({"notices": "\n".join(notices)})


def _measure(
    job: EvaluateJob, data: PreparedData, answers: Mapping[str, AnswerSet]
) -> dict[str, Measured]:
    trained = data.rows("train")
    if not trained:
        raise DataError(f"{data.folder}: the majority baseline needs training rows, found none")
    metric = find(job.metric)
    options: dict[str, Any] = {"resamples": job.resamples, "seed": job.seed, "metric": metric}
    measured = {
        name.removesuffix("_answers"): replace(
            measure(found.read(), model=found.model, **options),
            gray=found.gray,
            swapped=found.swapped,
        )
        for name, found in answers.items()
    }
    rows = select_rows(data.test, job.max_rows, job.seed)
    guessed = majority(trained, rows, metric)
    return measured | {"majority": measure(guessed, model="majority", **options)}


def _track(tracker: Tracker, metric: str, choice: Choice, measured: Mapping[str, Measured]) -> None:
    tracker.tags({"candidate": choice.why})
    key = words.key(metric)
    for name, value in choice.validation.items():
        tracker.metrics({f"validation/{name}/{key}": value})
    for name, found in measured.items():
        numbers = {
            "exact_match": found.score.exact_match,
            **found.score.own,
            "in_form_only": found.score.in_form_only,
            key: found.score.value,
            f"{key}_low": found.score.low,
            f"{key}_high": found.score.high,
        }
        for kind, score in found.by_kind.items():
            numbers[f"by_kind/{kind}"] = score.value
        if name in _LOGGED:
            tracker.metrics(numbers, model=name)
        else:
            tracker.metrics({f"{name}/{key}": value for key, value in numbers.items()})


def _content(
    choice: Choice, answers: Mapping[str, AnswerSet], measured: Mapping[str, Measured]
) -> str:
    return fingerprint(
        {
            "candidate": [choice.candidate, choice.model.content],
            "answers": {name: [found.model, found.content] for name, found in answers.items()},
            "scores": {name: hashed(one.score, one.answers) for name, one in measured.items()},
        }
    )
