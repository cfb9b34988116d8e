"""How values are named in messages: the nearest right name, and a long one made short."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, among: Iterable[str], cutoff: float = 0.5) -> str:
    """Return `` (did you mean 'train'?)``, or nothing where no name is near.

    Args:
        word: As it was typed.
        among: The names that exist.
        cutoff: How alike they must be, 0..1.
    """
    close = get_close_matches(word, list(among), n=1, cutoff=cutoff)
    return f" (did you mean {close[0]!r}?)" if close else ""


def short(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters on one line; a long one loses its middle."""
    if len(text) > limit:
        half = (limit - 1) // 2
        text = f"{text[:half]}…{text[len(text) - half :]}"
    return "".join(c if c.isprintable() else " " for c in text)
