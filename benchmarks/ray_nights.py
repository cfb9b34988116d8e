"""Two whole runs on machines of Ray: the first promotes, the second asks the champion there.

``python benchmarks/ray_nights.py`` with the tests' helpers on the path
(``PYTHONPATH=tests/material``). Ray is a head and two machines with a CPU each, on this one, with
folders of their own; servers, rows and ``prepare`` are the run's. The second run has more rows than
the first, so another candidate is trained, and the version that is champion by then, which no
machine of Ray has, answers on one of them.

The last line is JSON: how each run ended, after how many seconds, and which steps were made where.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from crash_box import CONFIG, write_rows
from ray_machines import Machine, ray_machines
from small import vlm_ops

_FIRST = 60
"""Of the 90 rows that :func:`crash_box.write_rows` writes."""


def configure(folder: Path, address: str) -> None:
    """Write the configuration, which works on machines of Ray and shares their store."""
    (folder / "share").mkdir()
    values = yaml.safe_load(CONFIG)
    values["data"]["path"] = "rows/rows.jsonl"
    values["execution"] |= {"store": f"file://{folder}/share", "where": "ray", "runs": "runs",
                            "ray_address": address}  # fmt: skip
    values["register"] = {"model": "ray-nights"}
    values["stages"] = ["sft"]
    (folder / "night.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def made(machines: list[Machine], before: float) -> dict[str, list[str]]:
    """Return by machine the outputs of steps and the versions that came after a moment."""
    return {
        f"machine {number}": sorted(
            path.name
            for path in (*machine.runs.glob("ray/*-*/step.log"), *machine.runs.glob("ray/models/*"))
            if path.stat().st_mtime >= before
            for path in [path.parent if path.name == "step.log" else path]
        )
        for number, machine in enumerate(machines, start=1)
    }


def run_twice(folder: Path) -> list[dict[str, Any]]:
    """Run with some of the rows and with all of them, and tell of both."""
    write_rows(folder / "rows")
    rows = folder / "rows" / "rows.jsonl"
    whole, told = rows.read_text(encoding="utf-8").splitlines(keepends=True), []
    with ray_machines(folder) as (address, machines):
        configure(folder, address)
        for count in (_FIRST, len(whole)):
            rows.write_text("".join(whole[:count]), encoding="utf-8")
            began, at = time.monotonic(), time.time()
            found = vlm_ops("run", "night.yaml", "--promote", cwd=folder, timeout_s=3600)
            told.append({"seconds": round(time.monotonic() - began), "run": found,
                         "made": made(machines, at)})  # fmt: skip
            print(json.dumps(told[-1], indent=1), flush=True)
    return told


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        print(json.dumps(run_twice(Path(scratch))))
