"""ANLS: how near an answer comes to what is written in the picture."""

from collections.abc import Iterable

_LEAST = 0.5
"""Less similarity counts as none."""


def anls(prediction: str, answers: Iterable[str]) -> float:
    """Return the similarity to the nearest accepted answer, 0..1; below a half it is 0.

    One minus the edit distance over the length of the longer text. Letter case, outer spaces and
    the number of spaces between words do not count in the distance.

    Source: Biten et al. 2019 (arXiv:1905.13648), equation 1. Equality with the threshold counts, as
    in the script of the Robust Reading Competition (DocVQA, InfographicVQA), which also takes the
    length before spaces are reduced.
    """
    return max((_similarity(prediction, answer) for answer in answers), default=0.0)


def _similarity(said: str, answer: str) -> float:
    from rapidfuzz.distance import Levenshtein

    longest = max(len(said.upper()), len(answer.upper()))
    if not longest:
        return 1.0
    found = 1.0 - Levenshtein.distance(_plain(said), _plain(answer)) / longest
    return found if found >= _LEAST else 0.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
