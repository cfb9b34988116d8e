"""A record is written last, by rename; a folder may move; damage is told, not guessed at."""

from pathlib import Path
from typing import Any

import pytest

from vlm_ops.artifacts import AnswerSet, ModelRef, PreferencePairs, PreparedData
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import OutputError
from vlm_ops.store.artifact import RECORD, read_record, write_record
from vlm_ops.store.fingerprint import fingerprint


def pairs(folder: Path, **changes: Any) -> PreferencePairs:
    values: dict[str, Any] = {
        "fingerprint": "f",
        "content": "c",
        "seconds": 1.5,
        "folder": folder,
        "train": 3,
        "validation": 1,
        "images": Path("../prepare-0"),
        "source": "sampled",
    }
    return PreferencePairs(**values | changes)


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_record(pairs(tmp_path))
    assert read_record(tmp_path, PreferencePairs) == pairs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


def test_a_folder_without_record_is_not_complete(tmp_path: Path) -> None:
    assert read_record(tmp_path, PreferencePairs) is None
    assert read_record(tmp_path / "nowhere", PreferencePairs) is None
    (tmp_path / "record.tmp").write_text("{")
    assert read_record(tmp_path, PreferencePairs) is None


def test_a_record_holds_no_path_of_its_own_and_moves_with_its_folder(tmp_path: Path) -> None:
    here = tmp_path / "here" / "pairs-0"
    here.mkdir(parents=True)
    write_record(pairs(here))
    assert str(tmp_path) not in (here / RECORD).read_text()
    moved = (tmp_path / "here").rename(tmp_path / "there") / "pairs-0"
    found = read_record(moved, PreferencePairs)
    assert found is not None
    (moved.parent / "prepare-0").mkdir()
    assert found.image_path("a.png").resolve() == moved.parent / "prepare-0" / "a.png"


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"{}", b"[]", b"null", b"\xff\xfe", b'{"content": 1}'],
    ids=lambda damage: damage.decode("latin-1") or "empty",
)
def test_a_damaged_record_is_named_and_says_what_to_do(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / RECORD).write_bytes(damage)
    with pytest.raises(OutputError, match=r"(?s)record\.json: not a record of PreparedData.*Move"):
        read_record(tmp_path, PreparedData)


def test_another_step_s_record_is_refused(tmp_path: Path) -> None:
    write_record(pairs(tmp_path))
    with pytest.raises(OutputError, match="not a record of AnswerSet"):
        read_record(tmp_path, AnswerSet)


def test_a_record_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"record\.json: can't be written"):
        write_record(pairs(tmp_path / "gone"))


def test_a_model_is_the_same_wherever_its_files_lie() -> None:
    def ref(**settings: Any) -> ModelRef:
        return ModelRef(settings=ModelSettings(**settings), base_sha256="b")

    here = ref(id="tiny")
    assert here.content == ref(id="elsewhere/tiny", revision="1234567").content
    assert here.content != ref(id="tiny", quantization="none").content
    adapted = here.model_copy(update={"adapter": Path("a"), "adapter_sha256": "x"})
    moved = here.model_copy(update={"adapter": Path("b"), "adapter_sha256": "x"})
    assert adapted.content == moved.content != here.content


def test_a_prompt_makes_another_model_and_none_leaves_the_hash_alone() -> None:
    bare = ModelRef(settings=ModelSettings(), base_sha256="b")
    form = ModelSettings().model_dump(exclude={"id", "revision"})
    assert bare.content == fingerprint([form, "b", None])
    assert bare.asked("What {color}?") == "What {color}?"
    told = bare.model_copy(update={"prompt": "Q: {question} {json}\nBriefly."})
    assert told.content != bare.content
    assert told.asked("What {question}?") == "Q: What {question}? {json}\nBriefly."
    assert ModelRef.model_validate_json(told.model_dump_json()) == told
