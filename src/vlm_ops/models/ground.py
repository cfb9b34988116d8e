"""What computes an answer beside the model: library versions, the dtype, the kind of device.

Light, as :mod:`vlm_ops.models.identity`: a plan is made without torch. So the driver and the CPU's
flags are asked here, and torch, where it computes, is told what was found.
"""

import contextlib
import ctypes
import functools
import os
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal, NamedTuple

from vlm_ops.config.sections import ModelSettings

LIBRARIES = ("bitsandbytes", "peft", "torch", "transformers")
DTYPE = "dtype"
"""Key of the compute dtype in a ground."""

_DRIVER = "libcuda.so.1"
_CAPABILITY_MAJOR = 75
"""``CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR`` of the driver's API."""
_CPU_FLAGS = Path("/proc/cpuinfo")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def ground(settings: ModelSettings) -> dict[str, str]:
    """Return what answers are computed with here: answers of another ground do not compare.

    Args:
        settings: Of the model that is trained; all that are compared with it compute in its dtype.
    """
    versions = {name: version(name) for name in LIBRARIES}
    return {**versions, "device": device(), DTYPE: dtype(settings)}


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """Say what computed answers instead of what computed others; empty if it is the same."""
    return ", ".join(
        f"{key} {theirs.get(key, 'unknown')} instead of {ours.get(key, 'unknown')}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    )


@functools.cache
def version(library: str) -> str:
    """Return a library's version, ``none`` if it is not installed; nothing is imported for it."""
    try:
        return distribution(library).version
    except PackageNotFoundError:
        return "none"


def dtype(settings: ModelSettings) -> Literal["float32", "bfloat16", "float16"]:
    """Return the type that matrix products of a model run in on this machine."""
    if settings.dtype != "auto":
        return settings.dtype
    if device() == "cuda":
        return "bfloat16" if gpu_multiplies_bf16() else "float16"
    return "bfloat16" if cpu_multiplies_bf16() else "float32"


@functools.cache
def device() -> Literal["cpu", "cuda"]:
    """Return the kind of device that a model is loaded to.

    ``cuda`` where torch was built for it and the driver, which heeds ``CUDA_VISIBLE_DEVICES``,
    counts a device.
    """
    return "cuda" if gpus() else "cpu"


class Gpu(NamedTuple):
    """A GPU that this process sees.

    Attributes:
        name: By which ``CUDA_VISIBLE_DEVICES`` names it.
        key: Of the device itself, however it is named: its UUID, where the driver tells it.
    """

    name: str
    key: str


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that torch would see, in its order."""
    try:
        built = distribution("torch").locate_file("torch/lib/libtorch_cuda.so")
        if not Path(str(built)).exists():
            return ()
        driver = ctypes.CDLL(_DRIVER)
    except (PackageNotFoundError, OSError):
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    names = named if any(named) else [str(number) for number in range(count.value)]
    return tuple(Gpu(names[n], _key(driver, n, names[n])) for n in range(count.value))


def _key(driver: ctypes.CDLL, number: int, name: str) -> str:
    uuid = (ctypes.c_ubyte * 16)()
    # The second form tells the parts of a divided device apart.
    for call in ("cuDeviceGetUuid_v2", "cuDeviceGetUuid"):
        with contextlib.suppress(AttributeError):
            if not getattr(driver, call)(ctypes.byref(uuid), ctypes.c_int(number)):
                return bytes(uuid).hex()
    return re.sub(r"\W", "-", name)


@functools.cache
def gpu_multiplies_bf16() -> bool:
    """Whether the first GPU multiplies bfloat16 in hardware: Ampere (8.0) and later.

    Source: ``torch.cuda.is_bf16_supported(including_emulation=False)``.
    """
    driver = ctypes.CDLL(_DRIVER)
    major, gpu = ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(gpu), 0):
        return False
    failed = driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, gpu)
    return not failed and major.value >= 8


@functools.cache
def cpu_multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    try:
        lines = _CPU_FLAGS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux: an x86 that has it is rare there
        return False
    return any(line.startswith("flags") and _BF16_FLAGS & set(line.split()) for line in lines)
