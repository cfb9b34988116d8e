"""One value, one text, one hash; what has no stable form is refused."""

import enum
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
from pydantic import BaseModel

from vlm_ops.store.fingerprint import (
    canonical_json,
    fingerprint,
    sha256_bytes,
    sha256_file,
    sha256_files,
)


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(enum.StrEnum):
    YES = "yes"


class Settings(BaseModel):
    rate: float = 1.0
    folder: Path = Path("a/b")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (1.0, "1.0"),
        (1e-4, "0.0001"),
        ("é", '"é"'),
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        ((1, [2, ()]), "[1,[2,[]]]"),
        (Path("a/b"), '"a/b"'),
        (PureWindowsPath("a\\b"), '"a/b"'),
        (Color.RED, '"red"'),
        (Level.HIGH, "3"),
        (Word.YES, '"yes"'),
        (Settings(), '{"folder":"a/b","rate":1.0}'),
    ],
)
def test_a_value_has_one_written_form(value: Any, text: str) -> None:
    assert canonical_json(value) == text


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        frozenset(),
        b"bytes",
        object(),
        len,
        lambda: None,
        {1: "number as key"},
        1j,
        range(2),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"deep": [v]}], ids=["bare", "nested"])
def test_what_has_no_stable_form_is_refused(value: Any, wrap: Any) -> None:
    with pytest.raises(TypeError, match=r"no stable form|keys must be text"):
        fingerprint(wrap(value))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        fingerprint({"loss": number})


def test_the_hash_is_the_same_for_ever() -> None:
    """Folders are named by it: another value here would have all that was done done again."""
    assert fingerprint({"a": [1, 2.5, "x", None]}) == sha256_bytes(b'{"a":[1,2.5,"x",null]}')
    assert sha256_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_files_count_by_name_and_content_wherever_they_lie(tmp_path: Path) -> None:
    hashes = []
    for place, content in (("here", b"x"), ("there", b"x"), ("changed", b"y")):
        root = tmp_path / place
        (root / "in").mkdir(parents=True)
        (root / "in" / "a").write_bytes(content)
        (root / "b").write_bytes(b"")
        hashes.append(sha256_files([root / "b", root / "in" / "a"], root))
        assert hashes[-1] == sha256_files([root / "in" / "a", root / "b"], root)
    assert hashes[0] == hashes[1] != hashes[2]
    assert sha256_file(tmp_path / "here" / "in" / "a") == sha256_bytes(b"x")
