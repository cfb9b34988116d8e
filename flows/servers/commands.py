"""How the servers of a runs folder are started: where they listen, and to whom.

Both listen on 127.0.0.1 and answer their own pages only: any page in a browser of this machine
could else make a deployment in Prefect, which the worker runs, or move an alias in MLflow. What
the user's environment says of origins and logins is meant for other servers and not looked at.
"""

import os
import sys
from pathlib import Path

from flows.servers import auth
from vlm_ops.tracking import own_origin

DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"
"""By this variable Prefect's server has another database than one in the runs folder."""
_LEASES = "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"


def server(name: str, runs: Path, port: int) -> tuple[str, list[str], dict[str, str]]:
    """Return a server's URL, command line and environment.

    Args:
        name: ``prefect`` or ``mlflow``.
        runs: The runs folder, which the caller has locked.
        port: Where it is to listen.

    Raises:
        OutputError: A file that the server needs can't be read or written.
    """
    home, base = runs / name, f"http://127.0.0.1:{port}"
    where = ["--host", "127.0.0.1", "--port", str(port)]
    if name == "prefect":
        command = [sys.executable, "-m", "prefect", "server", "start", *where]
        return f"{base}/api", command, _prefect(home, base)
    store = ["--backend-store-uri", f"sqlite:///{home}/mlflow.db"]
    store += ["--serve-artifacts", "--artifacts-destination", (home / "artifacts").as_uri()]
    # By these options alone, pages of any port of this machine could still read and write.
    door = ["--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
    door += ["--cors-allowed-origins", _origins(base), "--app-name", own_origin.APP]
    command = [sys.executable, "-m", "mlflow", "server", *where, "--workers", "1", *store, *door]
    own_origin.announce(home / "app")
    imports = [str(home / "app"), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Its job runner (seven more processes) serves judges and prompts, which are not used here.
    env = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONPATH": os.pathsep.join(imports)}
    return base, command, env


def _prefect(home: Path, base: str) -> dict[str, str]:
    env = {
        "PREFECT_HOME": str(home),
        # The pages ask this address; Prefect would guess it from its default port.
        "PREFECT_API_URL": f"{base}/api",
        "PREFECT_SERVER_API_AUTH_STRING": auth.ensure(home),
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": _origins(base),
        # Its telemetry meets the first migrations as "database is locked".
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    }
    if _LEASES not in os.environ:
        # In memory, a restart of the server would forget who holds the GPU's slot, for ever.
        env[_LEASES] = "prefect.server.concurrency.lease_storage.filesystem"
    if DATABASE not in os.environ:
        env[DATABASE] = f"sqlite+aiosqlite:///{home}/prefect.db"
    return env


def _origins(base: str) -> str:
    """Return the two names that a browser may know a server's own pages by."""
    return f"{base},{base.replace('127.0.0.1', 'localhost')}"
