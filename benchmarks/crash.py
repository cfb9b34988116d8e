"""Kill what a night is made of, at random moments, and see that it ends as if nothing had been.

``make crash-test KILLS=60``, or ``python benchmarks/crash.py --kills 6 --seed 1``. One
``vlm-ops up`` serves all nights, restarted when it ends, as by systemd; Prefect's database is
PostgreSQL. Each night is a deployment with a runs folder and a registered model of its own, that
trains on the same rows and is fired again, as by its schedule, until it comes to an end. The first
night is left alone; weights, scores and registry of every other one must equal its. The others take
up to ``--a-night`` kills each, the later ones while the night comes back from those before.

The last line is JSON: kills, survived, and what was left open, doubled or different.
"""

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from crash_box import ENDED, Box, Night, write_rows
from postgresql import postgresql

VICTIMS = ("step", "flow", "worker", "prefect", "mlflow", "sigterm")
"""What is killed by SIGKILL; ``sigterm`` asks all of ``vlm-ops up`` to end."""
_IN_TIME = 0.7
"""Of an undisturbed night's time: later, a faster one may be over."""
AWAY = {"mlflow-away": 60.0, "prefect-away": 60.0, "postgresql-away": 30.0}
"""What is stopped and goes on after so many seconds, if it is asked for by ``--victims``."""


@dataclass
class Tally:
    """What came of the nights."""

    seed: int
    kills: int = 0
    survived: int = 0
    zombies: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    by_night: dict[str, str] = field(default_factory=dict)
    undisturbed_s: float = 0.0
    seconds: float = 0.0


class Kill:
    """Kills one victim, or stops it for a while, at or after a moment.

    Args:
        box: Of the victim.
        victim: One of :data:`VICTIMS` or :data:`AWAY`.
        after_s: Seconds after the first firing.
    """

    def __init__(self, box: Box, victim: str, after_s: float) -> None:
        self.box = box
        self.victim = victim
        self.after_s = after_s
        self.done: float | None = None
        self._stopped: list[psutil.Process] = []

    @property
    def over(self) -> bool:
        """Whether it was made and nothing is away any more."""
        return self.done is not None and not self._stopped

    def __call__(self, seconds: float) -> None:
        """Kill it, if it is time and it is there; let it go on when it was away for long enough."""
        if self.done is not None:
            if seconds >= self.done + AWAY.get(self.victim, 0):
                self.let_go_on()
        elif seconds >= self.after_s and self._disturb():
            self.done = seconds

    def let_go_on(self) -> None:
        """Let go on what was stopped."""
        while self._stopped:
            self._stopped.pop().resume()

    def _disturb(self) -> bool:
        if self.victim == "sigterm":
            self.box.end()
            return True
        if self.victim in AWAY:
            self._stopped = self.box.members(self.victim.removesuffix("-away"))
            for process in self._stopped:
                process.suspend()
            return bool(self._stopped)
        if (found := self.box.member(self.victim)) is None:
            return False
        found.kill()
        return True


def left_open(box: Box) -> list[str]:
    """Return the runs of Prefect and MLflow that no process works on, and taken slots."""
    found = []
    with box.client() as client:
        runs = client.post("/flow_runs/filter", json={}).json()
        found += [f"Prefect run {run['name']}: {run['state_name']}" for run in runs
                  if run["state_type"] not in ENDED]  # fmt: skip
        for limit in client.post("/v2/concurrency_limits/filter", json={}).json():
            if limit["active_slots"]:
                found.append(f"slot {limit['name']}: {limit['active_slots']} taken")
    return found + [f"MLflow run {run.info.run_name}: RUNNING" for run in mlflow_runs(box)
                    if run.info.status == "RUNNING"]  # fmt: skip


def doubled(box: Box, names: Mapping[str, Night]) -> list[str]:
    """Return the steps that have more than one MLflow run in one night."""
    parents: dict[str, str] = {}
    seen: dict[tuple[str, str], int] = {}
    for run in mlflow_runs(box):
        tags = run.data.tags
        night = run.data.params.get("register.model")
        if night in names:
            parents[run.info.run_id] = night
        step = (tags.get("mlflow.parentRunId", ""), run.info.run_name)
        seen[step] = seen.get(step, 0) + (step[0] != "")
    pipelines = list(parents.values())
    found = [f"{night}: {pipelines.count(night)} pipelines" for night in {*pipelines}
             if pipelines.count(night) > 1]  # fmt: skip
    return found + [f"{parents.get(parent, parent)}: {count} times {name}"
                    for (parent, name), count in seen.items() if count > 1]  # fmt: skip


def mlflow_runs(box: Box) -> list[Any]:
    """Return all runs of the MLflow server."""
    os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    from mlflow import MlflowClient

    client = MlflowClient(box.addresses()["MLFLOW_TRACKING_URI"])
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, max_results=5000))


class Kills:
    """Kills of one night, one after the other.

    Args:
        box: Of the victims.
        victims: In their order.
        spans: Seconds to wait for each, from the first firing or the kill before.
    """

    def __init__(self, box: Box, victims: Sequence[str], spans: Sequence[float]) -> None:
        self._kills = [Kill(box, *one) for one in zip(victims, spans, strict=True)]
        self._since = 0.0

    @property
    def done(self) -> list[Kill]:
        """Those that were made; the night may have ended before the others."""
        return [kill for kill in self._kills if kill.done is not None]

    def __call__(self, seconds: float) -> None:
        """Make the next one when it is time."""
        for kill in self._kills:
            if not kill.over:
                kill(seconds - self._since)
                if kill.over:
                    self._since = seconds
                return

    def let_go_on(self) -> None:
        """Let go on what was stopped."""
        for kill in self._kills:
            kill.let_go_on()

    def __str__(self) -> str:
        return ", ".join(f"{kill.victim} after {kill.done:.1f} s" for kill in self.done) or "none"


def nights(box: Box, tally: Tally, order: Sequence[str], a_night: int, rng: random.Random) -> None:
    """Take the undisturbed night, then others until all of ``order`` were killed."""
    box.keep_up()
    twin = Night(box, "night-000")
    twin.deploy()
    begin = time.monotonic()
    state = twin.run_to_the_end(lambda seconds: None)
    tally.undisturbed_s = round(time.monotonic() - begin, 1)
    expected = twin.result()
    if state != "Promoted":
        raise SystemExit(f"the undisturbed night ended as {state}; see {box.folder}")
    _say(f"undisturbed: {state} in {tally.undisturbed_s} s")
    all_nights, left, number = {twin.name: twin}, list(order), 0
    while left and number < 2 * len(order):
        number += 1
        night = Night(box, f"night-{number:03}", fired_at_most=a_night + 3)
        all_nights[night.name] = night
        night.deploy()
        spans = [rng.uniform(0.5, _IN_TIME * tally.undisturbed_s) for _ in left[:a_night]]
        kills = Kills(box, left[:a_night], spans)
        try:
            state = night.run_to_the_end(kills)
        finally:
            kills.let_go_on()
        box.keep_up()
        found = night.result()
        same, made = found == expected, len(kills.done)
        del left[:made]
        tally.kills += made
        tally.survived += made * same
        if not same:
            tally.different.append(
                f"{night.name} ({kills}): {state}, {_differences(found, expected)}"
            )
        verdict = f"{'as undisturbed' if same else 'DIFFERENT'}, {state}, fired {night.fired}"
        tally.by_night[night.name] = f"{kills}: {verdict}"
        _say(f"{night.name}: {tally.by_night[night.name]}")
    tally.zombies = _settled(box)
    tally.doubled = doubled(box, all_nights)


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{key}: {json.dumps(found[key])[:300]} instead of {json.dumps(value)[:300]}"
        for key, value in expected.items()
        if found[key] != value
    )


def _settled(box: Box, within_s: float = 420) -> list[str]:
    """Return what is still open once the janitor has had its time."""
    deadline = time.monotonic() + within_s
    while (found := left_open(box)) and time.monotonic() < deadline:
        time.sleep(5)
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="crash-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def main() -> int:
    """Run the nights; exit with 1 if one did not end as it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=6, help="ten of each kind are 60")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--victims", nargs="+", default=VICTIMS, choices=[*VICTIMS, *AWAY])
    parser.add_argument("--a-night", type=int, default=3, help="kills in one night, at most")
    parser.add_argument("--keep", type=Path, help="a new folder for all files, kept")
    asked = parser.parse_args()
    tally, begin = Tally(asked.seed), time.monotonic()
    with _folder(asked.keep) as folder, postgresql() as database:
        write_rows(folder / "rows")
        box = Box(folder, database)
        try:
            order = [asked.victims[number % len(asked.victims)] for number in range(asked.kills)]
            rng = random.Random(asked.seed)
            rng.shuffle(order)
            nights(box, tally, order, asked.a_night, rng)
        finally:
            box.end()
    tally.seconds = round(time.monotonic() - begin, 1)
    print(json.dumps(asdict(tally)))
    return (
        0
        if tally.survived == tally.kills == asked.kills and not tally.zombies + tally.doubled
        else 1
    )


if __name__ == "__main__":
    sys.exit(main())
