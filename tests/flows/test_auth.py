"""The auth string of a runs folder: one file, its owner's alone."""

import os
import stat
from pathlib import Path

import pytest

from flows.servers import auth
from vlm_ops.errors import OutputError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = auth.ensure(tmp_path)
    finally:
        os.umask(before)
    assert mode(auth.file(tmp_path)) == 0o600
    assert auth.ensure(tmp_path) == auth.read(tmp_path) == made
    assert [path.name for path in tmp_path.iterdir()] == ["auth-string"]
    user, _, password = made.partition(":")
    assert user == "vlm-ops"
    assert len(password) == 32


def test_two_folders_have_two(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert auth.ensure(tmp_path / "a") != auth.ensure(tmp_path / "b")


def test_a_folder_of_the_version_before_has_none_and_gets_one(tmp_path: Path) -> None:
    assert auth.read(tmp_path) is None
    assert auth.read(tmp_path / "none") is None
    assert auth.ensure(tmp_path)


@pytest.mark.parametrize("text", ["", "\n", "no colon", "vlm-ops:", ":p", "ä:ö", "a:b\nc:d"])
def test_what_prefect_could_not_use_is_replaced(text: str, tmp_path: Path) -> None:
    auth.file(tmp_path).write_text(text, encoding="utf-8")
    auth.file(tmp_path).chmod(0o600)
    assert auth.read(tmp_path) is None
    assert auth.ensure(tmp_path).startswith("vlm-ops:")


def test_what_the_user_wrote_there_is_used(tmp_path: Path) -> None:
    auth.file(tmp_path).write_text("me:mine\n")
    auth.file(tmp_path).chmod(0o600)
    assert auth.ensure(tmp_path) == "me:mine"


@pytest.mark.parametrize("rights", [0o644, 0o640, 0o604, 0o666])
def test_what_others_could_read_is_no_secret_any_more(rights: int, tmp_path: Path) -> None:
    first = auth.ensure(tmp_path)
    auth.file(tmp_path).chmod(rights)
    assert auth.ensure(tmp_path) != first
    assert mode(auth.file(tmp_path)) == 0o600


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    auth.file(tmp_path).mkdir()
    with pytest.raises(OutputError, match=r"auth-string can't be read .*--runs"):
        auth.ensure(tmp_path)
