"""What computed a step is in its record; where it is another one by now, a line says so."""

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from left import left

from vlm_ops.config.load import load_config
from vlm_ops.models import ground
from vlm_ops.steps.plan import perform, plan
from vlm_ops.steps.provenance import computed, computed_elsewhere
from vlm_ops.steps.table import STEPS
from vlm_ops.store.artifact import RECORD
from vlm_ops.tracker import NullTracker

MODELS = {name for name, step in STEPS.items() if step.heavy} - {"prepare", "evaluate"}


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install another version of a library, as far as anybody can tell."""

    def install(library: str) -> None:
        real = ground.version
        monkeypatch.setattr(
            ground, "version", lambda name: "9.9" if name == library else real(name)
        )

    return install


def made_here(folder: Path, *names: str) -> dict[str, Any]:
    """What steps would have left that were taken here."""
    outputs = left(folder)
    return {
        name: outputs[name].model_copy(update={"computed": computed(STEPS[name])}) for name in names
    }


def test_the_record_of_a_step_says_what_computed_it(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"image": f"{n}.png", "query": "What?", "label": "This"})
                            + "\n" for n in range(9)))  # fmt: skip
    from PIL import Image

    for number in range(9):
        Image.new("RGB", (64, 64), (number * 20, 0, 0)).save(tmp_path / f"{number}.png")
    source = f"data={{type: files, path: {rows}, columns: {{group: null}}}}"
    config = load_config("demo", [source, f"execution.runs={tmp_path / 'runs'}"])
    planned = plan("prepare", config, {})
    artifact = perform(planned, NullTracker())
    record = json.loads((planned.folder / RECORD).read_text())
    assert record["computed"] == artifact.computed == {
        "python": platform.python_version(),
        **{name: version(name) for name in ("datasets", "pillow", "pyarrow")},
        "step": "1",
        "device": "cpu",
        "threads": "1",
    }  # fmt: skip
    # It is found again by what an earlier version wrote, too.
    del record["computed"]
    (planned.folder / RECORD).write_text(json.dumps(record))
    found = plan("prepare", config, {}).done()
    assert found is not None
    assert found.computed == {}
    assert computed_elsewhere({"prepare": found}, STEPS) == []


def test_every_step_with_a_model_names_what_computes_models() -> None:
    for name, step in STEPS.items():
        libraries = {"torch", "transformers", "trl", "peft", "bitsandbytes"}
        assert (libraries <= computed(step).keys()) == (name in MODELS), name
        assert all(value not in ("", "none") for value in computed(step).values()), name


def test_threads_are_those_that_torch_computes_with() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert computed(STEPS["sft"])["threads"] == "3"
    finally:
        torch.set_num_threads(before)


def test_a_step_that_other_versions_computed_says_so_and_stands(
    tmp_path: Path, upgraded: Callable[[str], None]
) -> None:
    config, outputs = load_config("demo"), left(tmp_path)
    named = plan("sft", config, outputs).fingerprint
    found = made_here(tmp_path, "sft", "gate")
    assert computed_elsewhere(found, STEPS) == []
    torch = ground.version("torch")
    upgraded("torch")
    (line,) = computed_elsewhere(found, STEPS)
    assert line == (
        f"sft: found again, computed with torch {torch} (now 9.9). It stands, and docs/again.md "
        f"says why; to have it computed anew, move sft away."
    )
    assert plan("sft", config, outputs).fingerprint == named


def test_steps_that_differ_alike_share_a_line_and_threads_are_no_difference(
    tmp_path: Path, upgraded: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made_here(tmp_path, "sft", "prefer", "validation", "choose")
    for name, artifact in found.items():
        other = artifact.computed | {"threads": "64", "peak_memory_gb": "99.9"}
        found[name] = artifact.model_copy(update={"computed": other})
    upgraded("numpy")
    (line,) = computed_elsewhere(found, STEPS)
    assert line.startswith("validation, choose: found again, computed with numpy ")
    monkeypatch.setattr(ground, "device", lambda: "cuda")
    statistics, training = sorted(computed_elsewhere(found, STEPS), reverse=True)
    assert statistics == line
    assert training.startswith("sft, prefer: found again, computed with device cpu (now cuda). ")
