"""How much memory ``prepare`` takes for many rows, and how fast it is.

Writes rows with a picture each, some of them with a picture that is there already, and prepares
them in a process of its own for each size. Prints that process's peak, imports and all: it should
hardly depend on the number of rows.

    python benchmarks/many_rows.py --rows 10000 100000
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

_SIDE = 24
"""Pixels of a side: decoding is not what is measured."""
_QUESTION = "What is shown in picture {}, which was taken at a place that nobody remembers?"
_ROWS_OF_A_GROUP = 4
_ROWS_OF_A_PICTURE = (9, 10)
"""Of ten rows, nine have pictures of their own."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--groups", action="store_true", help="the rows name their groups")
    parser.add_argument("--bad", action="store_true", help="no row can be used: it has no answer")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here is not None:
        print(json.dumps(measure(asked.here, asked.groups)))
        return
    for count in asked.rows:
        with TemporaryDirectory() as folder:
            write(Path(folder), count, bad=asked.bad)
            own = [flag for flag in ("--groups",) if asked.groups]
            found = subprocess.run(
                [sys.executable, __file__, "--here", folder, *own],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            print(f"{count} rows: {found.stdout.strip()}", flush=True)


def write(folder: Path, count: int, *, bad: bool = False) -> None:
    """Write ``rows.jsonl`` with so many rows, and their pictures."""
    (folder / "images").mkdir()
    rng = random.Random(0)
    with (folder / "rows.jsonl").open("w") as handle:
        for number in range(count):
            shown = number - number % 10 if number % 10 == 9 else number
            name = f"images/{shown}.png"
            if shown == number:
                pixels = rng.randbytes(3 * _SIDE * _SIDE)
                Image.frombytes("RGB", (_SIDE, _SIDE), pixels).save(folder / name, compress_level=0)
            group = f"document-{shown // _ROWS_OF_A_GROUP}"
            row = {"id": f"row-{number}", "image": name, "query": _QUESTION.format(number)}
            row |= {"label": "" if bad else f"{number % 100}", "source": group}
            handle.write(json.dumps(row) + "\n")


def measure(folder: Path, groups: bool) -> dict[str, int]:
    """Prepare the rows of a folder; return the peak of this process in MiB, and rows a second."""
    from vlm_ops.config.jobs import PrepareJob
    from vlm_ops.config.sections import Columns, FilesData
    from vlm_ops.data.prepare import prepare
    from vlm_ops.errors import DataError
    from vlm_ops.tracker import NullTracker

    columns = Columns(id="id", group="source" if groups else None)
    data = FilesData(type="files", path=folder / "rows.jsonl", columns=columns)
    before, started, worked = peak(), time.monotonic(), time.process_time()
    out = folder / "runs" / "prepare"
    out.mkdir(parents=True)
    try:
        found = prepare(PrepareJob(seed=0, data=data, name="own"), out=out, tracker=NullTracker())
        rows = sum(split.rows for split in found.splits.values())
    except DataError as error:
        print(str(error)[:200], file=sys.stderr)
        rows = sum(1 for _ in (out / "refused.jsonl").open())
    seconds, busy = time.monotonic() - started, time.process_time() - worked
    speed = {"rows_per_s": round(rows / seconds), "rows_per_cpu_s": round(rows / busy)}
    return {"imports": round(before), "peak": round(peak())} | speed


def peak() -> float:
    """Return the most memory that this process has held, in MiB.

    Not ``ru_maxrss``, which begins at what the parent held.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
