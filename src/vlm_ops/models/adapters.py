"""Adapters: low-rank matrices beside frozen weights, in the towers that were asked for."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from vlm_ops.artifacts import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from vlm_ops.config.sections import FRESH, ModelSettings
from vlm_ops.config.training import ALL_LINEAR, LoraSettings
from vlm_ops.errors import ModelError
from vlm_ops.models.families import family_of
from vlm_ops.models.start import kept_base, refuse_another_base, start_folder
from vlm_ops.store.names import nearest

_NOT_OURS = ("rank_pattern", "alpha_pattern", "modules_to_save", "trainable_token_indices")
"""What an adapter of PEFT's may have and is not trained here."""

Stage = Literal["sft", "prefer"]
"""A training that has an adapter's settings."""

Shapes = dict[str, tuple[int, ...]]
"""Of an adapter's tensors, by name in its file."""


def target_pattern(settings: LoraSettings, model_type: str) -> str:
    """Return the pattern of full module names that get an adapter.

    Bare names would match in every tower: ``q_proj`` and ``v_proj`` in SmolVLM's SigLIP are
    995,328 of 2,568,192 parameters at rank 8. So each name is tied to the towers asked for.

    Args:
        settings: Towers and module names, each spelled out.
        model_type: Of the model's config.

    Raises:
        ModelError: The family is unknown.
    """
    towers = family_of(model_type).towers
    prefixes = "|".join(re.escape(towers[tower]) for tower in settings.towers)
    modules = "|".join(re.escape(name) for name in settings.modules)
    return rf"(?:{prefixes})\.(?:.*\.)?(?:{modules})"


def lora_config(settings: LoraSettings, model: PreTrainedModel) -> LoraConfig:
    """Translate settings into PEFT's config for one model.

    Raises:
        ModelError: A name or a tower matches no layer of the model.
    """
    if without := _without_layers(settings, model):
        linear = ", ".join(_linear_names(model))
        raise ModelError(f"sft.lora: {without}. Linear layers of this model: {linear}")
    if settings.modules == (ALL_LINEAR,):
        pattern = _linear_pattern(settings, model)
    else:
        pattern = target_pattern(settings, model.config.model_type)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        target_modules=pattern,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _without_layers(settings: LoraSettings, model: PreTrainedModel) -> str:
    """Say which names and towers match no layer; empty where each of them does."""
    family, every = family_of(model.config.model_type), settings.modules == (ALL_LINEAR,)
    names = [name for name, _ in model.named_modules()]

    def matches(**part: tuple[str, ...]) -> bool:
        pattern = target_pattern(settings.model_copy(update=part), family.model_type)
        return any(re.fullmatch(pattern, name) for name in names)

    lost = [] if every else [name for name in settings.modules if not matches(modules=(name,))]
    if lost:
        there = [*_linear_names(model), ALL_LINEAR]
        asked = ", ".join(name + nearest(name, there) for name in lost)
        return f"no layer is named {asked} in the towers {', '.join(settings.towers)}"
    for tower in settings.towers:
        if every and not _linear_names(model, f"{family.towers[tower]}."):
            return f"the {tower} tower has no linear layer"
        if not every and not matches(towers=(tower,)):
            return f"no layer of the {tower} tower is named {' or '.join(settings.modules)}"
    return ""


def _linear_names(model: PreTrainedModel, inside: str = "") -> tuple[str, ...]:
    """Name the linear layers below a path by its last part; quantised ones are some."""
    return tuple(sorted({path.rsplit(".", 1)[-1] for path in _linear_paths(model, inside)}))


def _linear_pattern(settings: LoraSettings, model: PreTrainedModel) -> str:
    """Return a pattern of the paths of all linear layers in the towers, and of no other layers."""
    towers = family_of(model.config.model_type).towers
    paths = {
        re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(path))
        for tower in settings.towers
        for path in _linear_paths(model, f"{towers[tower]}.")
    }
    return "|".join(sorted(paths))


def _linear_paths(model: PreTrainedModel, inside: str) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(inside)
    ]


def add_adapter(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Freeze a model and put a fresh adapter on it: B is zero, so it computes the same."""
    # get_peft_model is typed for text models only.
    return cast(PeftModel, get_peft_model(cast(Any, model), lora_config(settings, model)))


def adapter_of(
    settings: ModelSettings, lora: LoraSettings, base_sha256: str, stage: Stage
) -> Callable[[PreTrainedModel], PeftModel]:
    """Return what freezes a model and gives it the adapter that is trained.

    Args:
        settings: Their ``start`` is a fresh adapter, or one that is there and trained further.
        lora: What the adapter is, or must be.
        base_sha256: Of the base.
        stage: Whose settings those are.

    Raises:
        ModelError: There is no adapter at the start; what is returned raises it where the adapter
            is of another base, or is another one than ``lora`` says.
    """
    if settings.start == FRESH:
        return lambda model: add_adapter(model, lora)
    folder = start_folder(settings)

    def going_on(model: PreTrainedModel) -> PeftModel:
        make_sure_it_fits(model, folder, lora, base_sha256, stage)
        # With our own config: dropout is the training's, not the adapter's.
        asked = lora_config(lora, model)
        return PeftModel.from_pretrained(cast(Any, model), folder, is_trainable=True, config=asked)

    return going_on


def make_sure_it_fits(
    model: PreTrainedModel,
    folder: Path,
    settings: LoraSettings,
    base_sha256: str | None,
    stage: Stage,
) -> None:
    """Make sure that an adapter can be trained further.

    Args:
        model: The base; the shapes of its layers are enough.
        folder: With the adapter, as PEFT writes it.
        settings: What the adapter must be.
        base_sha256: Of the base; None where its weights are not at hand, and nothing is compared.
        stage: Whose settings those are.

    Raises:
        ModelError: The adapter is of another base, or is another one than the settings say.
    """
    refuse_another_base(f"the adapter in {folder}", kept_base(folder), base_sha256)
    lora = f"{stage}.lora"
    if differences := _differences(model, folder, settings, lora):
        raise ModelError(
            f"model.start: the adapter in {folder} does not fit: {'; '.join(differences)}. Set "
            f"{lora} as the adapter is, or model.start: base for a fresh one"
        )


def _differences(
    model: PreTrainedModel, folder: Path, settings: LoraSettings, section: str
) -> list[str]:
    """Say in what an adapter's files differ from the one that the settings would make."""
    try:
        kept = json.loads((folder / ADAPTER_CONFIG).read_bytes())
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        return [f"it can't be read ({error})"]
    fields = {"rank": "r", "alpha": "lora_alpha", "dora": "use_dora", "rslora": "use_rslora"}
    found = [
        f"{section}.{name} is {asked}, the adapter has {kept.get(field)}"
        for name, field in fields.items()
        if kept.get(field, False) != (asked := getattr(settings, name))
    ]
    found += [f"it has a {name}" for name in _NOT_OURS if kept.get(name)]
    return found or _other_layers(_shapes(model, settings), there, section)


def _shapes(model: PreTrainedModel, settings: LoraSettings) -> Shapes:
    """Return the shapes of the matrices that an adapter would have, by PEFT's names."""
    pattern = str(lora_config(settings, model).target_modules)
    shapes: Shapes = {}
    for name, layer in model.named_modules():
        if re.fullmatch(pattern, name):
            inside: Any = layer
            start = f"base_model.model.{name}"
            shapes[f"{start}.lora_A.weight"] = (settings.rank, inside.in_features)
            shapes[f"{start}.lora_B.weight"] = (inside.out_features, settings.rank)
            if settings.dora:
                shapes[f"{start}.lora_magnitude_vector"] = (inside.out_features,)
    return shapes


def _other_layers(asked: Shapes, there: Shapes, section: str) -> list[str]:
    for words, names in (
        (f"lacks, which {section}.towers and modules name,", asked.keys() - there.keys()),
        (f"has, which {section}.towers and modules do not name,", there.keys() - asked.keys()),
    ):
        if names:
            return [f"it {words} {sorted(names)[0]} ({len(names)} such matrices)"]
    return [
        f"{name} is {there[name]}, this base needs {shape}"
        for name, shape in asked.items()
        if there[name] != shape
    ][:1]


def bare(model: Any) -> Any:
    """Return a model without its adapter's wrapper; one that has none as it is."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def trainable_parameters(model: nn.Module) -> int:
    """Count the parameters that training will change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
