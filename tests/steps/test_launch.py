"""Which of several processes' ends is the step's; what kills one is in training/test_ranks.py."""

import json
from pathlib import Path

import pytest

from vlm_ops.steps.launch import _ended
from vlm_ops.steps.process import STOPPED, error_file

MISSED, OWN = ("StepFailed", True), ("DataError", False)


@pytest.mark.parametrize(
    ("codes", "told", "code", "kept"),
    [
        # The other one missed it first, and was ended for it.
        ({0: -15, 1: 1}, {0: MISSED, 1: OWN}, 1, "DataError"),
        ({0: -15, 1: 1}, {1: MISSED}, 1, "StepFailed"),
        ({0: -9, 1: 1}, {1: OWN}, 1, "DataError"),
        # Asked to stop, one of them a moment later.
        ({0: 1, 1: STOPPED}, {0: MISSED}, STOPPED, None),
        ({0: STOPPED, 1: 1}, {1: OWN}, 1, "DataError"),
    ],
)
def test_the_step_ends_as_the_process_that_began_it(
    codes: dict[int, int],
    told: dict[int, tuple[str, bool]],
    code: int,
    kept: str | None,
    tmp_path: Path,
) -> None:
    files = [error_file(tmp_path / "request.json", number) for number in (0, 1)]
    for number, (error, unforeseen) in told.items():
        said = {"error": error, "message": "", "unforeseen": unforeseen}
        files[number].write_text(json.dumps(said), encoding="utf-8")
    result = tmp_path / "error.json"
    assert _ended(codes, files, result) == code
    assert (json.loads(result.read_text())["error"] if result.exists() else None) == kept
