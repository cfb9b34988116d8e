"""SFT: only answers are learned, nothing but the adapter changes, a cut-off run goes on."""

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from vlm_ops.artifacts import ADAPTER, PAIR_SPLITS, PreparedData
from vlm_ops.config.jobs import SftJob
from vlm_ops.config.load import load_config
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings, SftSettings
from vlm_ops.errors import TrainingError
from vlm_ops.models.adapters import add_adapter
from vlm_ops.models.loading import LoadedModel, base_ref, load
from vlm_ops.records import BARE_QUESTION
from vlm_ops.steps.plan import perform, plan
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.tracker import NullTracker
from vlm_ops.training.rows import sft_rows
from vlm_ops.training.sft import sft_stage, train_sft


def job(base: Path, **changes: Any) -> SftJob:
    settings = SftSettings(
        **{"max_steps": 6, "batch_size": 8, "evaluations": 3, "learning_rate": 1e-3, **changes}
    )
    return SftJob(seed=3, model=ModelSettings(id=str(base)), sft=settings)


def loaded(base: Path) -> LoadedModel:
    return load(base_ref(ModelSettings(id=str(base))), trainable=True)


def with_adapter(base: LoadedModel) -> Any:
    assert isinstance(base.model, PreTrainedModel)
    return add_adapter(base.model, LoraSettings())


def batch(model: LoadedModel, data: PreparedData, count: int = 6) -> Any:
    collate = DataCollatorForVisionLanguageModeling(model.processor, completion_only_loss=True)
    rows = sft_rows(data.rows("train")[:count], data.image_path)
    return collate([rows[number] for number in range(count)])


def frozen_hash(model: torch.nn.Module) -> str:
    """Over every tensor that training must leave alone, quantisation constants included."""
    from vlm_ops.store.fingerprint import sha256_bytes

    state = {
        name: sha256_bytes(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        for name, tensor in model.state_dict().items()
        if "lora_" not in name
    }
    return fingerprint(state)


def test_the_label_mask_covers_exactly_the_answer_tokens(
    random_base: Path, squares: PreparedData
) -> None:
    model = loaded(random_base)
    tokenizer: Any = model.processor.tokenizer
    inputs = batch(model, squares)
    for row, labels in zip(squares.rows("train"), inputs["labels"], strict=False):
        supervised = tokenizer.decode(labels[labels != -100])
        assert supervised.strip() == f"{row.answers[0]}{tokenizer.eos_token}"


def test_adapter_starts_as_the_identity(random_base: Path, squares: PreparedData) -> None:
    model = loaded(random_base)
    inputs = batch(model, squares)
    model.model.eval()
    with torch.no_grad():
        before = model.model(**inputs).logits
        adapted = with_adapter(model)
        after = adapted.eval()(**inputs).logits
    assert torch.equal(before, after)


def test_an_evaluation_pass_between_two_steps_changes_nothing(
    random_base: Path, squares: PreparedData
) -> None:
    def gradients(evaluate: bool) -> tuple[list[torch.Tensor], str]:
        torch.manual_seed(0)
        model = loaded(random_base)
        adapted = with_adapter(model)
        inputs = batch(model, squares)
        optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.1)
        adapted.train()
        adapted(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if evaluate:
            adapted.eval()
            with torch.no_grad():
                adapted(**inputs)
            adapted.train()
        adapted(**inputs).loss.backward()
        found = [p.grad.clone() for p in adapted.parameters() if p.requires_grad]
        return found, frozen_hash(adapted)

    plain, plain_hash = gradients(evaluate=False)
    disturbed, disturbed_hash = gradients(evaluate=True)
    assert plain_hash == disturbed_hash
    assert all(torch.equal(a, b) for a, b in zip(plain, disturbed, strict=True))
    assert any(gradient.abs().sum() > 0 for gradient in plain)


def test_training_learns_and_leaves_the_base_bit_equal(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    curves = Recorder()
    files = base_ref(ModelSettings(id=str(random_base))).base_sha256
    artifact = train_sft(job(random_base), data=squares, out=tmp_path, tracker=curves)
    losses = curves.values("loss")
    assert losses[-1] < losses[0]
    assert base_ref(ModelSettings(id=str(random_base))).base_sha256 == files
    assert _same_without_prefix(load(artifact.model), random_base)
    assert artifact.best_step in (2, 4, 6)
    assert artifact.base.prompt == artifact.model.prompt == squares.prompt
    assert curves.values("learning_rate")
    assert curves.values("tokens_per_second")
    assert min(curves.values("peak_memory_gb")) > 0


def test_rows_are_learned_under_the_prompt_of_the_data(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    prompt = {"prompt": "{question}\nOne word:", "around": BARE_QUESTION}
    data = squares.model_copy(update=prompt)
    stage = sft_stage(job(random_base), data, tmp_path, NullTracker())
    for split in PAIR_SPLITS:
        learned = stage.records(split)
        bare = squares.rows(split)
        assert [row.question for row in learned] == [f"{row.question}\nOne word:" for row in bare]
        assert [row.answers for row in learned] == [row.answers for row in bare]
    assert stage.base.prompt == prompt["prompt"]


def _same_without_prefix(trained: LoadedModel, base: Path) -> bool:
    """PEFT renames adapted layers; compare the tensors under their own names."""

    def tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {
            name.replace(".base_layer", "").removeprefix("base_model.model."): tensor
            for name, tensor in model.state_dict().items()
            if "lora_" not in name
        }

    left, right = tensors(trained.model), tensors(loaded(base).model)
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_checkpoint(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights themselves are spoiled after the first checkpoint, as a bad step would."""
    from transformers import TrainerCallback

    from vlm_ops.training import sft
    from vlm_ops.training.engine.trainers import PackedSft

    class Spoil(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                for parameter in kwargs["model"].parameters():
                    if parameter.requires_grad:
                        parameter.data.fill_(math.nan)

    class Spoiled(PackedSft):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options | {"callbacks": [*options["callbacks"], Spoil()]})

    monkeypatch.setattr(sft, "PackedSft", Spoiled)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 4.*last good checkpoint"):
        train_sft(job(random_base), data=squares, out=tmp_path, tracker=NullTracker())
    complete = [path.parent.name for path in tmp_path.glob("checkpoints/*/complete.json")]
    assert complete == ["checkpoint-2"]


@pytest.mark.slow
def test_a_killed_training_ends_as_an_undisturbed_one(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    asked = job(random_base, max_steps=9, lora=LoraSettings(dropout=0.1))
    options: dict[str, Any] = {"data": squares, "tracker": NullTracker()}
    whole = train_sft(asked, out=tmp_path / "whole", **options)
    out = tmp_path / "cut"
    out.mkdir()
    command = [sys.executable, "-c", _SCRIPT, asked.model_dump_json(), str(squares.folder)]
    child = subprocess.Popen([*command, str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 300
    while not list(out.glob("checkpoints/checkpoint-3/complete.json")):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.02)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not (out / "adapter").exists()
    resumed = train_sft(asked, out=out, **options)
    assert (resumed.best_step, resumed.adapter_sha256) == (whole.best_step, whole.adapter_sha256)


def test_an_adapter_that_is_gone_is_taken_from_its_checkpoint_again(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    config = load_config(
        "demo", [f"model.id={random_base}", "sft.max_steps=2", f"execution.runs={tmp_path}"]
    )
    planned = plan("sft", config, {"prepare": squares})
    made = perform(planned, NullTracker())
    assert perform(planned, NullTracker()) == made
    shutil.rmtree(planned.folder / ADAPTER)
    curves = Recorder()
    again = perform(planned, curves)
    assert again == planned.done() == made.model_copy(update={"seconds": again.seconds})
    assert curves.values("loss") == curves.values("eval_loss") == []


_SCRIPT = """
import sys
from pathlib import Path
from vlm_ops.artifacts import PreparedData
from vlm_ops.config.jobs import SftJob
from vlm_ops.tracker import NullTracker
from vlm_ops.training.sft import train_sft
data = PreparedData(folder=Path(sys.argv[2]), content="squares", splits={}, source="squares")
train_sft(SftJob.model_validate_json(sys.argv[1]), data=data, out=Path(sys.argv[3]),
          tracker=NullTracker())
"""


class Recorder(NullTracker):
    """Keeps the curves in memory."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def metrics(self, values: Any, step: int | None = None, model: str | None = None) -> None:
        self.seen.append({**values, "step": float(step or 0)})

    def values(self, name: str) -> list[float]:
        return [entry[name] for entry in self.seen if name in entry]
