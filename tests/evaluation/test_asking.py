"""A real model, with random weights, asked through the same door as the pipeline's."""

from pathlib import Path

import pytest

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import ChampionJob
from vlm_ops.config.sections import EvaluateSettings, ModelSettings
from vlm_ops.evaluation.answers import answer, read_answers
from vlm_ops.evaluation.champion import ask_champion
from vlm_ops.models import generation, loading
from vlm_ops.tracker import NullTracker


def test_a_model_is_loaded_once_if_at_all_and_batches_do_not_matter(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = loading.load
    monkeypatch.setattr(loading, "load", lambda ref: loads.append(ref) or load(ref))
    form = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    ref = loading.base_ref(form)
    texts = {}
    for size in (1, 5):
        found = answer(
            ref,
            squares,
            "test",
            evaluate=EvaluateSettings(batch_size=size, max_new_tokens=4, resamples=200),
            seed=0,
            blind=False,
            runs=tmp_path / str(size),
        )
        texts[size] = [one.text for one in read_answers(found.folder)]
    assert texts[1] == texts[5]
    assert len(loads) == 2
    settings = EvaluateSettings(max_new_tokens=4, resamples=200)
    answer(ref, squares, "test", evaluate=settings, seed=0, blind=False, runs=tmp_path / "1")
    assert len(loads) == 2


def test_a_champion_with_a_prompt_is_asked_the_rows_as_they_are(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def generate(model: object, questions: list[str], *_: object, **__: object) -> list[str]:
        asked.extend(questions)
        return ["1"] * len(questions)

    monkeypatch.setattr(generation, "generate", generate)
    ref = loading.base_ref(ModelSettings(id=str(random_base)))
    ask_champion(
        ChampionJob(seed=0, evaluate=EvaluateSettings(resamples=200)),
        data=squares,
        model=ref.model_copy(update={"prompt": "{question} Briefly."}),
        out=tmp_path / "champion-0",
        tracker=NullTracker(),
    )
    assert sorted(asked) == sorted(row.question for row in squares.rows("test"))
