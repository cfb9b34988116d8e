"""Small data sets of one's own: colored squares and questions about them."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

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
