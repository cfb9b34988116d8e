"""Answers judged, one row after another."""

from collections.abc import Collection, Sequence

import numpy as np

from vlm_ops.config.pairs import SampledPairs
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError, DataError, VlmOpsError
from vlm_ops.evaluation.metric import Floats, Metric
from vlm_ops.evaluation.metrics import METRICS, RELAXED, exact_match, find, relaxed_match
from vlm_ops.records import RELAXED_ACCURACY, Answer, Row
from vlm_ops.store.names import nearest


def judge(rows: Sequence[Row], texts: Sequence[str], metric: Metric = RELAXED) -> list[Answer]:
    """Judge one answer to each row.

    Args:
        rows: What was asked.
        texts: What the model said to each of them.
        metric: By which; relaxed accuracy and exact match are shown beside.

    Raises:
        DataError: The metric fails or gives what is no number.
    """
    if not rows:
        return []
    plain = metric.name == RELAXED_ACCURACY
    judged = [()] * len(rows) if plain else [*map(tuple, terms(rows, texts, metric).tolist())]
    return [
        Answer(
            id=row.id,
            kind=row.kind,
            group=row.group,
            image_id=row.image_id,
            expected=row.answers,
            text=text,
            relaxed=relaxed_match(text, row.answers),
            exact=exact_match(text, row.answers),
            terms=worth,
            own=_own(text, row),
        )
        for row, text, worth in zip(rows, texts, judged, strict=True)
    ]


def look_at_metric(config: PipelineConfig) -> None:
    """Refuse a metric that can't do what a configuration asks of it, before anything is trained.

    Raises:
        ConfigError: There is none of the name, or pairs are sampled and it judges no single answer,
            or the gate asks for more than it, or a benchmark's, can give.
    """
    metric = find(config.evaluate.metric)
    _within("gate.floor", config.gate.floor or 0.0, metric)
    for one in config.benchmarks:
        margin = config.margins.benchmarks[one.name].margin
        _within(f"gate.benchmarks.{one.name}.margin", margin, find(one.metric))
    if _samples(config) and not metric.judges_rows:
        raise ConfigError(
            f"evaluate.metric {metric.name}: it judges all answers together, and pairs.type "
            f"sampled has to know which of a model's answers are wrong. Set stages: [sft], give "
            f"labelled pairs (pairs.type: dataset) or thumbs, or take a metric that judges each row"
        )


def _within(setting: str, value: float, metric: Metric) -> None:
    if value > metric.high:
        raise ConfigError(
            f"{setting}: found {value:g}, expected at most {metric.high:g}, which is the greatest "
            f"score of {metric.name}"
        )


def trouble_with(rows: Sequence[Row], config: PipelineConfig) -> list[str]:
    """Say why a metric can't judge rows, as it shows on their accepted answers; nothing if it can.

    Args:
        rows: Of a split; where there are none, others say so.
        config: Names the metric, and whether it has to tell mistakes of sampled answers.

    Raises:
        ConfigError: As :func:`look_at_metric`.
    """
    if not rows:
        return []
    metric = find(config.evaluate.metric)
    try:
        metric.value(terms(rows, [row.answers[0] for row in rows], metric).sum(axis=0))
    except DataError as error:
        return [f"the metric: of the accepted answers themselves, {error}"]
    alone = (metric.right(terms([row], row.answers[:1], metric)[0]) for row in rows)
    if not _samples(config) or any(alone):
        return []
    return [
        f"the metric: an accepted answer by itself, as {rows[0].answers[0]!r}, is never right "
        f"under {metric.name}; pairs.type sampled would take every answer for a mistake. Take "
        f"another metric, or stages: [sft]."
    ]


def unknown_kind(metric: str, kinds: Collection[str]) -> str | None:
    """Say which kind a metric names that is none of these; None where there is none."""
    for kind in sorted(find(metric).of_kind.keys() - kinds):
        return (
            f"the metric: {metric} names the kind {kind!r}, and no row is of it"
            f"{nearest(kind, kinds)}; kinds there: {', '.join(sorted(kinds))}. The column of kinds "
            f"is data.columns.kind, in a benchmark slices."
        )
    return None


def _samples(config: PipelineConfig) -> bool:
    return config.prefers and isinstance(config.pairs, SampledPairs)


def terms(rows: Sequence[Row], texts: Sequence[str], metric: Metric) -> Floats:
    """Return what a metric adds up of answers: shape (rows, terms).

    Args:
        rows: What was asked, at least one.
        texts: What was said to each of them.
        metric: Judges all at once.

    Raises:
        DataError: It fails, or gives what is no number, or a row more or less than its range.
    """
    try:
        found = np.array(metric.judge(texts, [row.answers for row in rows]), dtype=np.float64)
        for kind, judge_kind in metric.of_kind.items():
            if mine := [n for n, row in enumerate(rows) if row.kind == kind]:
                found[mine] = judge_kind([texts[n] for n in mine], [rows[n].answers for n in mine])
    except VlmOpsError:
        raise
    except Exception as error:  # whatever a function of yours raises
        raise DataError(f"the metric {metric.name} failed: {error!r}") from error
    if found.ndim != 2 or len(found) != len(rows):
        raise DataError(
            f"the metric {metric.name} gave numbers of shape {found.shape}; expected "
            f"({len(rows)}, terms), a line for each row"
        )
    bad = ~np.isfinite(found).all(axis=1)
    if metric.judges_rows:
        bad |= metric.outside(metric.score(found))
    if bad.any():
        row, text = rows[int(bad.argmax())], texts[int(bad.argmax())]
        raise DataError(
            f"the metric {metric.name} gave {found[bad][0].tolist()} for row {row.id!r} (answer "
            f"{text!r}, expected {row.answers[0]!r}); expected finite numbers, and "
            f"a score from {metric.low:g} to {metric.high:g}"
        )
    return found


def _own(text: str, row: Row) -> dict[str, float]:
    worth = {name: metric(text, row.answers) for name, metric in METRICS.items()}
    return {name: float(value) for name, value in worth.items() if value is not None}
