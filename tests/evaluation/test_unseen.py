from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import UnseenJob
from vlm_ops.errors import DataError
from vlm_ops.evaluation.unseen import suit, unseen
from vlm_ops.records import ImageRef, Row, Split, SplitSummary
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.jsonl import read_jsonl, write_jsonl
from vlm_ops.tracker import NullTracker

JOB = UnseenJob(name="mine", metric="relaxed_accuracy")


def picture(seed: int, *, side: int = 96) -> Image.Image:
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for bar in range(5):
        height = (seed * 37 + bar * bar * 23) % 80 + 5
        draw.rectangle(
            (bar * 19 + 2, side - height, bar * 19 + 15, side - 2),
            fill=(seed * 40 % 255, 90, bar * 50),
        )
    return image


def data(
    folder: Path, split: Split, images: list[Image.Image | None], answers: Sequence[str] = ()
) -> PreparedData:
    folder.mkdir(parents=True)
    rows = []
    for number, image in enumerate(images):
        refs: tuple[ImageRef, ...] = ()
        if image is not None:
            path = folder / f"{number}.png"
            image.save(path)
            width, height = image.size
            refs = (ImageRef(path=path.name, sha256=sha256_file(path), width=width, height=height),)
        row = Row(
            id=f"{split}-{number}", images=refs, question="What is 2 + 2?", kind="all",
            answers=(answers[number] if answers else "4",), group=f"{split}-{number}",
        )  # fmt: skip
        rows.append(row)
    for each in ("train", "validation", "test"):
        write_jsonl(folder / f"{each}.jsonl", rows if each == split else [])
    counted = SplitSummary(rows=len(rows), images=len(rows), groups=len(rows), kinds={})
    return PreparedData(folder=folder, content="c", splits={split: counted}, source=folder.name)


def test_rows_about_a_trained_picture_are_left_out(tmp_path: Path) -> None:
    """The first is the same file, the second the same picture a little smaller, the third new."""
    trained = data(tmp_path / "own", "train", [picture(1), picture(2)])
    small = picture(2).resize((90, 90), Image.Resampling.LANCZOS)
    asked = data(tmp_path / "benchmark", "test", [picture(1), small, picture(5)])
    out = tmp_path / "unseen"
    out.mkdir()
    found = unseen(JOB, rows=asked, data=trained, out=out, tracker=NullTracker())
    assert [row.id for row in found.rows("test")] == ["test-2"]
    assert found.leaked == 2
    assert [row.id for row in read_jsonl(out / "leaked.jsonl", Row)] == ["test-0", "test-1"]
    assert found.splits["test"].rows == 1
    write_record(found)
    kept = read_record(out, type(found))
    assert kept is not None
    # The images lie beside the benchmark's rows here, in a runs folder they lie in its one store.
    assert kept.leaked == 2


def test_rows_without_a_picture_go_by_their_words(tmp_path: Path) -> None:
    trained = data(tmp_path / "own", "validation", [None])
    asked = data(tmp_path / "benchmark", "test", [None, picture(1)])
    out = tmp_path / "unseen"
    out.mkdir()
    found = unseen(JOB, rows=asked, data=trained, out=out, tracker=NullTracker())
    assert [row.id for row in found.rows("test")] == ["test-1"]


def test_no_row_is_left(tmp_path: Path) -> None:
    trained = data(tmp_path / "own", "train", [picture(1)])
    asked = data(tmp_path / "benchmark", "test", [picture(1)])
    out = tmp_path / "unseen"
    out.mkdir()
    with pytest.raises(DataError, match="all 1 rows show what is trained on"):
        unseen(JOB, rows=asked, data=trained, out=out, tracker=NullTracker())
    assert (out / "leaked.jsonl").is_file()


@pytest.mark.parametrize("max_rows", [None, 1])
def test_what_is_left_and_asked_has_to_suit_the_metric(
    tmp_path: Path, max_rows: int | None
) -> None:
    """The only No is left out, or not among the rows that are drawn."""
    shown: list[Image.Image | None] = [picture(1 if max_rows is None else 9)]
    trained = data(tmp_path / "own", "train", shown)
    asked = data(tmp_path / "benchmark", "test", [picture(1), picture(5)], ["No", "Yes"])
    out = tmp_path / "unseen"
    out.mkdir()
    job = JOB.model_copy(update={"metric": "yes_no", "max_rows": max_rows})
    with pytest.raises(DataError, match="mine: metric yes_no needs rows with the answer yes"):
        unseen(job, rows=asked, data=trained, out=out, tracker=NullTracker())


def test_a_kind_that_no_row_is_of_is_told(tmp_path: Path) -> None:
    asked = data(tmp_path / "benchmark", "test", [picture(5)])
    job = JOB.model_copy(update={"metric": "relaxed_accuracy_exact_names(bus)"})
    with pytest.raises(DataError, match=r"mine: the metric: .*the kind 'bus', .* slices\."):
        suit(job, asked.rows("test"))
    left_out = asked.rows("test")[0].model_copy(update={"kind": "bus"})
    suit(job, asked.rows("test"), [*asked.rows("test"), left_out])


def test_a_limit_below_the_rows_of_a_picture_is_the_benchmarks_own(tmp_path: Path) -> None:
    trained = data(tmp_path / "own", "train", [picture(1)])
    asked = data(tmp_path / "benchmark", "test", [picture(5), picture(5)])
    out = tmp_path / "unseen"
    out.mkdir()
    job = JOB.model_copy(update={"max_rows": 1})
    with pytest.raises(DataError, match=r"^mine: max_rows 1 is less than the rows about one image"):
        unseen(job, rows=asked, data=trained, out=out, tracker=NullTracker())


def test_what_chooses_shows_nothing_that_the_gate_asks(tmp_path: Path) -> None:
    """Not the own test rows, and not a benchmark's; what only measures may show the former."""
    own = data(tmp_path / "own", "test", [picture(1)])
    judges = data(tmp_path / "judges", "test", [picture(5)])
    asked = data(tmp_path / "benchmark", "test", [picture(1), picture(5), picture(9)])
    left = {}
    for chooses in (False, True):
        out = tmp_path / f"unseen-{chooses}"
        out.mkdir()
        given = {"unseen rows of judges": judges} if chooses else {}
        job = JOB.model_copy(update={"chooses": chooses})
        found = unseen(job, rows=asked, data=own, out=out, tracker=NullTracker(), **given)
        left[chooses] = [row.id for row in found.rows("test")]
    assert left == {False: ["test-0", "test-1", "test-2"], True: ["test-2"]}


def test_nothing_is_left_to_choose_by(tmp_path: Path) -> None:
    own = data(tmp_path / "own", "test", [picture(1)])
    asked = data(tmp_path / "benchmark", "test", [picture(1)])
    job = JOB.model_copy(update={"chooses": True})
    with pytest.raises(DataError, match="all 1 rows show what is trained on or asked elsewhere"):
        unseen(job, rows=asked, data=own, out=tmp_path, tracker=NullTracker())
