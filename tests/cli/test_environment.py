"""Commands where there is no home, or none that can be written to."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from own_rows import own_rows, write_rows
from small import command

_NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "HF_HOME", "XDG_CACHE_HOME")


@pytest.mark.slow
@pytest.mark.parametrize("home", [{}, {"HOME": "/proc/none"}], ids=["unset", "read-only"])
def test_a_check_needs_no_home(home: dict[str, str], tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", own_rows(tmp_path, 60, 30))
    (tmp_path / "own.yaml").write_text(
        "extends: demo\nname: own\n"
        "data: {type: files, path: rows.jsonl, columns: {group: source}}\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in _NAMES}
    done = subprocess.run(
        command("check", "own.yaml", "--json"), cwd=tmp_path, env={**kept, **home},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    # What it finds is that so few groups can promote nobody.
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["rows"]["train"] > 0
