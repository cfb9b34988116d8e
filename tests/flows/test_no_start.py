"""What keeps Prefect's server from starting is named within its time; who has no home starts it."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgresql import postgresql

from flows.servers.commands import DATABASE
from flows.servers.environment import environment
from flows.servers.services import services
from vlm_ops.errors import ServiceError

pytestmark = pytest.mark.slow

SECRET = "geheim"
OF_TOMORROW = """
CREATE TABLE alembic_version (version_num varchar(32) NOT NULL);
INSERT INTO alembic_version VALUES ('of-tomorrow');
"""


@pytest.mark.parametrize(
    ("how", "said"), [("down", "Connection refused|Connect call failed"), ("newer", "of-tomorrow")]
)
def test_a_database_that_is_down_or_of_another_version(
    no_urls: None, tmp_path: Path, how: str, said: str
) -> None:
    url = f"postgresql+asyncpg://me:{SECRET}@127.0.0.1:9/prefect"
    with ExitStack() as stack:
        if how == "newer":
            address = stack.enter_context(postgresql())
            subprocess.run(["psql", "--quiet", "-c", OF_TOMORROW, address], check=True)
            url = address.replace("postgresql://", "postgresql+asyncpg://")
        stack.enter_context(environment({DATABASE: url}))
        with (
            pytest.raises(
                ServiceError, match=rf"Prefect server ended with .*(?s:.*)({said})"
            ) as no,
            services(tmp_path, only=("prefect",), timeout_s=400),
        ):
            pass
    assert f"the one that {DATABASE} names" in str(no.value)
    assert SECRET not in str(no.value)


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
