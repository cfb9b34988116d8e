"""The packed engine against stock TRL: the same losses and gradients, and how much faster.

    vlm-ops bench sft --model tiny --epochs 3
    vlm-ops bench dpo --model smolvlm-256m --epochs 3 --rows 24 --json
    vlm-ops bench sft --shapes

*Parity*: float32, no dropout, the same rows in every optimizer step, the same first adapter.
*Speed*: each engine in a fresh process, in turns, with the number format, the micro-batch and,
for TRL, the attention that a short search found best for it (the packed engine chooses its own);
the same rows in a step and the same epochs. The clock
runs from a loaded model and image files to the end of the last optimizer step, all preparation
and caching included.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

ENGINES = ("trl", "packed")
SHAPES = (
    "charts",
    "one row an image",
    "two images a row",
    "long answers",
    "larger batch",
    "text rows mixed in",
)
"""``charts`` are the demo's training rows as they come: three questions an image."""
_FLOOR = 0.1
"""Of the denominator of a relative difference: below it losses are compared as they are."""


@dataclass(frozen=True)
class Run:
    """One training in a process of its own.

    A ``trial`` is a short one that looks for the best settings: the packed engine does not compare
    itself with the plain model there, which takes a second or two whatever the settings.
    ``settings`` are the training's own, as a configuration names them.
    """

    task: str
    engine: str
    model: str
    shape: str
    rows: int
    epochs: int
    batch: int
    micro: int
    dtype: str
    folder: str
    attention: str = "sdpa"
    parity: bool = False
    trial: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What ``vlm-ops bench`` is asked for; its help says what each means."""

    task: str
    model: str
    epochs: int
    rows: int | None
    shape: str
    shapes: bool
    repeat: int
    quick: bool
    parity: bool
    folder: Path | None
    json: bool


def measure(options: Options) -> None:
    """Measure and report.

    Args:
        options: What, and how thoroughly.
    """
    if options.shape not in SHAPES:
        sys.exit(f"--shape {options.shape!r}: expected one of {', '.join(SHAPES)}")
    folder = options.folder or Path(tempfile.gettempdir()) / "vlm-bench"
    folder.mkdir(parents=True, exist_ok=True)
    if options.task == "generate":
        report = _start("generate", {"model": options.model, "rows": options.rows or 192,
                                     "folder": str(folder), "repeat": options.repeat})  # fmt: skip
        _show(report, options.json)
        return
    shapes = SHAPES if options.shapes else (options.shape,)
    reports = [_compare(options, shape, folder) for shape in shapes]
    for report in reports:
        _show(report, options.json)


def _compare(options: Options, shape: str, folder: Path) -> dict[str, Any]:
    batch = {"sft": 16, "dpo": 8}[options.task] if options.model == "tiny" else 4
    batch *= 4 if shape == "larger batch" else 1
    rows = options.rows or {"sft": 900, "dpo": 450}[options.task]
    base = Run(
        task=options.task, engine="trl", model=options.model, shape=shape, rows=rows,
        epochs=options.epochs, batch=batch, micro=batch, dtype="float32", folder=str(folder),
    )  # fmt: skip
    report: dict[str, Any] = asdict(base)
    for name in ("engine", "micro", "dtype", "folder", "attention", "parity", "trial", "settings"):
        report.pop(name)
    if options.parity:
        report |= _parity(base)
    chosen = {engine: _search(replace(base, engine=engine), options) for engine in ENGINES}
    seen: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    for number in range(options.repeat):
        for engine in ENGINES if number % 2 == 0 else reversed(ENGINES):
            found = _start("train", asdict(chosen[engine][0]))
            seen[engine].append(found)
            _say(f"{shape}, {number + 1}: {engine} {found['samples_per_s']:.1f} samples/s")
    for engine in ENGINES:
        report[engine] = {
            "samples_per_s": _median(seen[engine], "samples_per_s"),
            "peak_memory_gb": _median(seen[engine], "peak_memory_gb"),
            "seconds": {
                phase: statistics.median(run["seconds"][phase] for run in seen[engine])
                for phase in seen[engine][0]["seconds"]
            },
            "settings": {
                "dtype": chosen[engine][0].dtype,
                "micro_batch": chosen[engine][0].micro,
                "attention": chosen[engine][0].attention if engine == "trl" else "its own choice",
            },
            "searched": chosen[engine][1],
        }
    for name in ("samples_per_s", "peak_memory_gb"):
        pairs = zip(seen["packed"], seen["trl"], strict=True)
        ratios = [ours[name] / theirs[name] for ours, theirs in pairs]
        report[f"ratio_{name.removesuffix('_gb')}"] = statistics.median(ratios)
    return report | {"hardware": hardware(), "versions": versions()}


def _parity(base: Run) -> dict[str, Any]:
    steps = 30
    # Two passes a step, and a last step that is not full.
    batch = base.batch if base.model == "tiny" else 2
    rows = steps * batch - 1
    small = replace(base, parity=True, epochs=1, batch=batch, micro=batch // 2, rows=rows)
    ours = _start("train", asdict(replace(small, engine="packed")))
    theirs = _start("train", asdict(small))
    found: dict[str, Any] = {"parity_steps": len(theirs["losses"])}
    for what, name in (("loss", "losses"), ("gradient_norm", "gradient_norms")):
        pairs = zip(ours[name], theirs[name], strict=True)
        largest = max(abs(a - b) / max(abs(b), _FLOOR) for a, b in pairs)
        found[f"largest_relative_{what}_difference"] = largest
        _say(f"parity over {len(ours[name])} steps: largest difference of {what} {largest:.2e}")
    return found


def _search(base: Run, options: Options) -> tuple[Run, dict[str, float]]:
    """Try number formats, micro-batches and, for TRL, attentions on one tenth of the work."""
    rows = max(base.batch * 3, base.rows // 10 // base.batch * base.batch)
    small = replace(base, rows=min(rows, base.rows), epochs=1, trial=True)
    micros = [base.batch] if options.quick else [base.batch, max(1, base.batch // 2)]
    attentions = ("sdpa", "eager") if base.engine == "trl" else ("sdpa",)
    tried: dict[str, float] = {}
    best, fastest = base, 0.0
    for dtype, micro, attention in product(("bfloat16", "float32"), micros, attentions):
        tuned = replace(small, dtype=dtype, micro=micro, attention=attention)
        speed = _start("train", asdict(tuned))["samples_per_s"]
        name = f"{dtype} x {micro}" + (f", {attention}" if base.engine == "trl" else "")
        tried[name] = round(speed, 2)
        if speed > fastest:
            best = replace(base, dtype=dtype, micro=micro, attention=attention)
            fastest = speed
    _say(f"{base.engine}: {tried}")
    return best, tried


def worker_environment() -> dict[str, str]:
    """Return the environment that a process of a benchmark runs in: no hub, as a step's."""
    return os.environ | {
        # As the pipeline runs its steps.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000"),
        # The command leaves a script's own folder off the path of imports.
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
        ),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _start(what: str, values: dict[str, Any]) -> dict[str, Any]:
    worker = Path(__file__).with_name("engine_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), what, json.dumps(values)],
        env=worker_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{what} {values} failed:\n{done.stderr[-4000:]}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    if report.get("task") == "generate":
        print(
            f"generate, {report['model']}: {report['ratio_samples_per_s']:.2f} times one by one "
            f"({report['batched']:.1f} against {report['one_by_one']:.1f} rows/s), "
            f"{report['same_answers']} of {report['rows']} answers the same"
        )
        return
    parity = ", ".join(
        f"largest relative difference of {name.split('_')[2]} {value:.1e}"
        for name, value in report.items()
        if name.startswith("largest_relative_")
    )
    print(
        f"{report['task']}, {report['model']}, {report['shape']}, {report['rows']} rows, "
        f"{report['epochs']} epochs: {report['ratio_samples_per_s']:.2f} times TRL "
        f"({report['packed']['samples_per_s']:.1f} against {report['trl']['samples_per_s']:.1f} "
        f"samples/s), memory {report['ratio_peak_memory']:.2f}" + (f", {parity}" if parity else "")
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(float(run[name]) for run in runs)


def hardware() -> dict[str, Any]:
    """Return the processor and how many cores it has."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    return {"cpu": model or platform.processor(), "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    """Return the versions of the libraries that both engines rest on."""
    packages = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    return {name: importlib.metadata.version(name) for name in packages}
