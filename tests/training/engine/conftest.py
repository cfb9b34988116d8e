"""Shared by the engine's tests: sums in one order, and a model to prefer with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from trainings import sft_job

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.tracker import NullTracker
from vlm_ops.training.sft import train_sft


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are made in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def start(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> TrainedAdapter:
    """An SFT model to prefer with."""
    out = tmp_path_factory.mktemp("start")
    job = sft_job(random_base, max_steps=2, evaluations=1)
    return train_sft(job, data=squares, out=out, tracker=NullTracker())
