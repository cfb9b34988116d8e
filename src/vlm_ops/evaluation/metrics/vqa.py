"""VQA accuracy: how many of ten people gave the same answer."""

import re
from collections.abc import Iterable

_NEEDED = 3
"""As many people have to agree with an answer for it to be right."""

_WRITTEN = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
"""Contractions as they are meant; each is recognized where one of its apostrophes is missing."""


def _contractions() -> dict[str, str]:
    found = {
        word[:place] + word[place + 1 :]: word
        for word in _WRITTEN.split()
        for place, letter in enumerate(word)
        if letter == "'"
    }
    return found | {"somebody'd": "somebodyd"}


_CONTRACTIONS = _contractions()
_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = {"a", "an", "the"}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_BETWEEN_DIGITS = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")


def normalized(text: str) -> str:
    """Write an answer as VQA's evaluation compares it.

    Lower case; number words up to ten as digits; no articles; contractions with their apostrophes;
    no full stops but those before a digit. Other marks become blanks, or go where one of their kind
    has a blank beside it or the text has a comma between digits. Apostrophes, colons, currency,
    percent and typographic signs stay.

    Source: Antol et al. 2015 (arXiv:1505.00468); ``processPunctuation`` and
    ``processDigitArticle`` of GT-Vision-Lab/VQA ``vqaEvaluation/vqaEval.py``.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    found = text
    thousands = _BETWEEN_DIGITS.search(text) is not None
    for mark in _MARKS:
        goes = thousands or f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if goes else " ")
    words = (_NUMBERS.get(word, word) for word in _FULL_STOP.sub("", found).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Iterable[str]) -> float:
    """Judge an answer by the votes of people: a third for each that agrees, at most 1.

    It is averaged over all choices of nine from ten, as the official script does: three votes give
    0.9, four and more 1. Fewer than four accepted answers are no votes; one of them is enough.

    Args:
        prediction: What the model said.
        answers: A vote each, repeated as often as it was given.

    Source: Goyal et al. 2017 (arXiv:1612.00837), https://visualqa.org/evaluation.html. The
    official script leaves votes as they are where all ten are the same; here they are always
    normalized, as the evaluation server (and lmms-eval's ``textvqa``) does.
    """
    said = normalized(prediction)
    votes = [normalized(answer) for answer in answers]
    agree = votes.count(said)
    if len(votes) <= _NEEDED:
        return float(agree > 0)
    without_one = min((agree - 1) / _NEEDED, 1.0) if agree else 0.0
    with_all = min(agree / _NEEDED, 1.0)
    return (agree * without_one + (len(votes) - agree) * with_all) / len(votes)
