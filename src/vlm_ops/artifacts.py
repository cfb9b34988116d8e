"""What the steps of the pipeline leave behind."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from vlm_ops.config.pairs import PreferenceForm
from vlm_ops.config.training import Engine
from vlm_ops.deal import Deal, deal_file, read_deal
from vlm_ops.model_ref import ModelRef as ModelRef
from vlm_ops.model_ref import Start, whole_files
from vlm_ops.pictured import have_images, images_beside
from vlm_ops.records import (
    BARE_QUESTION,
    RELAXED_ACCURACY,
    Answer,
    PreferencePair,
    Row,
    RowsRef,
    Score,
    Split,
    SplitSummary,
    Thumb,
)
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.frozen import added
from vlm_ops.store.jsonl import read_jsonl

PairSplit = Literal["train", "validation"]
PAIR_SPLITS: tuple[PairSplit, ...] = ("train", "validation")
ANSWERS, PROTOCOL = "answers.jsonl", "protocol.json"
"""Files of an answer set; the second one says a benchmark's protocol in words."""

ADAPTER = "adapter"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = (ADAPTER_WEIGHTS, ADAPTER_CONFIG)
"""What training leaves in the folder ``ADAPTER``, under PEFT's names."""

WEIGHTS = "weights"
"""Folder that full fine-tuning leaves: a whole model as transformers saves it."""

MAJORITY = "majority.jsonl"
"""File of an evaluation: the most frequent training answer of each kind, judged."""


class PreparedData(Artifact):
    """Checked rows, split and normalised: ``<split>.jsonl``.

    Attributes:
        splits: Counts by split.
        source: One line for people: where the rows came from.
        prompt: What a model that is trained on the rows is asked with.
        around: What stands around each question in the files. It was the prompt in earlier
            versions, whose records do not tell (None).
        images: Where the rows' image paths start, seen from ``folder``: all of a runs folder share.
        deal: Where it is remembered which split a group belongs to, seen from ``folder``; None
            where the source knows, and in records of earlier versions.
        refused: Rows of the source that are left out; ``refused.jsonl`` says why.
    """

    step = "prepare"

    splits: dict[Split, SplitSummary]
    source: str
    prompt: str = BARE_QUESTION
    around: str | None = None
    images: Path = Path()
    deal: Path | None = None
    refused: int = 0

    @property
    def notices(self) -> tuple[str, ...]:
        """What whoever reads of this data set is to know first."""
        if not self.refused:
            return ()
        file = self.folder / "refused.jsonl"
        return (f"the rows: {self.refused} can't be used and are left out: {file}",)

    def rows(self, split: Split) -> list[Row]:
        """Read the rows of a split, in their order, with bare questions."""
        return Row.read_bare(self.folder / f"{split}.jsonl", self._around)

    @property
    def validation(self) -> RowsRef:
        """The validation rows."""
        return self._part("validation")

    @property
    def test(self) -> RowsRef:
        """The test rows."""
        return self._part("test")

    def _part(self, split: Split) -> RowsRef:
        return RowsRef(
            data=self.folder,
            split=split,
            images=self.image_path(""),
            content=sha256_file(self.folder / f"{split}.jsonl"),
            around=self._around,
        )

    @property
    def _around(self) -> str:
        return self.prompt if self.around is None else self.around

    def image_path(self, relative: str) -> Path:
        """Return where an image of this data set lies."""
        return self.folder / self.images / relative

    def completed(self, inputs: Mapping[str, Any]) -> Self | None:
        """Return the data set if its rows and images are there, and its splits as remembered.

        They are not if a later preparation moved a group to an earlier split, or if another
        registered model, with a past of its own, had these rows prepared.
        """
        rows = (row for split in self.splits for row in self.rows(split))
        file = deal_file(inputs["job"].remembered) if "job" in inputs else None
        if not have_images(rows, self) or (file and self.deal not in (None, file)):
            return None
        deal = Deal() if file is None else read_deal(self.folder / file)
        # Earlier versions remembered nothing, and a user may start anew.
        agree = not deal.groups or all(deal.agrees(self.rows(s), s) for s in self.splits)
        return self if agree else None

    def images_beside(self) -> dict[str, Path]:
        """Return, by content, the images of its rows; earlier versions have them in the folder."""
        return images_beside((row for split in self.splits for row in self.rows(split)), self)


class TrainedAdapter(Artifact):
    """What training left: ``adapter/`` as PEFT writes it, or ``weights/``, a whole model.

    Attributes:
        stage: The step that trained it.
        base: The model that training made it of.
        adapter_sha256: Of ``adapter/adapter_model.safetensors``; None after full fine-tuning.
        weights_sha256: Over ``weights/``; None where an adapter was trained.
        start: What training went on from; None for a fresh adapter.
        best_step: Optimizer step of the checkpoint that was chosen on validation.
        steps: Optimizer steps that were taken.
        metrics: Final numbers (``validation_loss``, ``reward_accuracy``, …).
        engine: What trained it: TRL's own trainer stands in where ``packed`` fails its check.
    """

    step = "train"

    stage: Literal["sft", "prefer"]
    base: ModelRef
    adapter_sha256: str | None
    weights_sha256: str | None = added(None)
    start: Start | None = added(None)
    best_step: int
    steps: int
    metrics: dict[str, float]
    engine: Engine = "packed"

    def completed(self, inputs: Mapping[str, Any]) -> Self | None:
        """Return it if its files are still there, with its base where it is now, and its prompt."""
        if not all(file.is_file() for file in self._files()):
            return None
        sft: TrainedAdapter | None = inputs.get("sft")
        given = inputs.get("data") or (sft.base if sft else inputs["job"])
        place = sft.base.settings.id if sft else inputs["job"].model.id
        settings = self.base.settings.model_copy(update={"id": place})
        now = {"prompt": given.prompt, "settings": settings}
        return self.model_copy(update={"base": self.base.model_copy(update=now)})

    @property
    def model(self) -> ModelRef:
        """The base with this adapter, or the whole model that was made of it."""
        where = {"adapter": self.folder / ADAPTER, "adapter_sha256": self.adapter_sha256}
        if self.weights_sha256 is not None:
            where = {"weights": self.folder / WEIGHTS, "weights_sha256": self.weights_sha256}
        return self.base.model_copy(update=where)

    def _files(self) -> list[Path]:
        if self.weights_sha256 is None:
            return [self.folder / ADAPTER / name for name in ADAPTER_FILES]
        return whole_files(self.folder / WEIGHTS)


Preference = PreferencePair | Thumb
PREFERENCES: dict[PreferenceForm, type[Preference]] = {"pairs": PreferencePair, "thumbs": Thumb}
"""Records by what people call them."""


class PreferencePairs(Artifact):
    """Preferences, pairs or thumbs: ``train.jsonl`` and ``validation.jsonl``.

    Attributes:
        form: Which of the two.
        train: Those to train on.
        validation: Held-out ones.
        images: Where their image paths start, seen from ``folder``.
        source: One line for people: where they came from.
        around: What stands around each question in the files, as in :class:`PreparedData`.
        too_few: In words, if there are too few to learn from.
    """

    step = "pairs"

    form: PreferenceForm = added("pairs")
    train: int
    validation: int
    images: Path
    source: str
    around: str | None = None
    too_few: str | None = None

    @property
    def usable(self) -> "PreferencePairs | None":
        """The pairs, unless they are too few: then preference training is left out."""
        return None if self.too_few else self

    def pairs(self, split: PairSplit) -> Sequence[Preference]:
        """Read the pairs, or thumbs, of a split, in their order, with bare questions."""
        around = self.around or BARE_QUESTION
        return PREFERENCES[self.form].read_bare(self.folder / f"{split}.jsonl", around)

    def image_path(self, relative: str) -> Path:
        """Return where an image of these pairs lies."""
        return self.folder / self.images / relative

    def completed(self, inputs: Mapping[str, Any]) -> Self | None:
        """Return the pairs if they and their images are still there."""
        pairs = (pair for split in PAIR_SPLITS for pair in self.pairs(split))
        if not have_images(pairs, self):
            return None
        # Earlier versions sampled pairs from questions in the prompt of their rows.
        around = inputs["data"].prompt if self.around is None else self.around
        return self.model_copy(update={"around": around})

    def images_beside(self) -> dict[str, Path]:
        """Return, by content, the images of its pairs."""
        return images_beside((pair for split in PAIR_SPLITS for pair in self.pairs(split)), self)


class AnswerSet(Artifact):
    """One model's answers to one split: ``answers.jsonl``.

    Attributes:
        model: Content hash of the model.
        protocol: Hash of rows, decoding and metric: scores compare only within one.
        split: Whose rows were asked.
        gray: Whether every image was replaced by a gray one.
        swapped: Whether every row was asked about another row's images.
        metric: What its answers are judged by; ``value`` is their score under it.
        ground: What computed them beside the model; empty in records of earlier versions.
        benchmark: Whose rows were asked; None for a run's own, and in records of earlier versions.
    """

    step = "answers"
    renamed = {RELAXED_ACCURACY: "value"}

    model: str
    protocol: str
    split: Split
    gray: bool
    swapped: bool = False
    metric: str = added(RELAXED_ACCURACY)
    value: float
    ground: dict[str, str] = {}
    benchmark: str | None = added(None)

    def completed(self, inputs: Mapping[str, Any]) -> Self | None:
        """Return the set if its answers are still there, and how a benchmark was asked."""
        named = self.model_copy(update={"benchmark": inputs["job"].benchmark})
        told = named.benchmark is None or (self.folder / PROTOCOL).is_file()
        return named if told and (self.folder / ANSWERS).is_file() else None

    def read(self) -> list[Answer]:
        """Read the judged answers, in the order of the rows."""
        return list(read_jsonl(self.folder / ANSWERS, Answer))


class ValidationScores(Artifact):
    """How every model did on validation, by name; ``majority`` is among them."""

    step = "validation"
    scores: dict[str, Score]


class Choice(Artifact):
    """Which model goes to the gate, chosen on validation.

    Attributes:
        candidate: Its name.
        why: That choice in words.
        validation: Score on the own validation rows by model.
        model: The candidate's files.
        start: The adapter that the first training went on from; None for a fresh one.
    """

    step = "choose"

    candidate: Literal["sft", "preferred"]
    why: str
    validation: dict[str, float]
    model: ModelRef
    start: Start | None = added(None)

    def completed(self, inputs: Mapping[str, Any]) -> Self:
        """Return the choice with the candidate's files where they are now: they may have moved."""
        trained = inputs["sft" if self.candidate == "sft" else "prefer"]
        first = inputs.get("sft") or inputs["prefer"]
        return self.model_copy(update={"model": trained.model, "start": first.start})


class Evaluation(Artifact):
    """Who is the candidate, and how every model did on test.

    Attributes:
        candidate: Name of the model that goes to the gate, chosen on validation.
        why: That choice in words.
        validation: Score on validation by model.
        model: The candidate's files.
        metric: What all of them are judged by.
        scores: On test, by name (``base``, ``sft``, ``preferred``, ``candidate``, ``sft_gray``,
            ``candidate_gray``, ``candidate_swapped``, ``majority``).
        logged_models: Where the tracker keeps models, by name.
        protocol: Hash of rows, decoding and metric.
        start: The adapter that the first training went on from; None for a fresh one.
    """

    step = "evaluate"

    candidate: Literal["sft", "preferred"]
    why: str
    validation: dict[str, float]
    model: ModelRef
    metric: str = added(RELAXED_ACCURACY)
    scores: dict[str, Score]
    logged_models: dict[str, str]
    protocol: str
    start: Start | None = added(None)

    def majority(self) -> list[Answer]:
        """Read the most frequent training answer of each kind, judged on the test rows.

        Raises:
            DataError: They are gone or damaged.
        """
        return list(read_jsonl(self.folder / MAJORITY, Answer))

    def completed(self, inputs: Mapping[str, Any]) -> Self | None:
        """Return the evaluation if the gate can read it, with the candidate where it is now."""
        named = self.model_copy(update={"model": inputs["choice"].model})
        return named if (self.folder / MAJORITY).is_file() else None
