"""The first step: what comes out of good rows, and what is said about bad ones."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_rows import Rows, square, write_rows
from PIL import Image

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.sections import ChartsData, Columns, FilesData, SplitShares
from vlm_ops.data.prepare import prepare
from vlm_ops.data.split import join_by_image, shuffle_images, split_groups
from vlm_ops.errors import DataError
from vlm_ops.records import SPLITS
from vlm_ops.store.fingerprint import sha256_files
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker

Make = Callable[..., Path]


def run(path: Path, out: Path, seed: int = 0, **kwargs: Any) -> PreparedData:
    """Prepare a file in the way of the example for own data."""
    out.mkdir(parents=True, exist_ok=True)
    kwargs.setdefault("columns", Columns(group="source"))
    data = FilesData(type="files", path=path, **kwargs)
    return prepare(PrepareJob(seed=seed, data=data), out=out, tracker=NullTracker())


def refusal(path: Path, out: Path, **kwargs: Any) -> str:
    """Return what is said when the data can't be used."""
    with pytest.raises(DataError) as caught:
        run(path, out, **kwargs)
    return str(caught.value)


def test_every_row_comes_out_once_with_its_image(own_data: Make, tmp_path: Path) -> None:
    data = run(own_data(), tmp_path / "out")
    rows = [row for split in SPLITS for row in data.rows(split)]
    assert len(rows) == 24
    assert {row.id for row in rows} == {str(number) for number in range(1, 25)}
    for row in rows:
        number = int(row.id) - 1
        assert row.question == f"What is number {number}?"
        assert row.answers == (str(number), f"no. {number}")
        assert (row.kind, row.group) == ("all", f"table-{number % 8}")
        assert row.image_id == row.images[0].sha256
        with Image.open(data.image_path(row.images[0].path)) as image:
            assert image.size == (24 + number % 5, 20)
    assert data.source == "rows.jsonl: 24 rows"
    assert {split: data.splits[split].rows for split in SPLITS} == {
        split: len(data.rows(split)) for split in SPLITS
    }


def test_the_folder_holds_what_is_promised_and_no_leftovers(own_data: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "cache" / "images").mkdir(parents=True)
    (out / "cache" / "images" / "leftover.png").write_bytes(b"of an attempt that was cut off")
    run(own_data(), out)
    assert {path.name for path in out.iterdir()} == {
        *(f"{split}.jsonl" for split in SPLITS),
        "report.json",
        "report.md",
        "contact_sheet.png",
        "refused.jsonl",
    }
    assert len(list((tmp_path / "images").iterdir())) == 24
    assert (out / "refused.jsonl").read_text() == ""


def test_groups_stay_whole(own_data: Make, tmp_path: Path) -> None:
    data = run(own_data(), tmp_path / "out")
    groups = [{row.group for row in data.rows(split)} for split in SPLITS]
    assert all(groups)
    assert sum(map(len, groups)) == 8


def test_without_a_group_column_an_image_is_a_group(own_data: Make, tmp_path: Path) -> None:
    def ask_twice(rows: Rows) -> None:
        rows += [{**row, "query": "And what is this?"} for row in rows]

    data = run(own_data(ask_twice), tmp_path / "out", columns=Columns())
    images = [{image.sha256 for row in data.rows(s) for image in row.images} for s in SPLITS]
    assert sum(map(len, images)) == 24
    assert sum(data.splits[split].rows for split in SPLITS) == 48


def test_the_content_depends_on_rows_and_images_not_on_the_place(
    own_data: Make, tmp_path: Path
) -> None:
    path = own_data()
    moved = tmp_path / "elsewhere"
    shutil.copytree(path.parent, moved)
    first = run(path, tmp_path / "a")
    assert run(moved / "rows.jsonl", tmp_path / "b").content == first.content
    assert run(path, tmp_path / "c", seed=1).content != first.content
    Image.new("RGB", (30, 30), "navy").save(moved / "images" / "3.png")
    assert run(moved / "rows.jsonl", tmp_path / "d").content != first.content


def test_rows_keep_the_bare_question_whatever_the_prompt(own_data: Make, tmp_path: Path) -> None:
    path, prompt = own_data(), "Q: {question} {json}\nBriefly."
    data, bare = run(path, tmp_path / "a", prompt=prompt), run(path, tmp_path / "b")
    assert data.prompt == prompt
    for split in SPLITS:
        files = [(tmp_path / folder / f"{split}.jsonl").read_bytes() for folder in "ab"]
        assert files[0] == files[1]
        assert data.rows(split) == bare.rows(split)
    assert data.test.content == bare.test.content
    assert data.test.read() == bare.rows("test")


def test_the_content_tells_a_prompt_from_none_and_from_rows_that_hold_it(
    own_data: Make, tmp_path: Path
) -> None:
    def tell(rows: Rows) -> None:
        for row in rows:
            row["query"] = f"{row['query']} Briefly."

    bare = run(own_data(), tmp_path / "a")
    prompted = run(own_data(), tmp_path / "b", prompt="{question} Briefly.")
    written = run(own_data(tell), tmp_path / "c")
    assert len({found.content for found in (bare, prompted, written)}) == 3
    files = [tmp_path / "c" / f"{split}.jsonl" for split in SPLITS]
    assert written.content == sha256_files(files, tmp_path / "c")
    # A question that says the prompt's own words is the user's.
    assert written.rows("train")[0].question.endswith("? Briefly.")


def test_rows_that_the_version_before_wrote_in_the_prompt_are_read_bare(
    own_data: Make, tmp_path: Path
) -> None:
    prompt = "{question}\nAgain: {question} {json}"
    data = run(own_data(), tmp_path / "out", prompt=prompt)
    bare = {split: data.rows(split) for split in SPLITS}
    for split, rows in bare.items():
        asked = [row.asked_with(prompt) for row in rows]
        assert asked[0].question.startswith(f"{rows[0].question}\nAgain: What is number ")
        write_jsonl(data.folder / f"{split}.jsonl", asked)
    record = json.loads(data.model_dump_json(exclude={"around"})) | {"folder": str(data.folder)}
    before = PreparedData.model_validate(record)
    assert {split: before.rows(split) for split in SPLITS} == bare
    assert before.test.read() == bare["test"]


def test_max_rows_draws_by_the_seed(own_data: Make, tmp_path: Path) -> None:
    path = own_data(count=60, groups=20)
    data = run(path, tmp_path / "a", max_rows=4)
    assert all(data.splits[split].rows <= 4 for split in SPLITS)
    assert data.splits["train"].rows == 4
    assert len(list((tmp_path / "images").iterdir())) <= 12
    assert run(path, tmp_path / "b", max_rows=4).content == data.content


def test_shuffled_images_belong_to_other_rows_in_training_alone(
    own_data: Make, tmp_path: Path
) -> None:
    def ask_twice(rows: Rows) -> None:
        rows += [{**row, "query": "And what is this?"} for row in rows]

    path = own_data(ask_twice)
    plain = run(path, tmp_path / "a")
    control = run(path, tmp_path / "b", shuffle_images=True)
    for split in ("validation", "test"):
        assert control.rows(split) == plain.rows(split)
    before, after = plain.rows("train"), control.rows("train")
    assert [row.id for row in before] == [row.id for row in after]
    assert all(a.images != b.images for a, b in zip(before, after, strict=True))
    assert sorted(r.images[0].sha256 for r in before) == sorted(r.images[0].sha256 for r in after)
    assert control.content != plain.content


def test_the_report_counts_and_the_tracker_is_told(own_data: Make, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    class Listener(NullTracker):
        def dataset(self, name: str, digest: str, context: str, rows: int, source: str) -> None:
            seen.append((name, context, rows, source))

        def image(self, image: Image.Image, name: str) -> None:
            seen.append((name, image.mode))

        def file(self, path: Path, folder: str = "") -> None:
            seen.append((path.name,))

    out = tmp_path / "out"
    out.mkdir()
    data = FilesData(type="files", path=own_data(), columns=Columns(group="source"))
    made = prepare(PrepareJob(seed=0, data=data), out=out, tracker=Listener())
    train = made.splits["train"].rows
    assert ("rows-train", "training", train, "rows.jsonl") in seen
    assert ("contact_sheet.png", "RGB") in seen
    assert ("report.md",) in seen
    report = json.loads((out / "report.json").read_text())
    assert report["rows_read"] == report["rows_kept"] == 24
    assert report["splits"]["train"]["rows"] == train
    text = (out / "report.md").read_text()
    assert f"| train | {train} | {train} |" in text
    assert "Groups of test: table-" in text


# Bad input


def truncate(path: Path) -> None:
    """Cut a file to half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda rows: rows[4].update(image="images/gone.png"),
            "rows.jsonl:5 (id 5): missing image: found no file",
        ),
        (
            lambda rows: rows[4].update(image=""),
            "rows.jsonl:5 (id 5): no image: found an empty cell",
        ),
        (
            lambda rows: rows[4].update(label=" "),
            "(id 5): column 'label': empty answers: found ' '; expected a text or a list of",
        ),
        (lambda rows: rows[4].update(label=[]), "empty answers: found []"),
        (lambda rows: rows[4].update(label=["5", ""]), "empty answers: found ['5', '']"),
        (lambda rows: rows[4].pop("label"), "empty answers: found None"),
        (
            lambda rows: rows[4].update(query=None),
            "rows.jsonl:5 (id 5): column 'query': empty question: found None",
        ),
        (
            lambda rows: rows[4].update(source=""),
            "rows.jsonl:5 (id 5): column 'source': empty group",
        ),
    ],
)
def test_a_bad_row_is_named(
    own_data: Make, tmp_path: Path, change: Callable[[Rows], object], said: str
) -> None:
    message = refusal(own_data(change), tmp_path / "out")
    assert "rows.jsonl: 1 of 24 rows can't be used:" in message
    assert said in message
    assert f"All of them are in {tmp_path / 'out' / 'refused.jsonl'}." in message


def test_a_truncated_image_is_named(own_data: Make, tmp_path: Path) -> None:
    path = own_data()
    truncate(path.parent / "images" / "7.png")
    message = refusal(path, tmp_path / "out")
    assert "rows.jsonl:8 (id 8): damaged image: found an image that can't be decoded" in message


def test_two_rows_with_one_id_are_named(own_data: Make, tmp_path: Path) -> None:
    def same(rows: Rows) -> None:
        for number, row in enumerate(rows):
            row["key"] = f"q{min(number, 22)}"

    columns = Columns(group="source", id="key")
    message = refusal(own_data(same), tmp_path / "out", columns=columns)
    assert "rows.jsonl:24 (id q22): two rows with one id: found 'q22'; rows.jsonl:23 has" in message


def test_all_problems_are_kept_and_the_first_of_each_kind_is_shown(
    own_data: Make, tmp_path: Path
) -> None:
    def spoil(rows: Rows) -> None:
        for row in rows[1:16]:
            row["label"] = ""
        rows[20]["query"] = True
        rows[21]["image"] = "gone.png"

    message = refusal(own_data(spoil), tmp_path / "out")
    assert "17 of 24 rows can't be used:" in message
    assert message.count("empty answers") == 1
    assert "rows.jsonl:2 (id 2): column 'label': empty answers" in message
    assert "… and 14 more like it" in message
    assert "column 'query': question of another form: found True; expected a text" in message
    assert "missing image" in message
    assert "70.83% are refused, at most 1.00% may be left out (data.max_refused)" in message
    assert len((tmp_path / "out" / "refused.jsonl").read_text().splitlines()) == 17


def test_rows_of_a_file_with_a_long_name_are_counted_one_by_one(
    own_data: Make, tmp_path: Path
) -> None:
    def spoil(rows: Rows) -> None:
        for row in rows[:3]:
            row["label"] = ""

    path = own_data(spoil, count=100)
    path = path.rename(path.with_name("a" * 80 + ".jsonl"))
    message = refusal(path, tmp_path / "out")
    assert "3 of 100 rows can't be used:" in message
    assert "aaa.jsonl:1 (id 1)" in message
    assert all(len(line) < 300 for line in message.splitlines()[1:2])


@pytest.mark.parametrize(("spoilt", "stops"), [(0, False), (2, False), (4, True)])
def test_up_to_one_in_a_hundred_rows_is_left_out_and_said(
    own_data: Make, tmp_path: Path, spoilt: int, stops: bool
) -> None:
    """The bar: 1 % broken rows train and are named; 2 % stop, in one message."""

    def spoil(rows: Rows) -> None:
        for number in range(spoilt):
            rows[50 * number].update({"query": None} if number else {"label": {"a": 1}})

    path, out = own_data(spoil, count=200, groups=40), tmp_path / "out"
    if stops:
        assert "rows.jsonl: 4 of 200 rows can't be used:" in refusal(path, out)
        return
    seen: dict[str, float] = {}

    class Listener(NullTracker):
        def metrics(self, values: Mapping[str, float], *_: object, **__: object) -> None:
            seen.update(values)

    out.mkdir()
    data = FilesData(type="files", path=path, columns=Columns(group="source"))
    made = prepare(PrepareJob(seed=0, data=data), out=out, tracker=Listener())
    assert made.refused == spoilt
    assert sum(made.splits[split].rows for split in SPLITS) == 200 - spoilt
    assert seen == {"rows_read": 200, "rows_refused": spoilt}
    report = (out / "report.md").read_text()
    if spoilt:
        assert report.splitlines()[2].startswith("**2 of 200 rows (1.00%) can't be used")
        assert "- rows.jsonl:51 (id 51): column 'query': empty question" in report
        assert json.loads((out / "report.json").read_text())["rows_refused"] == 2
    else:
        assert "can't be used" not in report


def test_broken_lines_are_rows_that_are_left_out(own_data: Make, tmp_path: Path) -> None:
    path = own_data(count=40)
    lines = path.read_text().splitlines()
    lines[3], lines[7], lines[11] = lines[3][:-5], "[1]", lines[11].replace("{", '{"query": 1, ')
    lines[14] = lines[14].replace("What", "Wh\udcff")
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    assert run(path, tmp_path / "a", max_refused=0.1).refused == 4
    assert "rows.jsonl:8 (id 8): no object: found '[1]'" in refusal(path, tmp_path / "b")
    refused = map(json.loads, (tmp_path / "b" / "refused.jsonl").open())
    assert [(problem["where"], problem["what"]) for problem in refused] == [
        ("rows.jsonl:4", "not valid JSON"),
        ("rows.jsonl:8", "no object"),
        ("rows.jsonl:12", "not valid JSON"),
        ("rows.jsonl:15", "question unreadable"),
    ]


@pytest.mark.parametrize("column", ["image", "query", "label", "source"])
def test_no_cell_makes_a_long_message(own_data: Make, tmp_path: Path, column: str) -> None:
    path = own_data(lambda rows: rows[4].update({column: {"x" * 300_000: ["y" * 300_000] * 9}}))
    lines = refusal(path, tmp_path / "out").splitlines()[1:-1]
    assert lines
    assert all("rows.jsonl:5 (id 5)" in line and len(line) <= 302 for line in lines)
    assert all(len(line) < 600 for line in (tmp_path / "out" / "refused.jsonl").open())


def test_blank_lines_do_not_shift_the_numbers(own_data: Make, tmp_path: Path) -> None:
    path = own_data(lambda rows: rows[4].update(label=""))
    path.write_text("\n\n" + path.read_text())
    assert "rows.jsonl:7 (id 5): column 'label': empty answers" in refusal(path, tmp_path / "out")


def test_a_column_that_is_not_there_lists_those_that_are(own_data: Make, tmp_path: Path) -> None:
    message = refusal(own_data(), tmp_path / "out", columns=Columns(question="qery", kind="sort"))
    assert "no column 'qery' (did you mean 'query'?); data.columns.question names it" in message
    assert "Columns there: image, query, label, source." in message


def test_a_file_without_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [])
    assert "rows.jsonl: no rows" in refusal(path, tmp_path / "out")


def test_too_few_groups(own_data: Make, tmp_path: Path) -> None:
    message = refusal(own_data(groups=2), tmp_path / "out")
    assert "found 2 group(s) (table-0, table-1), expected at least 3" in message


def share_two(rows: Rows) -> None:
    """Show a blank page in every table, and a logo in two."""
    for number, row in enumerate(rows):
        if number < 16:
            row["image"] = [row["image"], f"images/{'blank' if number < 8 else 'logo'}.png"]


def with_shared(own_data: Make) -> Path:
    path = own_data(share_two)
    Image.new("RGB", (9, 9), "white").save(path.parent / "images" / "blank.png")
    Image.new("RGB", (9, 9), "navy").save(path.parent / "images" / "logo.png")
    return path


def test_all_images_in_two_splits_are_named_at_once(own_data: Make, tmp_path: Path) -> None:
    message = refusal(with_shared(own_data), tmp_path / "out")
    assert message.startswith("2 images are in two splits; expected each in one only:")
    assert message.count("show the same image in two splits") == 2
    assert "rows.jsonl:1 (id 1, group 'table-0'," in message
    assert "'table-3', 'table-4' and 3 more" in message
    assert all(len(line) < 400 for line in message.splitlines()[:-1])
    found = map(json.loads, (tmp_path / "out" / "conflicts.jsonl").open())
    assert [len(conflict["groups"]) for conflict in found] == [8, 8]


def test_rows_with_an_image_of_several_groups_are_dropped(own_data: Make, tmp_path: Path) -> None:
    data = run(with_shared(own_data), tmp_path / "out", conflicts="drop")
    ids = {row.id for split in SPLITS for row in data.rows(split)}
    assert ids == {str(number) for number in range(17, 25)}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["dropped_as_shared"] == 16


def test_groups_that_share_an_image_are_merged_and_remembered(
    own_data: Make, tmp_path: Path
) -> None:
    def share(rows: Rows) -> None:
        for row in rows:
            if row["source"] in ("table-1", "table-2", "table-5"):
                row["image"] = [row["image"], "images/blank.png"]

    path, out = own_data(share), tmp_path / "runs" / "prepare-0"
    Image.new("RGB", (9, 9), "white").save(path.parent / "images" / "blank.png")

    def merged(path: Path, split: SplitShares) -> PreparedData:
        columns = Columns(group="source")
        data = FilesData(type="files", path=path, columns=columns, conflicts="merge", split=split)
        out.mkdir(parents=True, exist_ok=True)
        job = PrepareJob(seed=0, data=data, name="model")
        return prepare(job, out=out, tracker=NullTracker())

    def split_of(data: PreparedData, number: int) -> str:
        return next(s for s in SPLITS for row in data.rows(s) if row.id == str(number))

    made = merged(path, SplitShares())
    groups = {row.group for split in SPLITS for row in made.rows(split)}
    assert groups == {f"table-{number}" for number in (0, 1, 3, 4, 6, 7)}
    where = split_of(made, 2)
    assert where == split_of(made, 3) == split_of(made, 6)
    # Without the image that joined them, the groups are where their rows were.
    other = merged(own_data(), SplitShares(validation=0.3, test=0.6))
    assert where == split_of(other, 2) == split_of(other, 3) == split_of(other, 6)


def test_rows_are_shuffled_among_those_with_as_many_images(own_data: Make, tmp_path: Path) -> None:
    rows = run(own_data(), tmp_path / "a").rows("train")
    images = [row.images[0].sha256 for row in rows]
    mixed = [tuple(images[number : number + number % 3]) for number in range(len(rows) - 2)]
    given = shuffle_images(mixed, seed=0)
    assert sorted(given) == list(range(len(mixed)))
    for own, shown in zip(mixed, [mixed[number] for number in given], strict=True):
        assert len(shown) == len(own)
        assert (shown == own) == (not own)


def test_one_image_for_most_rows_can_not_be_shuffled(own_data: Make, tmp_path: Path) -> None:
    rows = [
        tuple(i.sha256 for i in r.images) for r in run(own_data(), tmp_path / "out").rows("train")
    ]
    many = [rows[0]] * (len(rows) + 1) + rows[1:]
    with pytest.raises(DataError, match=f"one image has {len(rows) + 1} of the .* at most half"):
        shuffle_images(many, seed=0)
    assert len(shuffle_images(many[1:-1] + rows[1:3], seed=0)) == 2 * len(rows)


# Splits


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 200), st.integers(0, 5))
def test_every_split_gets_a_group_and_old_groups_stay(count: int, seed: int) -> None:
    shares = SplitShares(validation=0.1, test=0.2)
    dealt = split_groups([f"g{number}" for number in range(count)], shares, seed)
    assert set(dealt.values()) == set(SPLITS)
    if count > 100:  # so many that no split had to be helped out
        grown = split_groups([f"g{number}" for number in range(2 * count)], shares, seed)
        assert all(grown[group] == split for group, split in dealt.items())
        assert sum(split == "test" for split in dealt.values()) / count == pytest.approx(
            0.2, abs=0.12
        )


def test_rows_are_joined_by_any_image_they_share() -> None:
    groups = join_by_image([["b"], ["c", "a"], ["d"], ["b", "c"], ["e", "d"]])
    assert groups == ["a", "a", "d", "a", "d"]


def test_several_images_stay_in_order(own_data: Make, tmp_path: Path) -> None:
    path = own_data(lambda rows: rows[0].update(image=["images/1.png", "images/0.png"]))
    data = run(path, tmp_path / "out", columns=Columns())
    rows = {row.id: row for split in SPLITS for row in data.rows(split)}
    first, second = rows["1"].images
    assert first == rows["2"].images[0]
    assert rows["1"].group == rows["2"].group == min(first.sha256, second.sha256)
    assert rows["1"].image_id not in (first.sha256, second.sha256)


def test_charts_of_real_tables(tmp_path: Path) -> None:
    data = ChartsData(train_charts=16, validation_charts=8, test_charts=12)
    out = tmp_path / "prepared"
    made = prepare(PrepareJob(seed=3, data=data), out=out, tracker=NullTracker())
    assert made.splits["train"].images == 16
    assert made.splits["test"].rows == 12 * 3
    rows = [row for split in SPLITS for row in made.rows(split)]
    assert len({row.image_id for row in rows}) == 36
    assert all(row.image_id != row.group for row in rows)
    assert all(len({r.group for r in rows if r.image_id == row.image_id}) == 1 for row in rows[:9])
    assert not (out / "cache").exists()
    kept = {path.stem for path in (tmp_path / "images").iterdir()}
    assert kept == {row.image_id for row in rows}


# The store of images


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_retrain_adds_its_new_images_to_the_runs_folder_and_no_other(tmp_path: Path) -> None:
    """The bar: 300 images prepared three times, with one row more each time."""
    own, runs = tmp_path / "own", tmp_path / "runs"
    (own / "images").mkdir(parents=True)
    rows: Rows = []
    for number in range(302):
        name = f"images/{number}.png"
        picture = Image.frombytes("RGB", (64, 64), random.Random(number).randbytes(64 * 64 * 3))
        picture.save(own / name)
        rows.append({"image": name, "query": "What?", "label": "This", "source": f"t{number}"})
    taken: list[int] = []
    for count in (300, 301, 302):
        path = write_rows(own / "rows.jsonl", rows[:count])
        before = size(runs)
        data = run(path, runs / f"prepare-{count}")
        assert data.completed({})
        new = sum((own / row["image"]).stat().st_size for row in rows[:count][-1 if taken else 0 :])
        assert size(runs / "images") == sum(taken) + new
        taken.append(new)
        # Beside images: the rows, the report and the sheet with a dozen thumbnails.
        assert size(runs) - before - new == size(data.folder) < 700_000
    assert len(list((runs / "images").iterdir())) == 302
    assert size(runs / "prepare-302") < taken[0] / 5


def test_a_prepared_data_set_without_its_images_is_not_whole(
    own_data: Make, tmp_path: Path
) -> None:
    data = run(own_data(), tmp_path / "runs" / "prepare-0")
    assert data.completed({})
    image = data.rows("test")[0].images[0]
    data.image_path(image.path).unlink()
    assert not data.completed({})
    assert run(own_data(), data.folder).content == data.content
    assert data.completed({})
    (data.folder / "train.jsonl").unlink()
    assert not data.completed({})


def test_a_record_of_the_version_before_has_its_images_beside_its_rows(
    own_data: Make, tmp_path: Path
) -> None:
    data = run(own_data(), tmp_path / "runs" / "prepare-0")
    (tmp_path / "runs" / "images").rename(data.folder / "images")
    record = json.loads(data.model_dump_json(exclude={"images"})) | {"folder": str(data.folder)}
    before = PreparedData.model_validate(record)
    image = before.rows("train")[0].images[0]
    assert before.image_path(image.path) == data.folder / image.path
    assert before.completed({})


def test_squares_differ(tmp_path: Path) -> None:
    """The fixture's own promise, which the tests above rest on."""
    contents = {square(tmp_path / f"{n}.png", n).read_bytes() for n in range(200)}
    assert len(contents) == 200
