"""Equal to the letter."""

from collections.abc import Iterable


def exact_match(prediction: str, answers: Iterable[str]) -> bool:
    """Tell whether an answer equals an accepted one, letter for letter after trimming."""
    said = prediction.strip()
    return bool(said) and any(said == answer.strip() for answer in answers)
