"""One part of ``benchmarks/gpu.py``: prints a line of JSON for each thing that it finds.

``about`` says what the work is, ``side`` and ``pair`` what a run took, ``error`` that it failed,
and ``failed`` that the whole part did.
"""

import gc
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from engine import Run
from engine_worker import base_of, build
from gpu_parts import RECIPES, Part
from PIL import Image, ImageDraw
from shapes import SIZES
from work import Rows, reference, settings_of

from vlm_ops.config.load import load_config
from vlm_ops.errors import VlmOpsError
from vlm_ops.evaluation.shown import kept
from vlm_ops.models.generation import Sampling, encode, generate, sample, written
from vlm_ops.models.loading import LoadedModel, compute_dtype, load
from vlm_ops.models.pictures import opened_once
from vlm_ops.models.shape import shape_of
from vlm_ops.parent import die_with_parent
from vlm_ops.records import ImageRef, Row
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.training.engine.check import CHECK, ROWS
from vlm_ops.training.memory import free
from vlm_ops.training.tokens import measure

SIDES = ("ours", "stock")
_TEMPERATURE = 1.0
_WORDS = ["the", "line", "bar", "of", "highest", "left", "red", "blue", "year", "than", "other"]

Found = dict[str, Any]


def main(part: Part, folder: Path, until: float) -> None:
    """Measure one part.

    Args:
        part: Which.
        folder: Of the benchmark.
        until: When to be done, in seconds since the epoch; no pair begins that would end later.
    """
    run, data = ready(part, folder)
    if data is None:
        return
    trained = part.task in ("sft", "dpo")
    one = _training(run, data, until) if trained else _answering(run, part, data)
    _in_turns(one, part.pairs, until)


def ready(part: Part, folder: Path) -> tuple[Run, Rows | None]:
    """Find, or make, the model and the rows of a part, and say what they are.

    Args:
        part: Which.
        folder: Of the benchmark.

    Returns:
        The work, and its rows; none where weights are all that is asked for.
    """
    run = _run(part, folder)
    if part.task == "weights":
        ref = reference(run.model, folder, run.dtype)
        say(about={"weights": _weights(run.model), "content": ref.base_sha256})
        return run, None
    data = drawn_rows(part, folder)
    say(about=_about(run, part, data))
    return run, data


def say(**found: Any) -> None:
    """Print a finding."""
    print(json.dumps(found), flush=True)


def _run(part: Part, folder: Path) -> Run:
    """Say what is trained, or asked: the hub's weights if they are here, else random ones."""
    recipe = RECIPES.get(part.model)
    lora = {} if recipe is None else {"lora": load_config(recipe).sft.lora.model_dump()}
    return Run(
        task="dpo" if part.task == "dpo" else "sft", engine="packed",
        model=_model(part.model, folder), shape="charts", rows=part.rows, epochs=1,
        batch=part.batch, micro=part.micro, dtype="auto", folder=str(folder), trial=True,
        settings={"gradient_checkpointing": True, **lora},
    )  # fmt: skip


def _model(model: str, folder: Path) -> str:
    if (recipe := RECIPES.get(model)) is None:
        return model
    try:
        reference(recipe, folder, "auto")
    except (VlmOpsError, OSError) as error:
        say(about={"not_published": f"{type(error).__name__}: {error}"[:500]})
        return model
    return recipe


def _weights(model: str) -> str:
    return "random" if model in SIZES else "the package's own" if model == "tiny" else "published"


def _about(run: Run, part: Part, data: Rows) -> Found:
    asked = settings_of(run.model, Path(run.folder), run.dtype)
    lengths = measure(data, shape_of(asked)).every
    image = data.chosen[0].images[0]
    return {
        "weights": _weights(run.model),
        "dtype": str(compute_dtype(asked)).removeprefix("torch."),
        "quantization": asked.quantization,
        "images": len({row.image_id for row in data.chosen}),
        "image_size": [image.width, image.height],
        "tokens_image": max(length.image for length in lengths),
        "tokens_longest_row": max(length.tokens for length in lengths),
        "gradient_checkpointing": run.settings["gradient_checkpointing"],
    }


def _in_turns(one: Callable[[str], Found], pairs: int, until: float) -> None:
    """Run both sides in turn, so that neither always has the warmer machine."""
    for number in range(pairs):
        began = time.time()
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            say(side=side, pair=number, **_guarded(partial(one, side)))
        if time.time() + (time.time() - began) > until:
            return


def _guarded(call: Callable[[], Found]) -> Found:
    """Return what a run found, or how it failed; the other side still has its turn."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    finally:
        free()


def _training(run: Run, data: Rows, until: float) -> Callable[[str], Found]:
    """Let the engine check itself on this machine, which warms it up for both sides.

    How long that takes says how many rows a slow card has time for.
    """
    began = time.time()
    first = replace(run, trial=False, rows=min(ROWS, run.rows))
    with _fresh() as out:
        found = _guarded(lambda: _trained(first, data, out))
        check = out / CHECK
        said = json.loads(check.read_text())["said"] if check.exists() else found.get("error")
    took = (time.time() - began) / first.rows
    while run.rows >= 4 * run.batch and time.time() + 2 * run.rows * took > until:
        run = replace(run, rows=run.rows // 2)
    shown = {row.image_id for row in data.chosen[: run.rows]}
    say(about={"engine_check": said, "rows": run.rows, "images": len(shown)})

    def one(side: str) -> Found:
        with _fresh() as out:
            return _trained(replace(run, engine="packed" if side == "ours" else "trl"), data, out)

    return one


@contextmanager
def _fresh() -> Iterator[Path]:
    """Make a step's folder for one run.

    Features of images are kept beside it. They go with it, so that every run computes its own.
    """
    with tempfile.TemporaryDirectory() as room:
        yield Path(room) / "step"


def _trained(run: Run, data: Rows, out: Path) -> Found:
    held = _reset()
    loaded = load(base_of(run)[0], trainable=True)
    loading = _peak_gb()
    _reset()
    trainer, began = build(run, data, out, loaded)
    built = time.perf_counter()
    trainer.train()
    seconds = _since(began)
    if (features := getattr(trainer, "features", None)) is not None:
        features.close()
    return {
        "seconds_a_row": seconds / run.rows,
        "seconds_before_the_first_step": built - began,
        "peak_memory_gb": _peak_gb(),
        "peak_memory_loading_gb": loading,
        "held_before_gb": held,
    }


def _answering(run: Run, part: Part, data: Rows) -> Callable[[str], Found]:
    loaded = load(reference(run.model, Path(run.folder), run.dtype))
    chats = [row.chat for row in data.chosen]
    sampling = Sampling(
        max_new_tokens=part.max_new_tokens, batch_size=part.micro,
        temperature=_TEMPERATURE if part.task == "samples" else 0.0,
        samples=part.samples, seed=0,
    )  # fmt: skip
    answers: dict[str, list[str]] = {}

    def one(side: str, options: Sampling = sampling) -> Found:
        held = _reset()
        began = time.perf_counter()
        # Opened anew, so that reading the files is part of both sides' work.
        images = opened_once([kept(row.images, data.image_path) for row in data.chosen])
        if side == "stock":
            answers[side] = _stock(loaded, chats, images, options)
        elif part.task == "samples":
            answers[side] = sample(loaded, chats, images, options)
        else:
            answers[side] = generate(
                loaded, chats, images,
                max_new_tokens=options.max_new_tokens, batch_size=options.batch_size,
            )  # fmt: skip
        seconds = _since(began)
        same = sum(a == b for a, b in zip(answers[side], answers.get("ours", []), strict=False))
        return {
            "seconds_a_row": seconds / part.rows,
            "peak_memory_gb": _peak_gb(),
            "held_before_gb": held,
            "answers": len(answers[side]),
        } | ({"same_as_ours": same} if side == "stock" and part.task == "answers" else {})

    for side in SIDES:
        _guarded(partial(one, side, replace(sampling, max_new_tokens=2)))
    return one


@torch.inference_mode()
def _stock(
    loaded: LoadedModel, chats: list[Any], images: list[Any], sampling: Sampling
) -> list[str]:
    """Answer as TRL's trainers do between steps: the processor's batch, the model's generate."""
    processor, model = loaded.processor, cast("Any", loaded.model)
    answers: list[str] = []
    torch.manual_seed(sampling.seed)
    for place in range(0, len(chats), sampling.batch_size):
        rows = slice(place, place + sampling.batch_size)
        inputs: Any = encode(processor, written(processor, chats[rows]), images[rows])
        half = model.dtype if model.dtype in (torch.bfloat16, torch.float16) else None
        with torch.autocast(model.device.type, dtype=half, enabled=half is not None):
            output = model.generate(
                **inputs.to(model.device), **sampling.options,
                pad_token_id=processor.tokenizer.pad_token_id,
            )  # fmt: skip
        said = output[:, inputs["input_ids"].shape[1] :]
        answers += processor.batch_decode(said, skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def _since(began: float) -> float:
    """Return the seconds since then, the card's unfinished work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _reset() -> float | None:
    """Begin to watch the peak, and return what is held already."""
    gc.collect()
    if not torch.cuda.is_available():
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 1e9


def _peak_gb() -> float | None:
    """Return the most that tensors held on the card, in GB of 10⁹ bytes; a CPU keeps no count."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None


def drawn_rows(part: Part, folder: Path) -> Rows:
    """Draw charts as large as the model takes them, and ask about them.

    SFT and answers have three questions to two images, as ChartQA's training split has 28,299 to
    18,317; pairs have an image each and answers of a few sentences, as RLAIF-V has.

    Args:
        part: What they are for.
        folder: Of the benchmark; images of an earlier part are taken.
    """
    edge = SIZES[part.model]["longest_edge"] if part.model in SIZES else 128
    images = folder / f"images-{edge}"
    images.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    rows = []
    for number in range(part.rows):
        image = _chart(images, number if part.task == "dpo" else number * 2 // 3, edge)
        words = 30 if part.task == "dpo" else 1
        rows.append(
            Row(
                id=str(number), images=(image,), question=f"What is the value of bar {number}?",
                kind="value", group=image.sha256,
                answers=(" ".join([str(number), *rng.choices(_WORDS, k=words)]),),
            )
        )  # fmt: skip
    own = folder / part.name.replace(" ", "-")
    own.mkdir(exist_ok=True)
    return Rows(
        folder=own, content=part.name, splits={}, source="drawn", images=Path("..") / images.name,
        chosen=tuple(rows),
    )  # fmt: skip


def _chart(folder: Path, number: int, edge: int) -> ImageRef:
    """Draw a square chart of bars: a square becomes the most tiles, and so the most tokens."""
    path = folder / f"{number}.png"
    if not path.exists():
        rng = random.Random(number)
        picture = Image.new("RGB", (edge, edge), "white")
        draw, wide = ImageDraw.Draw(picture), edge // 8
        for bar in range(8):
            color = tuple(rng.randrange(256) for _ in range(3))
            draw.rectangle((bar * wide, rng.randrange(edge), bar * wide + wide // 2, edge), color)
        picture.save(path)
    return ImageRef(path=path.name, sha256=sha256_file(path), width=edge, height=edge)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    die_with_parent(asked["parent"])
    try:
        main(Part(**asked["part"]), Path(asked["folder"]), asked["until"])
    except Exception as error:
        say(failed=f"{type(error).__name__}: {error}"[:500])
        raise
