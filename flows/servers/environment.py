"""The variables by which Prefect's and MLflow's clients and children find the servers."""

import os
import re
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from flows.servers import auth
from vlm_ops.errors import ServiceError
from vlm_ops.store.files import at_home

ADDRESSES = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}
"""Which variable names which server."""

_LOGINS = {
    "prefect": "PREFECT_API_AUTH_STRING (user:password)",
    "mlflow": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (for PostgreSQL PGPASSWORD)",
}
_WITH_LOGIN = re.compile(r"https?://.*@|[^:/]+://[^/]*:.*@", re.IGNORECASE | re.DOTALL)
"""A user of a web address, a password of any other; what they hold need not be escaped."""

SILENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
"""No telemetry."""

_RETRIES = "PREFECT_CLIENT_MAX_RETRIES"
_THIS_MACHINE = ("127.0.0.1", "localhost")


def named(only: Iterable[str] = tuple(ADDRESSES)) -> dict[str, str]:
    """Return the addresses of servers that variables name, by server.

    Args:
        only: The servers to look for.

    Raises:
        ServiceError: An address holds a login. It would stand in logs, records and notifications.
    """
    urls = {name: url for name in only if (url := os.environ.get(ADDRESSES[name]))}
    for name, url in urls.items():
        if _WITH_LOGIN.match(url.strip()):
            raise ServiceError(
                f"{ADDRESSES[name]} holds a login, which would stand in logs, in Prefect's pages "
                f"and in every run's record; leave it out of the address and set {_LOGINS[name]}"
            )
    return urls


def for_clients(urls: Mapping[str, str], home: Path | None) -> dict[str, str | None]:
    """Return what clients need: addresses, the auth string, Prefect's files, the package's log.

    Args:
        urls: Of the servers, by name.
        home: Prefect's folder of an own server, None where its server is somebody else's, whose
            auth string, if it wants one, is the user's to set.

    Raises:
        OutputError: The auth string of an own server belongs to another user.
    """
    loggers = os.environ.get("PREFECT_LOGGING_EXTRA_LOGGERS", "")
    names = [name for name in loggers.split(",") if name and name != "vlm_ops"]
    values: dict[str, str | None] = {**SILENT}
    values |= {ADDRESSES[name]: url for name, url in urls.items()}
    if _RETRIES not in os.environ:
        # The pauses are 2, 4, 8, … s: together four minutes, instead of one by default.
        values[_RETRIES] = "7"
    values["PREFECT_LOGGING_EXTRA_LOGGERS"] = ",".join([*names, "vlm_ops"])
    if home is not None:
        # With a server of one's own that is named by a variable, ~/.prefect may hold its key.
        values["PREFECT_HOME"] = str(home)
        values[auth.VARIABLE] = auth.read(home)
        values["PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"] = "true"
    return values


def reaching_this_machine() -> dict[str, str | None]:
    """Return what keeps proxies for the outside world away from servers on this machine.

    Prefect's client (httpx) fails at a SOCKS proxy when ``socksio`` is not installed, also where
    ``NO_PROXY`` excepts the server. Nothing that is built on httpx could use such a proxy then.
    """
    proxies = urllib.request.getproxies_environment()
    excepted = proxies.pop("no", "")
    if not proxies:
        return {}
    values: dict[str, str | None] = {}
    if find_spec("socksio") is None:
        socks = [scheme for scheme, url in proxies.items() if url.lower().startswith("socks")]
        names = [f"{scheme}_proxy" for scheme in socks]
        values |= {key: None for key in os.environ if key.lower() in names}
    if excepted.strip() != "*":
        hosts = [host.strip() for host in excepted.split(",") if host.strip()]
        hosts += [host for host in _THIS_MACHINE if host not in hosts]
        values |= dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(hosts))
    return values


def have_home(runs: Path) -> None:
    """Give this process a home folder if it has none: no ``HOME``, and a user without a name.

    MLflow asks for one while it is imported, and fails; Prefect whenever it reads its settings. So
    it is kept.

    Args:
        runs: The runs folder; below it libraries may keep what they keep at home.
    """
    if not at_home("~").is_absolute():
        os.environ["HOME"] = str(runs.resolve() / "home")


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables for the duration of the block, and put them back at its end.

    Args:
        values: By name; None takes a variable away.
    """
    before = {key: os.environ.get(key) for key in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for key, value in values.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
    # Prefect reads its settings again where the caller had imported it before.
    if context := sys.modules.get("prefect.context"):
        context.refresh_global_settings_context()
