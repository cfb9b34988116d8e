"""The rule on skips in tests/conftest.py has teeth."""

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
"""


@pytest.mark.skipif(sys.platform != "linux", reason="skips are counted on Linux")
@pytest.mark.parametrize(("skipped", "code"), [(False, 0), (True, 1)])
def test_one_skip_too_many_fails_the_run(tmp_path: Path, skipped: bool, code: int) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE.format(skipped=skipped))
    path = os.pathsep.join([str(TESTS), str(TESTS / "material"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "."],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert ("1 tests skipped, 0 may be" in done.stdout) == skipped
