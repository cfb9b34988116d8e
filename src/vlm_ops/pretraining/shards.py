"""Synthetic charts drawn once, in parallel, into files of pictures as the tiny model sees them.

A shard is an ``.npz`` of ``images`` (n, 128, 128, 3; uint8, resized by the model's own image
processor), ``cells`` (n, 16, 16; uint8, the color that stands in each patch, see
:func:`color_cells`) and ``specs`` (n; JSON). Training goes on while later shards are drawn.
"""

import dataclasses
import json
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_ops.charts.draw import draw
from vlm_ops.charts.spec import COLOR_NAMES, ChartSpec, Series, Style
from vlm_ops.errors import TrainingError
from vlm_ops.parent import die_with_parent
from vlm_ops.pretraining.architecture import IMAGE_SIZE, PATCH_SIZE, build_processor
from vlm_ops.pretraining.synthetic import invent

CELLS = IMAGE_SIZE // PATCH_SIZE
NO_COLOR = len(COLOR_NAMES)
"""Class of a patch in which no mark's color stands."""

_MIN_SHARE, _MIN_PIXELS, _TOLERANCE = 0.4, 4, 0.12


@dataclasses.dataclass(frozen=True)
class Shard:
    """Charts ready to train on.

    Attributes:
        images: Pictures, (n, 128, 128, 3), uint8.
        cells: Color class of each 8-px patch, (n, 16, 16), uint8.
        specs: What the pictures show.
    """

    images: NDArray[np.uint8]
    cells: NDArray[np.uint8]
    specs: tuple[ChartSpec, ...]


def color_cells(image: NDArray[np.uint8], spec: ChartSpec) -> NDArray[np.uint8]:
    """Which mark's color stands in each patch, looked up in the pixels themselves.

    A pixel counts for a color if it lies on the way from the background to it, at least
    ``_MIN_SHARE`` along: so thin, blurred lines count too.

    Args:
        image: The picture.
        spec: What it shows: only its own colors are looked for.

    Returns:
        Index into :data:`COLOR_NAMES`, or :data:`NO_COLOR`.
    """
    paper = np.asarray(spec.style.background)
    names = sorted({color for series in spec.series for color in series.colors})
    offset = image.reshape(-1, 3) / 255.0 - paper
    counts = np.zeros((len(names), CELLS, CELLS))
    for row, name in enumerate(names):
        way = np.asarray(spec.style.palette[name]) - paper
        share = offset @ way / (way @ way)
        rest = np.abs(offset - share[:, None] * way).max(axis=1)
        hit = ((share > _MIN_SHARE) & (share < 1.2) & (rest < _TOLERANCE)) * np.maximum(share, 0.0)
        squares = hit.reshape(CELLS, PATCH_SIZE, CELLS, PATCH_SIZE)
        counts[row] = squares.sum(axis=(1, 3))
    index = np.array([COLOR_NAMES.index(name) for name in names])
    best = index[counts.argmax(axis=0)]
    return np.where(counts.max(axis=0) >= _MIN_PIXELS, best, NO_COLOR).astype(np.uint8)


def draw_shard(path: Path, seed: str, charts: int) -> Path:
    """Invents and draws one shard, written beside and renamed.

    Args:
        path: The file to write; one that is there already is kept.
        seed: Makes the charts; the same seed gives the same ones.
        charts: How many.

    Returns:
        The path.
    """
    if path.exists():
        return path
    torch.set_num_threads(1)
    resize = build_processor().image_processor
    specs = [invent(random.Random(f"{seed}-{i}")) for i in range(charts)]
    images = np.empty((charts, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    for i, spec in enumerate(specs):
        seen = resize(draw(spec), do_rescale=False, do_normalize=False, return_tensors="np")
        images[i] = seen["pixel_values"][0, 0].transpose(1, 2, 0).round().astype(np.uint8)
    cells = np.stack([color_cells(image, spec) for image, spec in zip(images, specs, strict=True)])
    text = np.array([json.dumps(dataclasses.asdict(spec)) for spec in specs])
    beside = path.with_name(path.stem + ".part.npz")
    np.savez(beside, images=images, cells=cells, specs=text)
    beside.replace(path)
    return path


def read_shard(path: Path) -> Shard:
    """Reads what :func:`draw_shard` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        specs = tuple(_spec(json.loads(text)) for text in stored["specs"].tolist())
        return Shard(stored["images"], stored["cells"], specs)


def _spec(raw: dict[str, Any]) -> ChartSpec:
    style = raw["style"]
    style["palette"] = {name: tuple(rgb) for name, rgb in style["palette"].items()}
    style["background"] = tuple(style["background"])
    series = tuple(
        Series(row["name"], tuple(row["values"]), tuple(row["colors"])) for row in raw["series"]
    )
    return ChartSpec(raw["kind"], raw["title"], tuple(raw["labels"]), series, Style(**style))


def _start_worker(parent: int) -> None:
    """Leave the processor to the training, and end with it."""
    os.nice(10)
    die_with_parent(parent)


def shard_paths(folder: Path, seed: int, count: int) -> list[Path]:
    """Files of one training: the held-out charts first, then ``count`` shards to train on."""
    return [folder / "held-out.npz", *(folder / f"{seed}-{i:03d}.npz" for i in range(count))]


class Shards:
    """All shards of a training, drawn in the background by worker processes.

    Args:
        folder: Where they are kept; what an earlier training drew is used again.
        seed: Makes the charts.
        count: Shards for training; one more, of other charts, is held out.
        charts: Charts in each.
        workers: Processes that draw.
    """

    def __init__(self, folder: Path, seed: int, count: int, charts: int, workers: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.count = count
        self._loaded: list[Shard] = []
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(os.getpid(),),
        )
        self._paths = shard_paths(folder, seed, count)
        self._jobs = {
            path: self._pool.submit(draw_shard, path, f"{seed} {path.stem}", charts)
            for path in self._paths
            if not path.exists()
        }

    def first(self, n: int, on_wait: Callable[[str], None] | None = None) -> list[Shard]:
        """The first ``n`` training shards, at most ``count``; waits until they are drawn."""
        n = min(n, self.count)
        while len(self._loaded) < n:
            self._loaded.append(self._read(len(self._loaded) + 1, on_wait))
        return self._loaded[:n]

    def held_out(self) -> Shard:
        """Charts that are never trained on."""
        return self._read(0, None)

    def close(self) -> None:
        """Stops drawing."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, i: int, on_wait: Callable[[str], None] | None) -> Shard:
        start, path = time.monotonic(), self._paths[i]
        try:
            if path in self._jobs:
                self._jobs[path].result()
        except Exception as error:
            raise TrainingError(
                f"Drawing {path} ended with {type(error).__name__}: {error}."
                " Start the same command again; what was drawn is kept."
            ) from error
        if on_wait and time.monotonic() - start > 1:
            on_wait(f"waited {time.monotonic() - start:.0f} s for {path.name}")
        return read_shard(path)
