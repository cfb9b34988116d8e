"""The auth string of a runs folder: what its Prefect server asks of everybody who calls its API.

Without it any program of any user on the machine could make a deployment, which is code that the
worker runs. It lies in ``prefect/auth-string``, which only its owner can read, and reaches
processes by their environment, never by a command line.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.servers.health import ask
from vlm_ops.errors import OutputError, ServiceError
from vlm_ops.store.files import replacing

VARIABLE = "PREFECT_API_AUTH_STRING"
"""Where Prefect's clients look for it."""

_FORM = re.compile(r"[!-~]+:[!-~]+")
_OTHERS = 0o077


def file(home: Path) -> Path:
    """Return where the auth string lies in Prefect's folder of a runs folder."""
    return home / "auth-string"


def read(home: Path) -> str | None:
    """Return the auth string, or None where there is none, as an earlier version left it.

    Args:
        home: Prefect's folder of a runs folder.

    Raises:
        OutputError: The file belongs to another user.
    """
    path = file(home)
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(
            f"{path} can't be read ({error.strerror}): it opens the Prefect server of this runs "
            "folder, and only its owner may read it; call vlm-ops as that user, or choose another "
            "folder with --runs"
        ) from error
    return text if _FORM.fullmatch(text) else None


def ensure(home: Path) -> str:
    """Return the auth string; make one where there is none, or where others could read it.

    Call it under the lock of the runs folder, before its Prefect server starts.

    Args:
        home: Prefect's folder of a runs folder.

    Returns:
        ``vlm-ops:`` and 32 random letters, the ``user:password`` that Prefect wants.

    Raises:
        OutputError: It can't be read or written.
    """
    path = file(home)
    found = read(home)
    if found and not path.stat().st_mode & _OTHERS:
        return found
    fresh = f"vlm-ops:{secrets.token_urlsafe(24)}"
    with replacing(path) as beside:
        # Never readable by others, not even for the moment between writing and chmod.
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as sink:
            sink.write(fresh + "\n")
    return fresh


@contextmanager
def refusal_in_words(api: str | None) -> Iterator[None]:
    """Say what to do where a Prefect server refuses the client in the block, or can't work.

    Args:
        api: Base of the server's API.

    Raises:
        ServiceError: In the place of the client's error.
    """
    try:
        yield
    except Exception as error:
        response = getattr(error, "response", None)
        status: int = getattr(response, "status_code", 0)
        if not api or not str(getattr(response, "url", "")).startswith(api.rstrip("/")):
            raise
        if status >= 500 and (why := ask("prefect", api, timeout_s=10)):
            raise ServiceError(f"the Prefect server at {api} can't work: {why}") from error
        if status != 401:
            raise
        how = "does not fit" if os.environ.get(VARIABLE) else "is not set"
        raise ServiceError(
            f"the Prefect server at {api} asks for its auth string (HTTP 401), and {VARIABLE} "
            f"{how}; a server that vlm-ops started has it in prefect/auth-string of its runs "
            f'folder: export {VARIABLE}="$(cat RUNS/prefect/auth-string)"'
        ) from error
