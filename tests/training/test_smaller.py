"""A training that the kernel killed for its memory begins with smaller forward passes."""

import logging
from pathlib import Path

import pytest
from test_sft import job

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.training import SftSettings
from vlm_ops.errors import MemoryRanOut, TrainingError
from vlm_ops.store.fits import kept
from vlm_ops.tracker import NullTracker
from vlm_ops.training import memory, sft
from vlm_ops.training.memory import begin, less
from vlm_ops.training.ranks import Ranks
from vlm_ops.watched import OUT_OF_MEMORY

pytestmark = pytest.mark.usefixtures("sigterm_given_back")

ASKED = SftSettings(batch_size=8, accumulation=2)


def test_each_time_it_is_killed_it_takes_half_until_there_is_no_less(tmp_path: Path) -> None:
    assert begin(ASKED, tmp_path) == ASKED
    for size, passes in ((4, 4), (2, 8), (1, 16)):
        (tmp_path / OUT_OF_MEMORY).touch()
        for _ in range(2):  # that it was killed counts once, what it came to is remembered
            found = begin(ASKED, tmp_path)
            assert (found.batch_size, found.accumulation) == (size, passes)
    (tmp_path / OUT_OF_MEMORY).touch()
    with pytest.raises(TrainingError, match=r"one row in a forward pass: the kernel killed"):
        begin(ASKED, tmp_path)
    assert begin(ASKED, tmp_path).batch_size == 1


@pytest.mark.parametrize(
    "left", ["", "[]", '{"batch_size": 0}', '{"batch_size": 3}', '{"rows": 1}']
)
def test_a_size_that_is_none_is_not_taken(tmp_path: Path, left: str) -> None:
    (tmp_path / "micro-batch.json").write_text(left)
    assert begin(ASKED, tmp_path) == ASKED


def test_one_of_several_processes_has_all_begin_anew_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "here", lambda: Ranks(number=1, count=2))
    with pytest.raises(MemoryRanOut, match="memory ran out in process 1 of 2; the training goes"):
        less(ASKED, MemoryError("no room"), tmp_path)
    assert kept(tmp_path) == 4


@pytest.mark.slow
def test_a_training_keeps_its_steps_and_takes_more_passes(
    random_base: Path, squares: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / OUT_OF_MEMORY).touch()
    caplog.set_level(logging.INFO)
    settings = job(random_base, max_steps=2, evaluations=1)
    artifact = sft.train_sft(settings, data=squares, out=tmp_path, tracker=NullTracker())
    assert artifact.steps == 2
    assert "with 8 rows in a forward pass; going on with 4 and 2 passes a step" in caplog.text
    assert not (tmp_path / OUT_OF_MEMORY).exists()
