"""Multiple choice: which option an answer names."""

import re
from collections.abc import Iterable

_QUOTES = "\"'`*\u201c\u201d\u201e\u2018\u2019\xab\xbb"
_SAYS = r"(?:answer|option|choice)(?:\s+(?:is|would\s+be))?\s*[:=]?\s*"
_BRACKETED = r"[(\[]\s*([A-Z])\s*[)\]]"
_PATTERNS = (
    re.compile(rf"\b(?i:{_SAYS})(?i:option\s+)?(?:{_BRACKETED}|([A-Z])(?![\w'\u2019]))"),
    re.compile(_BRACKETED),
    re.compile(r"\A([A-Z])(?:\s*[.:)]|\s+-\s|\s*\Z)"),
    re.compile(
        r"(?<![\w'\u2019])([B-HJ-Z]|[AI](?=\s*(?:[.,;:!/&)]|and\b|or\b|\Z)))(?![\w'\u2019])"
    ),
)
"""Ways of naming a letter, the plainest first; what stands further down is not looked at where one
of these is found. A and I before another word are words."""
_OR = re.compile(r"[\s)\]]*(?:[,/&]|and\b|or\b)\s*[(\[]?([A-Z])(?![\w'\u2019]|\s+[a-z])")
"""Another letter right after the one that was found."""
_LEAD = re.compile(rf"\A(?i:(?:the\s+)?(?:correct\s+|right\s+|best\s+)*{_SAYS})")


def choice(prediction: str, answers: Iterable[str]) -> bool:
    """Judge the answer to a multiple choice: it is right if it names the right option.

    An answer is read in this order: the text of the option and no more (``The answer is`` may stand
    before it), the letter after ``answer is``, ``option`` or ``choice``, in brackets, at its
    beginning, alone in a sentence. Names of several letters in one of these ways are wrong: nobody
    knows which is meant. A row without options is right where the text is.

    Args:
        prediction: What the model said.
        answers: Letter and text of the right option, as ``prepare`` leaves them.

    Source: the forms are those of MMMU's ``parse_multi_choice_response`` (``eval/eval_utils.py``)
    and MMStar's ``exact_match``. MMMU takes the last of several letters and draws one where there
    is none; MMStar takes any first letter, ``Because`` for B. Here these are wrong.
    """
    accepted = [answer.strip() for answer in answers]
    letters = {answer for answer in accepted if re.fullmatch("[A-Z]", answer)}
    texts = {_plain(answer) for answer in accepted if answer not in letters}
    if len(letters) > 1:  # the text of an option is itself a letter
        letters = {accepted[0]}
    named = letters_in(prediction)
    said = _plain(prediction)
    if said in texts or _plain(_LEAD.sub("", prediction.strip())) in texts:
        return bool(said)
    return len(named) == 1 and named <= letters


def letters_in(text: str) -> set[str]:
    """Return the letters that an answer names in the plainest way in which it names any."""
    said = text.strip().strip(_QUOTES).strip()
    if re.fullmatch(r"\(?[a-z][.):]?", said):
        return {said.strip("().:").upper()}
    for pattern in _PATTERNS:
        matches = list(pattern.finditer(said))
        if matches:
            more = (_OR.match(said, match.end()) for match in matches)
            return {next(filter(None, match.groups())) for match in (*matches, *more) if match}
    return set()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_QUOTES + " .,;:!?")
