"""Pairs: the model's own wrong answers, and others only where there are too few of them."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_ops.artifacts import (
    PAIR_SPLITS,
    ModelRef,
    PreferencePairs,
    PreparedData,
    TrainedAdapter,
)
from vlm_ops.config.pipeline import PairsJob
from vlm_ops.config.sections import DatasetPairs, ModelSettings, PairsSettings, SampledPairs
from vlm_ops.errors import DataError
from vlm_ops.models.generation import Sampling
from vlm_ops.records import BARE_QUESTION, ImageRef, Row
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker
from vlm_ops.training import pairs as module
from vlm_ops.training.pairs import make_pairs

SFT = TrainedAdapter(
    folder=Path("sft"),
    content="sft",
    stage="sft",
    base=ModelRef(settings=ModelSettings(), base_sha256="base"),
    adapter_sha256="sft",
    best_step=1,
    steps=1,
    metrics={},
)


class Recorder(NullTracker):
    """Keeps the metrics."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}

    def metrics(self, values: Any, step: int | None = None, model: str | None = None) -> None:
        self.seen.update(values)


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    """40 rows to train on and 20 for validation, a number or a word the answer to each."""
    folder = tmp_path / "prepared"
    (folder / "images").mkdir(parents=True)
    for split, count in (("train", 40), ("validation", 20), ("test", 4)):
        rows = [_row(folder, f"{split}-{number}") for number in range(count)]
        write_jsonl(folder / f"{split}.jsonl", rows)
    return PreparedData(folder=folder, content="data", splits={}, source="nowhere")


def _row(folder: Path, name: str) -> Row:
    number = int(name.rpartition("-")[2])
    path = folder / "images" / f"{name}.png"
    Image.new("RGB", (16 + number, 16 + len(name))).save(path)
    answer = str(10 * (number + 1)) if number % 2 else f"word{number}"
    return Row(
        id=name,
        images=(ImageRef(path=f"images/{path.name}", sha256=sha256_file(path), width=1, height=1),),
        question=f"What is {answer}",
        answers=(answer,),
        kind="odd" if number % 4 == 3 else "all",
        group=name,
    )


@pytest.fixture
def unsure(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Answers that the model gives at every second try only; all others it always knows."""
    unsure: set[str] = set()

    def sample(
        model: object, questions: Sequence[str], images: object, sampling: Sampling
    ) -> list[str]:
        asked = (sampling.max_new_tokens, sampling.batch_size, sampling.temperature)
        assert asked == (3, 2, 1.0)
        right = [question.rpartition(" ")[2] for question in questions]
        return [
            "nonsense" if text in unsure and number % 2 else text
            for text in right
            for number in range(sampling.samples)
        ]

    monkeypatch.setattr(module, "sample", sample)
    monkeypatch.setattr(module, "load", lambda ref: ref)
    return unsure


def make(
    data: PreparedData, settings: PairsSettings, tracker: Recorder | None = None
) -> PreferencePairs:
    job = PairsJob(seed=0, pairs=settings, max_new_tokens=3, batch_size=5)
    out = data.folder.parent / "pairs"
    out.mkdir()
    return make_pairs(job, data=data, sft=SFT, out=out, tracker=tracker or Recorder())


def sampled(**changes: int) -> SampledPairs:
    return SampledPairs(**{"samples": 2, "max_pairs": 100, "max_validation_pairs": 100} | changes)


def answers(data: PreparedData, count: int) -> set[str]:
    rows = data.rows("train")[:count] + data.rows("validation")[:count]
    return {row.answers[0] for row in rows}


def test_own_wrong_answers_are_not_filled_up_when_there_are_enough(
    data: PreparedData, unsure: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="vlm_ops.training")
    unsure |= answers(data, 16)
    tracker = Recorder()
    pairs = make(data, sampled(), tracker)
    assert (pairs.train, pairs.validation) == (16, 16)
    assert {pair.rejected for pair in pairs.pairs("train")} == {"nonsense"}
    assert {pair.rejected for pair in pairs.pairs("validation")} == {"nonsense"}
    assert pairs.source == ("32 wrong answers sampled from the SFT model")
    assert tracker.seen == {
        "pairs": 16, "held_out_pairs": 16, "sampled_pairs": 32, "borrowed_pairs": 0
    }  # fmt: skip
    assert f"16 to train on, 16 held out ({pairs.source})" in caplog.text


def test_the_model_is_asked_under_its_prompt_and_pairs_keep_the_bare_question(
    data: PreparedData, unsure: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for a model reads the answer off the question's last word."""
    unsure |= answers(data, 16)
    asked: list[str] = []
    answer: Any = vars(module)["sample"]

    def listen(model: Any, questions: Sequence[str], *rest: Any) -> list[str]:
        asked.extend(questions)
        said: list[str] = answer(model, questions, *rest)
        return said

    monkeypatch.setattr(module, "sample", listen)
    prompt = {"prompt": "Briefly: {question}", "around": BARE_QUESTION}
    pairs = make(data.model_copy(update=prompt), sampled())
    bare = {row.question for split in PAIR_SPLITS for row in data.rows(split)}
    assert set(asked) == {f"Briefly: {question}" for question in bare}
    found = [pair.question for split in PAIR_SPLITS for pair in pairs.pairs(split)]
    assert len(found) == 32
    assert set(found) < bare


def test_pairs_that_the_version_before_wrote_in_the_prompt_are_read_bare(
    data: PreparedData, unsure: set[str]
) -> None:
    unsure |= answers(data, 16)
    pairs = make(data, sampled())
    bare = {split: pairs.pairs(split) for split in PAIR_SPLITS}
    prompt = "{question} Briefly."
    for split in PAIR_SPLITS:
        write_jsonl(
            pairs.folder / f"{split}.jsonl", [p.asked_with(prompt) for p in pairs.pairs(split)]
        )
    record = json.loads(pairs.model_dump_json(exclude={"around"})) | {"folder": str(pairs.folder)}
    asked = data.model_copy(update={"prompt": prompt})
    before = PreferencePairs.model_validate(record).completed({"data": asked, "sft": SFT})
    assert before is not None
    assert {split: before.pairs(split) for split in PAIR_SPLITS} == bare


def test_no_more_than_wanted(data: PreparedData, unsure: set[str]) -> None:
    unsure |= answers(data, 40)
    pairs = make(data, sampled(max_pairs=20, max_validation_pairs=8))
    assert (pairs.train, pairs.validation) == (20, 8)


def test_too_few_are_filled_up_to_a_floor(
    data: PreparedData, unsure: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    unsure |= answers(data, 6)
    tracker = Recorder()
    pairs = make(data, sampled(), tracker)
    assert (pairs.train, pairs.validation) == (16, 8)
    assert tracker.seen["sampled_pairs"] == 12
    assert tracker.seen["borrowed_pairs"] == 12
    assert "pairs: 6 sampled on validation, 2 borrowed to make it 8" in caplog.text
    assert pairs.source.startswith("12 wrong answers sampled from the SFT model, 12 borrowed")
    kinds = {row.answers[0]: row.kind for row in data.rows("train")}
    train = pairs.pairs("train")
    assert len({pair.id for pair in train}) == 16
    borrowed = [pair for pair in train if pair.rejected != "nonsense"]
    assert len(borrowed) == 10
    for pair in borrowed:
        assert pair.rejected != pair.chosen
        assert pair.rejected.isdigit() == pair.chosen.isdigit()
        assert kinds[pair.rejected] == pair.kind


def test_a_lower_limit_is_the_floor(data: PreparedData, unsure: set[str]) -> None:
    pairs = make(data, sampled(max_pairs=12, max_validation_pairs=8))
    assert (pairs.train, pairs.validation) == (12, 8)


def test_no_pair_at_all_says_what_to_do(data: PreparedData, unsure: set[str]) -> None:
    (data.folder / "validation.jsonl").write_text("")
    with pytest.raises(DataError, match=r"16 pairs to train on and 0 held out.*more rows"):
        make(data, sampled())


def test_dropped_pairs_are_counted(data: PreparedData) -> None:
    images = [f"prepared/images/train-{number}.png" for number in range(20)]
    images += [f"prepared/images/validation-{number}.png" for number in range(10)]
    images += [f"prepared/images/test-{number}.png" for number in range(4)]
    path = data.folder.parent / "own.jsonl"
    texts = {"prompt": "What?", "chosen": "This", "rejected": "That"}
    path.write_text("".join(json.dumps({"images": i, **texts}) + "\n" for i in images))
    tracker = Recorder()
    pairs = make(data, DatasetPairs(type="dataset", path=path, validation=0.3), tracker)
    assert tracker.seen["dropped_test_pairs"] == 4
    assert tracker.seen["dropped_validation_pairs"] > 0
    assert pairs.train + pairs.validation + tracker.seen["dropped_validation_pairs"] == 30
