"""Small trainings on the squares."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from vlm_ops.artifacts import Preference, PreferencePairs, PreparedData
from vlm_ops.config.jobs import PreferJob, SftJob
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import Engine, PreferSettings, SftSettings
from vlm_ops.records import PreferencePair, Row, Thumb


class Pairs(PreferencePairs):
    """Pairs, or thumbs, in memory."""

    every: tuple[Preference, ...]
    root: Path

    def pairs(self, split: Literal["train", "validation"]) -> list[Preference]:
        return list(self.every if split == "train" else self.every[:4])

    def image_path(self, relative: str) -> Path:
        return self.root / relative


def sft_job(base: Path, engine: Engine = "packed", **changes: Any) -> SftJob:
    settings = SftSettings(
        **{"max_steps": 6, "batch_size": 8, "evaluations": 3, "learning_rate": 1e-3, **changes}
    )
    model = ModelSettings(id=str(base), dtype="float32")
    return SftJob(seed=3, model=model, sft=settings, engine=engine)


def prefer_job(engine: Engine = "packed", **changes: Any) -> PreferJob:
    settings = PreferSettings(
        **{
            "loss": ("sigmoid",),
            "max_steps": 6,
            "batch_size": 4,
            "evaluations": 3,
            "learning_rate": 1e-3,
            **changes,
        }
    )
    return PreferJob(seed=3, prefer=settings, engine=engine)


def pairs_of(squares: PreparedData, rows: Sequence[Row], out: Path) -> Pairs:
    pairs = tuple(
        PreferencePair(
            id=row.id,
            images=row.images,
            question=row.question,
            chosen=row.answers[0],
            rejected="Purple" if row.kind == "color" else "2",
            kind=row.kind,
        )
        for row in rows
    )
    return Pairs(
        folder=out, content="pairs", train=len(pairs), validation=4, images=Path(),
        source="squares", every=pairs, root=squares.folder,
    )  # fmt: skip


def thumbs_of(squares: PreparedData, rows: Sequence[Row], out: Path) -> Pairs:
    """A thumb for each row: up for its answer, or down for another one."""
    thumbs = tuple(
        Thumb(
            id=row.id,
            images=row.images,
            question=row.question,
            completion=row.answers[0] if number % 3 else f"Purple {number}",
            label=number % 3 > 0,
            kind=row.kind,
        )
        for number, row in enumerate(rows)
    )
    return Pairs(
        folder=out, content="thumbs", form="thumbs", train=len(thumbs), validation=4,
        images=Path(), source="squares", every=thumbs, root=squares.folder,
    )  # fmt: skip
