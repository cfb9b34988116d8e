"""A pipeline small enough for a test: a folder of its own rows and a YAML file."""

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from flows.servers.environment import environment as own_servers
from flows.servers.services import registry
from vlm_ops.artifacts import PreparedData
from vlm_ops.records import Row, Split

EXAMPLE = Path(__file__).parents[2] / "docs/examples/own-data.yaml"
SMALL = """
name: small
model: {{id: "{base}"}}
data: {{split: {{validation: 0.2, test: 0.55}}}}
sft: {{lora: {{rank: 4}}, max_steps: 8, batch_size: 4, evaluations: 4, learning_rate: 0.001}}
pairs: {{type: dataset, path: pairs.jsonl, validation: 0.3}}
prefer: {{max_steps: 2, batch_size: 4, evaluations: 1}}
evaluate: {{max_new_tokens: 3, resamples: 200}}
gate: {{over_base: null, over_gray: null, over_swapped: null, over_majority: null, floor: 0}}
execution: {{threads: 1}}
"""
"""Makes the example small. The gate lets any model be the first: what is tested is the way
to the alias, not the model."""


def write_small(folder: Path, base: Path, squares: PreparedData) -> Path:
    """Write rows.jsonl, pairs.jsonl, their images and small.yaml into a folder; return the YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    add_rows(folder, squares, 0, 16)
    _write_pairs(folder, squares)
    values = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    for section, smaller in yaml.safe_load(SMALL.format(base=base)).items():
        whole = section in ("name", "pairs")
        values[section] = smaller if whole else values.get(section, {}) | smaller
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump(values), encoding="utf-8")
    return config


def add_rows(
    folder: Path, squares: PreparedData, start: int, stop: int, split: Split = "train"
) -> None:
    """Append rows about some of the squares."""
    with (folder / "rows.jsonl").open("a", encoding="utf-8") as handle:
        for row in squares.rows(split)[2 * start : 2 * stop]:
            image = _copy_image(folder, squares, row)
            line = {"image": image, "query": row.question, "label": row.answers[0],
                    "source": row.group}  # fmt: skip
            handle.write(json.dumps(line) + "\n")


def _write_pairs(folder: Path, squares: PreparedData) -> None:
    """Write preference pairs about squares that no row is about: its color against a number."""
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as handle:
        for row in squares.rows("test")[::2]:
            line = {"images": _copy_image(folder, squares, row), "prompt": row.question,
                    "chosen": row.answers[0], "rejected": "1"}  # fmt: skip
            handle.write(json.dumps(line) + "\n")


def write_thumbs(folder: Path, squares: PreparedData) -> None:
    """Write thumbs about those squares: up for each right answer, down for a number."""
    with (folder / "thumbs.jsonl").open("w", encoding="utf-8") as handle:
        for number, row in enumerate(squares.rows("test")):
            line = {"images": _copy_image(folder, squares, row), "prompt": row.question,
                    "completion": row.answers[0] if number % 3 else "7",
                    "label": number % 3 > 0}  # fmt: skip
            handle.write(json.dumps(line) + "\n")


def _copy_image(folder: Path, squares: PreparedData, row: Row) -> str:
    image = Path(row.images[0].path).name
    (folder / image).write_bytes(squares.image_path(row.images[0].path).read_bytes())
    return image


@contextlib.contextmanager
def kept_up(folder: Path) -> Iterator[None]:
    """Have ``vlm-ops ui`` keep the servers of a folder's runs, which every command then shares.

    To start them anew takes longer than most commands do. There need not be a run yet.
    """
    (folder / "runs/mlflow").mkdir(parents=True, exist_ok=True)  # `ui` wants a runs folder
    with subprocess.Popen(
        command("ui"), cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    ) as ui:
        try:
            assert ui.stderr is not None
            said = [ui.stderr.readline()]
            while "Ctrl-C" not in said[-1]:
                assert said[-1], "".join(said)  # it ended
                said.append(ui.stderr.readline())
            yield
        finally:
            ui.terminate()


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of vlm-ops."""
    return [sys.executable, "-m", "vlm_ops.cli", *map(str, arguments)]


def environment(**values: str) -> dict[str, str]:
    """Return a clean environment: no server of another test, no progress bars."""
    dropped = ("PREFECT_", "MLFLOW_TRACKING_URI")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return kept | {"OMP_NUM_THREADS": "1"} | values


def vlm_ops(*arguments: str | Path, cwd: Path, timeout_s: float = 500) -> Any:
    """Run a command with --json and return what it printed, read back."""
    done = call(*arguments, "--json", cwd=cwd, timeout_s=timeout_s)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stdout
    return json.loads(lines[0])


def call(
    *arguments: str | Path, cwd: Path, timeout_s: float = 500
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True,
        timeout=timeout_s, check=False,
    )  # fmt: skip


def login(runs: Path) -> dict[str, str]:
    """Return the variable by which Prefect's command may use the server of a runs folder."""
    text = (runs / "prefect" / "auth-string").read_text(encoding="utf-8")
    return {"PREFECT_API_AUTH_STRING": text.strip()}


def prefect_client(api: str, runs: Path) -> httpx.Client:
    """Return a client of Prefect's API that may read and write."""
    user, _, password = login(runs)["PREFECT_API_AUTH_STRING"].partition(":")
    asked = httpx.get(f"{api}/csrf-token?client=tests", auth=(user, password), timeout=30)
    token = {"Prefect-Csrf-Client": "tests", "Prefect-Csrf-Token": asked.json()["token"]}
    return httpx.Client(base_url=api, auth=(user, password), timeout=30, headers=token)


def leaks(runs: Path) -> list[str]:
    """Return the files of a runs folder and the command lines that hold its auth string."""
    text = login(runs)["PREFECT_API_AUTH_STRING"]
    forms = (text.partition(":")[2].encode(), base64.b64encode(text.encode()))
    kept = runs / "prefect" / "auth-string"
    places = [path for path in runs.rglob("*") if path.is_file() and path != kept]
    found = []
    for path in [*places, *Path("/proc").glob("[0-9]*/cmdline")]:
        with contextlib.suppress(OSError):
            content = path.read_bytes()
            found += [str(path) for form in forms if form in content]
    return found


def versions(runs: Path) -> Sequence[dict[str, Any]]:
    """Return the versions of the registered model, as ``vlm-ops models`` prints them."""
    from vlm_ops.registry.registry import Registry  # with it comes MLflow

    with own_servers({"MLFLOW_TRACKING_URI": None}), registry(runs) as uri:
        return [found.model_dump(mode="json") for found in Registry(uri, "small").versions()]
