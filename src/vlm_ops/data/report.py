"""What a person wants to see of a prepared data set: counts, answers, a sheet of pictures."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from vlm_ops.data.boxes import boxes_in
from vlm_ops.data.counts import Counts
from vlm_ops.data.images import open_image
from vlm_ops.data.near import NearImages
from vlm_ops.records import Row, Split
from vlm_ops.store.files import write_whole

NEAR_SHEET = "near_duplicates.png"
_CELLS = 12
_PAIRS = 6
_ACROSS = 4
_PICTURE = 220
_MARGIN = 10
_LINE = 15
_LINES = 5
_FONT_SIZE = 11
_COLORS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


class Dropped(NamedTuple):
    """Rows by split that were left out.

    Attributes:
        leaks: A later split shows their image.
        joined: Other rows join their group to one of an earlier split; the split that they left.
        near: A later split shows almost their image.
    """

    leaks: Mapping[Split, int]
    joined: Mapping[Split, int]
    near: Mapping[Split, int]


class RowsRead(NamedTuple):
    """What was read of a source.

    Attributes:
        title: Where the rows come from.
        rows: How many were looked at.
        refused: How many of them can't be used.
        why: A line for each kind of problem.
        shared: How many were left out, because their image is in several groups.
    """

    title: str
    rows: int
    refused: int
    why: Sequence[str]
    shared: int


def write_report(
    out: Path,
    read: RowsRead,
    splits: Mapping[Split, Counts],
    dropped: Dropped,
    near: Sequence[NearImages],
) -> None:
    """Write ``report.json`` and ``report.md``.

    Args:
        out: Folder of the data set.
        read: What was read of the source.
        splits: The rows that are kept, counted.
        dropped: Rows that were left out.
        near: Images for which rows were left out, with those that they are like.
    """
    report = {
        "source": read.title,
        "rows_read": read.rows,
        "rows_refused": read.refused,
        "dropped_as_shared": read.shared,
        "rows_kept": sum(counts.summary.rows for counts in splits.values()),
        "dropped_as_leaks": dict(dropped.leaks),
        "dropped_as_joined": dict(dropped.joined),
        "dropped_as_near": dict(dropped.near),
        "near_duplicates": [pair.told() for pair in near],
        "splits": {split: counts.told() for split, counts in splits.items()},
        "answers": splits["train"].told_answers(),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    write_whole(out / "report.json", text + "\n")
    write_whole(out / "report.md", "\n".join(["# Data", "", *_refused(read), *_markdown(report)]))


def near_sheet(locate: Callable[[str], Path], near: Sequence[NearImages]) -> Image.Image:
    """Draw pairs of images that are almost the same, side by side, six at most.

    Args:
        locate: Where the image of a path lies.
        near: The pairs; at least one.
    """
    shown = near[:_PAIRS]
    height = _PICTURE + _LINE + _MARGIN
    sheet = Image.new("RGB", (2 * (_PICTURE + _MARGIN), len(shown) * height), "white")
    draw, font = ImageDraw.Draw(sheet), _font()
    for row, pair in enumerate(shown):
        both = ((pair.split, pair.image), (pair.later, pair.other))
        for column, (split, image) in enumerate(both):
            small = open_image(locate(image))
            small.thumbnail((_PICTURE, _PICTURE))
            left = _MARGIN // 2 + column * (_PICTURE + _MARGIN)
            sheet.paste(small, (left, row * height))
            draw.text((left, row * height + _PICTURE), split, "black", font)
    return sheet


def contact_sheet(folder: Path, rows: Sequence[Row], seed: int) -> Image.Image:
    """Draw a dozen training images, each with a question and its answer below.

    Boxes of the answer are drawn on the picture.

    Args:
        folder: Folder that the image paths start from.
        rows: Training rows.
        seed: Picks them.

    Returns:
        An RGB picture of at most 4 by 3 cells.
    """
    first: dict[str, Row] = {}
    for number in random.Random(seed).sample(range(len(rows)), len(rows)):
        row = rows[number]
        first.setdefault(row.image_id, row)
        if len(first) == _CELLS:
            break
    picked = list(first.values())
    across = min(_ACROSS, len(picked))
    down = -(-len(picked) // across)
    width, height = _PICTURE + _MARGIN, _PICTURE + _LINES * _LINE + _MARGIN
    sheet = Image.new("RGB", (across * width + _MARGIN, down * height + _MARGIN), "white")
    font = _font()
    for place, row in enumerate(picked):
        left = _MARGIN + place % across * width
        top = _MARGIN + place // across * height
        if row.images:
            small = open_image(folder / row.images[0].path)
            small.thumbnail((_PICTURE, _PICTURE))
            _draw_boxes(small, row.answers[0], font)
            sheet.paste(small, (left + (_PICTURE - small.width) // 2, top))
        draw = ImageDraw.Draw(sheet)
        question = _wrapped(row.transcript, font, _PICTURE)[: _LINES - 1]
        for number, line in enumerate(question):
            draw.text((left, top + _PICTURE + number * _LINE), line, "black", font)
        answer = _wrapped(f"→ {row.answers[0]}", font, _PICTURE)[0]
        draw.text((left, top + _PICTURE + len(question) * _LINE), answer, "#0a5", font)
    return sheet


def _draw_boxes(picture: Image.Image, answer: str, font: Any) -> None:
    """Draw the boxes that an answer holds, each with its label; per mille in JSON."""
    draw = ImageDraw.Draw(picture)
    for number, box in enumerate(boxes_in(answer) or ()):
        if not (0 <= box.left <= box.right <= 1 and 0 <= box.top <= box.bottom <= 1):
            continue  # of a text that was written elsewhere, in other units
        color = _COLORS[number % len(_COLORS)]
        x, y = round(box.left * picture.width), round(box.top * picture.height)
        right, bottom = round(box.right * picture.width), round(box.bottom * picture.height)
        draw.rectangle((x, y, right, bottom), outline=color, width=2)
        at = (x + 3, y + 2)
        draw.rectangle(draw.textbbox(at, box.label, font), fill="white")
        draw.text(at, box.label, color, font)


def _font() -> Any:
    """Matplotlib's DejaVu Sans knows more letters than Pillow's own font, but is optional."""
    try:
        import matplotlib
    except ImportError:
        return ImageFont.load_default(_FONT_SIZE)
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), _FONT_SIZE)


def _wrapped(text: str, font: Any, width: int) -> list[str]:
    """Break a text into lines that fit; a word that does not fit is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [_cut(line, font, width) for line in lines]


def _cut(line: str, font: Any, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def _refused(read: RowsRead) -> list[str]:
    """Say at the top which rows are missing."""
    if not read.refused:
        return []
    share = f"{read.refused} of {read.rows} rows ({read.refused / read.rows:.2%})"
    why = [f"- {line.strip()}" for line in read.why]
    return [
        f"**{share} can't be used and are left out**; all are in `refused.jsonl`:",
        "",
        *why,
        "",
    ]


def _markdown(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{report['source']}: {report['rows_read']} rows read, {report['rows_kept']} kept, "
        f"{sum(report['dropped_as_leaks'].values())} dropped because a later split shows their "
        f"image, {sum(report['dropped_as_joined'].values())} because other rows join their group "
        f"to one of an earlier split, {sum(report['dropped_as_near'].values())} because a later "
        f"split shows almost their image, {report['dropped_as_shared']} because their image is in "
        f"several groups.",
        "",
        *([f"![Almost the same]({NEAR_SHEET})", ""] * bool(report["near_duplicates"])),
        "| split | rows | images | groups |",
        "|---|---|---|---|",
    ]
    for split, counts in report["splits"].items():
        lines.append(f"| {split} | {counts['rows']} | {counts['images']} | {counts['groups']} |")
    lines += [
        "",
        "## Rows by kind",
        "",
        "| kind | train | validation | test |",
        "|---|---|---|---|",
    ]
    kinds = sorted({kind for counts in report["splits"].values() for kind in counts["kinds"]})
    for kind in kinds:
        numbers = [str(counts["kinds"].get(kind, 0)) for counts in report["splits"].values()]
        lines.append(f"| {_cell(kind)} | {' | '.join(numbers)} |")
    lines += ["", "## Most frequent training answers", "", "| kind | distinct | most frequent |"]
    lines.append("|---|---|---|")
    for kind, answers in report["answers"].items():
        top = ", ".join(f"{_cell(a)} ({n})" for a, n in answers["most_frequent"].items())
        lines.append(f"| {_cell(kind)} | {answers['distinct']} | {top} |")
    for split, counts in report["splits"].items():
        named = ", ".join(f"{_cell(g)} ({n})" for g, n in counts["largest_groups"].items())
        more = counts["groups"] - len(counts["largest_groups"])
        rest = f" and {more} more" if more else ""
        lines += ["", f"Groups of {split}: {named}{rest}."]
    return [*lines, ""]


def _cell(text: str) -> str:
    short = text if len(text) <= 40 else text[:39] + "…"
    return short.replace("|", "\\|").replace("\n", " ")
