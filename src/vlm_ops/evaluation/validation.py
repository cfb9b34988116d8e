"""The validation step: every model's score before anything is known of the test rows."""

from pathlib import Path

from vlm_ops.artifacts import AnswerSet, PreparedData, ValidationScores
from vlm_ops.config.jobs import EvaluateJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation import words
from vlm_ops.evaluation.measured import majority
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.protocol import select_rows
from vlm_ops.evaluation.statistics import score
from vlm_ops.evaluation.symptoms import symptoms
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import Tracker


def score_validation(
    job: EvaluateJob, *, data: PreparedData, out: Path, tracker: Tracker, **answers: AnswerSet
) -> ValidationScores:
    """Score what every model said to the validation rows: all that a trial shows.

    Args:
        job: The bootstrap's resamples and seed.
        data: Training rows for the baseline of most frequent answers.
        out: Folder of the record.
        tracker: Gets the scores.
        **answers: To the validation rows, by model with ``_answers`` behind its name.

    Returns:
        The scores, those of ``majority`` beside the models'.

    Raises:
        DataError: There are no training or validation rows, or answers are gone.
    """
    trained = data.rows("train")
    if not trained:
        raise DataError(f"{data.folder}: the majority baseline needs training rows, found none")
    said = {name.removesuffix("_answers"): found.read() for name, found in answers.items()}
    metric = find(job.metric)
    warnings = symptoms(said, metric)
    rows = select_rows(data.validation, job.max_rows, job.seed)
    said["majority"] = majority(trained, rows, metric)
    scores = {
        name: score(found, job.resamples, job.seed, metric=metric) for name, found in said.items()
    }
    key = words.key(job.metric)
    for name, found in scores.items():
        numbers = {"": found.value, "_low": found.low, "_high": found.high}
        tracker.metrics({f"validation/{name}/{key}{end}": value for end, value in numbers.items()})
    return ValidationScores(
        folder=out, content=fingerprint(scores), scores=scores, warnings=warnings
    )
