"""Only what is complete is gone on from, and nothing is saved before it was scored."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vlm_ops.training.checkpoints import COMPLETE, CompleteCheckpoints, newest_complete


class Saver:
    """Stands for transformers' trainer: saving makes a folder."""

    def __init__(self, out: Path, step: int, scored: tuple[int, ...]) -> None:
        self.args = SimpleNamespace(output_dir=str(out), eval_steps=10)
        history = [{"step": done, "eval_loss": 1.0} for done in scored]
        self.state = SimpleNamespace(global_step=step, max_steps=25, log_history=history)
        self.control = SimpleNamespace(should_save=False)
        self.marked_while_saving: bool | None = None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(exist_ok=True)
        self.marked_while_saving = (folder / COMPLETE).exists()


class Trainer(CompleteCheckpoints, Saver):
    """As the real trainers are built."""


def save(out: Path, step: int, *scored: int) -> Trainer:
    trainer = Trainer(out, step, scored)
    trainer._save_checkpoint(None, None)
    return trainer


def test_the_newest_complete_one_is_gone_on_from_and_the_rest_removed(tmp_path: Path) -> None:
    assert newest_complete(tmp_path) is None
    save(tmp_path, 9)
    save(tmp_path, 10, 0, 10)
    (tmp_path / "checkpoint-20").mkdir()
    (tmp_path / "checkpoint-notes").mkdir()
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-10"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint-9", "checkpoint-10", "checkpoint-notes"}


def test_a_step_whose_validation_is_due_is_saved_after_it(tmp_path: Path) -> None:
    for step in (20, 25):
        early = save(tmp_path, step, 0, 10)
        assert early.control.should_save
        assert newest_complete(tmp_path) is None
    scored = save(tmp_path, 20, 0, 10, 20)
    assert not scored.control.should_save
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-20"


def test_a_checkpoint_that_is_written_again_is_not_complete_meanwhile(tmp_path: Path) -> None:
    save(tmp_path, 10, 10)
    assert save(tmp_path, 10, 10).marked_while_saving is False
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-10"
