from squares import Models, make_data, model_ref

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.evaluation.answers import ask
from vlm_ops.evaluation.swapped import swapped
from vlm_ops.records import Row
from vlm_ops.tracker import NullTracker


def test_each_row_is_shown_images_of_its_kind_from_another_group(data: PreparedData) -> None:
    rows = data.rows("test")
    found = swapped(rows, 0)
    owners = {(image.sha256, row.kind): row for row in rows for image in row.images}
    for own, shown in zip(rows, found, strict=True):
        assert owners[shown.images[0].sha256, own.kind].group != own.group
        assert shown == own.model_copy(update={"images": shown.images})
    assert len({row.image_id for row in found}) > len(found) // 4


def test_the_draw_depends_on_the_seed_and_not_on_the_order(data: PreparedData) -> None:
    rows = data.rows("test")
    assert swapped(rows[::-1], 0)[::-1] == swapped(rows, 0) != swapped(rows, 1)


def other_kind(row: Row) -> Row:
    return row.model_copy(update={"kind": "alone"}) if row.group == "test-table0" else row


def test_a_kind_of_one_group_takes_images_of_any_kind(data: PreparedData) -> None:
    rows = [other_kind(row) for row in data.rows("test")]
    own = {row.image_id for row in rows if row.kind == "alone"}
    shown = {row.image_id for row in swapped(rows, 0) if row.kind == "alone"}
    assert shown
    assert not shown & own


def test_a_row_gets_as_many_images_as_it_has_and_text_alone_stays(data: PreparedData) -> None:
    rows = data.rows("test")
    images = [row.images[0] for row in rows]
    mixed = [
        row.model_copy(update={"images": tuple(images[number : number + number % 3])})
        for number, row in enumerate(rows)
    ]
    found = swapped(mixed, 0)
    for own, shown in zip(mixed, found, strict=True):
        assert len(shown.images) == len(own.images)
        assert (shown.images == own.images) == (not own.images)


def test_one_group_in_all_has_no_other_images(data: PreparedData) -> None:
    rows = [row for row in data.rows("test") if row.group == "test-table0"]
    assert swapped(rows, 0) == rows


def test_a_model_that_sees_is_wrong_about_other_rows_images(tmp_path, models: Models) -> None:  # type: ignore[no-untyped-def]
    data = make_data(tmp_path / "prepare-0", {"train": 4, "validation": 4, "test": 40})
    job = AnswersJob(
        seed=0, split="test", gray=False, swapped=True, max_new_tokens=8, batch_size=4,
        max_rows=None,
    )  # fmt: skip
    out = tmp_path / "answers-0"
    out.mkdir()
    found = ask(job, rows=data.test, model=model_ref("sees"), out=out, tracker=NullTracker())
    assert found.swapped
    own = job.model_copy(update={"swapped": False})
    straight = ask(own, rows=data.test, model=model_ref("sees"), out=out, tracker=NullTracker())
    assert found.value < 0.7 < straight.value == 1.0
    assert found.protocol == straight.protocol
    assert [answer.id for answer in found.read()] == [answer.id for answer in straight.read()]
