"""From settings to a model in memory: found, hashed, quantised, with its adapter.

A model is named by content (:class:`~vlm_ops.artifacts.ModelRef`), so that a hub id, a
folder and the tiny base that ships with the package are one thing afterwards.
"""

import functools
import logging
import pkgutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from peft import PeftModel
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.sections import FRESH, ModelSettings
from vlm_ops.errors import ModelError, OutputError, ServiceError
from vlm_ops.models.ends import with_ends
from vlm_ops.models.families import Family, family_in
from vlm_ops.models.ground import cpu_multiplies_bf16
from vlm_ops.models.identity import TINY, WEIGHT_PATTERNS, base_listing, base_sha256, local_folder
from vlm_ops.models.start import find_start, kept_base, refuse_another_base, start_folder
from vlm_ops.store.files import disk_is_full
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.watched import downloads, moved

if TYPE_CHECKING:
    from vlm_ops.models.features import FeatureStore

logger = logging.getLogger(__name__)

_CANT_QUANTIZE = (ImportError, NotImplementedError)
"""What transformers and bitsandbytes raise where they have no kernels for it."""
OFFLINE_PRESETS = "demo, demo-benchmarks, demo-shuffled"


@dataclass
class LoadedModel:
    """A model ready to be used.

    Attributes:
        model: With the adapter on it, if the reference has one.
        processor: Tokenizer, image processor and chat template.
        ref: What was loaded.
        features: Of images of the store (:class:`~vlm_ops.models.features.FeatureStore`); without
            it they are computed wherever they are shown.
    """

    model: PreTrainedModel | PeftModel
    processor: ProcessorMixin
    ref: ModelRef
    features: "FeatureStore | None" = None


def base_ref(settings: ModelSettings) -> ModelRef:
    """Find a base model and hash its weights, configuration and processor.

    Args:
        settings: What to look for.

    Raises:
        ModelError: There is no such folder or hub id.
        ServiceError: No hub is in reach.
    """
    folder = base_folder(settings)
    listing = base_listing(folder)
    if not any(name.endswith(".safetensors") for name in listing):
        raise ModelError(
            f"model.id {settings.id!r}: no *.safetensors in {folder}; found "
            f"{', '.join(sorted(listing)) or 'nothing'}"
        )
    return ModelRef(settings=_pinned(settings, folder), base_sha256=fingerprint(listing))


def start_ref(settings: ModelSettings) -> ModelRef:
    """Find the model that a training starts at: a base, with the adapter of its ``start``.

    Raises:
        ModelError: One of them is not there, or the adapter is of another base.
    """
    base = base_ref(settings)
    if (start := find_start(settings)) is None:
        return base
    folder = start_folder(settings)
    refuse_another_base(f"the adapter in {folder}", kept_base(folder), base.base_sha256)
    return base.model_copy(update={"adapter": folder, "adapter_sha256": start.adapter_sha256})


def _pinned(settings: ModelSettings, folder: Path) -> ModelSettings:
    """Name the commit that a hub id without a revision came to, so that it can be had again."""
    # What a training starts at is its own affair; many may be made of one base.
    settings = settings.model_copy(update={"start": FRESH, "start_version": None})
    if settings.revision is not None or local_folder(settings) is not None:
        return settings
    return settings.model_copy(update={"revision": folder.name})


def base_folder(settings: ModelSettings, *, weights: bool = True) -> Path:
    """Return the local folder of a base model, fetched from the hub if need be.

    Args:
        settings: What to look for.
        weights: Whether they are fetched too, or configuration and processor alone.

    Raises:
        ModelError: There is no such model or revision, or the hub does not give it to everybody.
        ServiceError: The hub does not answer, or breaks off.
        OutputError: The disk is full.
    """
    if (folder := local_folder(settings)) is not None:
        return folder
    files = [name for name in WEIGHT_PATTERNS if weights or name != "*.safetensors"]
    named = f"model.id {settings.id!r} (revision {settings.revision or 'newest'})"
    try:
        return Path(
            snapshot_download(
                settings.id,
                revision=settings.revision,
                allow_patterns=files,
                tqdm_class=downloads(),
            )
        )
    except HFValidationError as error:
        raise ModelError(
            f"model.id {settings.id!r} is neither {TINY!r}, nor a folder, nor a hub id "
            f"(organisation/name)"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, DisabledRepoError) as error:
        raise ModelError(
            f"{named}: the hub has no such model or revision, or it is private or gated "
            f"({type(error).__name__}). Check the id, sign in with 'hf auth login', or use a "
            f"folder."
        ) from error
    except Exception as error:  # the HTTP library's errors differ between its versions
        if disk_is_full(error):
            raise OutputError(f"{named}: can't be downloaded ({error.strerror})") from error
        said = str(error).partition("\n")[0]
        raise ServiceError(
            f"{named}: not on this machine, and the hub did not give it ({said}, "
            f"{type(error).__name__}). Check the connection and the id, or use a folder. These "
            f"presets work offline: {OFFLINE_PRESETS}."
        ) from error


def load(ref: ModelRef, *, trainable: bool = False) -> LoadedModel:
    """Load a model, on the GPU if there is one.

    Args:
        ref: The base and, if it names one, the adapter; or the whole model made of it.
        trainable: Whether the adapter's weights take gradients; else everything is frozen
            and in evaluation mode.

    Raises:
        ModelError: Files are missing or don't fit together, or the base, or the whole model, is
            not the one that the reference was made of.
    """
    folder = files_of(ref)
    found = base_sha256(folder)
    if ref.weights is not None and found != ref.weights_sha256:
        raise ModelError(
            f"{folder}: expected content {ref.weights_sha256}, found {found}: the trained weights "
            f"were changed since. Bring those files back, or move the folder away to train anew."
        )
    if ref.weights is None and found != ref.base_sha256:
        raise ModelError(
            f"base {ref.settings.id!r} in {folder}: expected content {ref.base_sha256}, found "
            f"{found}: it was changed since. Bring those weights back (a pinned revision keeps a "
            f"hub id from changing), or retrain on these."
        )
    dtype = compute_dtype(ref.settings)
    try:
        processor = processor_in(folder, ref.settings)
        model: PreTrainedModel | PeftModel = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=_quantization(ref.settings, dtype),
            device_map={"": 0} if torch.cuda.is_available() else {"": "cpu"},
        )
        _keep_weights_in_place(model)
        model.register_forward_pre_hook(_tell_of_it)
        if ref.adapter is not None:
            model = PeftModel.from_pretrained(model, ref.adapter, is_trainable=trainable)
    except (OSError, ValueError, KeyError, ImportError, NotImplementedError) as error:
        advice = (
            f" If this device can't quantise to {ref.settings.quantization}, set "
            f"model.quantization: none."
            if ref.settings.quantization != "none" and isinstance(error, _CANT_QUANTIZE)
            else ""
        )
        cause = str(error).rstrip(".")
        raise ModelError(
            f"{ref.adapter or folder}: can't be loaded as a model: {cause}.{advice}"
        ) from error
    model.train(trainable)
    if not trainable:
        model.requires_grad_(False)
    return LoadedModel(model, processor, ref)


def _tell_of_it(*_: Any) -> None:
    """Say before each forward pass that work goes on; each token of an answer is one."""
    moved()


def files_of(ref: ModelRef) -> Path:
    """Return the folder with a model's weights and processor: its own, or its base's.

    Raises:
        ModelError: The base can't be found or fetched.
    """
    return ref.weights or base_folder(ref.settings)


def load_processor(ref: ModelRef) -> ProcessorMixin:
    """Load a model's processor, with the pixel bound of the settings.

    Raises:
        OSError: It has none.
    """
    return processor_in(files_of(ref), ref.settings)


def processor_in(folder: Path, settings: ModelSettings) -> ProcessorMixin:
    """Load the processor that lies in a folder, with the pixel bound of the settings.

    Raises:
        ModelError: The family is not known, makes all images of one size where a bound is asked
            for, or has no chat template.
        OSError: There is none.
    """
    family = family_in(folder)
    options = family.image_options(settings.longest_edge)
    processor = open_processor(folder, family, **options)
    if not getattr(processor, "chat_template", None):
        raise ModelError(
            f"model.id {settings.id!r}: its processor has no chat template, so that nobody knows "
            f"how it is asked; take the model's instruct version, or put a chat_template.jinja "
            f"into its folder"
        )
    return processor


def open_processor(folder: Path, family: Family, **options: Any) -> ProcessorMixin:
    """Load the processor that lies in a folder, made fit for training.

    Raises:
        ModelError: Its chat template can't write an answer.
        OSError: There is none.
    """
    processor: ProcessorMixin = AutoProcessor.from_pretrained(folder, **options)
    made_fit = pkgutil.resolve_name(family.processor) if family.processor else with_ends
    fit: ProcessorMixin = made_fit(processor)
    return fit


def compute_dtype(settings: ModelSettings) -> torch.dtype:
    """Choose the type that matrix products run in: bfloat16 only where it is fast.

    Raises:
        ModelError: float16 on a CPU.
    """
    if settings.dtype == "float16" and not torch.cuda.is_available():
        raise ModelError(
            "model.dtype float16 is for GPUs: there is none here, and a CPU takes tens of times "
            "as long for a product as in float32; set model.dtype: auto (predict and chat: "
            "--dtype auto)"
        )
    if settings.dtype == "bfloat16" and not (torch.cuda.is_available() or cpu_multiplies_bf16()):
        logger.warning(
            "model.dtype bfloat16: this CPU has no instructions for it; a product takes %.1f times "
            "as long as in float32. model.dtype auto takes float32 here.",
            cost_of_bf16(),
        )
    if settings.dtype != "auto":
        asked: torch.dtype = getattr(torch, settings.dtype)
        return asked
    if torch.cuda.is_available():
        # A GPU before Ampere can emulate bfloat16, several times slower than float16.
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float16
    return torch.bfloat16 if cpu_multiplies_bf16() else torch.float32


@functools.cache
def cost_of_bf16() -> float:
    """Measure how many times as long a matrix product takes in bfloat16 as in float32."""

    def seconds(dtype: torch.dtype) -> float:
        left, right = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        laps = []
        for _ in range(5):
            began = time.perf_counter()
            left @ right
            laps.append(time.perf_counter() - began)
        return min(laps)

    return seconds(torch.bfloat16) / seconds(torch.float32)


def _quantization(settings: ModelSettings, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if settings.quantization == "none":
        return None
    if settings.quantization == "int8":
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_news)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out what bitsandbytes says of every single product in evaluation mode."""
    return "inputs will be cast" not in record.getMessage()


def _keep_weights_in_place(model: torch.nn.Module) -> None:
    """Forbid bitsandbytes to repack 4-bit weights for its CPU kernel.

    In evaluation mode on a CPU with AVX512-BF16, ``Linear4bit.forward`` repacks its weight
    in place. That is lossy, has no backward, and outlives a return to training mode
    (bitsandbytes 0.50, ``nn/modules.py``): one validation pass would ruin the training.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
