"""What the steps of a small pipeline might have left: records without the work."""

from pathlib import Path
from typing import Any

from vlm_ops.artifacts import (
    AnswerSet,
    Choice,
    Evaluation,
    ModelRef,
    PreferencePairs,
    PreparedData,
    TrainedAdapter,
    ValidationScores,
)
from vlm_ops.config.sections import ModelSettings
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.records import SPLITS, Against, Look, Verdict
from vlm_ops.steps.table import AGAINST, CHAMPION, STEPS

BASE = ModelRef(settings=ModelSettings(), base_sha256="base")


def adapted(adapter: str) -> ModelRef:
    return BASE.model_copy(update={"adapter": Path(adapter), "adapter_sha256": adapter})


def left(folder: Path, **contents: str) -> dict[str, Any]:
    """Return an output for every step.

    Args:
        folder: Gets the prepared splits.
        **contents: What is new, in one word; of ``train``, ``validation`` and ``test`` rows, of a
            step (``_`` for every space), of the champion's ``version``, the ``look``, a ``doubt``.
    """
    new = {name: contents.get(name.replace(" ", "_"), "old") for name in STEPS}
    rows = {split: contents.get(split, "old") for split in SPLITS}
    return {
        "prepare": _prepared(folder, rows),
        "sft": _trained("sft", new["sft"]),
        "pairs": PreferencePairs(
            folder=folder, content=new["pairs"], train=1, validation=1, images=Path(), source="s"
        ),
        "prefer": _trained("prefer", new["prefer"]),
        "validation": ValidationScores(folder=folder, content=new["validation"], scores={}),
        "choose": Choice(
            folder=folder, content=new["choose"], candidate="sft", why="w", validation={},
            model=adapted(f"candidate {new['choose']}"),
        ),
        "evaluate": Evaluation(
            folder=folder, content=new["evaluate"], candidate="sft", why="w", validation={},
            model=BASE, scores={}, logged_models={}, protocol="p",
        ),
        "gate": GateDecision(
            folder=folder, content=new["gate"],
            verdict=Verdict(accepted=True, reasons=(), differences=()),
            candidate="c", champion=None, champion_answers=None, champion_version=None,
        ),
        CHAMPION: adapted(f"champion {contents.get(CHAMPION, 'old')}"),
        AGAINST: Against(
            version=contents.get("version", "1"),
            look=Look(number=2 if "look" in contents else 1, position=1.0),
            doubt=contents.get("doubt"),
        ),
        **{
            name: AnswerSet(
                folder=folder, content=f"{name} {new[name]}", model="m", protocol="p",
                split="test", gray=False, value=0.5,
            )
            for name, step in STEPS.items()
            if step.output is AnswerSet
        },
    }  # fmt: skip


def _prepared(folder: Path, rows: dict[Any, str]) -> PreparedData:
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in rows.items():
        (folder / f"{split}.jsonl").write_text(text)
    return PreparedData(folder=folder, content="".join(rows.values()), splits={}, source="s")


def _trained(stage: Any, content: str) -> TrainedAdapter:
    return TrainedAdapter(
        folder=Path(stage), content=content, stage=stage, base=BASE,
        adapter_sha256=f"{stage} {content}", best_step=1, steps=1, metrics={},
    )  # fmt: skip
