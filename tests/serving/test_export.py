"""An exported model: of every family the same logits, tokens and answers as what it is made of."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings
from vlm_ops.errors import ModelError, OutputError
from vlm_ops.model_ref import ModelRef
from vlm_ops.models import export as files
from vlm_ops.models.adapters import add_adapter
from vlm_ops.models.generation import encode, written
from vlm_ops.models.loading import base_ref, load
from vlm_ops.records import Chat, as_chat
from vlm_ops.serving import agreement
from vlm_ops.serving.agreement import check, fixed_questions
from vlm_ops.serving.export import export
from vlm_ops.store.fingerprint import sha256_file

PROMPT = "Look closely. {question}\nAnswer briefly."
PLAIN: dict[str, Any] = {"quantization": "none", "dtype": "float32"}


def adapted(base: Path, folder: Path, lora: LoraSettings, **settings: Any) -> ModelRef:
    """A base with an adapter that changes what it says."""
    ref = base_ref(ModelSettings(id=str(base), **PLAIN | settings))
    plain: Any = load(ref.model_copy(update={"settings": ModelSettings(id=str(base), **PLAIN)}))
    model = add_adapter(plain.model, lora)
    torch.manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
        if "magnitude" in name:
            weight.data *= 1.1
    model.save_pretrained(str(folder))
    sha256 = sha256_file(folder / "adapter_model.safetensors")
    changes = {"adapter": folder, "adapter_sha256": sha256, "prompt": PROMPT}
    return ref.model_copy(update=changes)


def asked_of(processor: Any, chats: list[Chat], pictures: Any) -> Any:
    return encode(processor, written(processor, chats), pictures)


@pytest.fixture(autouse=True)
def few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(fixed_questions()) == 200
    monkeypatch.setattr(agreement, "MOST_QUESTIONS", 20)


@pytest.fixture(scope="module")
def model(random_base: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return adapted(random_base, tmp_path_factory.mktemp("of") / "adapter", LoraSettings(rank=4))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dora", [False, True])
def test_logits_and_tokens_are_those_of_base_and_adapter(
    family_base: Callable[[str], Path], tmp_path: Path, name: str, dora: bool
) -> None:
    base = family_base(name)
    towers: Any = ("text", "vision")
    lora = LoraSettings(rank=2, towers=towers, modules=("all-linear",), dora=dora, rslora=not dora)
    ref = adapted(base, tmp_path / "adapter", lora)
    files.write_merged(ref, tmp_path / "merged")
    files.write_adapter(ref, "org/base", None, tmp_path / "alone")
    loaded: Any = load(ref)
    asked = fixed_questions()[:2]
    pictures = [one.pictures for one in asked]
    told = [as_chat(ref.asked(one.question), 1) for one in asked]
    expected = asked_of(loaded.processor, told, pictures)
    whole: Any = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    bare: Any = AutoModelForImageTextToText.from_pretrained(base)
    for other, folder in (
        (whole, "merged"),
        (PeftModel.from_pretrained(bare, tmp_path / "alone"), "alone"),
    ):
        processor: Any = AutoProcessor.from_pretrained(tmp_path / folder)
        found = asked_of(processor, [as_chat(one.question, 1) for one in asked], pictures)
        assert found["input_ids"].tolist() == expected["input_ids"].tolist()
        with torch.inference_mode():
            logits = other.eval()(**found).logits - loaded.model(**expected).logits
        assert logits.abs().max() < 1e-3
        # As transformers' own server asks, each picture in its message.
        chat: Any = as_chat(asked[0].question, 1)
        chat[0]["content"][0]["image"] = pictures[0][0]
        alone = processor.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=True,
            processor_kwargs={"add_special_tokens": False},
        )  # fmt: skip
        one = asked_of(loaded.processor, told[:1], pictures[:1])
        assert list(alone["input_ids"][0]) == one["input_ids"][0].tolist()


def test_weights_keep_the_type_of_the_base(model: ModelRef, tmp_path: Path) -> None:
    half: Any = AutoModelForImageTextToText.from_pretrained(model.settings.id)
    half.bfloat16().save_pretrained(tmp_path / "half")
    processor: Any = AutoProcessor.from_pretrained(model.settings.id)
    processor.save_pretrained(tmp_path / "half")
    ref = adapted(tmp_path / "half", tmp_path / "adapter", LoraSettings(rank=2))
    files.write_merged(ref, tmp_path / "out")
    found: Any = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="auto")
    assert {p.dtype for p in found.parameters()} == {torch.bfloat16}
    changed = [n for n, p in found.named_parameters() if not torch.equal(p, half.state_dict()[n])]
    assert changed
    assert all("text_model" in name and "_proj" in name for name in changed)


def test_a_merged_model_appears_with_all_that_is_needed(model: ModelRef, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = export(model, tmp_path / "out", "merged")
    assert done.agreement == (20, 20, None)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json",
        "model.safetensors", "processor_config.json", "tokenizer.json",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    told = (tmp_path / "out/README.md").read_text()
    assert told.startswith("---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\n")
    assert PROMPT in told
    assert "Licence: see the base" in told
    assert str(tmp_path.parent) not in told


def test_of_a_quantised_model_both_agreements_are_told(random_base: Path, tmp_path: Path) -> None:
    ref = adapted(random_base, tmp_path / "a", LoraSettings(rank=4), quantization="nf4")
    done = export(ref, tmp_path / "out", "merged")
    assert done.agreement.same == done.agreement.asked == 20
    assert done.agreement.as_served is not None
    assert f"In nf4, as that model is measured and served, {done.agreement.as_served}" in (
        (tmp_path / "out/README.md").read_text()
    )


def test_a_whole_model_is_exported_as_it_is(
    make_whole_model: Callable[[int], ModelRef], tmp_path: Path
) -> None:
    ref = make_whole_model(5).model_copy(update={"prompt": PROMPT})
    export(ref, tmp_path / "out", "merged")
    assert ref.weights is not None
    weights = "model.safetensors"
    assert sha256_file(tmp_path / "out" / weights) == sha256_file(ref.weights / weights)
    with pytest.raises(ModelError, match="this is a whole model and has no adapter"):
        export(ref, tmp_path / "alone", "adapter")


def test_an_adapter_says_what_its_base_is(random_base: Path, tmp_path: Path) -> None:
    ref = adapted(random_base, tmp_path / "a", LoraSettings(rank=4, dora=True))
    done = export(ref, tmp_path / "out", "adapter")
    dora, unnamed = done.notices
    assert dora == "vLLM loads no DoRA adapter; for vLLM export with --merged"
    assert unnamed.startswith(f"the base {random_base.name!r} has no hub id")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == random_base.name
    assert not (tmp_path / "out/model.safetensors").exists()


def test_the_base_of_a_package_is_named_by_its_hub_id(model: ModelRef, tmp_path: Path) -> None:
    package = tmp_path / "package"
    assert model.adapter is not None
    shutil.copytree(model.settings.id, package / "base")
    shutil.copytree(model.adapter, package / "adapter")
    named = model.settings.model_copy(update={"id": "org/base", "revision": "c" * 40})
    described = model.model_copy(update={"settings": named})
    (package / "model.json").write_text(described.model_dump_json())
    settings = model.settings.model_copy(update={"id": str(package / "base")})
    packed = model.model_copy(update={"settings": settings, "adapter": package / "adapter"})
    assert export(packed, tmp_path / "out", "adapter").notices == ()
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "c" * 40)
    told = (tmp_path / "out/README.md").read_text()
    assert "base_model: org/base\n" in told
    assert f"The base is `org/base` at revision `{'c' * 40}`" in told


def test_another_chat_template_is_found(model: ModelRef, tmp_path: Path) -> None:
    files.write_merged(model, tmp_path / "out")
    assert check(tmp_path / "out", model, fixed_questions(), 8).same == 20
    template = tmp_path / "out/chat_template.jinja"
    template.write_text(template.read_text().replace("Answer briefly", "Answer at length"))
    with pytest.raises(ModelError, match=r"row fixed-0, 'What color .*tokens that are not the"):
        check(tmp_path / "out", model, fixed_questions(), 8)


def test_nothing_appears_where_the_prompt_is_lost(
    model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ask_with", lambda processor, prompt: None)
    with pytest.raises(ModelError, match="its chat template or its pictures are others"):
        export(model, tmp_path / "out", "merged")
    assert list(tmp_path.iterdir()) == []


def test_nothing_appears_where_the_adapter_is_lost(
    model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = model.model_copy(update={"adapter": None, "adapter_sha256": None})
    write = files.write_merged
    monkeypatch.setattr(
        "vlm_ops.serving.export.write_merged", lambda model, into: write(bare, into)
    )
    with pytest.raises(ModelError, match=r"answers \d+ of 20 questions otherwise .* row fixed-"):
        export(model, tmp_path / "out", "merged")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced(model: ModelRef, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    with pytest.raises(OutputError, match="something is there already"):
        export(model, tmp_path / "out", "merged")
    with pytest.raises(OutputError, match="something is there already"):
        export(model, tmp_path / "out/mine", "merged")
    with pytest.raises(OutputError, match="there is no folder"):
        export(model, tmp_path / "no/out", "merged")
