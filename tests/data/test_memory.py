"""What ``prepare`` holds in memory hardly grows with the number of rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = Path(__file__).parents[2] / "benchmarks" / "many_rows.py"


@pytest.mark.parametrize(("bad", "most"), [((), 2.0), (("--bad",), 1.5)])
def test_a_row_takes_little(bad: tuple[str, ...], most: float) -> None:
    """Of good rows 4.7 KB each were held, of refused ones 3 KB."""
    sizes = ["--rows", "300", "3300"]
    done = subprocess.run(
        [sys.executable, str(MEASURE), *sizes, *bad], check=True, capture_output=True, text=True
    )
    few, many = (json.loads(line.split(":", 1)[1])["peak"] for line in done.stdout.splitlines())
    assert many - few < 3000 * most / 1024 + 1
