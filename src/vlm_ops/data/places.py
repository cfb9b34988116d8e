"""Where the images and videos of a row stand in its words.

A mark stands for each of them, or none at all: then all come before the first words of the user,
the images first. In a finished row a mark stands for an image; a video has become its frames.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from vlm_ops.records import IMAGE

Picture = TypeVar("Picture")

VIDEO = "<video>"
"""Mark where a video belongs."""
_PLACE = re.compile(f"({re.escape(IMAGE)}|{re.escape(VIDEO)})")
_OUTER = re.compile(rf"\A(?:\s|{_PLACE.pattern})*|(?:\s|{_PLACE.pattern})*\Z")


class Placed(NamedTuple, Generic[Picture]):
    """Words and images of a row.

    Attributes:
        texts: With a mark for each image, or without any.
        images: In the order of their marks; without marks, images and then frames of videos.
    """

    texts: list[str]
    images: tuple[Picture, ...]


def marks_in(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the marks of some texts, in their order."""
    return tuple(mark for text in texts for mark in _PLACE.findall(text))


def words_in(text: str) -> Iterator[str]:
    """Yield what stands between the marks of a text, where it is not blank."""
    return (words for words in _PLACE.split(text)[::2] if words.strip())


def without_outer_marks(text: str) -> str:
    """Return a text without the marks before and after its words."""
    return _OUTER.sub("", text)


def do_not_match(marks: Sequence[str], placed: bool, images: int, videos: int) -> bool:
    """Tell whether marks do not say where each image and video belongs.

    Args:
        marks: All of a row.
        placed: Whether they stand in its words; if not, they say that the images come first, and
            one mark may do so for several images.
        images: How many there are.
        videos: How many there are.
    """
    if not placed and len(marks) <= 1:
        return bool(images + videos) and any(not {IMAGE: images, VIDEO: videos}[m] for m in marks)
    return (marks.count(IMAGE), marks.count(VIDEO)) != (images, videos)


def in_place(
    texts: Sequence[str], images: Sequence[Picture], videos: Sequence[Sequence[Picture]]
) -> Placed[Picture]:
    """Put the frames of videos where these stand.

    Args:
        texts: With marks for all images and videos, or without any.
        images: In the order of their marks.
        videos: The frames of each, in the order of their marks.
    """
    if not marks_in(texts):
        return Placed(list(texts), (*images, *(frame for frames in videos for frame in frames)))
    singles: list[Sequence[Picture]] = [[image] for image in images]
    left = {IMAGE: iter(singles), VIDEO: iter(videos)}
    order: list[Picture] = []

    def shown(mark: re.Match[str]) -> str:
        found = next(left[mark[0]])
        order.extend(found)
        return IMAGE * len(found)

    return Placed([_PLACE.sub(shown, text) for text in texts], tuple(order))
