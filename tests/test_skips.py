"""What tests/conftest.py lets a run leave out: no skips, and the other parts of thorough tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SUITE = """
import pytest

def test_that_runs():
    pass

@pytest.mark.skipif({skipped}, reason="of no matter")
def test_that_may_be_skipped():
    pass

@pytest.mark.thorough
def test_that_takes_long():
    pass
"""


@pytest.mark.skipif(sys.platform != "linux", reason="skips are counted on Linux")
@pytest.mark.parametrize(
    ("skipped", "code", "part", "said"),
    [(False, 0, "1/2", "2 passed, 1 deselected"), (True, 1, "2/2", "2 passed, 1 skipped")],
)
def test_one_skip_too_many_fails_the_run_and_a_part_of_what_takes_long_does_not(
    tmp_path: Path, skipped: bool, code: int, part: str, said: str
) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE.format(skipped=skipped))
    path = os.pathsep.join([str(TESTS), str(TESTS / "material"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "--thorough", part, "."],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert ("1 tests skipped, 0 may be" in done.stdout) == skipped
    assert said in done.stdout
