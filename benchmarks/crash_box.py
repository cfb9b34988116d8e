"""The machine of the crash test: ``vlm-ops up``, and nights that it takes."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from PIL import Image, ImageDraw
from small import environment, login, prefect_client

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
NIGHT_S = 1800
"""Within this a night must have come to its end."""
LOOK_S = 1.0
"""So often it is asked how a night stands: a question takes from the machine what a night needs."""
COLORS = ("red", "green", "blue", "orange")
CONFIG = """
name: night
model: {id: tiny}
data:
  type: files
  columns: {image: image, question: query, answers: label, group: source}
sft: {lora: {rank: 4}, max_steps: 24, batch_size: 4, evaluations: 6, learning_rate: 0.005}
pairs: {type: sampled, samples: 8, temperature: 2, max_pairs: 16, max_validation_pairs: 8}
prefer: {max_steps: 6, batch_size: 4, evaluations: 2}
evaluate: {max_new_tokens: 3, resamples: 200}
gate: {over_base: null, over_gray: null, over_swapped: null, over_majority: null, floor: 0}
execution: {threads: 1}
"""
"""The gate lets any model be the first: what is tested is the way to the alias."""


class Box:
    """``vlm-ops up`` in a folder, begun again whenever it has ended.

    Args:
        folder: Of its runs folder and log.
        database: Of PostgreSQL, as ``postgresql://…``.
    """

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self._database = database
        url = database.replace("postgresql:", "postgresql+asyncpg:")
        # A gigabyte of servers and a training: one thread each is what two cores have.
        self._environment = environment(PREFECT_API_DATABASE_CONNECTION_URL=url)
        self._up: subprocess.Popen[bytes] | None = None
        self._log = folder / "up.log"

    @property
    def up(self) -> psutil.Process:
        """The process of the command, which runs."""
        assert self._up is not None
        return psutil.Process(self._up.pid)

    def keep_up(self) -> None:
        """Start the command if it does not run, and wait until it takes runs."""
        if self._up is not None and self._up.poll() is None:
            return
        begin = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "vlm_ops.cli", "up"],
                cwd=self.folder, env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 300
        while "Worker on pool" not in self.said()[begin:]:
            if self._up.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"vlm-ops up did not start:\n{self.said()[begin:][-3000:]}")
            time.sleep(0.3)

    def said(self) -> str:
        """Return all that the command has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def end(self) -> None:
        """End the command."""
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            self._up.wait(150)

    def addresses(self) -> dict[str, str]:
        """Return the variables by which commands and clients find the servers of now."""
        state = json.loads((self.runs / "services.json").read_text(encoding="utf-8"))
        urls = {name: item["url"] for name, item in state["servers"].items()}
        return {"PREFECT_API_URL": urls["prefect"], "MLFLOW_TRACKING_URI": urls["mlflow"],
                **login(self.runs)}  # fmt: skip

    def client(self) -> httpx.Client:
        """Return a client of Prefect's API."""
        return prefect_client(self.addresses()["PREFECT_API_URL"], self.runs)

    def command(self, *arguments: str) -> Any:
        """Run a command of vlm-ops that prints JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "vlm_ops.cli", *arguments, "--json"],
            cwd=self.folder, env=environment(**self.addresses()), capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"vlm-ops {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout)

    def members(self, server: str) -> list[psutil.Process]:
        """Return all processes of a server, PostgreSQL's too."""
        if server == "postgresql":
            folder = self._database.partition("host=")[2]
            heads = [one for one in psutil.process_iter() if folder in " ".join(_line(one))]
        else:
            heads = [head] if (head := self.member(server)) else []
        return [*heads, *(kin for head in heads for kin in head.children(recursive=True))]

    def member(self, victim: str) -> psutil.Process | None:
        """Return a living process of a kind, None if there is none now."""
        named: dict[str, Callable[[str], bool]] = {
            "worker": lambda line: "prefect worker start" in line,
            "prefect": lambda line: "prefect server start" in line,
            "mlflow": lambda line: "mlflow server" in line,
            "flow": lambda line: "prefect.engine" in line or "flow-run execute" in line,
            "step": lambda line: "vlm_ops.steps" in line,
        }
        # The last one of its kind is the innermost: a forked step, and not its host.
        for process in reversed(self.up.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                if named[victim](" ".join(process.cmdline())):
                    return process
        return None


def _line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def write_rows(folder: Path) -> None:
    """Draw squares and ask for their color, in a folder."""
    rng = random.Random(0)
    folder.mkdir()
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as rows:
        for number in range(90):
            color, left, top = rng.choice(COLORS), rng.randrange(66), number // 2
            image = Image.new("RGB", (128, 128), "white")
            ImageDraw.Draw(image).rectangle((left, top, left + 60, top + 60), fill=color)
            image.save(folder / f"{number}.png")
            row = {"image": f"{number}.png", "query": "Which color?", "label": color}
            rows.write(json.dumps(row | {"source": str(number)}) + "\n")


class Night:
    """One deployment, from its first run to the end of its last.

    Args:
        box: Where it runs.
        name: Of its folder, deployment and registered model.
        fired_at_most: How often, in all.
    """

    def __init__(self, box: Box, name: str, fired_at_most: int = 4) -> None:
        self.box = box
        self.name = name
        self.folder = box.folder / name
        self.fired = 0
        self._fired_at_most = fired_at_most
        self._run = ""

    def deploy(self, *options: str) -> None:
        """Write its configuration and make its deployment."""
        self.folder.mkdir()
        values = yaml.safe_load(CONFIG)
        values["data"]["path"] = str(self.box.folder / "rows" / "rows.jsonl")
        values["execution"]["runs"] = str(self.folder / "runs")
        values["register"] = {"model": self.name}
        config = self.folder / "night.yaml"
        config.write_text(yaml.safe_dump(values), encoding="utf-8")
        self.box.command("deploy", str(config), "--name", self.name, *options)

    def fire(self) -> None:
        """Start a run, as the schedule does."""
        self.fired += 1
        with self.box.client() as client:
            found = client.get(f"/deployments/name/retrain/{self.name}").json()
            made = client.post(f"/deployments/{found['id']}/create_flow_run", json={})
            self._run = made.raise_for_status().json()["id"]

    def state(self) -> tuple[str, str]:
        """Return type and name of the run's state; empty while the server does not answer."""
        unanswered = contextlib.suppress(httpx.HTTPError, OSError, ValueError, KeyError)
        with unanswered, self.box.client() as client:
            run = client.get(f"/flow_runs/{self._run}").json()
            return run["state_type"], run["state_name"]
        return "", ""

    def result(self) -> dict[str, Any]:
        """Return what the registry holds: weights, scores, moves."""
        found = self.box.command("models", self.name)
        versions = [
            {"content": version["content"], "aliases": sorted(version["aliases"]),
             "scores": _scores(version["description"])}
            for version in found["versions"]
        ]  # fmt: skip
        moves = [(move["from"], move["to"], move["forced"]) for move in found["moves"]]
        return {"versions": versions, "moves": moves, "looks": len(found["looks"]),
                "doubt": found["doubt"]}  # fmt: skip

    def run_to_the_end(self, disturb: Callable[[float], None]) -> str:
        """Fire until a run comes to an end by itself.

        Args:
            disturb: Called again and again with the seconds since the first firing.

        Returns:
            The last state's name.
        """
        self.fire()
        begin = looked = time.monotonic()
        while (now := time.monotonic()) - begin < NIGHT_S:
            disturb(now - begin)
            self.box.keep_up()
            if now < looked + LOOK_S:
                time.sleep(0.1)
                continue
            looked = now
            kind, name = self.state()
            if kind == "COMPLETED":
                return name
            if kind in ENDED:
                if self.fired == self._fired_at_most:
                    return name
                self.fire()
        return "did not end"


def _scores(text: str) -> list[str]:
    """Return the lines of a description that hold scores of a model."""
    return [line for line in text.splitlines() if line.startswith("- **")]
