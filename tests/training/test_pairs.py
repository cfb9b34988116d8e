"""Pairs: a model's own right answers against its own wrong ones; too few are left alone."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from squares import last_words

from vlm_ops.artifacts import (
    PAIR_SPLITS,
    ModelRef,
    Preference,
    PreferencePairs,
    PreparedData,
    TrainedAdapter,
)
from vlm_ops.config.jobs import PairsJob
from vlm_ops.config.pairs import DatasetPairs, DatasetThumbs, PairsSettings, SampledPairs
from vlm_ops.config.sections import ModelSettings
from vlm_ops.data.split import reserve
from vlm_ops.models.generation import Sampling
from vlm_ops.records import BARE_QUESTION, Chat, ImageRef, PreferencePair, Row, Thumb
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker
from vlm_ops.training import pairs as module
from vlm_ops.training.pairs import make_pairs
from vlm_ops.watched import OUT_OF_MEMORY

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


def wrong(text: str) -> str:
    return "999" if text.isdigit() else "nonsense"


@pytest.fixture
def unsure(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Answers that the model gives at every second try only; all others it always knows."""
    unsure: set[str] = set()

    def sample(
        model: object, chats: Sequence[Chat], images: object, sampling: Sampling
    ) -> list[str]:
        asked = (sampling.max_new_tokens, sampling.batch_size, sampling.temperature)
        assert asked == (3, 2, 1.0)
        right = [question.rpartition(" ")[2] for question in last_words(chats)]
        return [
            wrong(text) if text in unsure and number % 2 else text
            for text in right
            for number in range(sampling.samples)
        ]

    monkeypatch.setattr(module, "sample", sample)
    monkeypatch.setattr(module, "load_with_features", lambda ref, room: ref)
    return unsure


def make(
    data: PreparedData, settings: PairsSettings, tracker: Recorder | None = None
) -> PreferencePairs:
    job = PairsJob(seed=0, pairs=settings, max_new_tokens=3, batch_size=5)
    out = data.folder.parent / "pairs"
    out.mkdir()
    return make_pairs(job, data=data, sft=SFT, out=out, tracker=tracker or Recorder())


def sampled(**changes: float) -> SampledPairs:
    return SampledPairs(**{"samples": 2, "max_pairs": 100, "max_validation_pairs": 100} | changes)


def both(pair: Preference) -> tuple[str, str]:
    """The chosen and the rejected answer."""
    assert isinstance(pair, PreferencePair)
    return pair.chosen, pair.rejected


def answers(data: PreparedData, count: int) -> set[str]:
    rows = data.rows("train")[:count] + data.rows("validation")[:count]
    return {row.answers[0] for row in rows}


def test_after_a_kill_for_memory_fewer_rows_are_sampled_at_once(
    data: PreparedData, unsure: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = set()

    def sample(
        model: object, chats: Sequence[Chat], images: object, sampling: Sampling
    ) -> list[str]:
        at_once.add(sampling.batch_size)
        return ["nothing"] * len(chats) * sampling.samples

    monkeypatch.setattr(module, "sample", sample)
    out = data.folder.parent / "pairs"
    out.mkdir()
    (out / OUT_OF_MEMORY).touch()
    job = PairsJob(seed=0, pairs=sampled(), max_new_tokens=3, batch_size=5)
    make_pairs(job, data=data, sft=SFT, out=out, tracker=Recorder())
    assert at_once == {1}


def test_pairs_are_what_the_model_answers_both_rightly_and_wrongly(
    data: PreparedData, unsure: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="vlm_ops.training")
    unsure |= answers(data, 16)
    tracker = Recorder()
    pairs = make(data, sampled(), tracker)
    assert (pairs.train, pairs.validation) == (16, 16)
    for split in PAIR_SPLITS:
        said = [both(pair) for pair in pairs.pairs(split)]
        assert all(rejected == wrong(chosen) for chosen, rejected in said)
    assert pairs.usable is pairs
    assert pairs.source == (
        "32 mistakes of the SFT model's own and 0 near misses, on rows that it has learned"
    )
    assert tracker.seen == {"pairs": 16, "held_out_pairs": 16, "mistakes": 32, "near_misses": 0}
    assert f"16 to train on, 16 held out ({pairs.source})" in caplog.text


def test_reserved_rows_alone_are_asked(data: PreparedData, unsure: set[str]) -> None:
    unsure |= answers(data, 40)
    pairs = make(data, sampled(reserve=0.5))
    learned, kept = reserve(data.rows("train"), 0.5, 0)
    assert {pair.id for pair in pairs.pairs("train")} == {row.id for row in kept}
    assert {row.id for row in learned}.isdisjoint(row.id for row in kept)
    assert pairs.train == 20
    assert pairs.validation == 20
    assert pairs.source.endswith("on rows new to it")


def test_the_model_is_asked_under_its_prompt_and_pairs_keep_the_bare_question(
    data: PreparedData, unsure: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for a model reads the answer off the question's last word."""
    unsure |= answers(data, 16)
    asked: list[str] = []
    answer: Any = vars(module)["sample"]

    def listen(model: Any, chats: Sequence[Chat], *rest: Any) -> list[str]:
        asked.extend(last_words(chats))
        said: list[str] = answer(model, chats, *rest)
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


def test_near_misses_are_half_of_the_pairs_at_most(data: PreparedData, unsure: set[str]) -> None:
    """The model knows all rows here."""
    for split in PAIR_SPLITS:
        rows = [row.model_copy(update={"answers": ("word1",)}) for row in data.rows(split)]
        rows[-2:] = [row.model_copy(update={"answers": ("word2",)}) for row in rows[-2:]]
        shown = [r.model_copy(update={"question": f"What is {r.answers[0]}"}) for r in rows]
        write_jsonl(data.folder / f"{split}.jsonl", shown)
    pairs = make(data, sampled(max_pairs=10, max_validation_pairs=8))
    assert (pairs.train, pairs.validation) == (5, 4)
    assert {both(pair) for pair in pairs.pairs("train")} <= {
        ("word1", "word2"),
        ("word2", "word1"),
    }
    assert pairs.too_few is not None


@pytest.mark.parametrize(("train", "validation"), [(15, 8), (16, 7), (0, 0)])
def test_too_few_are_not_trained_on_and_say_so(
    train: int,
    validation: int,
    data: PreparedData,
    unsure: set[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    unsure |= {row.answers[0] for row in data.rows("train")[:train]}
    for split, count in zip(PAIR_SPLITS, (train, validation), strict=True):
        rows = data.rows(split)
        write_jsonl(data.folder / f"{split}.jsonl", rows[:count] or rows[-1:])
    pairs = make(data, sampled())
    assert (pairs.train, pairs.validation) == (train, validation)
    assert pairs.usable is None
    assert pairs.too_few is not None
    assert pairs.too_few.startswith(f"{train} mistakes to train on and {validation} held out")
    assert "it takes 16 and 8" in pairs.too_few
    assert pairs.too_few in caplog.text
    assert pairs.completed({"data": data}) == pairs


def test_few_are_enough_where_no_more_are_asked_for(data: PreparedData, unsure: set[str]) -> None:
    unsure |= answers(data, 40)
    pairs = make(data, sampled(max_pairs=12, max_validation_pairs=8))
    assert (pairs.train, pairs.validation) == (12, 8)
    assert pairs.usable is pairs


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


def test_thumbs_are_read_counted_and_called_by_their_name(
    data: PreparedData, caplog: pytest.LogCaptureFixture
) -> None:
    """Those with a test image are dropped, and what has both thumbs is left out."""
    caplog.set_level(logging.INFO, logger="vlm_ops.training")
    images = [f"prepared/images/train-{number}.png" for number in range(20)]
    images += [f"prepared/images/test-{number}.png" for number in range(4)]
    rows = [{"images": name, "prompt": "What?", "completion": "This", "label": n % 3 > 0}
            for n, name in enumerate(images)]  # fmt: skip
    rows.append(rows[4] | {"label": not rows[4]["label"]})
    path = data.folder.parent / "thumbs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tracker = Recorder()
    thumbs = make(data, DatasetThumbs(type="thumbs", path=path, validation=0.3), tracker)
    assert thumbs.form == "thumbs"
    assert thumbs.train + thumbs.validation == 19
    given = [one for split in PAIR_SPLITS for one in thumbs.pairs(split)]
    up = sum(one.label for one in given if isinstance(one, Thumb))
    assert thumbs.source == f"{path}: {up} thumbs up, {19 - up} down"
    assert tracker.seen == {
        "thumbs": thumbs.train, "held_out_thumbs": thumbs.validation, "thumbs_up": up,
        "dropped_test_thumbs": 4, "dropped_validation_thumbs": 0,
        "refused_thumbs": 0, "left_out_thumbs": 2,
    }  # fmt: skip
    assert f"thumbs: {thumbs.train} to train on, {thumbs.validation} held out" in caplog.text
    assert not [record for record in caplog.records if "pairs" in record.message]
    assert thumbs.completed({"data": data}) == thumbs
