"""How fast and how large on this GPU: SmolVLM's true shapes, ours beside stock TRL, in one run.

    python benchmarks/gpu.py             at most 9 minutes, any NVIDIA card
    python benchmarks/gpu.py --small     the tiny model, under a minute, also on a CPU

SFT, DPO, greedy answers and several samples, on the same rows, in turn; ratios are medians of
paired runs. Needs no hub: weights are random unless the hub's cache holds the presets' own. Each
part is a process with its share of the time that is left; one that fails is named, and the others
go on. Writes ``gpu.json`` after each part, and ``gpu.md`` at the end.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from engine import hardware, versions, worker_environment
from gpu_parts import FULL, TINY, Part

LEAST_S = 20.0
"""What a process needs to start and to load a model; with less a part is left out."""
_NO_CARD = (
    "benchmarks/gpu.py: torch sees no NVIDIA card here (torch.cuda.is_available() is false); "
    "expected one, with a driver for CUDA {}. On a CPU, --small measures the tiny model."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write what was found.

    Args:
        arguments: Of the command line; None takes this process's.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="the tiny model, also on a CPU")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder of both files")
    parser.add_argument("--minutes", type=float, default=9.0, help="never more than this")
    parser.add_argument("--folder", type=Path, help="keeps weights and images between calls")
    options = parser.parse_args(arguments)
    if not options.small and not torch.cuda.is_available():
        sys.exit(_NO_CARD.format(torch.version.cuda))
    options.out.mkdir(parents=True, exist_ok=True)
    until = time.time() + 60 * options.minutes
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        report = measure(
            TINY if options.small else FULL, options.folder or Path(own), options.out, until
        )
    print(table(report))
    print(f"\nwritten: {options.out / 'gpu.json'}, {options.out / 'gpu.md'}")


def measure(parts: tuple[Part, ...], folder: Path, out: Path, until: float) -> dict[str, Any]:
    """Measure part by part, and write ``gpu.json`` after each.

    Args:
        parts: In their order.
        folder: For weights and images.
        out: Of the report.
        until: When all must be over, in seconds since the epoch.

    Returns:
        The report.
    """
    began = time.time()
    report: dict[str, Any] = {
        "card": card(),
        "hardware": hardware(),
        "versions": versions() | {"cuda": torch.version.cuda},
        "parts": [],
    }
    for number, part in enumerate(parts):
        left = until - time.time()
        budget = left * part.share / sum(each.share for each in parts[number:])
        _say(f"{number + 1} of {len(parts)}: {part.name}, at most {budget:.0f} s")
        found = _measured(part, folder, budget)
        _say(f"  {found['status']}{found['why'] and ': '}{found['why']}")
        report["parts"].append(found)
        report["seconds"] = round(time.time() - began, 1)
        (out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "gpu.md").write_text(table(report) + "\n", encoding="utf-8")
    return report


def _measured(part: Part, folder: Path, budget: float) -> dict[str, Any]:
    found = {"name": part.name, **asdict(part), "against": part.against, "runs": []}
    if budget < LEAST_S:
        why = f"only {max(budget, 0):.0f} s were left"
        return found | {"status": "not measured", "why": why}
    began = time.time()
    wrong = _listen(part, folder, budget, found)
    return found | {"seconds": round(time.time() - began, 1)} | summed(found, wrong)


def _listen(part: Part, folder: Path, budget: float, found: dict[str, Any]) -> str:
    """Take what a part's process says, line by line; return what went wrong with it."""
    asked = {"part": asdict(part), "folder": str(folder), "until": time.time() + budget,
             "parent": os.getpid()}  # fmt: skip
    worker = Path(__file__).with_name("gpu_worker.py")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, str(worker), json.dumps(asked)],
            env=worker_environment(), stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(budget, end)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                _take(line, found)
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
        errors.seek(0)
        last = found.pop("failed", "") or errors.read().strip().rpartition("\n")[2][-500:]
    if late.is_set():
        return f"took longer than its {budget:.0f} s"
    return f"its process ended with {code}: {last}" if code else ""


def _take(line: str, found: dict[str, Any]) -> None:
    try:
        said = json.loads(line)
    except ValueError:  # a library's own words
        return
    if not isinstance(said, dict) or not said.keys() & {"about", "side", "failed"}:
        return
    if "failed" in said:
        found["failed"] = said["failed"]
        return
    if (about := said.pop("about", None)) is not None:
        found |= about
        return
    found["runs"].append(said)
    took = said.get("error") or f"{said['seconds_a_row']:.3f} s a row"
    _say(f"  {said['side']}, run {said['pair'] + 1}: {took}")


def summed(found: dict[str, Any], wrong: str) -> dict[str, Any]:
    """Say what a part's runs come to.

    Args:
        found: What its process said.
        wrong: What went wrong with the process; empty if nothing did.

    Returns:
        ``status`` and ``why``; medians of each side; ``times``, the median of the paired ratios;
        and, where there is a bar, whether our peak memory stayed below it.
    """
    sides: dict[str, dict[int, dict[str, Any]]] = {"ours": {}, "stock": {}}
    failed: dict[str, str] = {}
    for run in found["runs"]:
        if "error" in run:
            failed[run["side"]] = run["error"]
        else:
            sides[run["side"]][run["pair"]] = run
    result: dict[str, Any] = {}
    for side, runs in sides.items():
        result[side] = {
            name: statistics.median(run[name] for run in runs.values())
            for name in ("seconds_a_row", "peak_memory_gb")
            if runs and None not in [run[name] for run in runs.values()]
        }
    both = sides["ours"].keys() & sides["stock"].keys()
    ratios = [
        sides["stock"][pair]["seconds_a_row"] / sides["ours"][pair]["seconds_a_row"]
        for pair in sorted(both)
    ]
    result["ratios"] = ratios
    result["times"] = statistics.median(ratios) if ratios else None
    why = "; ".join(
        [*(f"{side}: {error}" for side, error in failed.items()), *filter(None, [wrong])]
    )
    good = bool(ratios) or (found["task"] == "weights" and not wrong)
    result |= {"status": "measured" if good and not failed else "failed", "why": why}
    if found["bar_gb"] is not None:
        result["bar"] = _bar(found["bar_gb"], list(sides["ours"].values()))
    return result


def _bar(below: float, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Hold every run of ours, its loading too, against the bar."""
    peaks = [max(run["peak_memory_gb"], run["peak_memory_loading_gb"])
             for run in runs if run["peak_memory_gb"] is not None]  # fmt: skip
    highest = max(peaks, default=None)
    return {
        "below_gb": below,
        "found_gb": highest,
        "met": None if highest is None else highest < below,
    }


def card() -> dict[str, Any] | None:
    """Return what the card is; None without one."""
    if not torch.cuda.is_available():
        return None
    seen = torch.cuda.get_device_properties(0)
    try:
        driver = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"],
            capture_output=True, text=True, check=True, timeout=20,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        driver = "unknown: no nvidia-smi"
    return {
        "name": seen.name,
        "memory_gb": seen.total_memory / 1e9,
        "capability": f"{seen.major}.{seen.minor}",
        "driver": driver,
    }


def table(report: dict[str, Any]) -> str:
    """Return a report as Markdown."""
    seen, used = report["card"], report["versions"]
    where = (
        f"{seen['name']} ({seen['memory_gb']:.1f} GB), driver {seen['driver']}"
        if seen
        else f"no GPU; {report['hardware']['cpu']}, {report['hardware']['cores']} cores"
    )
    lines = [
        f"{where}; torch {used['torch']} (CUDA {used['cuda']}), transformers "
        f"{used['transformers']}, trl {used['trl']}, bitsandbytes {used['bitsandbytes']}. "
        f"{report['seconds']:.0f} s in all. GB are 10⁹ bytes.",
        "",
        "| work | weights | rows, images | image tokens, longest row | seconds a row, ours / stock "
        "| times stock (runs) | peak GB, ours / stock |",
        "|---|---|---|---|---|---|---|",
    ]
    notes = []
    for part in report["parts"]:
        if part["task"] != "weights" and "image_size" in part:
            lines.append(_line(part))
        if part["status"] != "measured":
            notes.append(f"- {part['name']}: {part['status']}: {part['why']}")
        if "bar" in part:
            notes.append(_bar_words(part))
    return "\n".join([*lines, "", *notes])


def _line(part: dict[str, Any]) -> str:
    def both(name: str, form: str) -> str:
        pair = [part[side].get(name) for side in ("ours", "stock")]
        return " / ".join("-" if value is None else format(value, form) for value in pair)

    width, height = part["image_size"]
    times = "-" if part["times"] is None else f"**{part['times']:.2f}** ({len(part['ratios'])})"
    cells = (
        part["name"] + (f", {part['samples']} samples" if part["samples"] > 1 else ""),
        f"{part['weights']}, {part['quantization']}, {part['dtype']}",
        f"{part['rows']}, {part['images']} of {width} x {height}",
        f"{part['tokens_image']}, {part['tokens_longest_row']}",
        both("seconds_a_row", ".3f"),
        times,
        both("peak_memory_gb", ".2f"),
    )
    return f"| {' | '.join(cells)} |"


def _bar_words(part: dict[str, Any]) -> str:
    bar = part["bar"]
    if bar["met"] is None:
        return f"- {part['name']}: peak memory below {bar['below_gb']} GB: not measured"
    said = "met" if bar["met"] else "not met"
    return (
        f"- {part['name']}: peak memory below {bar['below_gb']} GB, loading and training: {said} "
        f"({bar['found_gb']:.2f} GB)"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
