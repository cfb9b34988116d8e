"""The table of what is asked again, and what is found, when something around the models changes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from left import left

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.load import load_config
from vlm_ops.models import ground
from vlm_ops.steps.plan import plan
from vlm_ops.steps.table import STEPS

EVERY_MODEL = [name for name, step in STEPS.items() if step.output is AnswerSet]
TRAINED = ["prepare", "sft", "pairs", "prefer"]

Change = Callable[[pytest.MonkeyPatch], None]


def newer(library: str) -> Change:
    """Another version of a library."""

    def change(here: pytest.MonkeyPatch) -> None:
        here.setattr(ground, "version", lambda name: "2" if name == library else "1")

    return change


def on_a_gpu(here: pytest.MonkeyPatch) -> None:
    here.setattr(ground, "device", lambda: "cuda")
    here.setattr(ground, "gpu_multiplies_bf16", lambda: True)


def on_a_cpu_without_bfloat16(here: pytest.MonkeyPatch) -> None:
    here.setattr(ground, "cpu_multiplies_bf16", lambda: False)


def nothing(here: pytest.MonkeyPatch) -> None:
    """The machine stays as it is."""


def fingerprints(folder: Path, *overrides: str) -> dict[str, str]:
    config, outputs = load_config("demo", overrides), left(folder)
    return {name: plan(name, config, outputs).fingerprint for name in STEPS}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a CPU that is fast in bfloat16."""
    monkeypatch.setattr(ground, "version", lambda name: "1")
    monkeypatch.setattr(ground, "device", lambda: "cpu")
    monkeypatch.setattr(ground, "cpu_multiplies_bf16", lambda: True)
    return monkeypatch


@pytest.mark.parametrize(
    ("change", "overrides", "again"),
    [
        (nothing, (), []),
        (newer("transformers"), (), EVERY_MODEL),
        (newer("torch"), (), EVERY_MODEL),
        (newer("peft"), (), EVERY_MODEL),
        (newer("bitsandbytes"), (), EVERY_MODEL),
        (newer("trl"), (), []),
        (newer("numpy"), (), []),
        (on_a_gpu, (), EVERY_MODEL),
        (on_a_cpu_without_bfloat16, (), EVERY_MODEL),
        # Another dtype is another training too.
        (nothing, ("model.dtype=float32",), ["sft", *EVERY_MODEL]),
        (nothing, ("model.dtype=bfloat16",), ["sft"]),
        # Rows hold no prompt: whoever was trained under another one keeps its answers.
        (nothing, ("data.prompt=Q {question}",), ["prepare"]),
        (nothing, ("execution.threads=3", "register.model=other", "name=other"), []),
        (nothing, ("features.memory_gb=1",), []),
        (nothing, ("gate.over_base=0.01",), ["gate"]),
        (nothing, ("evaluate.resamples=300",), ["validation", "evaluate", "gate"]),
        (nothing, ("evaluate.batch_size=3",), ["pairs"]),
        (nothing, ("evaluate.max_rows=9",), [*EVERY_MODEL, "validation", "evaluate"]),
        (nothing, ("evaluate.max_new_tokens=9",), ["pairs", *EVERY_MODEL]),
        (
            nothing,
            ("evaluate.metric=exact_match",),
            ["pairs", *EVERY_MODEL, "validation", "evaluate", "gate"],
        ),
        (nothing, ("sft.learning_rate=0.1",), ["sft"]),
        (nothing, ("model.quantization=none",), ["sft"]),
        (nothing, ("pairs.samples=5",), ["pairs"]),
        (nothing, ("prefer.beta=0.2",), ["prefer"]),
        (nothing, ("seed=9",), list(STEPS)),
    ],
)
def test_what_is_asked_again(
    change: Change,
    overrides: tuple[str, ...],
    again: list[str],
    tmp_path: Path,
    here: pytest.MonkeyPatch,
) -> None:
    before = fingerprints(tmp_path)
    change(here)
    after = fingerprints(tmp_path, *overrides)
    changed = [name for name in STEPS if before[name] != after[name]]
    assert changed == sorted(again, key=list(STEPS).index)
    assert not {*TRAINED} & {*changed} or overrides


def test_answers_that_choose_a_checkpoint_make_their_length_part_of_sft(tmp_path: Path) -> None:
    chosen = fingerprints(tmp_path, "sft.best_by=accuracy")
    longer = fingerprints(tmp_path, "sft.best_by=accuracy", "evaluate.max_new_tokens=9")
    assert chosen["sft"] != longer["sft"]
    assert fingerprints(tmp_path)["sft"] not in (chosen["sft"], longer["sft"])


def test_a_metric_of_ones_own_that_changed_judges_anew(
    tmp_path: Path, here: pytest.MonkeyPatch
) -> None:
    """In what is trained as well, where answers choose the checkpoint or become pairs."""
    here.syspath_prepend(str(tmp_path))
    module = tmp_path / "changing_metric.py"
    chosen = ("evaluate.metric=changing_metric:worth", "sft.best_by=accuracy")
    module.write_text("def worth(said, answers): return 1.0\n")
    before = fingerprints(tmp_path, *chosen)
    module.write_text("def worth(said, answers): return 0.0\n")
    after = fingerprints(tmp_path, *chosen)
    changed = {name for name in STEPS if before[name] != after[name]}
    assert changed == {"sft", "pairs", *EVERY_MODEL}
