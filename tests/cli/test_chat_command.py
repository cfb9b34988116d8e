"""``vlm-ops chat``: turns from the terminal; what is wrong with one costs that turn only."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from vlm_ops.cli.commands import app
from vlm_ops.errors import ModelError


def test_a_talk_goes_on_after_what_can_t_be_done(random_base: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    typed = "What?\n/image no.png\n/image\n/imag a.png\n\n/image a.png\nAnd this?\n/exit\nNo?\n"
    form = ["--dtype", "float32", "--quantization", "none"]
    arguments = ["chat", str(random_base), "--image", "a.png", "--max-new-tokens", "4", *form]
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


@pytest.mark.parametrize("command", [["chat"], ["predict", "What?"]])
def test_a_type_that_a_cpu_has_not_is_refused_with_the_option(
    random_base: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = [command[0], str(random_base), *command[1:], "--dtype", "float16"]
    with pytest.raises(
        ModelError, match=r"set model\.dtype: auto \(predict and chat: --dtype auto"
    ):
        app(arguments, standalone_mode=False)
