"""What is in a source of rows, before anything is configured: form, columns, counts, pictures.

The rows are read by the code that ``prepare`` reads them with, so that what is refused here is
refused there.
"""

import os
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel

from vlm_ops.artifacts import Preference
from vlm_ops.config.load import presets
from vlm_ops.config.sections import MAX_REFUSED, EvaluateSettings, WithoutImage
from vlm_ops.data.check import NO_IMAGE, SAME_ID, check_rows
from vlm_ops.data.guess import OPTIONAL, PAIRS, THUMBS, Guess, guess
from vlm_ops.data.images import ImageStore
from vlm_ops.data.located import Asked, Located, locate
from vlm_ops.data.preferences import check_preferences
from vlm_ops.data.report import contact_sheet
from vlm_ops.data.rows import REFUSED, Complaints, complaining
from vlm_ops.errors import DataError
from vlm_ops.records import ImageRef, PreferencePair, Row
from vlm_ops.store.files import make_folder, replacing, write_whole
from vlm_ops.store.frozen import Frozen
from vlm_ops.store.names import short

SHEET = "contact_sheet.png"
_SHOWN_IMAGES = 48
"""Images that are held for the contact sheet; some of them are of refused rows."""
_FEWEST_GROUPS = 3
_MOST_KINDS = 50
_LONGEST_ANSWER = 4096
"""Tokens, as ``evaluate.max_new_tokens`` bounds them."""

CountTokens = Callable[[Sequence[str]], list[int] | None]


class Inspection(Frozen):
    """What was found.

    Attributes:
        title: Of the source.
        form: ``columns``, ``pairs``, ``thumbs``, or a chat by the name of its column.
        columns: Which column holds what, by role.
        read: By role, of how many cells of the sample its reader says that they are right.
        sample: How many rows that is.
        rows: How many were looked at.
        whole: Whether these were all.
        refused: How many of them can't be used.
        why: A line for each kind of problem, with the first row of it.
        images: How many different ones the other rows show.
        groups: How many groups these rows are of; None where no column says.
        kinds: How many kinds of questions; None where no column says.
        lengths: Of questions and answers in ``characters`` and ``words``, of images by their
            longest ``edges`` in pixels; one number each.
        notes: What is to be known besides.
        yaml: A configuration for these rows.
        sheet: A dozen pictures with their questions; None where there is none.
        ready: Whether ``vlm-ops run`` takes the configuration as it is.
    """

    title: str
    form: str
    columns: dict[str, str]
    read: dict[str, int]
    sample: int
    rows: int
    whole: bool
    refused: int
    why: tuple[str, ...]
    images: int
    groups: int | None
    kinds: int | None
    lengths: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]
    yaml: Path
    sheet: Path | None
    ready: bool


def inspect(asked: Asked, out: Path, count_tokens: CountTokens) -> Inspection:
    """Look at rows, and write ``contact_sheet.png``, ``refused.jsonl`` and a configuration.

    Args:
        asked: Which rows.
        out: Folder to write to.
        count_tokens: Counts the tokens of answers; None where that is not known.

    Raises:
        DataError: The source can't be read, is empty, or has no column for something.
        OutputError: ``out`` can't be written to.
    """
    make_folder(out)
    with TemporaryDirectory(dir=out, prefix=".cache-") as cache:
        source = locate(asked, Path(cache) / "source")
        found = guess(source.title, source.there, source.sample, source.place, asked.columns)
        with _Sampled(Path(cache) / "out") as store:
            found, look, notes = _looked_at(source, found, asked, store, out)
            if not look.found.rows:
                raise DataError(f"{source.title}: no rows; expected at least one")
            sheet = _draw(look.rows, store, out)
    refused = look.found.refused
    groups, kinds = _distinct(look, found, "group"), _distinct(look, found, "kind")
    images = {image.sha256: image for row in look.rows for image in row.images}
    few = len(images) if groups is None else groups
    if look.rows and few < _FEWEST_GROUPS:
        notes.append(
            f"{few} {'images' if groups is None else 'groups'}: train, validation and test share "
            f"none, so at least {_FEWEST_GROUPS} are needed"
        )
    written = _write(source, found, look, out, count_tokens, notes)
    enough = few >= _FEWEST_GROUPS and refused <= MAX_REFUSED * look.found.rows
    return Inspection(
        title=source.title, form=found.form, columns=found.columns, read=found.read,
        sample=found.sample, rows=look.found.rows, whole=not look.more, refused=refused,
        why=tuple(look.found.lines()), images=len(images), groups=groups, kinds=kinds,
        lengths=_lengths(look.rows, list(images.values())), notes=tuple(notes),
        yaml=written.path, sheet=sheet, ready=written.runs and enough,
    )  # fmt: skip


def default_folder(source: str) -> Path:
    """Return where what is found in a source is written unless a person says otherwise."""
    path = Path(source)
    return Path(f"inspect-{_name(path.stem if path.suffix else path.absolute().name)}")


class _Look(NamedTuple):
    """Rows that can be used, what was found on the way, and whether there are more."""

    rows: Sequence[Row]
    found: Complaints
    more: bool


class _Sampled(ImageStore):
    """A store that checks every image and holds a few dozen: those with the least hashes."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.scratch = out.parent
        self._held: set[str] = set()
        self._lock = Lock()

    def add(self, source: Path | bytes) -> ImageRef:
        found = super().add(source)
        with self._lock:
            self._held.add(found.path)
            if len(self._held) > _SHOWN_IMAGES:
                gone = max(self._held)
                self._held.remove(gone)
                self._staged(gone).unlink(missing_ok=True)
        return found

    def shown(self, row: Row) -> bool:
        """Tell whether a row's first image is held."""
        return bool(row.images) and row.images[0].path in self._held


def _looked_at(
    source: Located, found: Guess, asked: Asked, store: _Sampled, out: Path
) -> tuple[Guess, _Look, list[str]]:
    """Read all rows; without optional columns that turn out to hold something else."""
    notes: list[str] = []
    while True:
        with complaining(out / REFUSED) as complaints:
            look = _read(source, found, asked, store, complaints)
        refusing, unfit = _refusing(found, look), _unfit(found, look)
        why_not = unfit | refusing
        dropped = {role: why_not[role] for role in why_not.keys() - asked.columns.keys()}
        for role, why in sorted(dropped.items()):
            notes.append(f"column {found.columns[role]!r} is not taken as {role}: {why}")
        kept = {role: name for role, name in found.columns.items() if role not in dropped}
        found = found._replace(columns=kept)
        kinds = look.found.kinds.values() if found.chats else ()
        alone = sum(kind.count for kind in kinds if kind.first.what == NO_IMAGE)
        if alone and not found.text_alone:
            notes.append(f"{alone} chats have no image; they are taken as text alone")
            found = found._replace(text_alone=True)
        elif not refusing.keys() & dropped.keys():
            return found, look, notes


def _read(
    source: Located, found: Guess, asked: Asked, store: _Sampled, complaints: Complaints
) -> _Look:
    with TemporaryDirectory(dir=store.scratch) as cache:
        read = source.read_pairs if found.form in (PAIRS, THUMBS) else source.rows
        rows = read(found, Path(cache))
        some = rows if asked.rows is None else islice(rows, asked.rows)
        if found.form == PAIRS or found.form == THUMBS:
            given = check_preferences(some, store, found.form, complaints)
            good = [_row(one) for one in given]
        else:
            how: WithoutImage = "accept" if found.text_alone else "refuse"
            checked = check_rows(some, store, complaints, without_image=how)
            good = [row.record for row in checked]
        more = asked.rows is not None and next(rows, None) is not None
    return _Look(good, complaints, more)


def _row(given: Preference) -> Row:
    """Return a pair as a row that has its better answer, a thumb as one that has its own."""
    asked = given.model_dump(exclude={"chosen", "rejected", "completion", "label"})
    said = given.chosen if isinstance(given, PreferencePair) else given.completion
    return Row(**asked, answers=(said,), group="")


def _refusing(found: Guess, look: _Look) -> dict[str, str]:
    """Return the optional columns for which rows are refused, and why."""
    why: dict[str, str] = {}
    firsts = [kind.first for kind in look.found.kinds.values()]
    for role in found.columns.keys() & set(OPTIONAL):
        cells = [problem for problem in firsts if problem.column == found.columns[role]]
        if cells:
            why[role] = f"{cells[0].where} holds {cells[0].found}"
        elif role == "id" and (same := [p for p in firsts if p.what == SAME_ID]):
            why[role] = f"{same[0].where} and others have the id of another row"
    return why


def _unfit(found: Guess, look: _Look) -> dict[str, str]:
    """Return the optional columns that can be read and are of no use, and why."""
    if not look.rows:
        return {}
    why: dict[str, str] = {}
    groups, kinds = _distinct(look, found, "group"), _distinct(look, found, "kind")
    by_image: dict[str, set[str]] = {}
    for row in look.rows if groups is not None else ():
        for image in row.images:
            by_image.setdefault(image.sha256, set()).add(row.group)
    shared = sum(len(names) > 1 for names in by_image.values())
    if shared:
        why["group"] = f"{shared} images are in several of its groups"
    elif groups is not None and groups < _FEWEST_GROUPS:
        why["group"] = f"it holds {groups} different values"
    if kinds is not None and not 1 < kinds <= _MOST_KINDS:
        why["kind"] = f"it holds {kinds} different values"
    return why


def _distinct(look: _Look, found: Guess, role: str) -> int | None:
    return len({getattr(row, role) for row in look.rows}) if role in found.columns else None


def _draw(rows: Sequence[Row], store: _Sampled, out: Path) -> Path | None:
    shown = [row for row in rows if store.shown(row)]
    if not shown:
        return None
    folder = store.find(shown[0].images[0].path).parents[1]
    with replacing(out / SHEET) as beside:
        contact_sheet(folder, shown, 0).save(beside, "PNG")
    return out / SHEET


def _lengths(rows: Sequence[Row], images: Sequence[ImageRef]) -> dict[str, tuple[int, ...]]:
    asked, said = [row.question for row in rows], [row.answers[0] for row in rows]
    return {
        "question_characters": tuple(map(len, asked)),
        "question_words": tuple(len(text.split()) for text in asked),
        "answer_characters": tuple(map(len, said)),
        "answer_words": tuple(len(text.split()) for text in said),
        "image_edges": tuple(max(image.width, image.height) for image in images),
    }


class _Written(NamedTuple):
    """A configuration, and whether it has all that a run needs."""

    path: Path
    runs: bool


def _write(
    source: Located, found: Guess, look: _Look, out: Path, count: CountTokens, notes: list[str]
) -> _Written:
    """Write what differs from the defaults."""
    name = _name(source.name)
    values: dict[str, Any] = {"extends": "demo", "name": name}
    rows = _as_rows(source, found)
    if rows is not None:
        values["data"] = _section(source.settings(rows), out)
    if found.form in (PAIRS, THUMBS):
        values["pairs"] = _section(source.pairs(found), out)
        if rows is None:
            notes.append(
                f"these {found.form} need rows to train SFT and to measure on: add a section data "
                f"with yours"
            )
    if found.form == THUMBS:
        values["prefer"] = {"loss": "kto"}
    longest = max(count([row.answers[0] for row in look.rows]) or [0], default=0)
    if longest > EvaluateSettings().max_new_tokens:
        values["evaluate"] = {"max_new_tokens": min(longest, _LONGEST_ANSWER)}
    title = short(source.title, 60)
    head = f"# Written by vlm-ops data inspect: {look.found.rows} rows of {title} were looked at.\n"
    path = out / f"{name}.yaml"
    write_whole(path, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return _Written(path, runs=rows is not None)


def _as_rows(source: Located, found: Guess) -> Guess | None:
    """Return how the rows are read as questions and answers; None if they can't be.

    A pair is one by its better answer, unless its texts are messages; a thumb is none, since its
    answer may be wrong.
    """
    if found.form == THUMBS:
        return None
    if found.form != PAIRS:
        return found
    names = found.columns
    given = {"image": names["images"], "question": names["prompt"], "answers": names["chosen"]}
    try:
        rows = guess(source.title, source.there, source.sample, source.place, given)
        source.settings(rows)
    except DataError:
        return None
    plain = all(rows.read[role] == rows.sample for role in ("question", "answers"))
    return rows._replace(columns=given) if plain else None


def _section(settings: BaseModel, out: Path) -> dict[str, Any]:
    """Return a section without its defaults; a path starts at the folder of the file."""
    values = settings.model_dump(mode="json", exclude_defaults=True)
    if "path" in values:
        values["path"] = os.path.relpath(Path(values["path"]).resolve(), out.resolve())
    return values


def _name(text: str) -> str:
    """Return a name for the configuration, which is that of its registered model too."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "rows"
    return f"own-{plain}" if plain in presets() else plain
