"""Small files in the forms that data sets are published in, each about colored squares.

The schemas are those of the data sets' pages on the hub; rows and pictures are ours.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from own_rows import Rows, square, write_rows
from PIL import Image
from videos import video

COUNT = 24
LLAVA = "conversations"  # former name


class Form(NamedTuple):
    """A form, and what its fourth row is to be read as.

    Attributes:
        write: Writes the file into a folder, and returns where it lies.
        found: What ``data inspect`` calls the form.
        prompt: What the tiny model is told, with ``[i]`` for each image.
        learned: What it learns to say.
        images: How many images the row shows.
        row: Id of the row.
    """

    write: Callable[[Path], Path]
    found: str
    prompt: str
    learned: str
    images: int = 1
    row: str = "4"


def _each(folder: Path, row: Callable[[int, str], dict[str, Any]]) -> Path:
    rows: Rows = []
    for number in range(COUNT):
        square(folder / "images" / f"{number}.png", number)
        rows.append(row(number, f"images/{number}.png"))
    return write_rows(folder / "rows.jsonl", rows)


def chartqa(folder: Path) -> Path:
    """``HuggingFaceM4/ChartQA``, as Parquet with the images inside."""
    path = _each(
        folder, lambda n, image: {"image": image, "query": f"What is {n}?", "label": [str(n)]}
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["image"] = {"bytes": (folder / row["image"]).read_bytes(), "path": row["image"]}
    path.unlink()
    pd.DataFrame(rows).to_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


def openai(folder: Path) -> Path:
    """Messages of OpenAI's interface: the image inside, in base64."""

    def row(n: int, image: str) -> dict[str, Any]:
        data = base64.b64encode((folder / image).read_bytes()).decode()
        url = {"url": f"data:image/png;base64,{data}"}
        parts = [{"type": "text", "text": "What is "}, {"type": "image_url", "image_url": url},
                 {"type": "text", "text": "?"}]  # fmt: skip
        said = {"role": "assistant", "content": f"Number {n}"}
        return {"messages": [{"role": "user", "content": parts}, said]}

    return _each(folder, row)


def trl(folder: Path) -> Path:
    """Messages of TRL beside images: a system prompt and several turns (``HuggingFaceH4/…``)."""

    def row(n: int, image: str) -> dict[str, Any]:
        def text(words: str) -> dict[str, str]:
            return {"type": "text", "text": words}

        return {
            "images": [image],
            "messages": [
                {"role": "system", "content": [text("Answer briefly.")]},
                {"role": "user", "content": [{"type": "image"}, text("Which number?")]},
                {"role": "assistant", "content": [text(str(n))]},
                {"role": "user", "content": [text("And the next one?")]},
                {"role": "assistant", "content": [text(str(n + 1))]},
            ],
        }

    return _each(folder, row)


def llava(folder: Path) -> Path:
    """``liuhaotian/LLaVA-Instruct-150K``."""

    def row(n: int, image: str) -> dict[str, Any]:
        return {
            "id": f"{n:012d}",
            "image": image,
            LLAVA: [
                {"from": "human", "value": "What color?\n<image>"},
                {"from": "gpt", "value": f"Color {n}"},
            ],
        }

    return _each(folder, row)


def sharegpt(folder: Path) -> Path:
    """Text alone among images, as in mixtures for LLaVA-1.5 (``llava_v1_5_mix665k.json``)."""

    def row(n: int, image: str) -> dict[str, Any]:
        asked = f"Count to {n}." if n % 3 == 0 else f"<image>\nWhat is {n}?"
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": f"It is {n}."}]
        return {LLAVA: turns} | ({} if n % 3 == 0 else {"image": image})

    return _each(folder, row)


def vqav2(folder: Path) -> Path:
    """``HuggingFaceM4/VQAv2``: ten votes."""

    def row(n: int, image: str) -> dict[str, Any]:
        votes = [
            {"answer": f"no {n}" if v == 3 else str(n), "answer_confidence": "yes", "answer_id": v}
            for v in range(10)
        ]
        return {"question": f"What is {n}?", "image": image, "answers": votes, "question_id": n}

    return _each(folder, row)


def captions(folder: Path) -> Path:
    """An ``imagefolder`` with captions in ``metadata.csv``."""
    rows = [
        {"file_name": square(folder / f"{n}.png", n).name, "text": f"A square, number {n}."}
        for n in range(COUNT)
    ]
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder


def coco(folder: Path) -> Path:
    """An ``imagefolder`` with ``objects`` in ``metadata.jsonl`` (``datasets``' documented form)."""
    rows: Rows = []
    for n in range(COUNT):
        with Image.open(square(folder / f"{n}.png", n)) as picture:
            picture.resize((100, 80)).save(folder / f"{n}.png")
        boxes = [[50.0, 8.0, 40.0, 32.0], [10.0, 40.0, 20.0, 20.0 + n % 5]]
        objects = {"bbox": boxes, "categories": [0, 1]}
        rows.append({"file_name": f"{n}.png", "objects": objects})
    write_rows(folder / "metadata.jsonl", rows)
    return folder


def science_qa(folder: Path) -> Path:
    """``derek-thomas/ScienceQA``: options, and the number of the right one."""

    def row(n: int, image: str) -> dict[str, Any]:
        return {"image": image, "question": f"Which is {n}?", "choices": ["this", "that", "none"],
                "answer": n % 3}  # fmt: skip

    return _each(folder, row)


def video_qa(folder: Path) -> Path:
    """Questions about videos (``lmms-lab/NExTQA`` and its kin): files beside the rows."""

    def row(n: int, image: str) -> dict[str, Any]:
        (folder / f"{n}.mp4").write_bytes(video(16, red=n * 10))
        return {"video": f"{n}.mp4", "question": f"What happens in {n}?", "answer": f"Green {n}"}

    return _each(folder, row)


def rlaif_v(folder: Path) -> Path:
    """``openbmb/RLAIF-V-Dataset``, as published."""

    def row(n: int, image: str) -> dict[str, Any]:
        return {"ds_name": "RLAIF-V", "image": image, "question": f"What is {n}?",
                "chosen": f"It is {n}.", "rejected": "It is none.", "idx": n}  # fmt: skip

    return _each(folder, row)


def rlaif_v_formatted(folder: Path) -> Path:
    """``HuggingFaceH4/rlaif-v_formatted``: messages of a pair."""

    def row(n: int, image: str) -> dict[str, Any]:
        def message(role: str, *parts: dict[str, str | None]) -> list[dict[str, Any]]:
            return [{"role": role, "content": list(parts)}]

        def text(words: str) -> dict[str, str | None]:
            return {"type": "text", "text": words}

        return {
            "images": [image],
            "prompt": message("user", {"type": "image", "text": None}, text(f"What is {n}?")),
            "chosen": message("assistant", text(f"It is {n}.")),
            "rejected": message("assistant", text("It is none.")),
        }

    return _each(folder, row)


def kto_mix(folder: Path) -> Path:
    """Unpaired preferences of TRL (``trl-lib/kto-mix-14k``), about images."""

    def row(n: int, image: str) -> dict[str, Any]:
        return {
            "images": [image],
            "prompt": [{"role": "user", "content": f"What is {n}?"}],
            "completion": [{"role": "assistant", "content": f"It is {n}."}],
            "label": n % 3 > 0,
        }

    return _each(folder, row)


def thumbs_csv(folder: Path) -> Path:
    """A table that feedback was exported to: 1 and 0."""
    rows = [
        {"image": square(folder / f"{n}.png", n).name, "question": f"What is {n}?",
         "response": f"It is {n}.", "thumbs_up": n % 2}
        for n in range(COUNT)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "feedback.csv", index=False)
    return folder / "feedback.csv"


_SYSTEM = "System: Answer briefly.<end_of_utterance>\n"
ROWS = {
    "chartqa": Form(chartqa, "columns", "User:[i]What is 3?", "3"),
    "openai": Form(openai, "messages", "User: What is [i]?", "Number 3"),
    "trl": Form(
        trl, "messages",
        f"{_SYSTEM}User:[i]Which number?<end_of_utterance>\nAssistant: 3<end_of_utterance>\n"
        "User: And the next one?", "4", row="4#2",
    ),
    "llava": Form(llava, LLAVA, "User:[i]What color?", "Color 3", row="000000000003"),
    "sharegpt": Form(sharegpt, LLAVA, "User: Count to 3.", "It is 3.", images=0),
    "vqav2": Form(vqav2, "columns", "User:[i]What is 3?", "3", row="3"),
    "captions": Form(captions, "columns", "User:[i]Describe the image.", "A square, number 3."),
    "coco": Form(
        coco, "columns", "User:[i]Where are the objects? Answer with their boxes.",
        '[{"bbox_2d": [500, 100, 900, 500], "label": "0"}, '
        '{"bbox_2d": [100, 500, 300, 788], "label": "1"}]',
    ),
    "science_qa": Form(
        science_qa, "columns", "User:[i]Which is 3?\nA. this\nB. that\nC. none", "A"
    ),
    "video_qa": Form(
        video_qa, "columns", f"User:{'[i]' * 8}What happens in 3?", "Green 3", images=8
    ),
}  # fmt: skip
"""Forms of rows by name."""

PAIRS = {"rlaif_v": rlaif_v, "rlaif_v_formatted": rlaif_v_formatted}
"""Forms of pairs by name."""

THUMBS = {"kto_mix": kto_mix, "thumbs_csv": thumbs_csv}
"""Forms of thumbs by name."""
