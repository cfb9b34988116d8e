import json
import logging
from pathlib import Path

import pytest
from squares import Seer, make_data, model_ref

from vlm_ops.artifacts import AnswerSet, PreparedData
from vlm_ops.config.sections import EvaluateSettings
from vlm_ops.errors import DataError
from vlm_ops.evaluation.answers import answer, majority, read_answers
from vlm_ops.evaluation.asking import OneAtATime
from vlm_ops.evaluation.protocol import select_rows
from vlm_ops.store.artifact import read_record
from vlm_ops.store.jsonl import write_jsonl


def ask(
    model: Seer, data: PreparedData, runs: Path, evaluate: EvaluateSettings, blind: bool = False
) -> AnswerSet:
    return answer(model, data, "test", evaluate=evaluate, seed=0, blind=blind, runs=runs)


def test_every_row_is_asked_in_order_and_judged(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    model = Seer("m")
    found = ask(model, data, tmp_path, settings)
    rows = data.rows("test")
    assert model.asked == [row.question for row in rows]
    assert model.batches == [4] * 6
    answers = read_answers(found.folder)
    assert [one.id for one in answers] == [row.id for row in rows]
    assert all(one.relaxed and one.exact for one in answers)
    assert found.score.relaxed_accuracy == 1.0
    assert (found.score.n, found.score.n_images, found.score.n_groups) == (24, 12, 3)
    assert set(found.by_kind) == {"color", "check"}
    assert sum(score.n for score in found.by_group.values()) == 24
    assert found.folder == tmp_path / f"answers-{found.fingerprint[:16]}"
    assert sorted(path.name for path in found.folder.iterdir()) == ["answers.jsonl", "record.json"]


def test_the_same_question_is_not_asked_twice(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    first = ask(Seer("m"), data, tmp_path, settings)
    again = Seer("m")
    assert ask(again, data, tmp_path, settings) == first
    assert again.asked == []
    ask(other := Seer("other"), data, tmp_path, settings)
    assert len(other.asked) == 24


def test_more_resamples_or_another_batch_size_ask_nothing_anew(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    first = ask(Seer("m", sees=False), data, tmp_path, settings)
    finer = settings.model_copy(update={"resamples": 900, "batch_size": 3})
    model = Seer("m", sees=False)
    found = ask(model, data, tmp_path, finer)
    assert model.asked == []
    assert found.content == first.content
    assert found.score.relaxed_accuracy == first.score.relaxed_accuracy
    assert found.score != first.score


def test_longer_answers_are_another_protocol(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    first = ask(Seer("m"), data, tmp_path, settings)
    longer = settings.model_copy(update={"max_new_tokens": 9})
    assert ask(Seer("m"), data, tmp_path, longer).protocol != first.protocol


def test_new_training_rows_leave_test_answers_valid(
    settings: EvaluateSettings, tmp_path: Path
) -> None:
    old = make_data(tmp_path / "old", {"train": 4, "validation": 2, "test": 6})
    new = make_data(tmp_path / "new", {"train": 8, "validation": 2, "test": 6})
    first = ask(Seer("m"), old, tmp_path, settings)
    model = Seer("m")
    assert ask(model, new, tmp_path, settings).fingerprint == first.fingerprint
    assert model.asked == []


def test_blind_sees_gray_of_the_same_size_under_the_same_protocol(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    sizes = []

    class Looker(Seer):
        def respond(self, questions, images, settings):  # type: ignore[no-untyped-def]
            sizes.extend(row[0].size for row in images)
            assert all(image.getcolors() == [(image.width * 8, (128,) * 3)] for (image,) in images)
            return super().respond(questions, images, settings)

    seen = ask(Seer("m"), data, tmp_path, settings)
    blind = ask(Looker("m"), data, tmp_path, settings, blind=True)
    assert sizes == [(row.images[0].width, row.images[0].height) for row in data.rows("test")]
    assert blind.blind
    assert blind.protocol == seen.protocol
    assert blind.folder != seen.folder
    assert blind.by_kind["color"].relaxed_accuracy == 0.0


def test_an_interrupted_set_goes_on_after_its_last_whole_batch(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    undisturbed = ask(Seer("m"), data, tmp_path / "a", settings)
    with pytest.raises(KeyboardInterrupt):
        ask(Seer("m", fails_after=8), data, tmp_path / "b", settings)
    folder = tmp_path / "b" / undisturbed.folder.name
    assert read_record(folder, AnswerSet) is None
    with (folder / "partial.jsonl").open("a") as partial:  # a crash in the middle of a batch
        partial.write(json.dumps({"id": "test-4-color", "text": "red"}) + "\n")
        partial.write('{"id": "test-4-ch')
    model = Seer("m")
    resumed = ask(model, data, tmp_path / "b", settings)
    assert len(model.asked) == 24 - 8
    assert resumed.content == undisturbed.content
    names = ("answers.jsonl",)
    for name in names:
        assert (resumed.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()


def test_a_crash_before_the_record_asks_nothing_again(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    done = ask(Seer("m"), data, tmp_path, settings)
    replies = [json.dumps({"id": one.id, "text": one.text}) for one in read_answers(done.folder)]
    (done.folder / "record.json").unlink()
    (done.folder / "partial.jsonl").write_text("\n".join(replies) + "\n")
    model = Seer("m")
    assert ask(model, data, tmp_path, settings.model_copy(update={"batch_size": 5})).content
    assert model.asked == []


def test_leftovers_of_other_rows_are_not_trusted(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    done = ask(Seer("m"), data, tmp_path, settings)
    (done.folder / "record.json").unlink()
    (done.folder / "partial.jsonl").write_text('{"id": "somebody", "text": "red"}\n' * 24)
    model = Seer("m")
    assert ask(model, data, tmp_path, settings).content == done.content
    assert len(model.asked) == 24


def test_a_row_limit_takes_whole_charts_by_the_seed(data: PreparedData) -> None:
    rows = select_rows(data, "test", 7, seed=0)
    assert len(rows) == 6
    assert len({row.cluster for row in rows}) == 3
    more = select_rows(data, "test", 11, seed=0)
    assert {row.id for row in rows} < {row.id for row in more}
    assert rows != select_rows(data, "test", 7, seed=1)
    assert select_rows(data, "test", 1000, seed=0) == data.rows("test")
    with pytest.raises(DataError, match=r"max_rows 1 is less than the smallest.*\(2 rows\)"):
        select_rows(data, "test", 1, seed=0)


def test_charts_too_big_for_the_row_limit_are_passed_over(tmp_path: Path) -> None:
    """One chart has all questions but two; wherever the draw puts it, the small one is found."""
    data = make_data(tmp_path / "data", {"train": 0, "validation": 0, "test": 6})
    rows = data.rows("test")
    big = [row.model_copy(update={"cluster": "big"}) for row in rows[2:]]
    write_jsonl(data.folder / "test.jsonl", [*rows[:2], *big])
    for seed in range(8):
        assert select_rows(data, "test", 3, seed) == rows[:2]
    for seed in range(8):
        assert len(select_rows(data, "test", 10, seed)) in (2, 10)


def test_a_limit_above_the_rows_is_the_same_protocol(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    first = ask(Seer("m"), data, tmp_path, settings)
    limited = settings.model_copy(update={"max_rows": 24})
    assert ask(Seer("m"), data, tmp_path, limited).protocol == first.protocol


def test_a_split_without_rows_and_a_lost_image_are_clear_errors(
    settings: EvaluateSettings, tmp_path: Path
) -> None:
    empty = make_data(tmp_path / "none", {"train": 2, "validation": 2, "test": 0})
    with pytest.raises(DataError, match=r"test\.jsonl: the test split has no rows"):
        ask(Seer("m"), empty, tmp_path, settings)
    damaged = make_data(tmp_path / "damaged", {"train": 2, "validation": 2, "test": 2})
    (damaged.folder / "images" / "red12.png").write_bytes(b"not a picture")
    with pytest.raises(
        DataError, match=r"red12\.png: an image that can't be decoded \(no known format\)"
    ):
        ask(Seer("m"), damaged, tmp_path, settings)


def test_majority_answers_by_kind(
    data: PreparedData, settings: EvaluateSettings, tmp_path: Path
) -> None:
    """8 training squares: 3 red, 3 green, 2 blue; the alphabet settles the tie."""
    found = majority(data, "test", evaluate=settings, seed=0, runs=tmp_path)
    said = {(one.kind, one.text) for one in read_answers(found.folder)}
    assert said == {("color", "green"), ("check", "no")}
    assert found.by_kind["color"].relaxed_accuracy == pytest.approx(1 / 3)
    assert found.by_kind["check"].relaxed_accuracy == pytest.approx(2 / 3)
    assert found.protocol == ask(Seer("m"), data, tmp_path, settings).protocol
    assert majority(data, "test", evaluate=settings, seed=0, runs=tmp_path) == found


def test_progress_is_logged(
    data: PreparedData,
    settings: EvaluateSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="vlm_ops.evaluation")
    options = {"evaluate": settings, "seed": 0, "blind": False, "runs": tmp_path, "name": "sft"}
    answer(Seer("m"), data, "test", **options)
    assert "answers sft on test: 24/24, 0 s left" in caplog.messages
    found = answer(Seer("m"), data, "test", **options)
    assert f"answers sft on test: 24 rows found in {found.folder.name}" in caplog.messages


def test_one_model_is_in_memory_at_a_time() -> None:
    opened: list[Seer] = []

    def open_model(ref):  # type: ignore[no-untyped-def]
        opened.append(Seer(ref.content))
        return opened[-1]

    with OneAtATime(open_model) as one:
        first = one.model(model_ref())
        assert one.model(model_ref()) is first
        one.model(model_ref("adapter"))
        assert [seer.closed for seer in opened] == [1, 0]
    assert [seer.closed for seer in opened] == [1, 1]
