import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from sacrebleu.metrics.bleu import BLEU

from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.metrics.captions import HIGHEST_CIDER, words

TABLE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "cases" / "captions.yaml").read_text("utf-8")
)
SAID, ACCEPTED, CIDER, ROUGE, BLEU_4 = map(list, zip(*TABLE["rows"], strict=True))
NAMES = ("cider", "rouge_l", "bleu_4")
WORDS = ["a", "cat", "dog", "sits", "on", "the", "red", "mat", "table", "and", "two"]


@pytest.mark.parametrize(("name", "worth"), zip(NAMES, (CIDER, ROUGE, BLEU_4), strict=True))
def test_captions_are_worth_what_the_official_scorer_says(name: str, worth: list[float]) -> None:
    metric = find(name)
    terms = metric.judge(SAID, ACCEPTED)
    assert len(terms) >= 60
    assert metric.score(terms) == pytest.approx(np.asarray(worth), abs=2e-6)
    assert metric.score(terms.sum(axis=0)) == pytest.approx(TABLE[name], abs=2e-6)


def random_set(seed: int) -> tuple[list[str], list[list[str]]]:
    draw = random.Random(seed)

    def caption() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(4, 12)))

    rows = draw.randint(2, 9)
    return [caption() for _ in range(rows)], [
        [caption() for _ in range(draw.randint(1, 4))] for _ in range(rows)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_random_captions_are_worth_what_the_libraries_say(seed: int) -> None:
    said, accepted = random_set(seed)
    references = dict(enumerate(accepted))
    captions = {row: [text] for row, text in enumerate(said)}
    scores = {name: find(name).judge(said, accepted).sum(axis=0) for name in NAMES}
    found = {name: float(find(name).score(sums)) for name, sums in scores.items()}
    assert found["cider"] == pytest.approx(Cider().compute_score(references, captions)[0])
    assert found["rouge_l"] == pytest.approx(Rouge().compute_score(references, captions)[0])
    official = BleuScorer(n=4)
    for row in zip(said, accepted, strict=True):
        official += row
    assert found["bleu_4"] == pytest.approx(
        official.compute_score(option="closest")[0][3], abs=2e-3
    )
    most = max(map(len, accepted))
    streams = [[row[min(n, len(row) - 1)] for row in accepted] for n in range(most)]
    again = BLEU(tokenize="none", smooth_method="none").corpus_score(said, streams)
    assert found["bleu_4"] == pytest.approx(again.score / 100, abs=1e-9)


def test_bleu_of_resampled_rows_is_that_of_their_captions() -> None:
    said, accepted = random_set(1)
    metric = find("bleu_4")
    terms = metric.judge(said, accepted)
    drawn = np.random.default_rng(0).integers(len(said), size=(50, len(said)))
    direct = [
        metric.score(metric.judge([said[n] for n in rows], [accepted[n] for n in rows]).sum(axis=0))
        for rows in drawn
    ]
    assert metric.score(terms[drawn].sum(axis=1)) == pytest.approx(np.asarray(direct))


def test_a_caption_equal_to_its_only_reference_has_the_highest_score() -> None:
    said, accepted = ["a red cat sits on a mat", "two dogs run over grass"], [["x"], ["y"]]
    for name, high in zip(NAMES, (HIGHEST_CIDER, 1.0, 1.0), strict=True):
        terms = find(name).judge(said, [[text] for text in said])
        assert find(name).high == high
        assert find(name).score(terms.sum(axis=0)) == pytest.approx(high)
        assert find(name).score(find(name).judge(said, accepted).sum(axis=0)) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog, a cat.", "a dog a cat"),
        ("Don't! It's John\N{RIGHT SINGLE QUOTATION MARK}s", "do n't it 's john 's"),
        ("$5 is 20% of 1,234.5", "$ 5 is 20 % of 1,234.5"),
        ("black & white, snow-covered", "black & white snow-covered"),
        ("", ""),
        ("...", ""),
    ],
)
def test_words_are_those_of_the_official_tokenizer(text: str, expected: str) -> None:
    assert words(text) == expected
