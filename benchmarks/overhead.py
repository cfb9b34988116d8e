"""What Prefect and MLflow add to the pipeline's wall time.

The pipeline by its flow against the same stages by ``vlm-ops step`` with the null tracker, each in
its own process, taken in turns in fresh folders. Server start is measured apart.

    python benchmarks/overhead.py demo --repeat 3
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vlm_ops.steps.table import STAGES


def main() -> None:
    """Measure in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    given = [word for value in options.overrides for word in ("--set", value)]
    flows, bare, servers = [], [], []
    for number in range(options.repeat):
        with tempfile.TemporaryDirectory() as folder:
            seconds, start = by_flow(options.source, given, Path(folder))
        flows.append(seconds - start)
        servers.append(start)
        with tempfile.TemporaryDirectory() as folder:
            bare.append(by_steps(options.source, given, Path(folder)))
        print(
            f"{number + 1}: flow {flows[-1]:.1f} s, steps {bare[-1]:.1f} s, servers {start:.1f} s"
        )
    ratios = [a / b for a, b in zip(flows, bare, strict=True)]
    print(
        f"flow / steps: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to "
        f"{max(ratios):.3f}); servers start in {statistics.median(servers):.1f} s"
    )


def by_flow(source: str, given: list[str], folder: Path) -> tuple[float, float]:
    """Return the seconds of ``vlm-ops run``, and those until its servers answered."""
    began = time.monotonic()
    out = vlm_ops("run", source, *given, "--runs", str(folder), "--json")
    return time.monotonic() - began, float(json.loads(out)["seconds"]["servers"])


def by_steps(source: str, given: list[str], folder: Path) -> float:
    """Return the seconds of the stages one by one."""
    began = time.monotonic()
    for stage in STAGES:
        vlm_ops("step", stage, source, *given, "--runs", str(folder), "--json")
    return time.monotonic() - began


def vlm_ops(*arguments: str) -> str:
    """Run the command and return its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "vlm_ops.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
    )  # fmt: skip
    return done.stdout


if __name__ == "__main__":
    main()
