"""Objects of a picture as data sets hold them, and the answer that is learned of them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from typing import Any, NamedTuple

from vlm_ops.config.pictures import BoxSettings
from vlm_ops.data.boxes import KEY, LARGEST, SEPARATOR, Box, written
from vlm_ops.data.cells import CellError, is_missing, shown, spoken, unmarked
from vlm_ops.data.written import read_objects

WHERE = "Where are the objects? Answer with their boxes."
"""What a row with boxes is asked where no column and no setting says it."""
_BOXES = (KEY, "bbox", "bboxes", "box", "boxes")
_LABELS = (
    "label", "labels", "category_name", "category", "categories", "class", "classes", "name",
    "category_id",
)  # fmt: skip
_EXPECTED = 'expected {"bbox": [[x, y, w, h]], "category": ["cat"]} or a list of such objects'
_NUMBERS = "expected four finite numbers, as [x, y, w, h]"
_LABEL = "expected a name or the number of a class"
_UNITS = {"fraction": 1, "permille": 1000}


class Picture(NamedTuple):
    """What has to be known of the picture that boxes are in.

    Attributes:
        width: Pixels, upright.
        height: Pixels, upright.
        turned: Whether EXIF turns it, so that its boxes may be those of the stored picture.
    """

    width: int
    height: int
    turned: bool = False


class Marked(NamedTuple):
    """A cell with objects, and what is needed to read it.

    Attributes:
        cell: As the source holds it.
        settings: How its boxes are given and are to be written.
        pictures: Those of the row; None where one of them can't be used.
    """

    cell: Any
    settings: BoxSettings
    pictures: Sequence[Picture] | None


class Thing(NamedTuple):
    """An object as its cell holds it: four numbers, a label, and whether they are two corners."""

    numbers: tuple[float, ...]
    label: Any
    corners: bool


def answer_with_boxes(marked: Marked) -> tuple[str, ...]:
    """Read the objects of a row, and write the answer that is learned.

    Raises:
        CellError: They can't be read, do not fit the picture, or it is not clear which one.
    """
    things = things_in(marked.cell)
    if marked.pictures is None:  # the row is refused for its picture
        return ()
    if len(marked.pictures) != 1:
        advice = "expected one picture in each row with boxes"
        raise CellError("without their picture", f"{len(marked.pictures)} pictures", advice)
    boxes = _boxes(things, marked.settings, marked.pictures[0])
    if not boxes and marked.settings.write == "loc":
        advice = "expected at least one; data.boxes.write: json writes none as []"
        raise CellError("empty", shown(marked.cell), advice)
    return (written(boxes, marked.settings.write),)


def things_in(cell: Any) -> tuple[Thing, ...]:
    """Read the objects of a cell; none where it holds an empty list.

    Args:
        cell: A mapping with a list of boxes and one of labels (COCO on the hub, ``objects`` of an
            ``imagefolder``), or a list of mappings with a box and a label each; either also as a
            text.

    Raises:
        CellError: It is none of these, a box has not four finite numbers, or a label is missing.
    """
    if isinstance(cell, str) and not is_missing(cell):
        try:
            cell = read_objects(cell)
        except ValueError as error:
            raise CellError("of another form", shown(cell), _EXPECTED) from error
    cell = _plain(cell)
    if is_missing(cell):
        raise CellError("empty", shown(cell), "expected a list; [] says that there is no object")
    if not isinstance(cell, (Mapping, list, tuple)):
        raise CellError("of another form", shown(cell), _EXPECTED)
    objects = [cell] if isinstance(cell, Mapping) else cell
    return tuple(thing for one in objects for thing in _things(one, cell))


def likeliest(cells: Sequence[tuple[Any, Picture]]) -> BoxSettings:
    """Return how boxes are given, by what fits into the most pictures.

    Args:
        cells: Cells of some rows, each with its picture.
    """
    edges = [n for cell, _ in cells for thing in _of(cell) for n in thing.numbers]
    if edges and max(edges) <= 1 and not all(float(n).is_integer() for n in edges):
        units = ["fraction"]
    else:
        units = ["pixels", "permille"]
    forms = [
        BoxSettings.model_validate({"unit": unit, "given": given})
        for unit, given in product(units, ("xywh", "xyxy"))
    ]
    return max(forms, key=lambda form: sum(_fits(cell, form, seen) for cell, seen in cells))


def _of(cell: Any) -> tuple[Thing, ...]:
    with suppress(CellError):
        return things_in(cell)
    return ()


def _fits(cell: Any, settings: BoxSettings, picture: Picture) -> bool:
    try:
        _boxes(things_in(cell), settings, picture._replace(turned=False))
    except CellError:
        return False
    return True


def _things(one: Any, cell: Any) -> Iterator[Thing]:
    key = next((name for name in _BOXES if name in one), None) if isinstance(one, Mapping) else None
    if key is None:
        raise CellError("of another form", shown(cell), _EXPECTED)
    boxes = _plain(one[key])
    labels = _plain(next((one[name] for name in _LABELS if one.get(name) is not None), None))
    if not isinstance(boxes, (list, tuple)):
        raise CellError("of another form", shown(cell), _EXPECTED)
    if (boxes and not isinstance(_plain(boxes[0]), (list, tuple))) or (one is not cell):
        boxes = [boxes]
    if labels is not None and not isinstance(labels, (list, tuple)):
        labels = [labels]
    labels = labels if isinstance(labels, (list, tuple)) else []
    if len(boxes) != len(labels):
        found = f"{len(boxes)} boxes and {len(labels)} labels"
        raise CellError("and labels of unequal number", found, "expected a label for each box")
    for box, label in zip(boxes, labels, strict=True):
        yield Thing(_numbers(_plain(box)), label, corners=key == KEY)


def _numbers(box: Any) -> tuple[float, ...]:
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise CellError("of another form", shown(box), _NUMBERS)
    for number in box:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise CellError("of another form", shown(box), _NUMBERS)
        if not abs(number) < LARGEST:  # NaN is not either
            raise CellError("that are not finite", shown(box), _NUMBERS)
    return tuple(map(float, box))


def _boxes(things: Sequence[Thing], settings: BoxSettings, picture: Picture) -> list[Box]:
    if things and picture.turned:
        raise CellError(
            "of a picture that EXIF turns",
            f"{len(things)} boxes, of the stored or of the upright picture",
            "expected it saved upright (PIL.ImageOps.exif_transpose), with the boxes of that",
        )
    return [_box(thing, settings, picture) for thing in things]


def _box(thing: Thing, settings: BoxSettings, picture: Picture) -> Box:
    left, top, right, bottom = thing.numbers
    given = "xyxy" if thing.corners else settings.given
    if given == "xywh":
        right, bottom = left + right, top + bottom
    said = f"{[*thing.numbers]} ({given}, {settings.unit}, data.boxes)"
    if not (right > left and bottom > top):
        raise CellError("without a size", said, "expected a width and a height above 0")
    size = picture.width, picture.height
    across, down = (_UNITS[settings.unit],) * 2 if settings.unit in _UNITS else size
    box = Box(
        _label(thing.label, settings), left / across, top / down, right / across, bottom / down
    )
    return _within(box, said, picture)


def _within(box: Box, said: str, picture: Picture) -> Box:
    """Cut off what is outside the picture by a pixel at most."""
    x, y = 1 / picture.width, 1 / picture.height
    inside = Box(
        box.label, max(box.left, 0), max(box.top, 0), min(box.right, 1), min(box.bottom, 1)
    )
    out = box.left < -x or box.top < -y or box.right > 1 + x or box.bottom > 1 + y
    if out or not (inside.right > inside.left and inside.bottom > inside.top):
        found = f"{said} in {picture.width} x {picture.height}"
        advice = "expected it inside; data.boxes.given and .unit say how boxes are given"
        raise CellError("outside the picture", found, advice)
    return inside


def _label(label: Any, settings: BoxSettings) -> str:
    names = settings.labels
    number = isinstance(label, (int, float)) and not isinstance(label, bool)
    if names and number:
        if label not in range(len(names)):
            what = f"{shown(label)} ({len(names)} names)"
            raise CellError(
                "of a class without a name", what, "expected data.boxes.labels to have it"
            )
        return names[int(label)]
    text = unmarked(spoken(label, label, _LABEL))
    if settings.write == "loc" and (SEPARATOR in text or "<" in text):
        advice = f"expected a label without {SEPARATOR} and <; data.boxes.write: json takes it"
        raise CellError("with a label that can't be written", shown(text), advice)
    return text


def _plain(value: Any) -> Any:
    """Return a list instead of an array."""
    return value.tolist() if hasattr(value, "tolist") else value
