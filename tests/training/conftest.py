"""Shared by all trainings: a base of fewer layers, sums in one order, a model to prefer with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Idefics3Processor

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.pretraining.architecture import build_config, build_model
from vlm_ops.tracker import NullTracker
from vlm_ops.training.sft import train_sft


@pytest.fixture(scope="session")
def random_base(
    tmp_path_factory: pytest.TempPathFactory, tiny_processor: Idefics3Processor
) -> Path:
    """The tiny architecture with two layers for four: the engine does the last one otherwise."""
    config: Any = build_config(tiny_processor)
    for part in (config.text_config, config.vision_config):
        part.num_hidden_layers = 2
    folder = tmp_path_factory.mktemp("shallow-base")
    build_model(config, seed=0).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


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
    from trainings import sft_job

    out = tmp_path_factory.mktemp("start")
    job = sft_job(random_base, max_steps=2, evaluations=1)
    return train_sft(job, data=squares, out=out, tracker=NullTracker())
