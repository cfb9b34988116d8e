"""What is served is asked in the way that training and the gate asked it."""

import json
import math
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from squares import last_words

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.sections import ModelSettings
from vlm_ops.data.image_cells import ImageFile
from vlm_ops.data.images import STORE, ImageStore, open_image
from vlm_ops.errors import DataError
from vlm_ops.models.loading import LoadedModel
from vlm_ops.records import Chat
from vlm_ops.serving import asking, predict
from vlm_ops.serving.asking import Answering, answer, ask_about
from vlm_ops.serving.pictures import open_pictures
from vlm_ops.serving.predict import answer_file, find_model
from vlm_ops.serving.rows import Wanted, read_questions

PROMPT = "{question}\nBriefly."
HOW = Answering(max_new_tokens=4)


class Asked:
    """Stands in for generation and remembers what it is asked."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.images: list[Image.Image] = []
        self.batches: list[int] = []

    def __call__(
        self, model: LoadedModel, chats: list[Chat], images: Any, **options: Any
    ) -> list[str]:
        self.questions += last_words(chats)
        self.images += [image for row in images for image in row]
        self.batches.append(len(chats))
        return ["5"] * len(chats)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    stand_in = Asked()
    monkeypatch.setattr(asking, "generate", stand_in)
    return stand_in


def model(prompt: str) -> Any:
    ref = ModelRef(settings=ModelSettings(), base_sha256="b", prompt=prompt)
    # `generate` is replaced above, so that neither is ever looked at.
    return LoadedModel(model=None, processor=None, ref=ref)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "told"), [(PROMPT, "What color?\nBriefly."), ("{question}", "What color?")]
)
def test_the_model_s_prompt_surrounds_the_question(asked: Asked, prompt: str, told: str) -> None:
    assert answer(model(prompt), ask_about(" <image>What color? "), HOW) == "5"
    assert asked.questions == [told]


def test_a_file_s_rows_get_the_prompt_and_are_written_as_they_were(
    asked: Asked, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    row = {"image": "a.png", "query": "What color?"}
    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    source.write_text(json.dumps(row))
    rows = read_questions(Wanted(source))
    assert answer_file(model(PROMPT), rows, target, HOW, batch_size=1) == ([], 0)
    assert asked.questions == ["What color?\nBriefly."]
    assert json.loads(target.read_text()) == {**row, "answer": "5"}


def test_a_base_is_asked_the_bare_question(random_base: Path, tmp_path: Path) -> None:
    for name in ("tiny", str(random_base)):
        found = find_model(name, tracking_uri=None, cache=tmp_path)
        assert found.asked("What color?") == "What color?"


def test_pictures_are_the_ones_that_training_sees(asked: Asked, tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 4, 6))
    clear.save(tmp_path / "clear.png")
    turned = Image.new("RGB", (40, 20), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    paths = [tmp_path / "clear.png", tmp_path / "turned.jpg"]
    for path in paths:
        answer(model(PROMPT), ask_about("What color?", open_pictures(path)), HOW)
    with ImageStore(tmp_path / "out") as store:
        kept = [store.add(path).path for path in paths]
        store.keep(set(kept))
    trained = [open_image(tmp_path / "out" / STORE / path) for path in kept]
    assert [image.tobytes() for image in asked.images] == [image.tobytes() for image in trained]
    assert asked.images[0].getpixel((7, 0)) == (255, 255, 255)
    assert asked.images[1].size == (20, 40)


def test_rows_that_trained_are_readable_with_their_byte_order_mark(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    text = json.dumps({"image": ["a.png", "b.png"], "query": "a\u2028b"}, ensure_ascii=False)
    source.write_text(f"\ufeff{text}\n\n", encoding="utf-8")
    questions = read_questions(Wanted(source))
    (row,) = questions.rows()
    assert questions.total == 1
    assert row.turns[-1].text == "a\u2028b"
    assert [image.name for image in row.images if isinstance(image, ImageFile)] == [
        "a.png",
        "b.png",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "rows.jsonl:2: not valid JSON: found '{'"),
        ("[]", "rows.jsonl:2: no object: found '[]'"),
        ('{"image": "a.png"}', "query is empty: found None"),
        ('{"image": "a.png", "query": " "}', "query is empty: found ' '; expected"),
        ('{"image": "a.png", "query": "a <image> b <image> c"}', "found 2 times <image>"),
        ('{"image": "a.png", "query": "<|im_end|> x"}', "query is with a mark"),
    ],
)
def test_a_row_that_asks_nothing_costs_its_own_answer(
    asked: Asked, tmp_path: Path, line: str, said: str
) -> None:
    source = write_questions(tmp_path, ["a.png"])
    source.write_text(source.read_text() + f"\n{line}\n")
    target = tmp_path / "answers.jsonl"
    done = answer_file(model(PROMPT), read_questions(Wanted(source)), target, HOW, batch_size=4)
    assert done.failed == ["rows.jsonl:2"]
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [sorted(line)[0] for line in lines] == ["answer", "error"]
    assert said in lines[1]["error"]


def test_a_file_none_of_whose_rows_asks_anything_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"image": "a.png", "query": ""}\n{"image": "a.png", "query": ""}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1: query is empty.*None of the 2 rows"):
        read_questions(Wanted(source))


def test_a_file_without_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"rows\.jsonl: no rows; found an empty file"):
        read_questions(Wanted(tmp_path / "rows.jsonl"))


def test_a_broken_picture_is_an_error_of_its_row_alone(asked: Asked, tmp_path: Path) -> None:
    Image.effect_noise((40, 40), 80).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    names = ("a.png", "cut.png", "a.png", "gone.png", "a.png")
    rows: list[dict[str, Any]] = [
        {"image": name, "query": f"q{number}"} for number, name in enumerate(names)
    ]
    rows[0]["error"] = "of an earlier attempt"
    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: list[tuple[int, int]] = []
    failed, _ = answer_file(
        model("{question}"),
        read_questions(Wanted(source)),
        target,
        HOW,
        batch_size=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert failed == ["rows.jsonl:2", "rows.jsonl:4"]
    assert (asked.questions, asked.batches) == (["q0", "q2", "q4"], [1, 1, 1])
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line.get("answer") for line in lines] == ["5", None, "5", None, "5"]
    assert [sorted(line) for line in lines[:2]] == [
        ["answer", "image", "query"],
        ["error", "image", "query"],
    ]
    assert "cut.png: an image that can't be decoded" in lines[1]["error"]
    assert "no file" in lines[3]["error"]
    assert "gone.png" in lines[3]["error"]


def write_questions(folder: Path, images: list[Any]) -> Path:
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    lines = [json.dumps({"image": image, "query": f"q{n}"}) for n, image in enumerate(images)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def test_a_cell_that_is_no_image_costs_its_row_alone(asked: Asked, tmp_path: Path) -> None:
    images = ["a.png", 7, ["a.png", None], "/dev/zero", "https://x.org/a.png", "a\0.png", "a.png"]
    questions = read_questions(Wanted(write_questions(tmp_path, images)))
    target = tmp_path / "answers.jsonl"
    done = answer_file(model("{question}"), questions, target, HOW, batch_size=3)
    assert done.failed == [f"rows.jsonl:{n}" for n in range(2, 7)]
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["query"] for line in lines] == [f"q{n}" for n in range(7)]
    assert "not an image: a number" in lines[1]["error"]
    assert "number 2 of 2" in lines[2]["error"]
    assert "images_root" in lines[3]["error"]


def test_an_interrupted_call_goes_on_and_another_question_begins_anew(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_questions(tmp_path, ["a.png", "gone.png", "a.png", "a.png", "a.png"])
    target = tmp_path / "answers.jsonl"

    def breaks_off(*given: Any, **options: Any) -> list[str]:
        if len(asked.questions) == 3:
            raise KeyboardInterrupt
        return asked(*given, **options)

    def ask(prompt: str = PROMPT) -> predict.Answered:
        rows = read_questions(Wanted(source))
        return answer_file(model(prompt), rows, target, HOW, batch_size=2)

    monkeypatch.setattr(asking, "generate", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        ask()
    assert not target.exists()
    (part,) = tmp_path.glob(".answers.jsonl.*.part")
    part.write_bytes(part.read_bytes() + b'{"image": "a.p')  # as a full disk leaves it
    monkeypatch.setattr(asking, "generate", asked)
    other = ask("{question}")  # another prompt is another question
    assert other == (["rows.jsonl:2"], 0)
    asked.questions.clear()
    assert ask() == (["rows.jsonl:2"], 4)
    assert asked.questions == ["q4\nBriefly."]
    assert len(target.read_text().splitlines()) == 5
    assert not list(tmp_path.glob(".answers*"))


def test_other_allowed_folders_begin_anew(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows").mkdir()
    source = write_questions(tmp_path / "rows", ["a.png", "../b.png", "a.png"])
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "b.png")
    target = tmp_path / "answers.jsonl"

    def breaks_off(*given: Any, **options: Any) -> list[str]:
        if asked.questions:
            raise KeyboardInterrupt
        return asked(*given, **options)

    def ask(root: Path | None) -> predict.Answered:
        rows = read_questions(Wanted(source, root))
        return answer_file(model(PROMPT), rows, target, HOW, batch_size=2)

    monkeypatch.setattr(asking, "generate", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        ask(None)
    monkeypatch.setattr(asking, "generate", asked)
    assert ask(tmp_path) == ([], 0)


def test_half_a_character_is_written_as_it_was_read(asked: Asked, tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    row = {"image": "a.png", "query": "q", "note": "\ud83d é"}
    source.write_text(json.dumps(row))
    questions = read_questions(Wanted(source))
    answer_file(model(PROMPT), questions, target, HOW, batch_size=2)
    assert json.loads(target.read_text(encoding="utf-8")) == row | {"answer": "5"}


def test_what_a_row_calls_its_answer_is_kept(asked: Asked, tmp_path: Path) -> None:
    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    source.write_text('{"query": "q", "answer": "4"}\n{"query": "q", "given_answer": "4"}')
    answer_file(model(PROMPT), read_questions(Wanted(source)), target, HOW, batch_size=2)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert lines == [{"query": "q", "given_answer": "4", "answer": "5"}] * 2


def test_what_json_has_no_form_for_is_written_as_text(asked: Asked, tmp_path: Path) -> None:
    held = {
        "question": "q", "none": math.nan, "all": [math.inf, 1.5], "bytes": b"abc",
        "price": Decimal("3.50"), "day": date(2024, 1, 1), "at": datetime(2024, 1, 1, 2),
    }  # fmt: skip
    source, target = tmp_path / "rows.parquet", tmp_path / "answers.jsonl"
    pq.write_table(pa.Table.from_pylist([held]), source)
    answer_file(model(PROMPT), read_questions(Wanted(source)), target, HOW, batch_size=1)
    assert json.loads(target.read_text()) == {
        "question": "q", "none": None, "all": [None, 1.5], "bytes": "3 bytes", "price": "3.50",
        "day": "2024-01-01", "at": "2024-01-01T02:00:00", "answer": "5",
    }  # fmt: skip


def test_changed_pictures_and_another_draw_begin_anew(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_questions(tmp_path, ["a.png", "gone.png", "a.png"])
    target = tmp_path / "answers.jsonl"

    def breaks_off(*given: Any, **options: Any) -> list[str]:
        if asked.batches:
            raise KeyboardInterrupt
        return asked(*given, **options)

    def generates(does: Any) -> None:
        monkeypatch.setattr(asking, "generate", does)
        monkeypatch.setattr(asking, "sample", lambda *given: does(*given[:3]))

    def ask(temperature: float = 0.0, size: int = 1) -> predict.Answered:
        how = Answering(max_new_tokens=4, temperature=temperature)
        return answer_file(
            model(PROMPT), read_questions(Wanted(source)), target, how, batch_size=size
        )

    def interrupted(temperature: float) -> None:
        asked.batches.clear()
        generates(breaks_off)
        with pytest.raises(KeyboardInterrupt):
            ask(temperature)
        generates(asked)

    interrupted(0.0)
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "gone.png")
    assert ask() == ([], 0)
    interrupted(0.0)
    assert ask(size=2) == ([], 1)
    interrupted(1.0)
    assert ask(1.0, size=2) == ([], 0)
    assert ask(1.0) == ([], 1)
