import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from processes import orphans
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
)
from typer.testing import CliRunner

from vlm_ops.charts.draw import draw
from vlm_ops.charts.spec import COLOR_NAMES
from vlm_ops.cli.commands import app
from vlm_ops.errors import TrainingError
from vlm_ops.models.tiny import weights_folder
from vlm_ops.pretraining import stage as tiny
from vlm_ops.pretraining.packing import Packer, pixels
from vlm_ops.pretraining.recipe import TinyRecipe, read_recipe
from vlm_ops.pretraining.scores import HeldOut, held_out_scores, predict
from vlm_ops.pretraining.shards import (
    NO_COLOR,
    Shard,
    Shards,
    color_cells,
    draw_shard,
    read_shard,
    shard_paths,
)
from vlm_ops.pretraining.sight import LESSONS, UNKNOWN, Sight, _by_token, patch_labels
from vlm_ops.pretraining.stage import train_tiny
from vlm_ops.pretraining.synthetic import invent
from vlm_ops.pretraining.tasks import Task, tasks_for
from vlm_ops.pretraining.view import View

RECIPE = TinyRecipe(
    steps=3,
    shards=1,
    shard_charts=24,
    first_shards=1,
    images=2,
    tasks=3,
    warmup_steps=2,
    score_charts=8,
)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Shard:
    return read_shard(draw_shard(tmp_path_factory.mktemp("shard") / "a.npz", "test", 12))


@pytest.fixture(scope="module")
def processor(tiny_processor: Idefics3Processor) -> Idefics3Processor:
    return tiny_processor


@pytest.fixture(scope="module")
def model(random_tiny: Idefics3ForConditionalGeneration) -> Idefics3ForConditionalGeneration:
    return random_tiny


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than these few steps."""
    monkeypatch.setattr("vlm_ops.pretraining.speed.shutil.which", lambda name: None)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's charts, drawn once."""
    folder = tmp_path_factory.mktemp("drawn") / "shards"
    folder.mkdir()
    for path in shard_paths(folder, RECIPE.seed, RECIPE.shards):
        draw_shard(path, f"{RECIPE.seed} {path.stem}", RECIPE.shard_charts)
    return folder


def trained(recipe: TinyRecipe, out: Path, drawn: Path) -> Path:
    """One stage on charts that are there already."""
    shutil.copytree(drawn, out / "shards", dirs_exist_ok=True)
    return train_tiny(recipe, out)


def single(processor: Idefics3Processor, image: Image.Image, task: Task) -> Any:
    """What inference makes of one task, with the target written behind it."""
    row: Any = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": task.prompt}]},
        {"role": "assistant", "content": [{"type": "text", "text": task.target}]},
    ]
    text = processor.apply_chat_template(row)
    return processor(text=[text], images=[[image]], return_tensors="pt")


def test_packed_logits_equal_separate_rows(
    shard: Shard, processor: Idefics3Processor, model: Idefics3ForConditionalGeneration
) -> None:
    rows = [tasks_for(spec, random.Random(i), 4) for i, spec in enumerate(shard.specs[:2])]
    batch = Packer(processor).pack(rows)
    with torch.inference_mode():
        packed, _ = predict(model, batch, shard.images[:2])
        segment = 0
        for spec, row in zip(shard.specs, rows, strict=False):
            for task in row:
                alone = single(processor, draw(spec), task)
                mine = batch.segment == segment
                length = int(mine.sum())
                expected = model(**alone).logits[0, -length - 1 : -1]
                assert alone["input_ids"][0, -length:].tolist() == batch.target[mine].tolist()
                torch.testing.assert_close(packed[mine], expected, atol=2e-5, rtol=1e-4)
                segment += 1


def test_exactly_target_and_end_are_supervised(shard: Shard, processor: Idefics3Processor) -> None:
    rows = [tasks_for(spec, random.Random(1), 3) for spec in shard.specs[:3]]
    batch = Packer(processor).pack(rows)
    for segment, task in enumerate(task for row in rows for task in row):
        text = processor.tokenizer.decode(batch.target[batch.segment == segment])
        assert text == f" {task.target}<end_of_utterance>"


def test_stored_pictures_are_what_the_processor_makes(
    shard: Shard, processor: Idefics3Processor
) -> None:
    made = processor.image_processor([[draw(shard.specs[0])]], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels(torch.from_numpy(shard.images[:1])), made)


def test_specs_survive_the_shard(shard: Shard) -> None:
    assert shard.specs[5] == invent(random.Random("test-5"))


def test_cells_name_the_color_that_stands_there() -> None:
    spec = next(
        spec
        for i in range(99)
        if (spec := invent(random.Random(i))).kind == "pie"
        and not spec.style.hole
        and len(spec.series[0].colors) > 1
    )
    picture = np.asarray(draw(spec, 128))
    cells = color_cells(picture, spec)
    found = {COLOR_NAMES[cell] for cell in np.unique(cells) if cell != NO_COLOR}
    assert found <= set(spec.series[0].colors)
    largest = spec.series[0].colors[int(np.argmax(spec.series[0].values))]
    assert largest in found
    assert cells[0, 0] == NO_COLOR


def test_patches_know_their_mark(shard: Shard) -> None:
    """Each patch of a mark names that mark's color, place and level, or its line's two ends."""
    seen = set()
    for cells, spec in zip(shard.cells, shard.specs, strict=True):
        color, place, level, start, end = patch_labels(cells, spec)
        seen.add(spec.kind)
        assert np.array_equal(color, cells)
        bare = cells == NO_COLOR
        for labels in (place, level, start, end):
            assert (labels[bare] == UNKNOWN).all()
        for cell in np.unique(cells[~bare]):
            here, name = cells == cell, COLOR_NAMES[cell]
            view = View(spec)
            if spec.kind == "line":
                (row,) = (series for series in spec.series if series.colors == (name,))
                assert set(start[here]) == {view.level(row.values[0])}
                assert set(end[here]) == {view.level(row.values[-1])}
                assert set(level[here]) == {UNKNOWN}
            elif view.own_colors:
                i = view.colors.index(name)
                assert set(level[here]) == {view.level(view.values[i])}
                assert set(place[here]) == ({UNKNOWN} if spec.kind == "pie" else {i})
            else:
                assert set(level[here]) == {UNKNOWN}
    assert seen == {"bar", "barh", "line", "pie"}


def test_cell_loss_is_zero_where_tokens_tell_the_color_of_each_patch(
    shard: Shard, processor: Idefics3Processor
) -> None:
    sight = Sight(4 * (NO_COLOR + 1), processor.tokenizer)
    labels = torch.from_numpy(
        np.stack([patch_labels(c, s) for c, s in zip(shard.cells, shard.specs, strict=True)])
    )
    colors = torch.nn.functional.one_hot(torch.from_numpy(shard.cells).long(), NO_COLOR + 1)
    # By hand: picture, row and column of the token, row and column of the patch in it.
    tokens = colors.reshape(-1, 8, 2, 8, 2, NO_COLOR + 1).permute(0, 1, 3, 2, 4, 5).flatten(3)
    tokens = tokens.flatten(0, 2).float()
    with torch.no_grad():
        sight.cell.weight.copy_(50 * torch.eye(4 * (NO_COLOR + 1)))
        sight.cell.bias.zero_()
        right = sight._cell_loss(tokens, _by_token(labels))
        wrong = sight._cell_loss(tokens.roll(1, 0), _by_token(labels))
    assert right < 1e-6 < 0.1 < wrong


def test_words_loss_is_zero_where_tokens_are_their_words(
    shard: Shard, processor: Idefics3Processor
) -> None:
    sight = Sight(16, processor.tokenizer)
    embeddings = torch.zeros(len(processor.tokenizer), 16)
    for i, forms in enumerate(sight.words):
        embeddings[forms, i] = 1.0
    held = torch.rand(64, NO_COLOR + 1) < 0.2
    held[:, NO_COLOR] = False
    tokens = torch.nn.functional.pad(held[:, :NO_COLOR].float(), (0, 16 - NO_COLOR))
    with torch.no_grad():
        sight.scale.fill_(40.0)
        sight.bias.fill_(-20.0)
        right = sight._words_loss(embeddings, tokens, held)
        wrong = sight._words_loss(embeddings, tokens.roll(1, 0), held)
    assert right < 1e-6 < 0.1 < wrong


def test_gaze_is_the_attention_of_the_first_head(
    shard: Shard, processor: Idefics3Processor, random_base: Path
) -> None:
    """As the model itself reports it, summed over the tokens that hold the named color."""
    model = AutoModelForImageTextToText.from_pretrained(
        random_base, attn_implementation="eager"
    ).eval()
    sight = Sight(256, processor.tokenizer)
    spec, cells = shard.specs[0], shard.cells[0]
    color = spec.series[0].colors[0]
    batch = Packer(processor).pack([[Task("occurs", f"any {color}", "+")]])
    labels = torch.from_numpy(patch_labels(cells, spec))[None]
    with torch.inference_mode():
        _, features = predict(model, batch, shard.images[:1])
        gaze = sight(model, batch, features, labels)["gaze"]
        row = single(processor, draw(spec), Task("occurs", f"any {color}", "+"))
        first_head = model(**row, output_attentions=True).attentions[0][0, 0]
    ids = row["input_ids"][0]
    at = ids.tolist().index(processor.tokenizer.convert_tokens_to_ids("\u0120" + color))
    images = (ids == model.config.image_token_id).nonzero()[:, 0]
    here = (cells == COLOR_NAMES.index(color)).reshape(8, 2, 8, 2).any(axis=(1, 3)).ravel()
    expected = -first_head[at, images[torch.from_numpy(here)]].sum().log()
    torch.testing.assert_close(gaze, expected, atol=1e-4, rtol=1e-4)


def test_the_shipped_weights_need_the_picture_for_their_scores(
    shard: Shard, processor: Idefics3Processor
) -> None:
    kind = Idefics3ForConditionalGeneration
    model = kind.from_pretrained(weights_folder(), dtype=torch.float32)
    scores = held_out_scores(model, Packer(processor), HeldOut(shard, 8), bf16=False)
    assert scores["read"].n == 8
    assert model.training
    assert all(0 <= score.sight <= 1 >= score.gray >= 0 for score in scores.values())
    assert scores["kind"].sight > 0.8 > 0.6 > scores["kind"].gray


def test_resume_equals_no_interruption(
    tmp_path: Path, drawn: Path, uncompiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(RECIPE, tmp_path / "whole", drawn)
    often = RECIPE.model_copy(update={"checkpoint_minutes": 0.0})
    advance = tiny._Stage.advance
    steps: list[int] = []

    def stop_after_two(self: tiny._Stage, shards: list[Shard]) -> dict[str, float]:
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(self.step)
        return advance(self, shards)

    with monkeypatch.context() as patch:
        patch.setattr(tiny._Stage, "advance", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            trained(often, tmp_path / "cut", drawn)
    resumed = trained(often, tmp_path / "cut", drawn)
    files = [folder / "model.safetensors" for folder in (whole, resumed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    log = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == RECIPE.steps
    assert "| `read` | 8 |" in (tmp_path / "cut" / "scores.md").read_text()
    assert (tmp_path / "cut" / "curve.png").stat().st_size > 5000
    model = AutoModelForImageTextToText.from_pretrained(resumed)
    assert model.dtype == torch.bfloat16
    assert AutoProcessor.from_pretrained(resumed).image_seq_len == 64


def test_another_recipe_does_not_resume(tmp_path: Path, drawn: Path, uncompiled: None) -> None:
    short = RECIPE.model_copy(update={"steps": 1})
    trained(short, tmp_path, drawn)
    with pytest.raises(TrainingError, match="another recipe"):
        trained(short.model_copy(update={"images": 3}), tmp_path, drawn)
    stage = short.model_copy(update={"start_from": tmp_path / "export"})
    assert trained(stage, tmp_path / "next", drawn).exists()


def test_the_command_takes_a_recipe_and_changes_to_it(
    tmp_path: Path, drawn: Path, uncompiled: None
) -> None:
    recipe, out = tmp_path / "recipe.json", tmp_path / "out"
    recipe.write_text(RECIPE.model_dump_json())
    shutil.copytree(drawn, out / "shards")
    done = CliRunner().invoke(
        app, ["tiny", "train", str(out), "--recipe", str(recipe), "--steps", "1"]
    )
    assert done.exit_code == 0, done.output
    assert read_recipe(out / "recipe.json") == RECIPE.model_copy(update={"steps": 1})
    assert (out / "export" / "model.safetensors").exists()


def test_loss_falls(shard: Shard, uncompiled: None, tmp_path: Path) -> None:
    stage = tiny._Stage(RECIPE.model_copy(update={"steps": 40}), tmp_path)
    losses = [stage.advance([shard])["loss"] for _ in range(12)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_lessons_are_taught_by_their_weights(
    shard: Shard, uncompiled: None, tmp_path: Path
) -> None:
    weights = {f"{lesson}_weight": 0.5 for lesson in LESSONS}
    every = tiny._Stage(RECIPE.model_copy(update=weights), tmp_path)
    assert set(every.advance([shard])) == {"loss", *LESSONS}
    shipped = tiny._Stage(RECIPE, tmp_path)
    heads = {name: value.clone() for name, value in shipped.sight.state_dict().items()}
    assert set(shipped.advance([shard])) == {"loss", "cell"}
    changed = {n for n, value in shipped.sight.state_dict().items() if not value.equal(heads[n])}
    assert changed == {"cell.weight", "cell.bias"}


@pytest.mark.slow
def test_shards_are_drawn_by_workers(tmp_path: Path) -> None:
    shards = Shards(tmp_path, seed=5, count=1, charts=2)
    try:
        assert len(shards.first(3)) == 1
        assert shards.held_out().specs != shards.first(1)[0].specs
    finally:
        shards.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_workers_end_with_a_killed_training(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path;"
        "from vlm_ops.pretraining.shards import Shards;"
        "shards = Shards(Path(sys.argv[1]), seed=5, count=1000, charts=1); time.sleep(600)"
    )
    drawn = tmp_path / "held-out.npz"
    assert not orphans(script, str(tmp_path), ready=lambda children: drawn.exists())
