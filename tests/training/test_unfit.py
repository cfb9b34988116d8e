"""GPUs that a training asks for are counted where it works."""

import pytest

from vlm_ops.config.execution import ExecutionSettings
from vlm_ops.config.load import load_config
from vlm_ops.models import ground
from vlm_ops.models.ground import Gpu
from vlm_ops.models.shape import shape_of
from vlm_ops.training.unfit import unfit_gpus


def test_gpus_of_this_machine_say_nothing_of_ray_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "gpus", lambda: (Gpu("0", "a"),))
    config = load_config("demo", [])
    here = ExecutionSettings(gpus=4)
    away = ExecutionSettings(gpus=4, where="ray", store="file:///mnt/share")
    shape = shape_of(config.model)
    (problem,) = unfit_gpus(config.model_copy(update={"execution": here}), shape)
    assert "execution.gpus 4: 1 visible here" in problem
    assert not unfit_gpus(config.model_copy(update={"execution": away}), shape)
