"""Small data sets of one's own: colored squares, and what is asked and said about them."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_ops.artifacts import PreparedData
from vlm_ops.data.images import STORE
from vlm_ops.records import ImageRef, Row, Split
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.jsonl import write_jsonl

Rows = list[dict[str, Any]]


def square(path: Path, number: int) -> Path:
    """Write a picture that differs for every number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = (number * 7 % 256, number * 31 % 256, number * 101 % 256)
    Image.new("RGB", (24 + number % 5, 20), color).save(path)
    return path


def write_rows(path: Path, rows: Rows) -> Path:
    """Write rows as JSON lines."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def own_rows(folder: Path, count: int = 24, groups: int = 8) -> Rows:
    """Write ``count`` pictures, and return a row about each."""
    rows: Rows = []
    for number in range(count):
        square(folder / "images" / f"{number}.png", number)
        rows.append(
            {
                "image": f"images/{number}.png",
                "query": f"What is number {number}?",
                "label": [str(number), f"no. {number}"],
                "source": f"table-{number % groups}",
            }
        )
    return rows


def chat(role: str, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    """A chat of one message, as RLAIF-V has it."""
    return [{"role": role, "content": list(parts)}]


def text(words: str) -> dict[str, Any]:
    """A text part."""
    return {"type": "text", "text": words}


def prepared(folder: Path, **images: list[Path]) -> PreparedData:
    """A prepared data set with a row about each image, by split."""
    folder.mkdir()
    splits: tuple[Split, ...] = ("train", "validation", "test")
    for split in splits:
        rows = [
            Row(
                id=path.name,
                images=(ImageRef(path=str(path), sha256=sha256_file(path), width=1, height=1),),
                question="What is it?",
                answers=("A square.",),
                kind="all",
                group=path.name,
            )
            for path in images.get(split, [])
        ]
        write_jsonl(folder / f"{split}.jsonl", rows)
    return PreparedData(folder=folder, content="", splits={}, source="nowhere", images=STORE)
