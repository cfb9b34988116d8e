"""What the steps of the pipeline leave behind, and the model that they speak of."""

from pathlib import Path
from typing import Literal

from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import Engine
from vlm_ops.records import PreferencePair, Row, Score, Split, Verdict
from vlm_ops.store.artifact import RECORD, Artifact, read_record
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.frozen import Frozen
from vlm_ops.store.jsonl import read_jsonl

BARE_QUESTION = "{question}"
"""The prompt of a model that is asked the question and nothing else."""


class ModelRef(Frozen):
    """A model by content: a base and, unless it is the base itself, an adapter.

    Attributes:
        settings: How the base is found and loaded.
        base_sha256: Over the base's weights and processor files.
        adapter: Folder with the adapter, or None for the bare base.
        adapter_sha256: Of ``adapter_model.safetensors``.
        prompt: What it was measured with; ``{question}`` stands for the question. Prepared
            rows hold it already.
    """

    settings: ModelSettings
    base_sha256: str
    adapter: Path | None = None
    adapter_sha256: str | None = None
    prompt: str = BARE_QUESTION

    @property
    def content(self) -> str:
        """One hash for what this model computes, wherever its files lie."""
        form = self.settings.model_dump(exclude={"id", "revision"})
        parts = [form, self.base_sha256, self.adapter_sha256]
        # Without a prompt of its own a model keeps the hash under which it is registered.
        return fingerprint(parts if self.prompt == BARE_QUESTION else [*parts, self.prompt])

    def asked(self, question: str) -> str:
        """Return what the model is told when somebody asks it a question."""
        return self.prompt.replace(BARE_QUESTION, question)


class SplitSummary(Frozen):
    """One split of a prepared data set, counted."""

    rows: int
    images: int
    groups: int
    kinds: dict[str, int]


class PreparedData(Artifact):
    """Checked rows, split and normalised: ``<split>.jsonl`` beside ``images/``.

    Attributes:
        splits: Counts by split.
        source: One line for people: where the rows came from.
        prompt: What is around each question of the rows.
    """

    step = "prepare"

    splits: dict[Split, SplitSummary]
    source: str
    prompt: str = BARE_QUESTION

    def rows(self, split: Split) -> list[Row]:
        """Read the rows of a split, in their order."""
        return list(read_jsonl(self.folder / f"{split}.jsonl", Row))

    def image_path(self, relative: str) -> Path:
        """Return where an image of this data set lies."""
        return self.folder / relative


class TrainedAdapter(Artifact):
    """An adapter that training left: ``adapter/`` as PEFT writes it.

    Attributes:
        stage: The step that trained it.
        base: The model it belongs to, without adapter.
        adapter_sha256: Of ``adapter/adapter_model.safetensors``.
        best_step: Optimizer step of the checkpoint that was chosen on validation.
        steps: Optimizer steps that were taken.
        metrics: Final numbers (``validation_loss``, ``reward_accuracy``, …).
        engine: What trained it: TRL's own trainer stands in where ``packed`` fails its check.
    """

    step = "train"

    stage: Literal["sft", "prefer"]
    base: ModelRef
    adapter_sha256: str
    best_step: int
    steps: int
    metrics: dict[str, float]
    engine: Engine = "packed"

    @property
    def model(self) -> ModelRef:
        """The base with this adapter."""
        return self.base.model_copy(
            update={"adapter": self.folder / "adapter", "adapter_sha256": self.adapter_sha256}
        )


class PreferencePairs(Artifact):
    """Preference pairs: ``train.jsonl`` and ``validation.jsonl``.

    Attributes:
        train: Pairs to train on.
        validation: Held-out pairs.
        images: Where the pairs' image paths start, seen from ``folder``.
        source: One line for people: where the pairs came from.
    """

    step = "pairs"

    train: int
    validation: int
    images: Path
    source: str

    def pairs(self, split: Literal["train", "validation"]) -> list[PreferencePair]:
        """Read the pairs of a split, in their order."""
        return list(read_jsonl(self.folder / f"{split}.jsonl", PreferencePair))

    def image_path(self, relative: str) -> Path:
        """Return where an image of these pairs lies."""
        return self.folder / self.images / relative


class AnswerSet(Artifact):
    """One model's answers to one split: ``answers.jsonl``.

    Attributes:
        model: Content hash of the model.
        protocol: Hash of data, prompt, decoding and metric: scores compare only within one.
        score: Over all rows.
        by_kind: By question kind.
        by_group: By table (deck, patient, …).
    """

    step = "answers"

    model: str
    protocol: str
    split: Split
    blind: bool
    score: Score
    by_kind: dict[str, Score]
    by_group: dict[str, Score]


class ChampionAnswers(Artifact):
    """The current champion's answers to this run's test rows.

    Attributes:
        answers: Folder of its answer set, below the runs folder.
        score: On test.
    """

    step = "champion"

    answers: str
    score: Score

    def answer_set(self) -> AnswerSet | None:
        """Read the answers' record."""
        return read_record(self.folder.parent / self.answers, AnswerSet)


class Evaluation(Artifact):
    """Who is the candidate, and how every model did.

    Attributes:
        candidate: The stage whose model goes on, chosen on validation.
        why: That choice in words.
        validation: Relaxed accuracy on validation by model (``sft``, ``prefer``).
        model: The candidate's files.
        answers: Folder of the test answers by name (``base``, ``sft``, ``candidate``,
            ``blind``, ``majority``), below the runs folder.
        scores: On test, by the same names.
        logged_models: Where the tracker keeps models, by name.
        protocol: Hash of data, prompt, decoding and metric.
    """

    step = "evaluate"

    candidate: Literal["sft", "prefer"]
    why: str
    validation: dict[str, float]
    model: ModelRef
    answers: dict[str, str]
    scores: dict[str, Score]
    logged_models: dict[str, str]
    protocol: str

    def answer_folder(self, name: str) -> Path:
        """Return the folder of one model's answers."""
        return self.folder.parent / self.answers[name]

    def is_whole(self) -> bool:
        """Return whether all answers are there: someone may have made room."""
        return all((self.answer_folder(name) / RECORD).is_file() for name in self.answers)


class GateDecision(Artifact):
    """The gate's verdict on a candidate, and whom it was measured against.

    Attributes:
        verdict: Promote or not, with reasons.
        candidate: Content hash of the candidate.
        champion: Content hash of the champion at that time; None if there was none.
        champion_answers: Content hash of its answers, by which this decision is found again.
        champion_version: Its version in the registry.
    """

    step = "gate"

    verdict: Verdict
    candidate: str
    champion: str | None
    champion_answers: str | None
    champion_version: str | None
