"""A real model, with random weights, asked through the same door as the pipeline's."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from squares import last_words

from vlm_ops.artifacts import AnswerSet, ModelRef, PreparedData
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ModelSettings
from vlm_ops.evaluation.answers import ask
from vlm_ops.evaluation.respondent import ModelRespondent
from vlm_ops.models import features, generation, loading
from vlm_ops.models.replies import Reply
from vlm_ops.records import Chat
from vlm_ops.steps.plan import Outputs, perform, plan
from vlm_ops.steps.table import CHAMPION
from vlm_ops.tracker import NullTracker

JOB = AnswersJob(seed=0, split="test", gray=False, max_new_tokens=4, batch_size=5, max_rows=None)


@pytest.fixture
def ref(random_base: Path) -> ModelRef:
    return loading.base_ref(
        ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    )


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    ModelRespondent.free()
    yield
    ModelRespondent.free()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[ModelRef]:
    """What is loaded, in this order."""
    found: list[ModelRef] = []
    load = loading.load

    def counted(ref: ModelRef) -> loading.LoadedModel:
        found.append(ref)
        return load(ref)

    monkeypatch.setattr(features, "load", counted)
    return found


def asked(ref: ModelRef, data: PreparedData, out: Path, **changes: Any) -> AnswerSet:
    out.mkdir(exist_ok=True)
    job = JOB.model_copy(update=changes)
    return ask(job, rows=data.test, model=ref, out=out, tracker=NullTracker())


def test_batches_do_not_matter(ref: ModelRef, squares: PreparedData, tmp_path: Path) -> None:
    texts = {
        size: [
            one.text for one in asked(ref, squares, tmp_path / f"{size}", batch_size=size).read()
        ]
        for size in (1, 5)
    }
    assert texts[1] == texts[5]
    assert len(texts[1]) == 16


def test_a_model_is_loaded_once_if_at_all(
    ref: ModelRef, squares: PreparedData, tmp_path: Path, loads: list[ModelRef]
) -> None:
    config = load_config(
        "demo",
        [f"execution.runs={tmp_path}", "evaluate.max_new_tokens=4", "model.dtype=float32"],
    )
    outputs: Outputs = {"prepare": squares, CHAMPION: ref}
    planned = plan("champion on test", config, outputs)
    assert loads == []
    perform(planned, NullTracker())
    assert loads == [ref]
    # Answers that are there are read, and nothing is loaded for them.
    ModelRespondent.free()
    perform(planned, NullTracker())
    assert loads == [ref]


def test_who_opens_the_same_model_again_finds_it_loaded(
    ref: ModelRef, squares: PreparedData, tmp_path: Path, loads: list[ModelRef]
) -> None:
    asked(ref, squares, tmp_path / "a")
    elsewhere = ref.model_copy(
        update={"settings": ref.settings.model_copy(update={"revision": "0" * 40})}
    )
    assert elsewhere.content == ref.content
    asked(elsewhere, squares, tmp_path / "b", gray=True)
    assert loads == [ref]


def test_a_model_computes_in_the_dtype_of_the_ground(
    ref: ModelRef, squares: PreparedData, tmp_path: Path, loads: list[ModelRef]
) -> None:
    here = {"device": "cpu", "dtype": "bfloat16"}
    found = asked(ref, squares, tmp_path / "a", ground=here)
    assert [one.settings.dtype for one in loads] == ["bfloat16"]
    assert ModelRespondent._held is not None
    assert ModelRespondent._held.model.dtype == torch.bfloat16
    assert found.model == ref.content
    assert found.ground == here


def test_another_model_frees_the_first_before_it_is_loaded(
    ref: ModelRef, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[bool] = []
    kept: list[weakref.ref[Any]] = []
    load = loading.load

    def watched(ref: ModelRef) -> loading.LoadedModel:
        alive.extend(model() is not None for model in kept)
        found = load(ref)
        kept.append(weakref.ref(found.model))
        return found

    monkeypatch.setattr(features, "load", watched)
    other = ref.model_copy(update={"prompt": "{question} Briefly."})
    asked(ref, squares, tmp_path / "a")
    asked(other, squares, tmp_path / "b")
    assert alive == [False]
    ModelRespondent.free()
    assert [model() is not None for model in kept] == [False, False]


def test_a_model_with_a_prompt_is_asked_under_it(
    ref: ModelRef, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def replies(model: object, chats: list[Chat], *_: object, **__: object) -> list[Reply]:
        told.extend(last_words(chats))
        return [Reply(text="1")] * len(chats)

    monkeypatch.setattr(generation, "replies", replies)
    asked(ref.model_copy(update={"prompt": "{question} Briefly."}), squares, tmp_path / "a")
    assert told == [f"{row.question} Briefly." for row in squares.rows("test")]
