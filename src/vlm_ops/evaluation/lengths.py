"""Answers that no model can give, because it stops before: told before anything is trained."""

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.sections import ModelSettings
from vlm_ops.models.tokens import token_counts
from vlm_ops.records import SPLITS


def long_answers(data: PreparedData, model: ModelSettings, max_new_tokens: int) -> list[str]:
    """Say how many answers are longer than a model is let speak; nothing where none is.

    Args:
        data: Prepared rows; the first accepted answer of each counts, for it is learned.
        model: Whose tokens.
        max_new_tokens: Longest answer.
    """
    answers = [row.answers[0] for split in SPLITS for row in data.rows(split)]
    lengths = token_counts(model, answers)
    longer = [length for length in lengths or () if length > max_new_tokens]
    if not longer:
        return []
    return [
        f"the answers: {len(longer)} of {len(answers)} answers are longer than {max_new_tokens} "
        f"tokens (evaluate.max_new_tokens), where a model is stopped; it will be judged wrong on "
        f"these. The longest has {max(longer)}."
    ]


def reachable(data: PreparedData, model: ModelSettings, max_new_tokens: int) -> float | None:
    """Return the share of test rows with an accepted answer that a model is let finish.

    Args:
        data: Prepared rows.
        model: Whose tokens.
        max_new_tokens: Longest answer.

    Returns:
        Between 0 and 1; None where the tokenizer is not to be had.
    """
    rows = data.rows("test")
    counts = token_counts(model, [answer for row in rows for answer in row.answers])
    if counts is None:
        return None
    lengths = iter(counts)
    shortest = [min(next(lengths) for _ in row.answers) for row in rows]
    return sum(length <= max_new_tokens for length in shortest) / len(shortest)
