"""The model card of an exported model: what it is, how it is asked, how good it was found."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from huggingface_hub import ModelCardData

from vlm_ops.config.sections import ModelSettings
from vlm_ops.evaluation.words import scored, spread, titled
from vlm_ops.model_ref import ModelRef
from vlm_ops.models.identity import local_folder
from vlm_ops.records import BARE_QUESTION, Score
from vlm_ops.serving.agreement import Agreement
from vlm_ops.store.fingerprint import SHORT

if TYPE_CHECKING:
    from vlm_ops.registry.judgement import Details
    from vlm_ops.registry.story import Story

Form = Literal["merged", "adapter"]
TAG = "vlm-ops"
"""Of the hub, on every exported model."""
_STAGES = ("sft", "prefer")
_STAGE_NAMES = {"sft": "Supervised fine-tuning", "prefer": "Preference optimization"}
_TASK = "image-text-to-text"

_LOADING: dict[Form, str] = {
    "merged": 'model = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")',
    "adapter": """\
base = AutoModelForImageTextToText.from_pretrained({base!r}{revision}, dtype="auto")
model = PeftModel.from_pretrained(base, folder)""",
}
_USE = """\
```python
{imports}

folder = "."  # where this file lies
{loading}
processor = AutoProcessor.from_pretrained(folder)
asked = [{{"role": "user", "content": [
    {{"type": "image", "path": "picture.png"}},
    {{"type": "text", "text": "What color is it?"}},
]}}]
inputs = processor.apply_chat_template(
    asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    processor_kwargs={{"add_special_tokens": False}},
)
answer = model.generate(**inputs, max_new_tokens=32, do_sample=False)
print(processor.decode(answer[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
```"""


def is_on_hub(base: ModelSettings) -> bool:
    """Tell whether a base is named by a hub id."""
    return local_folder(base) is None and "/" in base.id and not Path(base.id).is_absolute()


def base_name(base: ModelSettings) -> str:
    """Return a base's hub id, or the name that it has among people; a path means nothing there."""
    return base.id if is_on_hub(base) else Path(base.id).name


def card(
    model: ModelRef,
    base: ModelSettings,
    form: Form,
    agreement: Agreement,
    story: "Story | None",
) -> str:
    """Write the model card in Markdown, with the front matter that the hub reads.

    Args:
        model: That was exported.
        base: As it was named where the model was trained.
        form: Of the export.
        agreement: What the check found.
        story: What the registry knows of the model; of one that is not registered little is said.
    """
    title = f"{story.name}, version {story.version}" if story else f"{base_name(base)}, fine-tuned"
    details = story.details if story is not None else None
    parts = [
        f"---\n{_front_matter(base, form)}\n---",
        f"# {title}",
        _origin(model, base, form),
        "## How it is asked",
        _asked(model, base, form),
        *(_story(details) if details is not None else [_UNTOLD]),
        "## The export",
        _checked(model, agreement),
        "## Limits",
        _limits(model, form, measured=details is not None),
    ]
    return "\n\n".join(parts) + "\n"


_UNTOLD = (
    "What it was trained on and how good it is stands in no registry: this model was exported "
    "from a folder."
)


def _front_matter(base: ModelSettings, form: Form) -> str:
    relation = "adapter" if form == "adapter" else "finetune"
    named: dict[str, Any] = {}
    if is_on_hub(base):
        named = {"base_model": base.id, "base_model_relation": relation}
    data = ModelCardData(
        library_name="peft" if form == "adapter" else "transformers",
        pipeline_tag=_TASK,
        tags=[TAG, relation],
        **named,
    )
    return str(data.to_yaml()).strip()


def _origin(model: ModelRef, base: ModelSettings, form: Form) -> str:
    revision = f" at revision `{base.revision}`" if base.revision and is_on_hub(base) else ""
    what = {
        "merged": "Whole weights, the adapter merged into the base as it is stored",
        "adapter": "A PEFT adapter, to be loaded on its base",
    }[form]
    if model.adapter is None:
        what = "Whole weights"
    return (
        f"{what}. The base is `{base_name(base)}`{revision}, content "
        f"`{model.base_sha256[:SHORT]}`. Licence: see the base; no other is known here."
    )


def _asked(model: ModelRef, base: ModelSettings, form: Form) -> str:
    around = (
        "It is asked the question as it stands."
        if model.prompt == BARE_QUESTION
        else f"It was trained with the prompt below around each question. The chat template puts "
        f"it there, around the user's last text: ask the bare question.\n\n"
        f"```\n{model.prompt}\n```"
    )
    classes = ["AutoModelForImageTextToText", "AutoProcessor"]
    imports = f"from transformers import {', '.join(classes)}"
    if form == "adapter":
        imports = f"from peft import PeftModel\n{imports}"
    revision = f", revision={base.revision!r}" if base.revision and is_on_hub(base) else ""
    where = base.id if is_on_hub(base) else f"path/to/{base_name(base)}"
    loading = _LOADING[form].format(base=where, revision=revision)
    special = (
        "No special token is added to what the chat template writes (`add_special_tokens`), as in "
        "training."
    )
    return "\n\n".join([around, _USE.format(imports=imports, loading=loading), special])


def _story(details: "Details") -> Iterator[str]:
    """Yield what the registry knows: data, training, scores, verdict."""
    yield "## Data"
    yield _data(details.data)
    yield "## Training"
    yield _training(details.config)
    yield "## Scores"
    yield _scores(details.evaluation)
    yield "## The gate"
    judgement = details.judgement
    yield f"Against {judgement.against}: **{judgement.verdict.word}**."
    yield judgement.reasons


def _data(data: dict[str, Any]) -> str:
    rows = [f"{split} {found['rows']}" for split, found in data["splits"].items()]
    return f"{data['source']}. Rows: {', '.join(rows)}. Content `{data['content'][:SHORT]}`."


def _training(config: dict[str, Any]) -> str:
    stages = [stage for stage in config.get("stages", _STAGES) if stage in config]
    parts = [
        f"{_STAGE_NAMES[stage]}:\n\n```yaml\n{yaml.safe_dump(config[stage]).strip()}\n```"
        for stage in stages
    ]
    return "\n\n".join(parts)


def _scores(evaluation: dict[str, Any]) -> str:
    scores = {name: Score.model_validate(found) for name, found in evaluation["scores"].items()}
    lines = [
        f"{titled(scores['candidate'].metric)} on test rows, none of them seen in training:",
        "",
        "| model | score | 95 % interval | rows | images | groups |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in scores.items():
        lines.append(
            f"| {name} | {scored(one.value, one.metric)} | {spread(one)} | {one.n} | "
            f"{one.n_images} | {one.n_groups} |"
        )
    return "\n".join([*lines, "", "This model is `candidate`."])


def _checked(model: ModelRef, agreement: Agreement) -> str:
    told = (
        f"Before it was written it was loaded with transformers and asked {agreement.asked} "
        f"questions: {agreement.same} answers are those of the model that it was made of, both in "
        f"float32 and not quantised."
    )
    if agreement.as_served is not None:
        told += (
            f" In {model.settings.quantization}, as that model is measured and served, "
            f"{agreement.as_served} are the same."
        )
    return told


def _limits(model: ModelRef, form: Form, *, measured: bool) -> str:
    known = ["What it answers to other images and questions than those it was measured on is open."]
    if measured and model.settings.quantization != "none":
        how = model.settings.quantization
        known.append(f"The scores are those of the model in {how}; the export was not scored.")
    if form == "merged" and model.adapter is not None:
        known.append("The merged weights are rounded to the type that the base is stored in.")
    return "\n".join(f"- {line}" for line in known)
