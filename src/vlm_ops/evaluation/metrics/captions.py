"""Text overlap for captions: CIDEr, BLEU-4 and ROUGE-L, each by a library."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vlm_ops.evaluation.metric import Floats, Judge

_TOKEN = re.compile(
    r"[^\W\d_]+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|\d+(?:[.,:/-]\d+)*|\w+(?:[-&/]\w+)*|[$€£¥%#&@+]"
)
HIGHEST_CIDER = 10.0
"""CIDEr-D is scaled by 10 (Vedantam et al. 2015, arXiv:1411.5726, section 5)."""
_ORDER = 4
"""BLEU-4 counts sequences of up to four words."""

Terms = list[tuple[float, float]]


def words(text: str) -> str:
    """Write a caption as words in lower case with blanks between them, without punctuation.

    Source: what ``PTBTokenizer`` of pycocoevalcap leaves of English (``don't`` is ``do n't``),
    without its Java. Rarer forms differ: abbreviations with full stops, words like ``cannot``.
    """
    return " ".join(_TOKEN.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")))


def of_captions(score: Callable[[Sequence[str], Sequence[Sequence[str]]], Any]) -> Judge:
    """Make a judge of a function from the words of all captions and references to terms."""

    def judge(said: Sequence[str], expected: Sequence[Sequence[str]]) -> Floats:
        captions = [words(text) for text in said]
        references = [[words(answer) for answer in answers] for answers in expected]
        found: Floats = np.asarray(score(captions, references), dtype=np.float64)
        return found

    return judge


def cider(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Terms:
    """Score captions by CIDEr-D, 0..10: value and 1 for each.

    How rare words are is counted over the references of all rows, so a row's value depends on the
    rows that it is judged with.

    Source: Vedantam et al. 2015 (arXiv:1411.5726), by pycocoevalcap.
    """
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    if not captions:
        return []
    scorer = CiderScorer()
    for row in zip(captions, references, strict=True):
        scorer += row
    return [(value, 1.0) for value in scorer.compute_score()[1]]


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Terms:
    """Score captions by ROUGE-L, 0..1: value and 1 for each.

    Source: Lin 2004, section 3, with beta 1.2 as COCO has it, by pycocoevalcap.
    """
    from pycocoevalcap.rouge.rouge import Rouge

    scorer = Rouge()
    rows = zip(captions, references, strict=True)
    return [(scorer.calc_score([caption], refs), 1.0) for caption, refs in rows]


def bleu_counts(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[list[float]]:
    """Count what BLEU-4 is made of, by sacrebleu.

    Returns:
        For each caption: its length, that of the nearest reference, how many sequences of one to
        four words a reference has too, how many there are.
    """
    from sacrebleu.metrics.bleu import BLEU

    scorer = BLEU(tokenize="none", max_ngram_order=_ORDER, effective_order=True)
    rows = zip(captions, references, strict=True)
    found = [scorer.sentence_score(caption, list(refs)) for caption, refs in rows]
    return [[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in found]


def bleu(sums: Floats) -> Floats:
    """Return BLEU-4 of summed counts, 0..1: shape (..., 10) to (...).

    Source: Papineni et al. 2002, section 2.3, over a whole set and without smoothing.
    """
    said, expected = sums[..., 0], sums[..., 1]
    found, there = sums[..., 2 : 2 + _ORDER], sums[..., 2 + _ORDER :]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(found > 0, np.log(found / there), -np.inf)
        short = np.where(said > 0, np.minimum(0.0, 1.0 - expected / said), -np.inf)
    whole: Floats = np.exp(shares.mean(axis=-1) + short)
    return whole
