"""The GPU proof: its small form runs here; of the true shapes, sizes and tokens are counted."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import engine_worker
import gpu
import gpu_worker
import pytest
import torch
from engine import Run
from engine_worker import base_of, lora_of
from gpu_parts import BAR_GB, FULL, RECIPES, TINY, Part
from PIL import Image
from published import PARAMETERS
from shapes import SIZES, config_of, processor_of, write_base
from transformers.models.auto.modeling_auto import AutoModelForImageTextToText
from work import settings_of

from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ModelSettings
from vlm_ops.models.generation import Sampling, generate
from vlm_ops.models.loading import base_ref, load
from vlm_ops.records import as_chat
from vlm_ops.store.fingerprint import sha256_file

SCRIPT = Path(gpu.__file__)


@pytest.mark.slow
def test_the_small_form_measures_every_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.main(["--small", "--out", str(tmp_path)])
    done = capsys.readouterr()
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [part["name"] for part in report["parts"]] == [part.name for part in TINY]
    for part in report["parts"]:
        assert (part["status"], part["why"]) == ("measured", "")
        assert part["times"] > 0
        assert len(part["ratios"]) == part["pairs"]
        assert (part["quantization"], part["tokens_image"]) == ("nf4", 64)
        assert f"{part['name']}, at most" in done.err
    sft, dpo, answers, samples = report["parts"]
    assert sft["engine_check"].startswith("agrees with")
    assert dpo["engine_check"].startswith("agrees with")
    assert "same_as_ours" in answers["runs"][-1] | answers["runs"][-2]
    assert {run["answers"] for run in samples["runs"]} == {6}
    if not torch.cuda.is_available():
        assert (report["card"], sft["bar"]["met"]) == (None, None)
        assert "peak memory below 5.02 GB: not measured" in done.out
    assert (tmp_path / "gpu.md").read_text().strip() in done.out


def test_without_a_card_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "torch sees no NVIDIA card here" in done.stderr
    assert "--small" in done.stderr


@pytest.mark.slow
def test_a_part_that_fails_or_is_late_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "LEAST_S", 0.1)
    parts = (
        Part("sft", "nothing", rows=1),
        Part("answers", "tiny", rows=1, share=0.001),
        Part("weights", "tiny"),
    )
    report = gpu.measure(parts, tmp_path, tmp_path, time.time() + 600)
    failed, late, other = report["parts"]
    assert failed["status"] == late["status"] == "failed"
    assert "its process ended with 1: " in failed["why"]
    assert failed["why"].endswith("KeyError: 'nothing'")
    assert late["why"].startswith("took longer than its")
    assert other["status"] == "measured"
    assert json.loads((tmp_path / "gpu.json").read_text()) == report
    assert "- sft nothing, 1 a pass: failed: " in (tmp_path / "gpu.md").read_text()


def test_parts_without_time_are_named(tmp_path: Path) -> None:
    report = gpu.measure(FULL, tmp_path, tmp_path, time.time() + 1)
    assert {part["status"] for part in report["parts"]} == {"not measured"}
    assert "- sft smolvlm-2.2b, 1 a pass: not measured: only 0 s were left" in gpu.table(report)


def test_what_libraries_print_is_no_finding() -> None:
    found: dict[str, Any] = {"runs": []}
    for line in ("5", "null", '"words"', '{"loss": 1.0}', "[1]", "{'loss': 1.0}"):
        gpu._take(line, found)
    assert found == {"runs": []}
    gpu._take('{"failed": "RuntimeError: of\\ntwo lines"}', found)
    assert found.pop("failed") == "RuntimeError: of\ntwo lines"


def _in_the_hubs_cache(recipe: str, name: str, folder: Path) -> ModelSettings:
    """Put drawn weights where the hub's library keeps a preset's, as if they were fetched."""
    asked = load_config(recipe).model
    kept = folder / f"models--{asked.id.replace('/', '--')}" / "snapshots" / str(asked.revision)
    shutil.copytree(write_base(name, folder), kept)
    return asked


@pytest.mark.slow
def test_every_part_of_the_true_shapes_is_ready_up_to_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One model's weights are in the hub's cache, and the other's are not."""
    drawn, published = RECIPES
    for name in RECIPES:
        monkeypatch.setitem(SIZES, name, SMALLER)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    asked = _in_the_hubs_cache(RECIPES[published], published, tmp_path / "hub")
    for part in FULL:
        run, data = gpu_worker.ready(part, tmp_path)
        lines = [json.loads(line)["about"] for line in capsys.readouterr().out.splitlines()]
        about = {key: value for line in lines for key, value in line.items()}
        is_drawn = part.model == drawn
        assert about["weights"] == ("random" if is_drawn else "published")
        assert (
            str(about.get("not_published", "")).startswith("ServiceError: model.id 'Hu") is is_drawn
        )
        if data is None:
            assert part.task == "weights"
            continue
        assert len(data.rows("train")) == part.rows
        assert (about["quantization"], about["tokens_image"]) == ("nf4", 20)
        base, adapter = base_of(run)
        assert (adapter is not None) is (part.task == "dpo")
        if not is_drawn:
            assert (base.settings.id, base.settings.revision) == (asked.id, asked.revision)
        assert lora_of(run) == load_config(RECIPES[part.model]).sft.lora


@pytest.mark.slow
def test_published_weights_are_trained_and_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = list(RECIPES)[1]
    monkeypatch.setitem(SIZES, published, SMALLER)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    _in_the_hubs_cache(RECIPES[published], published, tmp_path / "hub")
    for task in ("dpo", "answers"):
        part = Part(task, published, rows=2, micro=1, batch=1, pairs=1, max_new_tokens=2)
        gpu_worker.main(part, tmp_path, time.time())
    lines = capsys.readouterr().out.splitlines()
    runs = [found for line in lines if line.startswith('{"side') for found in [json.loads(line)]]
    assert [run["side"] for run in runs] == ["ours", "stock"] * 2
    assert all("error" not in run for run in runs)


@pytest.mark.slow
def test_a_training_of_the_engines_benchmark_leaves_no_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    rows = gpu_worker.drawn_rows(Part("sft", "tiny", rows=2), tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(rooms))
    monkeypatch.setattr(engine_worker, "demo_rows", lambda _: rows)
    run = Run(
        task="sft", engine="packed", model="tiny", shape="charts", rows=2, epochs=1, batch=1,
        micro=1, dtype="float32", folder=str(tmp_path), trial=True,
    )  # fmt: skip
    assert engine_worker.train(run)["seconds"]["of these on images"] > 0
    assert list(rooms.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_sides_answer_in_one_type(random_base: Path, dtype: torch.dtype) -> None:
    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    loaded = load(base_ref(settings))
    model: Any = loaded.model
    model.to(dtype)
    seen: list[torch.dtype | None] = []

    def look(*_: Any) -> None:
        on = torch.is_autocast_enabled("cpu")
        seen.append(torch.get_autocast_dtype("cpu") if on else None)

    model.register_forward_pre_hook(look)
    chats, images = [as_chat("What?", 1)], [[Image.new("RGB", (32, 32))]]
    options = Sampling(max_new_tokens=1, batch_size=1, temperature=0.0, samples=1, seed=0)
    generate(loaded, chats, images, max_new_tokens=1, batch_size=1)
    ours = set(seen)
    seen.clear()
    gpu_worker._stock(loaded, chats, images, options)
    assert set(seen) == ours == {None if dtype == torch.float32 else dtype}


def _run(side: str, pair: int, seconds: float, gb: float) -> dict[str, Any]:
    peaks = {"peak_memory_gb": gb, "peak_memory_loading_gb": gb / 2}
    return {"side": side, "pair": pair, "seconds_a_row": seconds, **peaks}


@pytest.mark.parametrize(("gb", "met"), [(5.01, True), (5.02, False)])
def test_ratios_are_of_pairs_and_the_bar_of_the_highest_peak(gb: float, met: bool) -> None:
    runs = [_run("ours", 0, 1.0, 4.0), _run("stock", 0, 2.0, 9.0), _run("stock", 1, 9.0, 9.0),
            _run("ours", 1, 3.0, gb),
            _run("ours", 2, 1.0, 4.0), _run("stock", 2, 7.0, 9.0)]  # fmt: skip
    found = gpu.summed({"task": "sft", "bar_gb": BAR_GB, "runs": runs}, "")
    assert found["ratios"] == [2.0, 3.0, 7.0]
    assert (found["times"], found["status"]) == (3.0, "measured")
    assert found["ours"] == {"seconds_a_row": 1.0, "peak_memory_gb": 4.0}
    assert found["bar"] == {"below_gb": 5.02, "found_gb": gb, "met": met}


def test_one_side_that_runs_out_of_memory_leaves_the_other() -> None:
    stock = {"side": "stock", "pair": 0, "error": "OutOfMemoryError: CUDA out of memory"}
    asked = {"task": "sft", "bar_gb": BAR_GB, "runs": [_run("ours", 0, 1.0, 4.0), stock]}
    found = gpu.summed(asked, "")
    assert (found["status"], found["times"]) == ("failed", None)
    assert found["why"] == "stock: OutOfMemoryError: CUDA out of memory"
    assert (found["ours"]["seconds_a_row"], found["bar"]["met"]) == (1.0, True)


def test_the_parts_fit_the_recipes() -> None:
    barred = [part for part in FULL if part.bar_gb]
    assert [(part.task, part.model, part.micro) for part in barred] == [("sft", "smolvlm-2.2b", 1)]
    assert all(load_config(recipe).sft.gradient_checkpointing for recipe in RECIPES.values())
    # AdamW's moments are held from the second step on.
    trained = [part for part in FULL if part.task in ("sft", "dpo")]
    assert all(part.rows >= 2 * part.batch for part in trained)


@pytest.mark.parametrize(
    ("name", "parameters", "tokens", "tile"),
    [
        ("smolvlm-2.2b", PARAMETERS["HuggingFaceTB/SmolVLM-Instruct"], 1377, 384),
        ("smolvlm-256m-tiles", 256_484_928, 1088, 512),
    ],
)
def test_the_true_shapes(name: str, parameters: int, tokens: int, tile: int) -> None:
    processor: Any = processor_of(name)
    config = config_of(name, processor)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    edge = SIZES[name]["longest_edge"]
    read = processor(text="<image>What?", images=[Image.new("RGB", (edge, edge))])
    ids = read["input_ids"][0]
    assert ids.count(config.image_token_id) == tokens
    assert torch.as_tensor(read["pixel_values"]).shape == (1, 17, 3, tile, tile)
    # One token for each mark of a tile, as SmolVLM's tokenizer has it.
    assert {processor.tokenizer.convert_tokens_to_ids(f"<row_{n}_col_{n}>") for n in (1, 4)} < {
        *ids
    }


SMALLER: dict[str, Any] = {
    "text": {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1100,
    },
    "vision": {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
    },
    "scale": 2,
    "longest_edge": 64,
}  # fmt: skip


@pytest.mark.slow
def test_drawn_weights_load_as_the_hubs_do_and_are_trained_in_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SIZES, "smaller", SMALLER)
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(rooms))
    part = Part("sft", "smaller", rows=8, micro=1, batch=2, pairs=1)
    gpu_worker.main(Part("weights", "smaller"), tmp_path, time.time())
    gpu_worker.main(part, tmp_path, time.time())
    lines = capsys.readouterr().out.splitlines()  # TRL's own among them
    drawn, about, checked, *runs = (json.loads(line) for line in lines if line.startswith('{"'))
    assert drawn["about"]["weights"] == "random"
    # Two by two tiles and the whole image, four tokens each.
    assert (about["about"]["tokens_image"], about["about"]["image_size"]) == (20, [64, 64])
    assert checked["about"]["engine_check"].startswith("agrees with")
    # No time was left: two steps, and one pair.
    assert checked["about"]["rows"] == 4
    assert [run["side"] for run in runs] == ["ours", "stock"]
    assert all("error" not in run for run in runs)
    # No features of images either, which the next run would have to compute no more.
    assert list(rooms.iterdir()) == []

    weights = tmp_path / "smaller" / "model.safetensors"
    assert weights.is_symlink()
    assert weights.resolve().name == sha256_file(weights)
    model: Any = load(base_ref(settings_of("smaller", tmp_path, "float32"))).model
    values = dict(model.named_parameters())
    assert {name for name, value in values.items() if "norm" in name and not value.any()} == {
        name for name in values if "norm" in name and name.endswith("bias")
    }
    embedded = model.get_input_embeddings().weight
    assert embedded.std().item() == pytest.approx(0.02, rel=0.05)
