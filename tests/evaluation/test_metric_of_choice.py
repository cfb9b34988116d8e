"""What ``evaluate.metric`` names judges answers, scores, comparisons and the gate."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from captions import OVERLAP, THINGS, WORDS_F1, caption, found_words, overlap, rows
from gates import FIRST, Measured, decide, refusal
from squares import judged, model_ref

from vlm_ops.artifacts import AnswerSet, Evaluation
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation.judging import judge
from vlm_ops.evaluation.measured import majority
from vlm_ops.evaluation.metric import Metric, of_rows
from vlm_ops.evaluation.metrics import BY_NAME, RELAXED, exact_match
from vlm_ops.evaluation.paired import Sums, Swapped, paired
from vlm_ops.evaluation.protocol import protocol
from vlm_ops.evaluation.statistics import by_kind, difference, score
from vlm_ops.evaluation.terms import value_of
from vlm_ops.records import Score
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.store.jsonl import write_jsonl


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    for metric in (OVERLAP, WORDS_F1):
        monkeypatch.setitem(BY_NAME, metric.name, metric)


def seen(n: int) -> str:
    """A caption with the right things and other words around them: never right to the letter."""
    return f"{caption(n)} and sky" if n % 3 else f"maybe a {THINGS[n % 8]}"


def unseeing(n: int) -> str:
    return "a thing near a thing"


def store(runs: Path, model: str, said: Any, metric: Metric, **images: bool) -> AnswerSet:
    answers = judge(rows(), [said(n) for n in range(len(rows()))], metric)
    folder = runs / f"answers-{model}-{images}"
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "answers.jsonl", answers)
    return AnswerSet(
        folder=folder,
        content=f"{model}{images}",
        model=model,
        protocol="protocol",
        split="test",
        metric=metric.name,
        value=value_of(answers, metric),
        **{"gray": False} | images,
    )


def measured(runs: Path, said: Any, base: Any, metric: Metric) -> Measured:
    candidate = model_ref("new")
    sets = {
        "base": store(runs, model_ref().content, base, metric),
        "candidate": store(runs, candidate.content, said, metric),
        "candidate_gray": store(runs, candidate.content, unseeing, metric, gray=True),
        "candidate_swapped": store(runs, candidate.content, unseeing, metric, swapped=True),
    }
    folder = runs / "evaluate-0"
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "majority.jsonl", majority(rows(), rows(), metric))
    found = Evaluation(
        folder=folder,
        content="e",
        candidate="sft",
        why="the candidate is the sft model",
        validation={},
        model=candidate,
        metric=metric.name,
        scores={name: score(s.read(), 200, 0, metric=metric) for name, s in sets.items()},
        logged_models={},
        protocol="protocol",
    )
    return Measured(found, dict(sets))


@pytest.mark.parametrize("metric", [OVERLAP, WORDS_F1], ids=lambda metric: metric.name)
def test_captions_are_accepted_and_refused_by_their_own_metric(
    tmp_path: Path, metric: Metric
) -> None:
    better = measured(tmp_path / "better", seen, unseeing, metric)
    # By relaxed accuracy no caption is right, neither of the two.
    candidate = better.answers["candidate"]
    assert candidate is not None
    assert not any(answer.relaxed for answer in candidate.read())
    assert decide(tmp_path, better).verdict.accepted
    equal = decide(tmp_path, measured(tmp_path / "equal", seen, seen, metric))
    assert any("not shown to be better than the base" in why for why in equal.verdict.reasons)
    assert not equal.verdict.accepted
    guessed = decide(tmp_path, measured(tmp_path / "guessed", unseeing, unseeing, metric))
    assert "its answers do not depend on the image" in refusal(guessed)


def test_the_floor_is_in_the_unit_of_the_metric(tmp_path: Path) -> None:
    found = measured(tmp_path, seen, unseeing, OVERLAP)
    assert decide(tmp_path, found, floor=0.6).verdict.accepted
    assert "is below gate.floor, 99.0 %" in decide(tmp_path, found, floor=0.99).verdict.reasons[0]


def test_what_is_known_of_equal_models_is_said_of_right_and_wrong_rows_alone(
    tmp_path: Path,
) -> None:
    assert decide(tmp_path, measured(tmp_path, seen, unseeing, OVERLAP)).power is None
    exact = Metric("exact_match", of_rows(exact_match))
    decision = decide(tmp_path, measured(tmp_path / "exact", caption, unseeing, exact))
    assert decision.power is not None


def test_a_champion_under_another_metric_is_a_refusal_that_names_both(tmp_path: Path) -> None:
    found = measured(tmp_path, seen, unseeing, OVERLAP)
    champion = store(tmp_path, "old", unseeing, WORDS_F1)
    decision = decide(tmp_path, found, champion, "3", look=FIRST)
    assert (
        "the champion (version 3) was judged by words_f1, the evaluation by overlap: scores of "
        "different metrics are never compared"
    ) in "\n".join(decision.verdict.reasons)
    assert not decision.verdict.accepted


@pytest.mark.parametrize(("worth", "why"), [(np.nan, "says nothing"), (1.5, "gave 1.5")])
def test_a_metric_that_leaves_its_range_is_a_refusal_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth: float, why: str
) -> None:
    found = measured(tmp_path, seen, unseeing, WORDS_F1)
    broken = Metric("words_f1", found_words, lambda sums: np.full(sums.shape[:-1], worth))
    monkeypatch.setitem(BY_NAME, "words_f1", broken)
    assert f"the metric words_f1 {why}" in refusal(decide(tmp_path, found))
    with pytest.raises(DataError, match=f"the metric words_f1 {why}.*from 0 to 1"):
        score(judge(rows(), ["a cat"] * 96, broken), 200, 0, metric=broken)


def test_answers_that_another_metric_has_judged_are_an_error() -> None:
    plain = judge(rows(), [seen(n) for n in range(96)])
    with pytest.raises(DataError, match="not judged by overlap"):
        score(plain, 200, 0, metric=OVERLAP)
    mixed = judge(rows(), [seen(n) for n in range(96)], WORDS_F1)
    with pytest.raises(DataError, match="not judged by"):
        score([*mixed[:9], *plain[9:]], 200, 0, metric=WORDS_F1)


def test_means_are_tossed_and_other_scores_are_swapped() -> None:
    said = [[answer(n) for n in range(96)] for answer in (seen, unseeing)]
    for metric, kind in ((OVERLAP, Sums), (WORDS_F1, Swapped), (RELAXED, Sums)):
        ours, theirs = (judge(rows(), texts, metric) for texts in said)
        pair = paired(ours, theirs, "base", metric)
        assert isinstance(pair, kind)
        assert pair.points == pytest.approx(value_of(ours, metric) - value_of(theirs, metric))
        assert pair.turned.points == -pair.points


def test_kinds_that_a_metric_says_nothing_of_are_left_out() -> None:
    asked = [row.model_copy(update={"kind": f"k{n % 2}"}) for n, row in enumerate(rows(8))]
    silent = Metric(
        "overlap",
        of_rows(lambda text, answers: None if text == "-" else overlap(text, answers)),
    )
    texts = ["-" if row.kind == "k0" else row.answers[0] for row in asked]
    assert list(by_kind(judge(asked, texts, silent), 200, 0, metric=silent)) == ["k1"]


def job(**changes: Any) -> AnswersJob:
    asked = {"max_new_tokens": 8, "batch_size": 4, "max_rows": None}
    return AnswersJob(seed=0, split="test", gray=False, **{**asked, **changes})


def test_the_protocol_names_the_metric_and_its_version_and_is_as_ever_without() -> None:
    plain = protocol(rows(4), job())
    assert plain == "f2a1f02497a9ddbc03c8b25b8efa54b7049e2841aee40da6092eab20b53c4290"
    others: list[dict[str, Any]] = [
        {"metric": "overlap"},
        {"metric": "words_f1"},
        {"metric_version": 2},
    ]
    found = {plain, *(protocol(rows(4), job(**changes)) for changes in others)}
    assert len(found) == 4
    assert "metric" not in job().model_dump_json()


def test_scores_of_relaxed_accuracy_are_written_as_ever() -> None:
    found = score(judged([True, False, True, True] * 30), 500, 0)
    written = found.model_dump()
    assert list(written)[:3] == ["relaxed_accuracy", "low", "high"]
    assert "metric" not in written
    assert Score.model_validate(written) == found
    other = score(judge(rows(), [seen(n) for n in range(96)], OVERLAP), 200, 0, metric=OVERLAP)
    assert list(other.model_dump())[:2] == ["metric", "value"]
    assert Score.model_validate_json(other.model_dump_json()) == other


def test_numbers_of_relaxed_accuracy_are_those_of_before_to_the_last_bit() -> None:
    def flips(count: int, share: float, seed: int) -> list[bool]:
        return [bool(value) for value in np.random.default_rng(seed).random(count) < share]

    ours, theirs = judged(flips(900, 0.93, 2)), judged(flips(900, 0.9, 52))
    found = score(ours, 500, 2)
    assert (found.value, found.low, found.high) == (0.93, 0.9095113793418994, 0.9439720193891181)
    gap = difference(ours, theirs, than="base", resamples=500, seed=2)
    assert (gap.low, gap.high) == (0.0019353564601861033, 0.05641592920353982)
    assert gap.points == 0.028888888888888888


def test_answers_of_before_are_read_as_relaxed_accuracy(tmp_path: Path) -> None:
    found = store(tmp_path, "old", unseeing, RELAXED)
    write_record(found)
    record = tmp_path / found.folder.name / "record.json"
    text = record.read_text(encoding="utf-8")
    assert "metric" not in text
    assert "terms" not in (found.folder / "answers.jsonl").read_text(encoding="utf-8")
    record.write_text(text.replace('"value"', '"relaxed_accuracy"'), encoding="utf-8")
    assert read_record(found.folder, AnswerSet) == found
