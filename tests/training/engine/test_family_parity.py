"""Every family trains: with the losses of TRL where it is packed, by TRL where it is not."""

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pytest
from families import FAMILIES, write_family
from trainings import pairs_of, prefer_job, sft_job, thumbs_of

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.config.training import Engine
from vlm_ops.errors import DataError
from vlm_ops.evaluation.answers import ask
from vlm_ops.evaluation.protocol import ground_of_answers
from vlm_ops.models.families import family_in
from vlm_ops.records import Row
from vlm_ops.tracker import NullTracker
from vlm_ops.tracking.packaging import save_package
from vlm_ops.training import prefer, sft
from vlm_ops.training.stage import build

ENGINES: tuple[Engine, ...] = ("packed", "trl")
STEPS: dict[str, Any] = {"max_steps": 4, "batch_size": 4, "evaluations": 1}


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, family_base: Callable[[str], Path]) -> Path:
    return family_base(request.param)


def mixed(rows: list[Row]) -> list[Row]:
    """Let every third row show two images, and every fourth one after its first words."""
    changed = []
    for number, row in enumerate(rows):
        two = {"images": (*row.images, *rows[number - 5].images)} if number % 3 == 0 else {}
        inside = {"question": f"Look at <image>. {row.question}"} if number % 4 == 1 else {}
        changed.append(row.model_copy(update={**two, **(inside if not two else {})}))
    return changed


def trained(trainer: Any) -> tuple[list[float], list[float]]:
    """Train in the order of the rows, and return losses and gradient norms."""
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.train_sampling_strategy = "sequential"
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [step["loss"] for step in steps], [step["grad_norm"] for step in steps]


def test_sft_has_the_losses_of_trl(base: Path, squares: PreparedData, tmp_path: Path) -> None:
    class Ordered(PreparedData):
        def rows(self, split: Any) -> Any:
            return rows if split == "train" else super().rows(split)

    data = Ordered(**squares.model_dump(), folder=squares.folder)
    rows = mixed(squares.rows("train")[:16])
    found = {}
    for engine in ENGINES:
        job = sft_job(base, engine=engine, **STEPS)
        (out := tmp_path / engine).mkdir()
        stage = sft.sft_stage(job, data, out, NullTracker())
        trainer = build(stage, stage.optim)
        packed = engine == "packed" and not family_in(base).unpacked
        assert trainer.engine == ("packed" if packed else "trl")
        if packed:
            rows = [rows[number] for number in trainer._sampler]
        found[engine] = trained(trainer)
    for one, other in zip(found["packed"], found["trl"], strict=True):
        assert len(one) == STEPS["max_steps"]
        assert one == pytest.approx(other, rel=1e-3)


@pytest.fixture(scope="module")
def warned(
    base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainedAdapter, str]:
    """An SFT, and what it warned of."""
    out, said = tmp_path_factory.mktemp("sft"), io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setLevel(logging.WARNING)
    logging.getLogger("vlm_ops").addHandler(handler)
    job = sft_job(base, **STEPS)
    made = sft.train_sft(job, data=squares, out=out, tracker=NullTracker())
    logging.getLogger("vlm_ops").removeHandler(handler)
    return made, said.getvalue()


@pytest.fixture(scope="module")
def start(warned: tuple[TrainedAdapter, str]) -> TrainedAdapter:
    return warned[0]


def test_preferences_have_the_losses_of_trl(
    start: TrainedAdapter, squares: PreparedData, tmp_path: Path
) -> None:
    rows, found = squares.rows("train")[:16], {}
    for engine in ENGINES:
        job = prefer_job(engine=engine, **STEPS)
        (out := tmp_path / engine).mkdir()
        pairs = pairs_of(squares, rows, out)
        stage = prefer.prefer_stage(job, pairs, start, out=out, tracker=NullTracker())
        trainer = build(stage, stage.optim)
        if trainer.engine == "packed":
            rows = [rows[number] for number in trainer._sampler]
        found[engine] = trained(trainer)
    for one, other in zip(found["packed"], found["trl"], strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert found["trl"][0][0] == pytest.approx(0.693147, abs=1e-5)


def test_thumbs_have_the_losses_of_trl(
    start: TrainedAdapter, squares: PreparedData, tmp_path: Path
) -> None:
    """An answer that is lent is longer or shorter than the row's own."""
    rows, order = squares.rows("train")[:16], list(range(16))
    found: dict[str, tuple[list[float], list[float]]] = {}
    for engine in ENGINES:
        (out := tmp_path / engine).mkdir()
        job = prefer_job(engine=engine, loss="kto", **STEPS)
        pairs = thumbs_of(squares, rows, out)
        stage = prefer.prefer_stage(job, pairs, start, out=out, tracker=NullTracker())
        trainer = build(stage, stage.optim)
        if trainer.engine == "packed":
            order = list(trainer._sampler)
        elif found:
            trainer.train_dataset = trainer.train_dataset.select(order)
        found[engine] = trained(trainer)
    for one, other in zip(found["packed"], found["trl"], strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_a_family_that_is_not_packed_is_said_so_and_trained_by_trl(
    base: Path, warned: tuple[TrainedAdapter, str]
) -> None:
    made, said = warned
    why = family_in(base).unpacked
    assert made.engine == ("trl" if why else "packed")
    assert ("TRL's own trainer trains" in said) is bool(why)


def test_a_preferred_model_is_asked_packed_and_loaded_again(
    base: Path, start: TrainedAdapter, squares: PreparedData, tmp_path: Path
) -> None:
    out, pairs_folder = tmp_path / "prefer", tmp_path / "pairs"
    out.mkdir()
    pairs_folder.mkdir()
    pairs = pairs_of(squares, squares.rows("train")[:8], pairs_folder)
    job = prefer_job(**STEPS)
    made = prefer.train_prefer(job, pairs=pairs, sft=start, out=out, tracker=NullTracker())
    asked = AnswersJob(
        seed=3, split="test", gray=False, max_rows=None, max_new_tokens=6, batch_size=4,
        ground=ground_of_answers(made.model.settings),
    )  # fmt: skip
    (tmp_path / "answers").mkdir()
    answers = ask(
        asked, rows=squares.test, model=made.model, out=tmp_path / "answers", tracker=NullTracker()
    ).read()
    save_package(made.model, tmp_path / "package")
    again: Any = mlflow.pyfunc.load_model(str(tmp_path / "package"))
    questions = [
        {"image": str(squares.image_path(row.images[0].path)), "question": row.question}
        for row in squares.rows("test")
    ]
    said = again.predict(questions, params={"max_new_tokens": 6, "batch_size": 4})
    assert said == [answer.text for answer in answers]
    assert len(said) == 16


def test_labels_are_the_answer_and_the_end_of_its_turn(
    base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    stage = sft.sft_stage(sft_job(base, engine="trl"), squares, tmp_path, NullTracker())
    processor: Any = stage.load().processor
    rows = squares.rows("train")[:3]
    batch = stage.collator(processor)(list(stage.dataset(rows, stage.locate)))
    for row, labels in zip(rows, batch["labels"], strict=True):
        said = processor.tokenizer.decode(labels[labels != -100])
        answer, end = row.answers[0], processor.tokenizer.eos_token
        assert said.rstrip("\n").replace(" </s>", "</s>") == f"{answer}{end}"


def test_rows_beyond_a_models_window_are_trained_by_trl(
    squares: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = write_family("llava_next", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config["text_config"]["sliding_window"] = 24
    (base / "config.json").write_text(json.dumps(config))
    with caplog.at_level(logging.WARNING):
        job = sft_job(base, **STEPS)
        made = sft.train_sft(job, data=squares, out=tmp_path, tracker=NullTracker())
    assert made.engine == "trl"
    assert "a token of this model sees 24 before it" in caplog.text


def test_paligemma_learns_no_row_without_an_image(squares: PreparedData, tmp_path: Path) -> None:
    base = write_family("paligemma", tmp_path / "base")

    class Imageless(PreparedData):
        def rows(self, split: Any) -> Any:
            return [row.model_copy(update={"images": ()}) for row in super().rows(split)]

    data = Imageless(**squares.model_dump(), folder=squares.folder)
    with pytest.raises(DataError, match=r"\d+ rows have no image"):
        sft.train_sft(sft_job(base), data=data, out=tmp_path, tracker=NullTracker())
