"""Look at every row of a source before anything is trained on it."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from vlm_ops.config.pictures import VideoSettings
from vlm_ops.config.sections import Supervise, WithoutImage
from vlm_ops.data.cells import shown
from vlm_ops.data.chats import Chat
from vlm_ops.data.decoding import ImageRefused, is_turned
from vlm_ops.data.image_cells import ImageCell, ImageFile
from vlm_ops.data.images import ImageStore
from vlm_ops.data.objects import Marked, Picture
from vlm_ops.data.places import do_not_match, in_place, marks_in
from vlm_ops.data.progress import log_progress
from vlm_ops.data.rows import Complaints, Problem, RawRow, broken_row, read_cells
from vlm_ops.records import ImageRef, Row, Split
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.on_disk import OnDisk

logger = logging.getLogger(__name__)
Kept = TypeVar("Kept")

SAME_ID = "two rows with one id"
"""What is wrong with a row that has the id of an earlier one."""
_CHUNK, _CHUNK_BYTES = 256, 8 << 20
"""Rows whose images are opened together, and most bytes that they hold as cells; both bound what
is held in memory."""
NO_IMAGE = "no image"
"""What is wrong with a row that shows nothing."""
_NEEDED = "expected a path, or the image itself"
_LOST = "expected a path, or the image itself; data.without_image: accept takes rows of text alone"


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row that can be used.

    Attributes:
        where: As ``rows.jsonl:12``.
        split: The split that the source puts it in, None if it has none.
        grouped: Whether the source names its group; else ``record.group`` is empty.
        record: The row, normalized.
        joined_by: What it shares its group with where the source names none: all images of the row
            that it was made of, by content, or what is asked there first.
    """

    where: str
    split: Split | None
    grouped: bool
    record: Row
    joined_by: tuple[str, ...]


Outcome = ImageRef | ImageRefused
"""What became of an image: it is kept in the store, or why not."""
Frames = list[ImageRef] | ImageRefused
"""What became of a video: its frames are kept in the store, or why not."""


class Seen(NamedTuple):
    """What became of the images and videos of a row."""

    images: list[Outcome]
    videos: list[Frames]


class ImageChecks:
    """Opens images and videos in a few threads and remembers each file's outcome.

    Decoding lets other threads run, so two of them halve the time.
    """

    def __init__(self, store: ImageStore, video: VideoSettings | None = None) -> None:
        """Check images into ``store``, and the frames of videos that settings ask for."""
        self._store = store
        self._video = video or VideoSettings()

    def chunks(self, rows: Iterable[RawRow]) -> Iterator[list[tuple[RawRow, Seen]]]:
        """Hand the rows on, each with its images kept in the store, or why they can't be.

        Args:
            rows: Read as they are needed.
        """
        rows = iter(rows)
        known_images, known_videos = OnDisk[Outcome](), OnDisk[Frames]()
        pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1))
        with pool, known_images, known_videos:
            while chunk := _chunk(rows):
                seen: list[tuple[RawRow, Seen]] = []
                images = [cell for row in chunk for cell in row.images]
                videos = [cell for row in chunk for cell in row.videos]
                pictures = _outcomes(pool, images, self._add_image, known_images)
                films = _outcomes(pool, videos, self._add_video, known_videos)
                for row in chunk:
                    mine = list(islice(pictures, len(row.images)))
                    seen.append((row, Seen(mine, list(islice(films, len(row.videos))))))
                yield seen

    def _add_image(self, cell: ImageCell) -> Outcome:
        try:
            if isinstance(cell, ImageRefused):
                return cell
            return self._store.add(cell.find() if isinstance(cell, ImageFile) else cell)
        except ImageRefused as error:
            # Not the error itself, whose traceback would keep the image's bytes.
            return ImageRefused(*error.args)

    def _add_video(self, cell: ImageCell) -> Frames:
        from vlm_ops.data.video import frames  # loads FFmpeg's libraries

        try:
            if isinstance(cell, ImageRefused):
                return cell
            data = cell.read() if isinstance(cell, ImageFile) else cell
            return [self._store.add(frame) for frame in frames(data, self._video)]
        except ImageRefused as error:
            return ImageRefused(*error.args)


def _outcomes(
    pool: ThreadPoolExecutor,
    cells: Sequence[ImageCell],
    add: Callable[[ImageCell], Kept],
    known: OnDisk[Kept],
) -> Iterator[Kept]:
    """Return what becomes of each cell; a file is looked at once."""
    files = {c: f"{c.place.folder}/{c.name}" for c in cells if isinstance(c, ImageFile)}
    seen = {cell: found for cell, key in files.items() if (found := known.get(key)) is not None}
    fresh = files.keys() - seen.keys()
    for cell, found in zip(fresh, pool.map(add, fresh), strict=True):
        seen[cell] = found
        known.add(files[cell], found)
    return iter(list(pool.map(lambda c: seen[c] if isinstance(c, ImageFile) else add(c), cells)))


def _chunk(rows: Iterator[RawRow]) -> list[RawRow]:
    chunk: list[RawRow] = []
    held = 0
    for row in islice(rows, _CHUNK):
        chunk.append(row)
        held += sum(len(cell) for cell in (*row.images, *row.videos) if isinstance(cell, bytes))
        if held >= _CHUNK_BYTES:
            break
    return chunk


def check_rows(
    rows: Iterable[RawRow],
    store: ImageStore,
    complaints: Complaints,
    *,
    supervise: Supervise = "all",
    without_image: WithoutImage = "refuse",
    video: VideoSettings | None = None,
) -> Iterator[CheckedRow]:
    """Check and normalize rows, a few at a time; yield those that can be used.

    Args:
        rows: Read as they are needed.
        store: Where the images are kept.
        complaints: Told of every row, and what is wrong with it; a chat counts as one row.
        supervise: Which answers of a chat become a row: all of them, or the last one.
        without_image: What becomes of a row that has no image.
        video: Which frames of a video are taken.
    """
    report = log_progress(logger, "rows checked")
    with OnDisk[str]() as owners:
        for chunk in ImageChecks(store, video).chunks(rows):
            for row, seen in chunk:
                if row.broken is not None:
                    complaints.look([broken_row(row, row.broken)])
                    continue
                read, found = read_cells(row, _cells(row, seen))
                if "boxes" in read:
                    read["answers"] = read.pop("boxes")
                if options := read.pop("options", None):
                    read["answers"] = options.answers
                    read["question"] = options.asked(read.get("question", ""))
                found += _unseen(row, read, seen, without_image)
                ids = [read["id"], *_ids(row, read["id"], supervise)]
                for name in dict.fromkeys(ids):
                    other = owners.add(name, row.where)
                    if name and other is not None:
                        found.append(_same_id(row, name, other))
                if complaints.look(found):
                    yield from _checked(row, read, seen, supervise)
            report(complaints.rows, None)


def _unseen(
    row: RawRow, read: Mapping[str, Any], seen: Seen, without_image: WithoutImage
) -> Iterator[Problem]:
    """Complain about what is not there to be seen, or has no place."""
    if any(seen) or without_image == "refuse" or row.marks:
        yield from image_problems(row.where, read["id"], seen, _LOST)
    placed = bool(marks_in(_texts(row, read)))
    if do_not_match(row.marks, placed, len(row.images), len(row.videos)):
        yield other_marks(row, read["id"], row.marks)


def image_problems(where: str, id_: str, seen: Seen, expected: str = _NEEDED) -> Iterator[Problem]:
    """Complain about images and videos that are missing or damaged.

    Args:
        where: The row's place.
        id_: The row's id.
        seen: What :class:`ImageChecks` handed on.
        expected: What to say where there is none.
    """
    looked_at = (*seen.images, *seen.videos)
    for image in looked_at or (ImageRefused("an empty cell", expected, NO_IMAGE),):
        if isinstance(image, ImageRefused):
            yield Problem(
                where=where, id=id_, what=image.what, found=image.found, expected=image.expected
            )


def other_marks(row: RawRow, id_: str, marks: Sequence[str]) -> Problem:
    """Complain about marks that do not say where each image and video of a row belongs."""
    there = f"{len(row.images)} images" + f", {len(row.videos)} videos" * bool(row.videos)
    return Problem(
        where=row.where,
        id=id_,
        what="question with other marks than images",
        found=" and ".join([*(f"{n} times {m}" for m, n in Counter(marks).items()), there]),
        expected="expected one for each, or none where all come first",
        column=row.columns.get("question") or row.columns.get("prompt") or "",
    )


def _cells(row: RawRow, seen: Seen) -> dict[str, Any]:
    cells: dict[str, Any] = {"kind": row.kind}
    if row.chat is None:
        cells |= {"question": row.question} | _said(row, seen)
    return cells if row.group is None else cells | {"group": row.group}


def _said(row: RawRow, seen: Seen) -> dict[str, Any]:
    if row.boxes is not None:
        return {"boxes": Marked(*row.boxes, _pictures(row, seen))}
    if row.columns.get("options") is not None:
        return {"options": (row.options, row.answers)}
    return {"answers": row.answers}


def _pictures(row: RawRow, seen: Seen) -> list[Picture] | None:
    """Return what boxes have to fit; None where the row is refused for a picture."""
    pictures = []
    for cell, image in zip(row.images, seen.images, strict=True):
        if isinstance(cell, ImageRefused) or isinstance(image, ImageRefused):
            return None
        turned = is_turned(cell.find() if isinstance(cell, ImageFile) else cell)
        pictures.append(Picture(image.width, image.height, turned))
    return pictures


def _texts(row: RawRow, read: Mapping[str, Any]) -> list[str]:
    return [turn.text for turn in row.chat.turns] if row.chat else [read.get("question", "")]


def _answered(chat: Chat, supervise: Supervise) -> list[int]:
    """Return the places of the answers that become a row."""
    places = [place for place, turn in enumerate(chat.turns) if turn.role == "assistant"]
    return places if supervise == "all" else places[-1:]


def _ids(row: RawRow, id_: str, supervise: Supervise) -> list[str]:
    count = len(_answered(row.chat, supervise)) if row.chat else 1
    return [id_] if count == 1 else [f"{id_}#{number}" for number in range(1, count + 1)]


def _same_id(row: RawRow, id_: str, other: str) -> Problem:
    expected = f"{other} has it already; every row needs its own"
    return Problem(where=row.where, id=id_, what=SAME_ID, found=shown(id_), expected=expected)


def _checked(
    row: RawRow, read: dict[str, Any], seen: Seen, supervise: Supervise
) -> Iterator[CheckedRow]:
    """Yield the rows that a row of the source becomes: one for each answer of a chat."""
    images = [image for image in seen.images if isinstance(image, ImageRef)]
    videos = [frames for frames in seen.videos if not isinstance(frames, ImageRefused)]
    texts, shown_images = in_place(_texts(row, read), images, videos)
    joined_by = tuple(image.sha256 for image in shown_images) or (_asked_first(row, texts),)
    for id_, part in zip(
        _ids(row, read["id"], supervise), _parts(row, read, texts, supervise), strict=True
    ):
        said = [*(turn.text for turn in part["before"]), part["question"]]
        # An answer sees the images that were shown until then.
        count = len(marks_in(said)) if marks_in(texts) else len(shown_images)
        record = Row(**{"group": ""} | read | part | {"id": id_, "images": shown_images[:count]})
        yield CheckedRow(row.where, row.split, row.group is not None, record, joined_by)


def _asked_first(row: RawRow, texts: Sequence[str]) -> str:
    turns = row.chat.turns if row.chat else ()
    system = bool(turns) and turns[0].role == "system"
    return fingerprint(texts[: 1 + system])


def _parts(
    row: RawRow, read: dict[str, Any], texts: Sequence[str], supervise: Supervise
) -> Iterator[dict[str, Any]]:
    if row.chat is None:
        yield {"before": (), "question": texts[0], "answers": read["answers"]}
        return
    turns = [
        turn.model_copy(update={"text": text})
        for turn, text in zip(row.chat.turns, texts, strict=True)
    ]
    for place in _answered(row.chat, supervise):
        yield {
            "before": tuple(turns[: place - 1]),
            "question": turns[place - 1].text,
            "answers": (turns[place].text,),
        }
