"""How many planted near duplicates are found on charts, how many innocent pictures taken for one.

Draws the demo's charts. Some training charts are planted among the test charts: re-encoded,
resized, brightened by up to 20 % or cropped by 5 % of each side. The test charts themselves, which
show other tables, are innocent. Prints both shares.

    python benchmarks/near_duplicates.py --charts 400 --planted 200
"""

import argparse
import random
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageEnhance

from vlm_ops.charts.build import build_charts
from vlm_ops.config.sections import ChartsData
from vlm_ops.data.near import near_pairs
from vlm_ops.store.jsonl import read_objects

WAYS = ("re-encoded", "resized", "brightened", "cropped")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--charts", type=int, default=400, help="to train on")
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--innocent", type=int, default=200, help="test charts")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        data = ChartsData(train_charts=asked.charts, test_charts=asked.innocent)
        charts = build_charts(Path(folder) / "charts", data, seed=asked.seed)
        train, test = pictures(charts, "train"), pictures(charts, "test")
        chance = random.Random(asked.seed)
        sources = [chance.randrange(len(train)) for _ in range(asked.planted)]
        planted = [
            plant(train[n], WAYS[k % 4], Path(folder) / f"{k}", chance)
            for k, n in enumerate(sources)
        ]
        started = time.monotonic()
        pairs = near_pairs(list(map(str, train)), list(map(str, [*planted, *test])))
        seconds = time.monotonic() - started
    near = {pair.second for pair in pairs}
    exact = {(pair.first, pair.second) for pair in pairs}
    found = [(source, number) in exact for number, source in enumerate(sources)]
    missed = Counter(WAYS[n % 4] for n, is_found in enumerate(found) if not is_found)
    taken = sum(number >= len(planted) for number in near)
    print(f"planted: {sum(found)} of {len(planted)} found ({sum(found) / len(planted):.1%})")
    print(f"missed: {dict(missed) or 'none'}")
    print(f"innocent: {taken} of {len(test)} taken for one ({taken / len(test):.1%})")
    print(f"{len(train)} x {len(planted) + len(test)} pictures in {seconds:.1f} s")


def pictures(charts: Path, split: str) -> list[Path]:
    """Return the pictures of a split, each once."""
    names = [str(row["image"]) for _, row in read_objects(charts / f"{split}.jsonl")]
    return [charts / name for name in dict.fromkeys(names)]


def plant(source: Path, way: str, target: Path, chance: random.Random) -> Path:
    """Write a near duplicate of a picture."""
    with Image.open(source) as opened:
        image = opened.convert("RGB")
    if way == "re-encoded":
        target = target.with_suffix(".jpg")
        image.save(target, quality=chance.randint(40, 85))
        return target
    width, height = image.size
    if way == "resized":
        scale = chance.uniform(0.4, 1.6)
        image = image.resize((round(width * scale), round(height * scale)))
    elif way == "brightened":
        image = ImageEnhance.Brightness(image).enhance(chance.uniform(0.8, 1.2))
    else:
        left, top = chance.uniform(0, 0.05) * width, chance.uniform(0, 0.05) * height
        image = image.crop((round(left), round(top), round(left + 0.95 * width),
                            round(top + 0.95 * height)))  # fmt: skip
    image.save(target.with_suffix(".png"))
    return target.with_suffix(".png")


if __name__ == "__main__":
    main()
