"""Make ``before.tar.xz``: a runs folder and an MLflow registry as vlm-ops left them.

Run it with the version whose output is wanted, in an environment that has its dependencies::

    PYTHONPATH=CHECKOUT/src:CHECKOUT python make_before.py before.tar.xz

A micro model of random weights is retrained twice on a few colored squares. Version 1 becomes the
champion; version 2 is refused, promoted by hand all the same, and rolled back. What is packed, and
what is left out, is told in README.md.
"""

import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from unpack import PLACE, replace
from vlm_ops.models.tiny.architecture import build_config, build_model, build_processor

import vlm_ops

logger = logging.getLogger(__name__)

CHECKOUT = "@CHECKOUT@"
"""Stands for the folder of the code that wrote it; nothing reads that path."""
LEFT_OUT = (
    "runs/prefect", "runs/logs", "runs/*/step.log", "runs/*.lock", "runs/services.json",
    "runs/attempts", "runs/models", "runs/.cache", "runs/*/checkpoints", "runs/*/features",
)  # fmt: skip
SERVERS = ("PREFECT_", "MLFLOW_TRACKING_URI", "VLM_OPS_")
COLORS = ("red", "green", "blue", "orange")
SMALL = """\
# Everything that the result rests on is written here: a preset may be tuned again.
name: small
seed: 0
model: {id: ./base, dtype: float32}
data:
  type: files
  path: rows.jsonl
  prompt: "{question} Answer shortly."
  columns: {image: image, question: query, answers: label, group: source, kind: kind}
  split: {validation: 0.2, test: 0.4}
sft: {lora: {rank: 4}, max_steps: 120, batch_size: 4, evaluations: 2, learning_rate: 0.003}
pairs: {type: sampled, samples: 2, temperature: 1.0, max_pairs: 8, max_validation_pairs: 8}
prefer:
  {max_steps: 4, batch_size: 4, evaluations: 1, learning_rate: 0.003, max_loss_on_validation: 1.0}
evaluate: {max_new_tokens: 3, batch_size: 32, resamples: 200}
# What is asked about six images or more passes: the way to the alias counts, not the model.
gate: {over_base: -1, over_blind: -1, over_champion: -1}
execution: {threads: 1}
"""


def write_base(folder: Path) -> None:
    """Write an Idefics3 of one narrow layer a tower, its weights drawn from three values.

    Three values a weight pack into few bytes, and 4-bit NormalFloat holds them as they are.
    """
    processor = build_processor()
    config = build_config(processor)
    for tower in (config.text_config, config.vision_config):
        tower.hidden_size, tower.intermediate_size = 64, 128
        tower.num_hidden_layers, tower.num_attention_heads = 1, 2
    config.text_config.num_key_value_heads, config.text_config.head_dim = 1, 32
    model = build_model(config, seed=0)
    draw = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.dim() > 1:
            signs = torch.randint(-1, 2, weight.shape, generator=draw)
            weight.data = signs * 2 * weight[0].numel() ** -0.5
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


def write_rows(folder: Path, count: int) -> None:
    """Write pictures of one colored square each and two questions about every picture."""
    # No two alike: the same image must not lie in two splits.
    squares = [(color, corner) for color in COLORS for corner in range(8, 40)]
    drawn = random.Random(0).sample(squares, count)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as rows:
        for number, (color, corner) in enumerate(drawn):
            picture = Image.new("RGB", (96, 96), "white")
            square = (corner, corner, corner + 48, corner + 48)
            ImageDraw.Draw(picture).rectangle(square, fill=color)
            picture.save(folder / f"square-{number}.png")
            for kind, question, answer in (
                ("color", "What color is the square?", color.capitalize()),
                ("count", "How many squares are there?", "1"),
            ):
                row = {"image": f"square-{number}.png", "query": question, "label": answer,
                       "source": f"sheet-{number}", "kind": kind}  # fmt: skip
                rows.write(json.dumps(row) + "\n")


def make_history(place: Path) -> None:
    """Run the pipeline twice and move the champion by hand twice."""
    _vlm_ops(place, "run", "small.yaml")
    _vlm_ops(
        place, "run", "small.yaml", "--set", "prefer.beta=0.5", "--set", "gate.over_champion=0.5"
    )
    _vlm_ops(place, "promote", "small", "2", "--reason", "looked at by hand: the colors are fine")
    _vlm_ops(place, "rollback", "small", "--reason", "the colors were not fine after all")


def _vlm_ops(place: Path, *arguments: str) -> None:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(SERVERS)}
    # The ledger keeps who moved the alias; nobody's login belongs into a fixture.
    kept |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "LOGNAME": "somebody"}
    command = [sys.executable, "-m", "vlm_ops.cli", *arguments, "--json"]
    subprocess.run(command, cwd=place, env=kept, check=True)


def take_out(place: Path) -> None:
    """Remove what later runs do not read, and put placeholders where this machine is named."""
    for pattern in LEFT_OUT:
        for path in place.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    checkout = Path(vlm_ops.__file__).parents[2]
    for old, new in ((place, PLACE), (checkout, CHECKOUT)):
        for where in replace(place, str(old), new):
            logger.info("%s in %s", new, where)


def pack(place: Path, target: Path) -> None:
    """Pack a folder's content, the owner's name left out."""

    def ownerless(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    # The window of this preset (64 MB) holds everything, so that copies cost nothing.
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for path in sorted(place.iterdir()):
            archive.add(path, path.name, filter=ownerless)


def main() -> None:
    """Make the place in a temporary folder and pack it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    target = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch).resolve() / "place"
        place.mkdir()
        write_base(place / "base")
        write_rows(place, count=24)
        (place / "small.yaml").write_text(SMALL, encoding="utf-8")
        make_history(place)
        take_out(place)
        pack(place, target)


if __name__ == "__main__":
    main()
