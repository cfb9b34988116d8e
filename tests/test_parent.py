"""No process outlives the one that needs it, however that one ended."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from processes import Processes, orphans

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")

CHILD = """
import sys, time
from pathlib import Path
from vlm_ops.parent import die_with_parent
die_with_parent(int(sys.argv[1]))
Path(sys.argv[2]).touch()
time.sleep(600)
"""
PARENT = f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(os.getpid()), sys.argv[1]])
time.sleep(600)
"""


def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    tied = tmp_path / "tied"

    def ready(children: Processes) -> bool:
        return tied.exists()

    assert not orphans(PARENT, str(tied), ready=ready)


def test_a_parent_that_is_gone_already_is_an_error(tmp_path: Path) -> None:
    """As when it ends between starting the child and the child's first line."""
    other = psutil.Process(os.getpid()).ppid()
    tied = tmp_path / "tied"
    command = [sys.executable, "-c", CHILD, str(other), str(tied)]
    ended = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "Interrupted: the process that started this one" in ended.stderr
    assert not tied.exists()
