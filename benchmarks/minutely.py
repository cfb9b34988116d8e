"""Fire a training every minute for half an hour, with new rows now and then, and count.

``python benchmarks/minutely.py --minutes 30 --times 3`` with the tests' helpers on the path
(``PYTHONPATH=tests/material``). Of all runs as many must have trained as there was new data, the
first rows included, and every other one must have ended as ``Skipped``; no two at once.

The last line is JSON.
"""

import argparse
import contextlib
import itertools
import json
import shutil
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from crash_box import Box, Night, write_rows
from postgresql import postgresql

_ALL = 90
"""Rows that :func:`crash_box.write_rows` writes."""


def count(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how runs ended, and how many began before the one before had ended."""
    ended = [run for run in runs if run["end_time"] and run["start_time"]]
    ended.sort(key=lambda run: run["start_time"])
    states = [run["state_name"] for run in ended]
    overlaps = sum(
        datetime.fromisoformat(after["start_time"]) < datetime.fromisoformat(before["end_time"])
        for before, after in itertools.pairwise(ended)
    )
    return {"runs": len(ended), "states": {name: states.count(name) for name in sorted({*states})},
            "trained": len(states) - states.count("Skipped"), "overlaps": overlaps}  # fmt: skip


def run_for(minutes: float, times: int, folder: Path, database: str) -> dict[str, Any]:
    """Deploy, add rows in even pauses, and return the count."""
    write_rows(folder / "all")
    whole = (folder / "all" / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    rows = shutil.copytree(folder / "all", folder / "rows") / "rows.jsonl"
    box = Box(folder, database)
    parts = [_ALL * (2 * times + number) // (3 * times) for number in range(times)]
    rows.write_text("".join(whole[: parts[0]]), encoding="utf-8")
    try:
        box.keep_up()
        night = Night(box, "night-000")
        night.deploy("--cron", "* * * * *")
        begin = time.monotonic()
        for number in range(1, times + 1):
            while time.monotonic() - begin < 60 * minutes * number / times:
                box.keep_up()
                time.sleep(5)
            if number < times:
                rows.write_text("".join(whole[: parts[number]]), encoding="utf-8")
        with box.client() as client:
            found = client.post("/flow_runs/filter", json={"limit": 200}).json()
        return count(found)
    finally:
        box.end()


def main() -> int:
    """Run it; exit with 1 if it did not come out as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--times", type=int, default=3, help="new data, the first rows included")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        database = stack.enter_context(postgresql())
        found = run_for(asked.minutes, asked.times, Path(folder), database)
    print(json.dumps(found))
    return 0 if found["trained"] == asked.times and not found["overlaps"] else 1


if __name__ == "__main__":
    sys.exit(main())
