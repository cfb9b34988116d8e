"""A lease on a registered model: of several who want to move its alias, one does at a time.

MLflow's store has no transactions, but of several callers who create a registered model of one
name, one succeeds. So whoever holds the lease of ``demo`` has made the model ``demo (lease)``,
which says in tags who holds it and until when, and deletes it after use. A holder that was killed
leaves it behind; when its time is over, the next one takes it over.

Taking over must not delete the lease of a third one, who was faster. So it is done under a lease of
its own, whose name ends in the dead holder's: whoever holds that reads the first lease again, and
deletes it if it is still the dead holder's. A holder whose time is over deletes nothing, because
its lease may be another one's by now.

Clocks of machines that share a registry may differ by ``GRACE_S``.
"""

import logging
import random
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from vlm_ops.errors import RegistryError, Unanswered
from vlm_ops.registry import tags
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracking.runs import user_name

TERM_S = 20.0
"""How long a lease holds; what is done under it takes about a second."""
GRACE_S = 5.0
"""How long after its end it is taken over."""
PATIENCE_S = 180.0
"""How long to wait for others."""

_READS = 10
_LONGEST_NAME = 150
"""MLflow's column takes 256 characters, the lease's name is longer than the model's."""

logger = logging.getLogger(__name__)


class Lease:
    """A lease that this process holds."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        """Prepare to hold a lease; nothing is asked of the server yet.

        Args:
            client: Bound to the server.
            name: Of the lease.
        """
        self._client = client
        self._name = name
        self._holder = uuid.uuid4().hex[:8]
        self._until = datetime.now(UTC)

    def take(self) -> bool:
        """Try once; tell whether it is held now."""
        self._until = datetime.now(UTC) + timedelta(seconds=TERM_S)
        try:
            self._client.create_registered_model(
                self._name,
                tags={
                    tags.LEASE_HOLDER: self._holder,
                    tags.LEASE_WHO: f"{user_name()} on {socket.gethostname()}",
                    tags.LEASE_UNTIL: self._until.isoformat(),
                },
                description="vlm-ops moves an alias; this is deleted when it is done.",
            )
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                raise
            # MLFLOW_HTTP_REQUEST_MAX_RETRIES, where a user sets it, repeats a request whose answer
            # was lost: then this is our own lease.
            found = _read(self._client, self._name)
            return found is not None and found.holder == self._holder
        return True

    def check(self) -> None:
        """Make sure, before something is written, that the lease still holds; prolong it.

        Raises:
            Unanswered: Its time is over: a run does all of it again, under another lease.
            MlflowException: The server does not answer.
        """
        left = (self._until - datetime.now(UTC)).total_seconds()
        if left <= 0:
            raise Unanswered(
                f"{self._name}: the lease ended before its work was done, because the server or "
                f"this machine is very slow. Give the command again: it mends what is unfinished."
            )
        if left < TERM_S / 2:
            until = datetime.now(UTC) + timedelta(seconds=TERM_S)
            self._client.set_registered_model_tag(self._name, tags.LEASE_UNTIL, until.isoformat())
            self._until = until

    def release(self) -> None:
        """Give the lease back, unless its time is over."""
        if datetime.now(UTC) < self._until:
            _delete(self._client, self._name)


@contextmanager
def lease(client: MlflowClient, name: str) -> Iterator[Lease]:
    """Hold the lease of a registered model, after waiting for those who hold it.

    Args:
        client: Bound to the server.
        name: The registered model; it need not exist.

    Raises:
        RegistryError: Others held it for very long, or something else has the lease's name.
        MlflowException: The server does not answer.
    """
    with _held(client, _lease_name(name)) as held:
        yield held


class _Holder(NamedTuple):
    """Who holds a lease, as its tags say."""

    holder: str
    who: str
    until: datetime

    @property
    def over(self) -> bool:
        """Whether it may be taken over."""
        return datetime.now(UTC) > self.until + timedelta(seconds=GRACE_S)


@contextmanager
def _held(client: MlflowClient, name: str) -> Iterator[Lease]:
    mine = Lease(client, name)
    deadline = time.monotonic() + PATIENCE_S
    while not mine.take():
        found = _read(client, name)
        if found is not None and found.over:
            _take_over(client, name, found)
        elif found is not None and time.monotonic() > deadline:
            raise RegistryError(
                f"{found.who} holds the registered model {name!r} until {found.until:%H:%M:%S} "
                f"UTC, for longer than {PATIENCE_S:.0f} s: try again."
            )
        else:
            time.sleep(random.uniform(0.05, 0.25))
    try:
        yield mine
    except BaseException:
        # The server may be what failed; the lease ends by itself.
        with suppress(MlflowException):
            mine.release()
        raise
    mine.release()


def _take_over(client: MlflowClient, name: str, dead: _Holder) -> None:
    with _held(client, f"{name} {dead.holder}"):
        found = _read(client, name)
        if found is not None and found.holder == dead.holder and found.over:
            logger.warning("%s: took over from %s, who did not finish", name, dead.who)
            _delete(client, name)


def _read(client: MlflowClient, name: str) -> _Holder | None:
    for _ in range(_READS):
        try:
            found = client.get_registered_model(name).tags
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        try:
            return _Holder(
                holder=found[tags.LEASE_HOLDER],
                who=found[tags.LEASE_WHO],
                until=datetime.fromisoformat(found[tags.LEASE_UNTIL]),
            )
        except (KeyError, ValueError):
            # MLflow reads tags after the model: of one that is deleted meanwhile there are none.
            time.sleep(0.05)
    raise RegistryError(
        f"the registered model {name!r} is not a lease of vlm-ops, but has the name of one: delete "
        f"or rename it in MLflow."
    )


def _delete(client: MlflowClient, name: str) -> None:
    try:
        client.delete_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _lease_name(name: str) -> str:
    short = name
    if len(name) > _LONGEST_NAME:
        short = f"{name[:_LONGEST_NAME]}… {fingerprint(name)[:8]}"
    return f"{short} (lease)"
