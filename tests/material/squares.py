"""A tiny data set of colored squares, and a model that can see color but nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from vlm_ops.artifacts import ModelRef, PreparedData, TrainedAdapter
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.config.sections import ModelSettings
from vlm_ops.models.pictures import Kept, Picture
from vlm_ops.models.replies import Reply
from vlm_ops.records import SPLITS, Answer, Chat, ImageRef, Row, Split, SplitSummary
from vlm_ops.store.fingerprint import fingerprint, sha256_file
from vlm_ops.store.jsonl import write_jsonl

COLORS = {"red": (220, 20, 20), "green": (20, 160, 20), "blue": (20, 20, 220)}


def make_data(folder: Path, images: dict[Split, int], source: str = "squares") -> PreparedData:
    """Two questions (color, is it red) about each square; four squares to a group."""
    (folder / "images").mkdir(parents=True)
    splits: dict[Split, SplitSummary] = {}
    for split, count in images.items():
        rows = [row for number in range(count) for row in _square(folder, split, number)]
        write_jsonl(folder / f"{split}.jsonl", rows)
        splits[split] = SplitSummary(
            rows=len(rows),
            images=count,
            groups=len({row.group for row in rows}),
            kinds={"color": count, "check": count},
        )
    return PreparedData(folder=folder, content=fingerprint(images), splits=splits, source=source)


def _square(folder: Path, split: Split, number: int) -> list[Row]:
    """The rows about one square; a pixel in its corner makes it another image than all others."""
    name = list(COLORS)[number % 3]
    width = 8 if number % 2 else 12
    path = folder / "images" / f"{split}-{number}.png"
    square = Image.new("RGB", (width, 8), COLORS[name])
    square.putpixel((width - 1, 7), (number, SPLITS.index(split), 0))
    square.save(path)
    image = ImageRef(path=f"images/{path.name}", sha256=sha256_file(path), width=width, height=8)
    said = "yes" if name == "red" else "no"
    asked = {"color": ("Which color?", name), "check": ("Is it red?", said)}
    return [
        Row(
            id=f"{split}-{number}-{kind}",
            images=(image,),
            question=question,
            answers=(expected,),
            kind=kind,
            group=f"{split}-table{number // 4}",
        )
        for kind, (question, expected) in asked.items()
    ]


def last_words(chats: Sequence[Chat]) -> list[str]:
    """What the user says last in each chat."""
    return [chat[-1]["content"][-1]["text"] for chat in chats]


@dataclass
class Seer:
    """Names the color in the picture, unless it is told not to see; counts what it is asked."""

    sees: bool = True
    asked: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    fails_after: int | None = None

    def respond(
        self, rows: Sequence[Row], images: Sequence[Sequence[Picture]], job: AnswersJob
    ) -> list[Reply]:
        return [Reply(text=text) for text in self.say([row.question for row in rows], images)]

    def say(self, questions: Sequence[str], images: Sequence[Sequence[Picture]]) -> list[str]:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise KeyboardInterrupt
        self.asked += questions
        self.batches.append(len(questions))
        return [
            self._answer(question, row[0]) for question, row in zip(questions, images, strict=True)
        ]

    def _answer(self, question: str, image: Picture) -> str:
        shown = image.open() if isinstance(image, Kept) else image
        pixel = shown.getpixel((0, 0))
        name = next((name for name, color in COLORS.items() if color == pixel), "gray")
        if not self.sees:
            name = "purple"
        if question.startswith("Which"):
            return name
        return "yes" if name == "red" else "no"


class Models:
    """Stands where models are loaded and generate: seers, of which the base can't see.

    Attributes:
        cannot_see: Adapters of models that can't see; None for the base.
        loaded: What was loaded, in this order.
        seers: What each model content is asked.
    """

    def __init__(self) -> None:
        self.cannot_see: set[str | None] = {None}
        self.loaded: list[ModelRef] = []
        self.seers: dict[str, Seer] = {}

    def load(self, ref: ModelRef) -> Any:
        self.loaded.append(ref)
        return SimpleNamespace(ref=ref)

    def replies(
        self,
        model: Any,
        chats: Sequence[Chat],
        images: Sequence[Sequence[Picture]],
        *,
        max_new_tokens: int,
        batch_size: int,
    ) -> list[Reply]:
        ref: ModelRef = model.ref
        seer = Seer(sees=ref.adapter_sha256 not in self.cannot_see)
        said = self.seers.setdefault(ref.content, seer).say(last_words(chats), images)
        return [Reply(text=text) for text in said]

    @property
    def asked(self) -> int:
        """How many questions were asked in all."""
        return sum(len(seer.asked) for seer in self.seers.values())


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


def judged(right: Sequence[bool], per_image: int = 2, images_per_group: int = 4) -> list[Answer]:
    """Answers with the given judgements, ``per_image`` neighbors to an image."""
    return [
        Answer(
            id=f"row{number}",
            kind="count" if number % 2 else "color",
            group=f"group{number // per_image // images_per_group}",
            image_id=f"image{number // per_image}",
            expected=("1",),
            text="1" if value else "7",
            relaxed=value,
            exact=value,
        )
        for number, value in enumerate(right)
    ]
