"""A tiny data set of colored squares, and a model that can see color but nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from vlm_ops.artifacts import ModelRef, PreparedData, SplitSummary, TrainedAdapter
from vlm_ops.config.sections import EvaluateSettings, ModelSettings
from vlm_ops.records import Answer, ImageRef, Row, Split
from vlm_ops.store.fingerprint import fingerprint, sha256_file
from vlm_ops.store.jsonl import write_jsonl

COLORS = {"red": (220, 20, 20), "green": (20, 160, 20), "blue": (20, 20, 220)}


def make_data(folder: Path, charts: dict[Split, int], source: str = "squares") -> PreparedData:
    """Two questions (color, is it red) about each square; four squares to a table."""
    (folder / "images").mkdir(parents=True)
    refs = {}
    for name, color in COLORS.items():
        for width in (8, 12):
            path = folder / "images" / f"{name}{width}.png"
            Image.new("RGB", (width, 8), color).save(path)
            refs[name, width] = ImageRef(
                path=f"images/{path.name}", sha256=sha256_file(path), width=width, height=8
            )
    splits: dict[Split, SplitSummary] = {}
    for split, count in charts.items():
        rows = []
        for chart in range(count):
            name = list(COLORS)[chart % 3]
            common = {
                "images": (refs[name, 8 if chart % 2 else 12],),
                "group": f"{split}-table{chart // 4}",
                "cluster": f"{split}-chart{chart}",
            }
            said = "yes" if name == "red" else "no"
            asked = {"color": ("Which color?", name), "check": ("Is it red?", said)}
            rows += [
                Row(
                    id=f"{split}-{chart}-{kind}",
                    question=question,
                    answers=(expected,),
                    kind=kind,
                    **common,
                )
                for kind, (question, expected) in asked.items()
            ]
        write_jsonl(folder / f"{split}.jsonl", rows)
        splits[split] = SplitSummary(
            rows=len(rows),
            images=count,
            groups=len({row.group for row in rows}),
            kinds={"color": count, "check": count},
        )
    return PreparedData(folder=folder, content=fingerprint(charts), splits=splits, source=source)


@dataclass
class Seer:
    """Names the color in the picture, unless it is told not to see; counts what it is asked."""

    content: str
    sees: bool = True
    asked: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    fails_after: int | None = None
    closed: int = 0

    def respond(
        self,
        questions: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        settings: EvaluateSettings,
    ) -> list[str]:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked += questions
        self.batches.append(len(questions))
        return [
            self._say(question, row[0]) for question, row in zip(questions, images, strict=True)
        ]

    def close(self) -> None:
        self.closed += 1

    def _say(self, question: str, image: Image.Image) -> str:
        pixel = image.getpixel((0, 0))
        name = next((name for name, color in COLORS.items() if color == pixel), "gray")
        if not self.sees:
            name = "purple"
        if question.startswith("Which"):
            return name
        return "yes" if name == "red" else "no"


def model_ref(adapter: str | None = None) -> ModelRef:
    return ModelRef(
        settings=ModelSettings(),
        base_sha256="base",
        adapter=Path("adapter") if adapter else None,
        adapter_sha256=adapter,
    )


def trained(stage: str, adapter: str) -> TrainedAdapter:
    return TrainedAdapter(
        folder=Path(stage),
        content=adapter,
        stage=stage,
        base=model_ref(),
        adapter_sha256=adapter,
        best_step=1,
        steps=1,
        metrics={},
    )


def judged(right: Sequence[bool], per_chart: int = 2, charts_per_table: int = 4) -> list[Answer]:
    """Answers with the given judgements, ``per_chart`` neighbors to a cluster."""
    return [
        Answer(
            id=f"row{number}",
            kind="count" if number % 2 else "color",
            group=f"table{number // per_chart // charts_per_table}",
            cluster=f"chart{number // per_chart}",
            expected=("1",),
            text="1" if value else "7",
            relaxed=value,
            exact=value,
        )
        for number, value in enumerate(right)
    ]
