"""``vlm-ops chat``: turns from the terminal; what is wrong with one costs that turn only."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image


def test_a_talk_goes_on_after_what_can_t_be_done(random_base: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    typed = "What?\n/image no.png\n/image\n/imag a.png\n\n/image a.png\nAnd this?\n/exit\nNo?\n"
    arguments = ["chat", str(random_base), "--image", "a.png", "--max-new-tokens", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "vlm_ops.cli", *arguments],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}, input=typed,
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "no.png: there is no such file" in done.stderr
    assert "/image: expected a file, a folder or https://…" in done.stderr
    assert "/imag: there is no such command" in done.stderr
    assert "1 pictures go with your next words" in done.stderr
    assert done.stdout.count("\n") >= 2
