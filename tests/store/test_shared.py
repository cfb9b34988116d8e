"""What a machine sends another one finds whole, or not at all; on a disk and in S3."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3 import forget_connections, paths, s3_server

from vlm_ops.errors import ServiceError
from vlm_ops.store.artifact import RECORD
from vlm_ops.store.fingerprint import sha256_bytes, sha256_file
from vlm_ops.store.remote import Remote
from vlm_ops.store.shared import FILES, SharedStore

STEP = "sft-0123456789abcdef"
WEIGHTS = "adapter/adapter_model.safetensors"
MARK = "complete.json"


def always(_: object) -> bool:
    return True


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with s3_server() as variables:
        yield variables


@pytest.fixture(params=["file", "s3"])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    if request.param == "file":
        (tmp_path / "share").mkdir()
        yield f"file://{tmp_path}/share"
        return
    for name, value in request.getfixturevalue("server").items():
        monkeypatch.setenv(name, value)
    forget_connections()
    from s3fs import S3FileSystem

    bucket = f"nights-{sha256_bytes(str(tmp_path).encode())[:12]}"
    S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}/of/a/team"
    forget_connections()


def step(runs: Path, weights: str = "weights", images: tuple[str, ...] = ()) -> Path:
    """A finished step, with what concerns only this machine."""
    folder = runs / STEP
    for name, text in {
        WEIGHTS: weights,
        "report.md": f"about {weights}",
        "twice.md": f"about {weights}",
        "empty.jsonl": "",
        "checkpoints/checkpoint-2/optimizer.pt": "moments",
        "cache/part": "cache",
        "features/0.bin": "features",
        "step.log": "log",
        "request.json": "{}",
        "micro-batch.json": "{}",
        "out-of-memory": "",
        "under-way": "sft",
        ".answers.jsonl.part": "half",
        RECORD: json.dumps({"content": weights}),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (runs / "images").mkdir(exist_ok=True)
    for text in images:
        (runs / "images" / f"{sha256_bytes(text.encode())}.png").write_text(text)
    return folder


def images_of(runs: Path) -> dict[str, Path]:
    return {sha256_file(path): path for path in sorted((runs / "images").glob("*.png"))}


def fetch(
    store: SharedStore, runs: Path, images: Callable[[Path], dict[str, Path]] = lambda _: {}
) -> bool:
    runs.mkdir(exist_ok=True)
    return store.fetch(runs / STEP, images)


SENT = {WEIGHTS, "report.md", "twice.md", "empty.jsonl", RECORD}


def test_a_finished_step_is_found_with_its_images_by_another_machine(
    url: str, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    folder = step(here, images=("one", "two", "three"))
    store = SharedStore(url)
    assert not store.has(STEP)
    assert not fetch(store, there)
    store.send(folder, images_of(here))
    store.send(folder, images_of(here))  # again: nothing is changed by that

    def named(beside: Path) -> dict[str, Path]:
        assert (beside / WEIGHTS).read_text() == "weights"
        assert not (there / STEP / RECORD).exists()
        return {sha: beside / "../images" / path.name for sha, path in images_of(here).items()}

    assert fetch(SharedStore(url), there, named)
    assert paths(there / STEP) == SENT
    for name in SENT:
        assert (there / STEP / name).read_bytes() == (folder / name).read_bytes()
    assert images_of(there).keys() == images_of(here).keys()
    assert {path.name for path in there.iterdir()} == {STEP, "images"}


def test_without_its_list_or_its_record_a_step_is_not_there(url: str, tmp_path: Path) -> None:
    store = SharedStore(url)
    folder = step(tmp_path / "here")
    (folder / RECORD).unlink()
    store.send(folder, {})
    assert not fetch(store, tmp_path / "there")
    store.send(step(tmp_path / "here"), {})
    store.remote.remove(f"{STEP}/{FILES}")
    assert not fetch(store, tmp_path / "there")
    assert not (tmp_path / "there" / STEP).exists()


@pytest.mark.parametrize("damage", [b"wei", b"weighty", None], ids=["cut", "changed", "gone"])
def test_what_is_damaged_is_named_never_used_and_sent_anew(
    url: str, tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    store, folder = SharedStore(url), step(tmp_path / "here")
    store.send(folder, {})
    name = f"{STEP}/{sha256_bytes(b'weights')}"
    if damage is None:
        store.remote.remove(name)
    else:
        store.remote.put(damage, name)
    assert not fetch(store, tmp_path / "there")
    assert f"{url}/{name} is damaged and not used" in caplog.text
    assert not list((tmp_path / "there").iterdir())
    assert not store.has(STEP)
    store.send(folder, {})
    assert fetch(store, tmp_path / "there")


def test_a_damaged_image_is_a_damaged_step(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    store, folder = SharedStore(url), step(here, images=("one",))
    store.send(folder, images_of(here))
    sha256 = sha256_bytes(b"one")
    store.remote.put(b"eno", f"images/{sha256[:2]}/{sha256}")
    assert not fetch(store, there, lambda beside: {sha256: there / "images" / "one.png"})
    assert not (there / STEP).exists()
    store.send(folder, images_of(here))
    assert fetch(store, there, lambda beside: {sha256: there / "images" / "one.png"})
    assert (there / "images" / "one.png").read_text() == "one"


@pytest.mark.parametrize("text", ["", "{", '{"files": {"../../x": {"sha256": "0", "bytes": 1}}}'])
def test_a_list_that_is_none_is_named_and_not_used(
    url: str, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = SharedStore(url)
    store.remote.put(text.encode(), f"{STEP}/{FILES}")
    assert not fetch(store, tmp_path / "there")
    assert f"{STEP}/{FILES} is damaged and not used" in caplog.text


def test_an_interrupted_attempt_gets_the_files_and_its_record_last(
    url: str, tmp_path: Path
) -> None:
    store = SharedStore(url)
    store.send(step(tmp_path / "here"), {})
    attempt = tmp_path / "there" / STEP
    (attempt / "adapter").mkdir(parents=True)
    (attempt / WEIGHTS).write_text("half")
    (attempt / "step.log").write_text("of this machine")
    assert fetch(store, tmp_path / "there")
    assert (attempt / WEIGHTS).read_text() == "weights"
    assert (attempt / "step.log").read_text() == "of this machine"


def test_two_machines_at_once_never_mix_their_files(url: str, tmp_path: Path) -> None:
    """Here with another result each, which is the worst that may be."""
    folders = [step(tmp_path / name, weights=name) for name in ("one", "two")]

    def work(folder: Path) -> None:
        store = SharedStore(url)
        for _ in range(5):
            store.send(folder, {})

    with ThreadPoolExecutor(3) as pool:
        senders = [pool.submit(work, folder) for folder in folders]
        seen = set()
        while True:
            over = all(sender.done() for sender in senders)
            there = tmp_path / f"there-{len(list(tmp_path.iterdir()))}"
            if fetch(SharedStore(url), there):
                weights = (there / STEP / WEIGHTS).read_text()
                assert json.loads((there / STEP / RECORD).read_text()) == {"content": weights}
                assert (there / STEP / "report.md").read_text() == f"about {weights}"
                seen.add(weights)
            if over:
                break
        for sender in senders:
            sender.result()
    assert seen <= {"one", "two"}
    assert seen


def test_what_is_under_way_is_replaced_and_goes_when_the_step_is_done(
    url: str, tmp_path: Path
) -> None:
    store, folder = SharedStore(url), step(tmp_path / "here")
    (folder / RECORD).unlink()
    store.send_unfinished(folder, always)
    shutil.rmtree(folder / "checkpoints" / "checkpoint-2")
    later = folder / "checkpoints" / "checkpoint-4" / "optimizer.pt"
    later.parent.mkdir()
    later.write_text("later moments")
    store.send_unfinished(folder, always)
    place = f"{STEP}/unfinished"
    assert sha256_bytes(b"moments") not in store.remote.sizes(place)
    there = tmp_path / "there" / STEP
    store.fetch_unfinished(there, lambda names: False, MARK)
    assert not there.exists()
    name = later.relative_to(folder).as_posix()
    store.fetch_unfinished(there, lambda names: name in names, MARK)
    assert paths(there) == SENT - {RECORD} | {"checkpoints/checkpoint-4/optimizer.pt"}
    assert not fetch(store, tmp_path / "elsewhere")
    store.send(step(tmp_path / "here"), {})
    assert not store.remote.sizes(place)
    assert fetch(store, tmp_path / "elsewhere")


def checkpoint(runs: Path, number: int) -> Path:
    """A training that is under way on a machine of its own, with one checkpoint."""
    folder = runs / STEP
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    place = folder / "checkpoints" / f"checkpoint-{number}"
    place.mkdir(parents=True)
    (place / MARK).write_text(f"{number}")
    for part in ("optimizer.pt", "weights"):
        (place / part).write_text(f"{part} of {runs.name}, step {number}")
    return folder


def test_two_machines_at_one_training_leave_each_others_files(url: str, tmp_path: Path) -> None:
    ours, theirs = SharedStore(url), SharedStore(url)
    one, two = tmp_path / "one", tmp_path / "two"
    ours.send_unfinished(checkpoint(one, 2), always)
    theirs.send_unfinished(checkpoint(two, 4), always)
    place = f"{STEP}/unfinished"
    of_two = {sha256_file(file) for file in (two / STEP).rglob("*") if file.is_file()}
    # The first one is behind by now.
    ours.send_unfinished(checkpoint(one, 3), lambda names: not any("-4/" in n for n in names))
    assert of_two < theirs.remote.sizes(place).keys()
    ours.send_unfinished(checkpoint(one, 6), always)
    assert of_two < theirs.remote.sizes(place).keys()
    assert sha256_bytes(b"weights of one, step 2") not in theirs.remote.sizes(place)
    there = tmp_path / "there" / STEP
    ours.fetch_unfinished(there, always, MARK)
    assert paths(there) == paths(one / STEP)


def test_what_is_fetched_in_part_does_not_count(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark that came before its files would have them thrown away as damaged."""
    store, there = SharedStore(url), tmp_path / "there" / STEP
    store.send_unfinished(checkpoint(tmp_path / "here", 2), always)
    weights, get = f"/{sha256_bytes(b'weights of here, step 2')}", Remote.get

    def cut_off(remote: Remote, name: str, target: Path) -> bool:
        if name.endswith(weights):
            raise KeyboardInterrupt
        return get(remote, name, target)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "get", cut_off)
        with pytest.raises(KeyboardInterrupt):
            store.fetch_unfinished(there, always, MARK)
    assert not list(there.rglob(MARK))
    store.fetch_unfinished(there, always, MARK)
    assert (there / "checkpoints" / "checkpoint-2" / MARK).read_text() == "2"


def test_a_file_of_many_pieces_arrives(url: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as handle:
        for number in range(40):
            handle.write(bytes([number]) * 2**20)
    remote = Remote(url)
    remote.put(large, "a/large")
    assert remote.sizes("a") == {"large": 40 * 2**20}
    assert remote.get("a/large", tmp_path / "back")
    assert sha256_file(tmp_path / "back") == sha256_file(large)


def test_whoever_may_use_the_folder_may_use_what_is_new_in_it(tmp_path: Path) -> None:
    """Machines write under other users; a step that is made anew replaces the former one."""
    root = tmp_path / "share"
    root.mkdir()
    root.chmod(0o2775)
    SharedStore(f"file://{root}").send(step(tmp_path / "here"), {})
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o7777 == (0o2775 if path.is_dir() else 0o664), path


AS_ANOTHER = """
import os, sys
import fsspec.core, fsspec.implementations.local
from pathlib import Path
from vlm_ops.store.shared import SharedStore
url, runs = sys.argv[1], Path(sys.argv[2])
if os.geteuid() == 0:  # only now: the interpreter may lie where nobody else may look
    os.setgroups([]); os.setgid(12345); os.setuid(12345)
store = SharedStore(url)
(runs / "sft-0123456789abcdef").mkdir()
assert store.fetch(runs / "sft-0123456789abcdef", lambda beside: {})
(runs / "sft-0123456789abcdef").rename(runs / "sft-1111111111111111")
store.send(runs / "sft-1111111111111111", {})
store.send_unfinished(runs / "sft-0000000000000000", lambda names: True)
"""


def test_machines_may_work_under_several_users(tmp_path: Path) -> None:
    """The second one is another user where the test may choose; what it sends is found, too."""
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        share, runs = Path(place, "share"), Path(place, "runs")
        for folder in (Path(place), share, runs):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)
        url = f"file://{share}"
        SharedStore(url).send(step(tmp_path / "here"), {})
        done = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER, url, runs],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        theirs = tmp_path / "there" / "sft-1111111111111111"
        assert SharedStore(url).fetch(theirs, lambda _: {})
        assert (theirs / WEIGHTS).read_text() == "weights"


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="no such folder; mount it, or make it"):
        SharedStore(f"file://{tmp_path}/share").has(STEP)
    assert not os.path.lexists(tmp_path / "share")
