"""What keeps Prefect's server from starting is named within its time; who has no home starts it."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgresql import postgresql

from flows.servers.commands import DATABASE
from flows.servers.database import refuse_old
from flows.servers.environment import environment
from flows.servers.services import services
from vlm_ops.errors import ServiceError

pytestmark = pytest.mark.slow

PREFECT = ("prefect",)
SECRET = "geheim"
OF_TOMORROW = """
CREATE TABLE alembic_version (version_num varchar(32) NOT NULL);
INSERT INTO alembic_version VALUES ('of-tomorrow');
"""


def test_a_database_of_a_newer_prefect(no_urls: None, tmp_path: Path) -> None:
    with ExitStack() as stack:
        address = stack.enter_context(postgresql())
        subprocess.run(["psql", "--quiet", "-c", OF_TOMORROW, address], check=True)
        url = address.replace("postgresql://", "postgresql+asyncpg://")
        stack.enter_context(environment({DATABASE: url}))
        with (
            pytest.raises(
                ServiceError, match=r"Prefect server ended with .*(?s:.*)of-tomorrow"
            ) as no,
            services(tmp_path, only=PREFECT, timeout_s=400),
        ):
            pass
    assert f"the one that {DATABASE} names" in str(no.value)


def test_a_database_that_is_down_is_told_before_a_server_starts(
    no_urls: None, tmp_path: Path
) -> None:
    down = environment({DATABASE: f"postgresql+asyncpg://me:{SECRET}@127.0.0.1:9/prefect"})
    said = rf"{DATABASE} names does not answer: .*Connect call failed"
    with down, pytest.raises(ServiceError, match=said) as no, services(tmp_path, only=PREFECT):
        pass
    assert SECRET not in str(no.value)
    assert not (tmp_path / "logs" / "prefect-server.log").exists()


@pytest.mark.parametrize("version", [(9, 6, 24), (13, 22), (14, 8)])
def test_a_postgresql_that_is_too_old(version: tuple[int, ...]) -> None:
    have = ".".join(map(str, version))
    with pytest.raises(ServiceError, match=rf"names: found PostgreSQL {have}, expected 14\.9 or "):
        refuse_old(version)
    for fit in ((14, 9), (15, 18), (18, 0)):
        refuse_old(fit)


HOMELESS = """
import os, sys
from pathlib import Path
from flows.servers.environment import have_home
os.environ.pop("HOME", None)
if os.geteuid() == 0:  # only now: the interpreter may lie where nobody else may look
    os.setgroups([]); os.setgid(12345); os.setuid(12345)
have_home(Path("/runs"))
print(Path.home())
"""


def test_a_user_without_a_name_and_a_home_is_given_one() -> None:
    """Another user is tried where the test may choose one; who has a home keeps it."""
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout == "/runs/home\n") is (os.geteuid() == 0)
