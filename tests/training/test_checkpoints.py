"""Only what is complete and unchanged is gone on from, and nothing is saved before its score."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlm_ops.errors import TrainingError
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.training import checkpoints
from vlm_ops.training.checkpoints import (
    COMPLETE,
    STATE,
    CompleteCheckpoints,
    newest_complete,
    validation_is_due,
)

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "sft": {"learning_rate": 1e-4, "epochs": 1.0, "lora": {"rank": 8, "towers": ["text"]}},
}
WEIGHTS = "adapter/model.safetensors"


class Saver:
    """Stands for transformers' trainer: saving makes a folder."""

    def __init__(self, out: Path, step: int, scored: tuple[int, ...], best: int | None) -> None:
        self.args = SimpleNamespace(output_dir=str(out), eval_steps=10, save_total_limit=3)
        history = [{"step": done, "eval_loss": 1.0} for done in scored]
        self.state = SimpleNamespace(
            global_step=step, max_steps=25, log_history=history, best_global_step=best,
            best_model_checkpoint=None if best is None else str(out / f"checkpoint-{best}"),
        )  # fmt: skip
        self.control = SimpleNamespace(should_save=False)
        self.marked_while_saving: bool | None = None
        self.limit_while_saving: int | None = 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        (folder / WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
        self.marked_while_saving = (folder / COMPLETE).exists()
        self.limit_while_saving = self.args.save_total_limit
        (folder / WEIGHTS).write_bytes(f"weights of step {self.state.global_step}".encode())
        state = {"best_global_step": self.state.best_global_step}
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
        # transformers' mark of a checkpoint on SIGTERM, removed after this method.
        (folder / "checkpoint-is-incomplete.txt").write_text("saving")


class Trainer(CompleteCheckpoints, Saver):
    """As the real trainers are built."""

    settings = SETTINGS


def save(out: Path, step: int, *scored: int, best: int | None = None) -> Trainer:
    trainer = Trainer(out, step, scored, best)
    trainer._save_checkpoint(None, None)
    (out / f"checkpoint-{step}" / "checkpoint-is-incomplete.txt").unlink(missing_ok=True)
    return trainer


def steps(out: Path) -> set[str]:
    return {path.name.removeprefix("checkpoint-") for path in out.iterdir()}


def test_an_older_one_goes_only_when_the_newer_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 10, 15):
        save(tmp_path, step, best=5)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_hashes", killed)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 20, best=20)
    assert newest_complete(tmp_path, SETTINGS) == tmp_path / "checkpoint-15"
    found = save(tmp_path, 20, best=20)
    assert (found.limit_while_saving, found.args.save_total_limit) == (None, 3)
    assert steps(tmp_path) == {"10", "15", "20"}


def killed(folder: Path) -> dict[str, str]:
    raise KeyboardInterrupt


def test_the_newest_complete_one_is_gone_on_from_and_the_rest_removed(tmp_path: Path) -> None:
    assert newest_complete(tmp_path, SETTINGS) is None
    save(tmp_path, 9)
    save(tmp_path, 10, 0, 10)
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / "checkpoint-notes").mkdir()
    assert newest_complete(tmp_path, SETTINGS) == tmp_path / "checkpoint-10"
    assert steps(tmp_path) == {"9", "10", "notes"}


def test_steps_are_compared_as_numbers(tmp_path: Path) -> None:
    for step in (9, 3, 11):
        save(tmp_path, step, 0, 10)
    assert newest_complete(tmp_path, SETTINGS) == tmp_path / "checkpoint-11"


def test_a_validation_is_due_until_its_step_was_scored(tmp_path: Path) -> None:
    for step in (0, 20, 25):
        assert validation_is_due(10, Trainer(tmp_path, step, (5, 10), None).state)
        assert not validation_is_due(10, Trainer(tmp_path, step, (10, step), None).state)
    assert not validation_is_due(10, Trainer(tmp_path, 21, (10,), None).state)


def test_a_checkpoint_that_is_written_again_is_not_complete_meanwhile(tmp_path: Path) -> None:
    save(tmp_path, 10, 10)
    assert save(tmp_path, 10, 10).marked_while_saving is False
    assert newest_complete(tmp_path, SETTINGS) == tmp_path / "checkpoint-10"


def test_the_mark_holds_settings_and_a_hash_of_every_file(tmp_path: Path) -> None:
    save(tmp_path, 10, 10)
    folder = tmp_path / "checkpoint-10"
    mark = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
    assert mark == {
        "settings": SETTINGS,
        "files": {name: sha256_file(folder / name) for name in (WEIGHTS, STATE)},
    }
    assert {path.name for path in folder.iterdir()} == {"adapter", STATE, COMPLETE}


def edit(folder: Path) -> str:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[3] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    return f"was changed since it was written ({WEIGHTS})"


def truncate(folder: Path) -> str:
    (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-1])
    return f"was changed since it was written ({STATE})"


def remove(folder: Path) -> str:
    shutil.rmtree(folder / "adapter")
    return f"was changed since it was written ({WEIGHTS})"


def cut_off(folder: Path) -> str:
    (folder / COMPLETE).unlink()
    return "was cut off while it was written"


def half_a_mark(folder: Path) -> str:
    (folder / COMPLETE).write_text((folder / COMPLETE).read_text()[:40])
    return "was cut off while it was written"


@pytest.mark.parametrize("damage", [edit, truncate, remove, cut_off, half_a_mark])
def test_a_changed_one_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    save(tmp_path, 10, 10)
    save(tmp_path, 20, 10, 20)
    assert newest_complete(tmp_path, SETTINGS) == tmp_path / "checkpoint-20"
    assert caplog.text == ""
    fault = damage(tmp_path / "checkpoint-20")
    assert newest_complete(tmp_path, SETTINGS) == tmp_path / "checkpoint-10"
    assert f"checkpoint-20 {fault}; it is not used" in caplog.text
    assert steps(tmp_path) == {"10"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (SETTINGS | {"seed": 4}, "seed was 3, now 4"),
        (
            SETTINGS | {"sft": {**SETTINGS["sft"], "learning_rate": 1e-3}},
            "sft.learning_rate was 0.0001, now 0.001",
        ),
        (
            SETTINGS
            | {"seed": 4, "sft": {**SETTINGS["sft"], "lora": {"rank": 16, "towers": ["vision"]}}},
            "seed was 3, now 4; sft.lora.rank was 8, now 16; "
            "sft.lora.towers was ['text'], now ['vision']",
        ),
        ({"sft": SETTINGS["sft"]}, "seed was 3, now None"),
    ],
)
def test_other_settings_are_refused_with_old_and_new_value(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    save(tmp_path, 10, 10)
    with pytest.raises(TrainingError) as caught:
        newest_complete(tmp_path, asked)
    message = str(caught.value)
    assert f"checkpoint-10: a checkpoint of another configuration: {said}. Give" in message
    assert f"or move {tmp_path} away" in message
    assert steps(tmp_path) == {"10"}


def test_one_whose_best_checkpoint_was_lost_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 5)
    save(tmp_path, 10, 10, best=10)
    save(tmp_path, 20, 10, 20, best=10)
    assert newest_complete(tmp_path, SETTINGS) == tmp_path / "checkpoint-20"
    edit(tmp_path / "checkpoint-10")
    assert newest_complete(tmp_path, SETTINGS) == tmp_path / "checkpoint-5"
    assert "checkpoint-20 needs the lost checkpoint-10; it is not used" in caplog.text
    shutil.rmtree(tmp_path / "checkpoint-5")
    assert newest_complete(tmp_path, SETTINGS) is None
