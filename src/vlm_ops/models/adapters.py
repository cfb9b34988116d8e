"""Adapters: low-rank matrices beside frozen weights, in the towers that were asked for."""

import re
from collections.abc import Sequence
from typing import Any, cast

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from vlm_ops.config.training import ALL_LINEAR, LoraSettings
from vlm_ops.errors import ModelError
from vlm_ops.models.families import family_of
from vlm_ops.store.names import nearest


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
        ModelError: No layer of the model matches.
    """
    if settings.modules == (ALL_LINEAR,):
        family = family_of(model.config.model_type)
        inside = [f"{family.towers[tower]}." for tower in settings.towers]
        settings = settings.model_copy(update={"modules": _linear_names(model, inside)})
    pattern = target_pattern(settings, model.config.model_type)
    layers = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    if not layers:
        linear = _linear_names(model)
        asked = [name + nearest(name, [*linear, ALL_LINEAR]) for name in settings.modules]
        raise ModelError(
            f"sft.lora: no layer is named {', '.join(asked)} in the towers "
            f"{', '.join(settings.towers)}. Linear layers of this model: {', '.join(linear)}"
        )
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


def _linear_names(model: PreTrainedModel, towers: Sequence[str] = ("",)) -> tuple[str, ...]:
    """Name the linear layers whose path begins so, without their paths; quantised ones are some."""
    linear = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(tuple(towers))
    }
    return tuple(sorted(linear))


def add_adapter(model: PreTrainedModel, settings: LoraSettings) -> PeftModel:
    """Freeze a model and put a fresh adapter on it: B is zero, so it computes the same."""
    # get_peft_model is typed for text models only.
    return cast(PeftModel, get_peft_model(cast(Any, model), lora_config(settings, model)))


def bare(model: Any) -> Any:
    """Return a model without its adapter's wrapper; one that has none as it is."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def trainable_parameters(model: nn.Module) -> int:
    """Count the parameters that training will change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
