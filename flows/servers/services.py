"""Start, find and end the Prefect and MLflow servers of a runs folder.

Nothing here imports prefect or mlflow: both servers are child processes, and Prefect must not be
imported before :func:`services` has set its environment. ``PREFECT_API_URL`` and
``MLFLOW_TRACKING_URI`` are used when they are set. Otherwise a server is started on 127.0.0.1
with its database under the runs folder, or the one that already runs for that folder is shared:
two servers on one SQLite file would corrupt each other's view.

A server that is started here is closed to other origins and users (:mod:`flows.servers.commands`).
"""

import logging
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from flows.servers import auth, guard
from flows.servers.elsewhere import refuse_elsewhere
from flows.servers.environment import (
    ADDRESSES,
    environment,
    for_clients,
    have_home,
    named,
    reaching_this_machine,
)
from flows.servers.health import AWAY, ask
from flows.servers.processes import guarded, writable
from flows.servers.starting import TITLES, start
from vlm_ops.errors import OutputError, ServiceError

logger = logging.getLogger(__name__)


class Ports(NamedTuple):
    """On which ports servers are started; any free one where None.

    Attributes:
        prefect: Of the Prefect server.
        mlflow: Of the MLflow server.
    """

    prefect: int | None = None
    mlflow: int | None = None


@dataclass(frozen=True)
class Services:
    """The two servers that a run uses.

    Attributes:
        prefect_api_url: Base of Prefect's REST API, ``http://…/api``.
        prefect_ui_url: Prefect's pages.
        mlflow_url: MLflow's pages and tracking URI (a ``file:`` or ``sqlite:`` URI as given).
        auth_file: What Prefect's server and pages ask for is kept there; None where that server
            is not one of a runs folder.
        started: Names of the servers started by this call, of ``prefect`` and ``mlflow``.
        seconds: Time until both answered.
    """

    prefect_api_url: str
    prefect_ui_url: str
    mlflow_url: str
    auth_file: Path | None
    started: tuple[str, ...]
    seconds: float

    @property
    def shell(self) -> str:
        """Assignments by which a shell's command finds Prefect; empty where it finds it anyway."""
        if self.auth_file is None:
            return ""
        # The shell reads the file: a text on a command line is seen by everybody.
        read = f'"$(cat {shlex.quote(str(self.auth_file))})"'
        return f"{ADDRESSES['prefect']}={self.prefect_api_url} {auth.VARIABLE}={read}"


ANY_PORTS = Ports()
"""Whatever is free."""


@contextmanager
def services(
    runs: Path,
    *,
    ports: Ports = ANY_PORTS,
    timeout_s: float = 180,
    only: tuple[str, ...] = ("prefect", "mlflow"),
    watched: bool = False,
) -> Iterator[Services]:
    """Have both servers answer for the duration of the block.

    What clients need (:mod:`flows.servers.environment`) is set in ``os.environ`` meanwhile and put
    back at the end. Import prefect inside the block. Servers outlive the block only while another
    process uses them, and never the last of their users, however it ends.

    Args:
        runs: The runs folder; made when missing.
        ports: For servers that are to be started; one that already runs is used whatever its port.
        timeout_s: How long the servers may take to answer, in seconds.
        only: The servers that are needed; the address of another is the empty string.
        watched: The caller has a guard for this folder already.

    Yields:
        The addresses.

    Raises:
        ServiceError: A given URL does not answer or holds a login, a port is taken, or a server
            does not start.
        OutputError: The runs folder can't be written.
    """
    begin = time.monotonic()
    have_home(runs)
    urls = _given(only)
    runs = runs.resolve()
    home = _own_home(runs, urls) if "prefect" in only else None
    own = {name: port for name, port in ports._asdict().items() if name in {*only} - urls.keys()}
    with ExitStack() as stack:
        stack.enter_context(environment(reaching_this_machine()))
        started: tuple[str, ...] = ()
        if own:
            runs = writable(runs)
            if not watched:
                stack.enter_context(guarded(runs))
            me = guard.identity(os.getpid())
            stack.callback(guard.leave, runs, me)
            found, started = _join(runs, me, own, timeout_s)
            urls |= found
        stack.enter_context(environment(for_clients(urls, home)))
        stack.enter_context(auth.refusal_in_words(urls.get("prefect")))
        yield _described(urls, home, started, time.monotonic() - begin)


@contextmanager
def attached(runs: Path) -> Iterator[Services]:
    """Use servers that already run, and start none.

    Args:
        runs: The runs folder whose servers are looked for where no variable names one.

    Yields:
        The addresses, with the same variables set as :func:`services` sets.

    Raises:
        ServiceError: Prefect's or MLflow's server is not there.
    """
    have_home(runs)
    urls = _given(tuple(ADDRESSES))
    runs = runs.resolve()
    home = _own_home(runs, urls)
    if urls.keys() != ADDRESSES.keys():
        refuse_elsewhere(runs)
    urls = {name: item["url"] for name, item in guard.read_state(runs)["servers"].items()} | urls
    for name, variable in ADDRESSES.items():
        if name not in urls:
            raise ServiceError(
                f"no {TITLES[name]} server: {variable} is not set and {runs / 'services.json'} "
                "names none that runs; start one with `vlm-ops up` in the same folder, or set "
                f"{variable}"
            )
    with (
        environment(reaching_this_machine() | for_clients(urls, home)),
        auth.refusal_in_words(urls["prefect"]),
    ):
        yield _described(urls, home, (), 0.0)


def _own_home(runs: Path, given: dict[str, str]) -> Path | None:
    """Return Prefect's folder where its server is that of the runs folder, named or not."""
    home = runs / "prefect"
    if "prefect" not in given:
        return home
    own = guard.read_state(runs)["servers"].get("prefect", {}).get("url")
    login = os.environ.get(auth.VARIABLE)
    same = own == given["prefect"].rstrip("/") and (not login or login == auth.read(home))
    return home if same else None


def _given(only: tuple[str, ...]) -> dict[str, str]:
    """Return the URLs that the environment names, each checked to answer."""
    urls = named(only)
    for name, url in urls.items():
        if not url.startswith(("http://", "https://")):
            continue
        if reason := ask(name, url, timeout_s=10, slow_s=60):
            other = (
                f"; start one with `vlm-ops up`, or unset {ADDRESSES[name]} to let vlm-ops start "
                f"its own"
            )
            raise ServiceError(
                f"{ADDRESSES[name]} is {url}, but no {TITLES[name]} server works there: {reason}"
                f"{'' if AWAY in reason else other}"
            )
    return urls


def _join(
    runs: Path, me: dict[str, Any], ports: dict[str, int | None], timeout_s: float
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Become a user of the folder's servers, starting those that don't run."""
    try:
        with guard.lock(runs, timeout_s):
            refuse_elsewhere(runs)
            if (aside := guard.set_aside(runs)) is not None:
                logger.warning(
                    "%s could not be read, as after a power loss; it is %s now, and servers are "
                    "started anew", runs / "services.json", aside.name,
                )  # fmt: skip
            state = guard.read_state(runs)
            urls = {name: item["url"] for name, item in state["servers"].items() if name in ports}
            missing = {name: port for name, port in ports.items() if name not in urls}
            fresh = start(runs, missing, timeout_s)
            state["servers"] |= fresh
            # Another `services` block of this process may be inside already.
            state["users"] = [user for user in state["users"] if user["pid"] != me["pid"]] + [me]
            guard.write_state(runs, state)
    except filelock.Timeout as error:
        raise ServiceError(
            f"another process has been starting or ending the servers of {runs} for {timeout_s:g} "
            f"s (it holds {runs / 'services.lock'}); try again, or end it"
        ) from error
    return urls | {name: item["url"] for name, item in fresh.items()}, tuple(fresh)


@contextmanager
def registry(runs: Path) -> Iterator[str]:
    """Have the MLflow server with the registered models answer for the duration of the block.

    Args:
        runs: An existing runs folder; not looked at where ``MLFLOW_TRACKING_URI`` is set.

    Yields:
        The server's address.

    Raises:
        OutputError: There is no such folder, or it is not a runs folder.
        ServiceError: The server does not start or does not answer.
    """
    if not os.environ.get(ADDRESSES["mlflow"]):
        must_exist(runs)
    with services(runs, only=("mlflow",)) as found:
        yield found.mlflow_url


def must_exist(runs: Path) -> None:
    """Refuse a folder that no run has worked in, before anything is made there.

    Raises:
        OutputError: There is no such folder, or it is not a runs folder.
    """
    if not (runs / "prefect").is_dir() and not (runs / "mlflow").is_dir():
        found = "a folder without prefect/ and mlflow/" if runs.is_dir() else "nothing"
        raise OutputError(
            f"no runs folder at {runs.resolve()}: found {found}; name the folder of an earlier "
            "run with --runs, or make one with `vlm-ops run demo`"
        )


def _described(
    urls: dict[str, str], home: Path | None, started: tuple[str, ...], seconds: float
) -> Services:
    api = urls.get("prefect", "").rstrip("/")
    pages = os.environ.get("PREFECT_UI_URL") or api.removesuffix("/api")
    kept = auth.file(home) if home and auth.file(home).exists() else None
    return Services(api, pages, urls.get("mlflow", ""), kept, started, seconds)
