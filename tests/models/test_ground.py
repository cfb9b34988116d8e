"""What computes is told without torch, and is what torch finds too."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_ops.config.sections import ModelSettings
from vlm_ops.models import ground
from vlm_ops.models.loading import compute_dtype


@pytest.fixture
def afresh() -> Iterator[None]:
    """What was found of this machine is forgotten before and after."""
    for found in (ground.device, ground.cpu_multiplies_bf16, ground.gpu_multiplies_bf16):
        found.cache_clear()
    yield
    for found in (ground.device, ground.cpu_multiplies_bf16, ground.gpu_multiplies_bf16):
        found.cache_clear()


def test_it_names_what_computes_here() -> None:
    found = ground.ground(ModelSettings(dtype="float32"))
    assert found.keys() == {
        "bitsandbytes", "peft", "torch", "transformers", "device", "dtype"
    }  # fmt: skip
    assert found["torch"] == torch.__version__.partition("+")[0]
    assert found["dtype"] == "float32"
    assert ground.version("no-such-library") == "none"


def test_torch_finds_the_same_device_and_dtype(afresh: None) -> None:
    assert (ground.device() == "cuda") == torch.cuda.is_available()
    capabilities = torch.cpu.get_capabilities()
    fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    assert ground.cpu_multiplies_bf16() == fast
    for asked in ("auto", "float32", "bfloat16"):
        settings = ModelSettings(dtype=asked)
        assert f"torch.{ground.dtype(settings)}" == str(compute_dtype(settings))


@pytest.mark.parametrize(
    ("flags", "fast"),
    [
        ("flags\t\t: fpu avx512_bf16 x", True),
        ("flags: amx_bf16", True),
        ("flags: avx512_bf16x", False),
        ("Features : bf16", False),
        ("", False),
    ],
)
def test_bfloat16_is_fast_where_the_cpu_says_so(
    flags: str, fast: bool, afresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"model name: avx512_bf16\n{flags}\n")
    monkeypatch.setattr(ground, "_CPU_FLAGS", file)
    monkeypatch.setattr(ground, "device", lambda: "cpu")
    assert ground.cpu_multiplies_bf16() is fast
    assert ground.dtype(ModelSettings()) == ("bfloat16" if fast else "float32")


def test_a_cpu_that_does_not_tell_is_a_slow_one(
    afresh: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground, "_CPU_FLAGS", tmp_path / "none")
    assert not ground.cpu_multiplies_bf16()


def test_nothing_heavy_is_imported_to_tell() -> None:
    script = (
        "import sys; from vlm_ops.config.load import load_config\n"
        "from vlm_ops.steps.table import STEPS\n"
        "assert STEPS['base on test'].job(load_config('demo')).ground['torch']\n"
        "heavy = {'torch', 'transformers', 'peft', 'bitsandbytes'} & sys.modules.keys()\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("major", "expected"), [(7, "float16"), (8, "bfloat16"), (9, "bfloat16")])
def test_a_gpu_that_emulates_bfloat16_takes_float16(
    major: int, expected: str, afresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As T4 and V100, 7.5 and 7.0: both are asked, the driver without torch and torch."""

    class Driver:
        def __getattr__(self, name: str) -> Any:
            return self.attribute if name == "cuDeviceGetAttribute" else lambda *_: 0

        def attribute(self, found: Any, attribute: int, gpu: Any) -> int:
            assert attribute == 75
            found._obj.value = major
            return 0

    monkeypatch.setattr(ground, "device", lambda: "cuda")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or major >= 8,
    )
    settings = ModelSettings(dtype="auto")
    assert ground.dtype(settings) == expected
    assert str(compute_dtype(settings)) == f"torch.{expected}"
