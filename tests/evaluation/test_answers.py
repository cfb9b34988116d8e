import json
import logging
from pathlib import Path
from typing import Any

import pytest
from squares import Models, Seer, make_data, model_ref, trained

from vlm_ops.artifacts import AnswerSet, PreparedData
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.config.load import load_config
from vlm_ops.errors import DataError, OutputError
from vlm_ops.evaluation.answers import ask
from vlm_ops.evaluation.measured import majority, measure
from vlm_ops.evaluation.protocol import protocol, select_rows
from vlm_ops.evaluation.statistics import score
from vlm_ops.steps.plan import perform, plan
from vlm_ops.store.artifact import read_record
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker
from vlm_ops.watched import OUT_OF_MEMORY

SFT = trained("sft", "a-sft")


def ask_job(**changes: Any) -> AnswersJob:
    settings = {"max_new_tokens": 8, "batch_size": 4, "max_rows": None}
    return AnswersJob(seed=0, **{"split": "test", "gray": False, **settings, **changes})


def asked(model: Seer, data: PreparedData, out: Path, **changes: Any) -> AnswerSet:
    """Ask the test rows, without the table."""
    out.mkdir(parents=True, exist_ok=True)
    return ask(
        ask_job(**changes),
        rows=data.test,
        model=model_ref("m"),
        out=out,
        tracker=NullTracker(),
        open_model=lambda ref: model,
    )


def taken(data: PreparedData, runs: Path, *overrides: str, step: str = "sft on test") -> AnswerSet:
    """Take the step as the pipeline takes it: what was asked before is found again."""
    given = (f"execution.runs={runs}", "evaluate.batch_size=4", "evaluate.resamples=200")
    config = load_config("demo", [*given, *overrides])
    found = perform(plan(step, config, {"prepare": data, "sft": SFT}), NullTracker())
    assert isinstance(found, AnswerSet)
    return found


def test_every_row_is_asked_in_order_and_judged(data: PreparedData, tmp_path: Path) -> None:
    model = Seer()
    found = asked(model, data, tmp_path)
    rows = data.rows("test")
    assert model.asked == [row.question for row in rows]
    assert model.batches == [4] * 6
    answers = found.read()
    assert [one.id for one in answers] == [row.id for row in rows]
    assert [one.image_id for one in answers] == [row.images[0].sha256 for row in rows]
    assert all(one.relaxed and one.exact for one in answers)
    assert found.value == 1.0
    assert (found.model, found.split, found.gray) == (model_ref("m").content, "test", False)
    whole = measure(answers, model="m", resamples=200, seed=0)
    assert (whole.score.n, whole.score.n_images, whole.score.n_groups) == (24, 12, 3)
    assert set(whole.by_kind) == {"color", "check"}
    assert sum(score.n for score in whole.by_group.values()) == 24
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_answers_are_judged_by_the_jobs_metric(data: PreparedData, tmp_path: Path) -> None:
    seers = (Seer(), Seer(sees=False))
    said = [asked(one, data, tmp_path / str(one.sees), metric="exact_match") for one in seers]
    assert [answers.value for answers in said] == [1.0, 1 / 3]
    for answers in said:
        judged = answers.read()
        assert answers.metric == "exact_match"
        assert [one.terms for one in judged] == [(float(one.exact), 1.0) for one in judged]
        assert answers.value == sum(one.exact for one in judged) / len(judged)


def test_answers_lie_in_a_folder_of_their_own(
    data: PreparedData, models: Models, tmp_path: Path
) -> None:
    found = taken(data, tmp_path)
    assert found.folder == tmp_path / f"answers-{found.fingerprint[:16]}"
    assert sorted(path.name for path in found.folder.iterdir()) == ["answers.jsonl", "record.json"]


def test_the_same_question_is_not_asked_twice(
    data: PreparedData, models: Models, tmp_path: Path
) -> None:
    first = taken(data, tmp_path)
    assert models.asked == 24
    assert taken(data, tmp_path) == first
    assert models.asked == 24
    assert taken(data, tmp_path, step="base on test").content != first.content
    assert models.asked == 48


def test_more_resamples_or_another_batch_size_ask_nothing_anew(
    data: PreparedData, models: Models, tmp_path: Path
) -> None:
    models.cannot_see = {"a-sft"}
    first = taken(data, tmp_path)
    finer = ("evaluate.resamples=5000", "evaluate.batch_size=3")
    assert taken(data, tmp_path, *finer) == first
    assert models.asked == 24
    scores = [score(first.read(), resamples, seed=0, unit="image") for resamples in (200, 5000)]
    assert {found.value for found in scores} == {first.value}
    assert scores[0] != scores[1]


def test_longer_answers_are_another_protocol(
    data: PreparedData, models: Models, tmp_path: Path
) -> None:
    first = taken(data, tmp_path)
    assert taken(data, tmp_path, "evaluate.max_new_tokens=9").protocol != first.protocol
    assert models.asked == 48


def test_new_training_rows_leave_test_answers_valid(models: Models, tmp_path: Path) -> None:
    old = make_data(tmp_path / "old", {"train": 4, "validation": 2, "test": 6})
    new = make_data(tmp_path / "new", {"train": 8, "validation": 2, "test": 6})
    first = taken(old, tmp_path)
    assert taken(new, tmp_path) == first
    assert models.asked == 12
    other = make_data(tmp_path / "other", {"train": 8, "validation": 2, "test": 7})
    assert taken(other, tmp_path).protocol != first.protocol
    assert models.asked == 12 + 14


def test_gray_images_have_the_same_size_and_come_under_the_same_protocol(
    data: PreparedData, tmp_path: Path
) -> None:
    sizes: list[tuple[int, int]] = []

    class Looker(Seer):
        def respond(self, rows, images, job):  # type: ignore[no-untyped-def]
            sizes.extend(row[0].size for row in images)
            assert all(image.getcolors() == [(image.width * 8, (128,) * 3)] for (image,) in images)
            return super().respond(rows, images, job)

    seen = asked(Seer(), data, tmp_path / "a")
    gray = asked(Looker(), data, tmp_path / "b", gray=True)
    assert sizes == [(row.images[0].width, row.images[0].height) for row in data.rows("test")]
    assert gray.gray
    assert gray.protocol == seen.protocol
    assert not any(one.relaxed for one in gray.read() if one.kind == "color")


def test_answers_on_gray_images_are_another_set(
    data: PreparedData, models: Models, tmp_path: Path
) -> None:
    seen, gray = (taken(data, tmp_path, step=f"sft on {what}") for what in ("test", "gray"))
    assert seen.folder != gray.folder
    assert (seen.gray, gray.gray) == (False, True)
    assert seen.protocol == gray.protocol
    assert gray.value < seen.value == 1.0


def test_an_interrupted_set_goes_on_after_its_last_whole_batch(
    data: PreparedData, tmp_path: Path
) -> None:
    undisturbed = asked(Seer(), data, tmp_path / "a")
    folder = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        asked(Seer(fails_after=8), data, folder)
    assert not (folder / "answers.jsonl").exists()
    with (folder / "partial.jsonl").open("a") as partial:  # a crash in the middle of a batch
        partial.write(json.dumps({"id": "test-4-color", "text": "red"}) + "\n")
        partial.write('{"id": "test-4-ch')
    model = Seer()
    resumed = asked(model, data, folder)
    assert len(model.asked) == 24 - 8
    assert resumed.content == undisturbed.content
    told = [(found.folder / "answers.jsonl").read_bytes() for found in (resumed, undisturbed)]
    assert told[0] == told[1]


def test_an_interrupted_step_leaves_no_record_and_is_gone_on_with(
    data: PreparedData, models: Models, tmp_path: Path
) -> None:
    models.seers[SFT.model.content] = Seer(fails_after=8)
    with pytest.raises(KeyboardInterrupt):
        taken(data, tmp_path)
    [folder] = tmp_path.glob("answers-*")
    assert read_record(folder, AnswerSet) is None
    models.seers[SFT.model.content].fails_after = None
    assert taken(data, tmp_path).folder == folder
    assert models.asked == 24


def test_after_a_kill_for_memory_fewer_rows_are_asked_at_once_and_answers_stay(
    data: PreparedData, tmp_path: Path
) -> None:
    whole = asked(Seer(), data, tmp_path / "whole")
    killed, model = Seer(fails_after=8), Seer()
    with pytest.raises(KeyboardInterrupt):
        asked(killed, data, tmp_path / "killed")
    (tmp_path / "killed" / OUT_OF_MEMORY).touch()
    again = asked(model, data, tmp_path / "killed")
    assert (killed.batches, model.batches) == ([4, 4], [2] * 8)
    assert again.content == whole.content
    assert again.read() == whole.read()


def test_a_crash_before_the_record_asks_nothing_again(
    data: PreparedData, models: Models, tmp_path: Path
) -> None:
    done = taken(data, tmp_path)
    replies = [json.dumps({"id": one.id, "text": one.text}) for one in done.read()]
    (done.folder / "record.json").unlink()
    (done.folder / "partial.jsonl").write_text("\n".join(replies) + "\n")
    again = taken(data, tmp_path, "evaluate.batch_size=5")
    assert again.content == done.content
    assert models.asked == 24


def test_leftovers_of_other_rows_are_not_trusted(data: PreparedData, tmp_path: Path) -> None:
    done = asked(Seer(), data, tmp_path)
    (done.folder / "partial.jsonl").write_text('{"id": "somebody", "text": "red"}\n' * 24)
    model = Seer()
    assert asked(model, data, tmp_path).content == done.content
    assert len(model.asked) == 24


def test_leftovers_that_can_not_be_read_are_named(data: PreparedData, tmp_path: Path) -> None:
    (tmp_path / "partial.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"partial\.jsonl: can't be read"):
        asked(Seer(), data, tmp_path)


def test_a_row_limit_takes_whole_images_by_the_seed(data: PreparedData) -> None:
    rows = select_rows(data.test, 7, seed=0)
    assert len(rows) == 6
    assert len({row.image_id for row in rows}) == 3
    more = select_rows(data.test, 11, seed=0)
    assert {row.id for row in rows} < {row.id for row in more}
    assert rows != select_rows(data.test, 7, seed=1)
    assert select_rows(data.test, 1000, seed=0) == data.rows("test")
    with pytest.raises(DataError, match=r"max_rows 1 is less than the rows about.*\(2 at least\)"):
        select_rows(data.test, 1, seed=0)


def test_images_with_too_many_rows_for_the_limit_are_passed_over(tmp_path: Path) -> None:
    """One image has all rows but two; wherever the draw puts it, the small one is found."""
    data = make_data(tmp_path / "data", {"train": 0, "validation": 0, "test": 6})
    rows = data.rows("test")
    big = [row.model_copy(update={"images": rows[2].images}) for row in rows[2:]]
    write_jsonl(data.folder / "test.jsonl", [*rows[:2], *big])
    for seed in range(8):
        assert select_rows(data.test, 3, seed) == rows[:2]
    for seed in range(8):
        assert len(select_rows(data.test, 10, seed)) in (2, 10)


def test_a_limit_above_the_rows_is_the_same_protocol(data: PreparedData, tmp_path: Path) -> None:
    first = asked(Seer(), data, tmp_path / "a")
    assert asked(Seer(), data, tmp_path / "b", max_rows=24).protocol == first.protocol
    assert asked(Seer(), data, tmp_path / "c", max_rows=22).protocol != first.protocol


def test_where_an_image_lies_is_not_part_of_the_protocol(data: PreparedData) -> None:
    rows = data.rows("test")
    moved = [
        row.model_copy(
            update={"images": tuple(one.model_copy(update={"path": "x"}) for one in row.images)}
        )
        for row in rows
    ]
    assert protocol(moved, ask_job()) == protocol(rows, ask_job())
    assert protocol(rows, ask_job(split="validation")) != protocol(rows, ask_job())


def test_a_split_without_rows_and_a_lost_image_are_clear_errors(tmp_path: Path) -> None:
    empty = make_data(tmp_path / "none", {"train": 2, "validation": 2, "test": 0})
    with pytest.raises(DataError, match=r"test\.jsonl: the test split has no rows"):
        asked(Seer(), empty, tmp_path / "a")
    damaged = make_data(tmp_path / "damaged", {"train": 2, "validation": 2, "test": 2})
    (damaged.folder / "images" / "test-0.png").write_bytes(b"not a picture")
    with pytest.raises(
        DataError, match=r"test-0\.png: an image that can't be decoded \(no known format\)"
    ):
        asked(Seer(), damaged, tmp_path / "b")


def test_majority_answers_by_kind(data: PreparedData) -> None:
    """8 training squares: 3 red, 3 green, 2 blue; the alphabet settles the tie."""
    rows = data.rows("test")
    answers = majority(data.rows("train"), rows)
    assert [one.id for one in answers] == [row.id for row in rows]
    assert {(one.kind, one.text) for one in answers} == {("color", "green"), ("check", "no")}
    found = measure(answers, model="majority", resamples=200, seed=0)
    assert found.by_kind["color"].value == pytest.approx(1 / 3)
    assert found.by_kind["check"].value == pytest.approx(2 / 3)


def test_majority_knows_an_answer_to_a_kind_that_training_lacks(data: PreparedData) -> None:
    """Of all training answers "no" is the most frequent: 5 of 16."""
    other = [row.model_copy(update={"kind": "shape"}) for row in data.rows("test")]
    assert {one.text for one in majority(data.rows("train"), other)} == {"no"}


def test_progress_is_logged(
    data: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="vlm_ops.evaluation")
    asked(Seer(), data, tmp_path / "a")
    asked(Seer(), data, tmp_path / "b", gray=True)
    assert "answers on test: 24/24, 0 s left" in caplog.messages
    assert "answers on gray images of test: 24/24, 0 s left" in caplog.messages
