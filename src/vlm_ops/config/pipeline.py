"""The configuration of a whole pipeline, and the part of it that each step takes."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from vlm_ops.config.gate import GateSettings
from vlm_ops.config.pairs import DatasetThumbs, PairsSettings, SampledPairs
from vlm_ops.config.sections import (
    CHECKPOINT_MINUTES,
    FRESH,
    ChartsData,
    DataSettings,
    EvaluateSettings,
    ExecutionSettings,
    FilesData,
    ModelSettings,
    RegisterSettings,
)
from vlm_ops.config.training import Engine, FeatureSettings, PreferSettings, SftSettings
from vlm_ops.records import BARE_QUESTION, RELAXED_ACCURACY, Split
from vlm_ops.store.frozen import Frozen, added

BOTH: tuple[Literal["sft", "prefer"], ...] = ("sft", "prefer")


class PipelineConfig(Frozen):
    """Everything a retraining run is told: one YAML file."""

    name: str = Field(default="demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the MLflow experiment, and of the registered model unless ``register.model`` says."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Every random choice starts here."""
    stages: tuple[Literal["sft", "prefer"], ...] = added(BOTH)
    """What is trained: ``[sft]`` or ``[prefer]`` alone, or ``[sft, prefer]``. Preferences alone
    start at the base, or at ``model.start``, which is their reference too."""
    model: ModelSettings = ModelSettings()
    data: DataSettings = ChartsData()
    engine: Engine = "packed"
    """What trains: ``packed``, or ``trl`` to compare with TRL's own trainers."""
    features: FeatureSettings = FeatureSettings()
    sft: SftSettings = SftSettings()
    pairs: PairsSettings = SampledPairs()
    prefer: PreferSettings = PreferSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    gate: GateSettings = GateSettings()
    register_: RegisterSettings = Field(default=RegisterSettings(), alias="register")
    execution: ExecutionSettings = ExecutionSettings()

    @model_validator(mode="after")
    def _stages_have_an_order(self) -> "PipelineConfig":
        if self.stages not in (BOTH[:1], BOTH[1:], BOTH):
            found = ", ".join(self.stages)
            raise ValueError(f"stages: found [{found}], expected [sft], [prefer] or [sft, prefer]")
        return self

    @model_validator(mode="after")
    def _trl_would_cut(self) -> "PipelineConfig":
        if self.engine == "trl" and (self.sft.max_length or self.prefer.max_length):
            raise ValueError(
                "max_length needs engine: packed, which refuses a longer row; stock TRL would cut "
                "image or answer tokens off"
            )
        return self

    @model_validator(mode="after")
    def _thumbs_are_no_pairs(self) -> "PipelineConfig":
        if self.prefers and isinstance(self.pairs, DatasetThumbs) and not self.prefer.unpaired:
            raise ValueError(
                f"pairs.type thumbs: a thumb is about one answer, and prefer.loss "
                f"{', '.join(self.prefer.loss)} compares two; set prefer.loss: kto"
            )
        return self

    @model_validator(mode="after")
    def _full_stands_alone(self) -> "PipelineConfig":
        if not self.tunes or self.sft.method != "full":
            return self
        if self.model.quantization != "none":
            raise ValueError(
                f"sft.method full trains the weights themselves, and weights in "
                f"{self.model.quantization} can't be trained; set model.quantization: none, or "
                f"sft.method: lora"
            )
        if self.prefers:
            raise ValueError(
                "sft.method full: preferences are not trained after it; set stages: [sft], or "
                "sft.method: lora. To prefer on top of it, take the weights that it leaves as "
                "model.id of a configuration with stages: [prefer]"
            )
        return self

    @model_validator(mode="after")
    def _an_adapter_goes_on_as_one(self) -> "PipelineConfig":
        if self.model.start == FRESH or not self.tunes or self.sft.method == "lora":
            return self
        raise ValueError(
            f"model.start {self.model.start}: sft.method full does not train an adapter further; "
            f"set model.start: base, or sft.method: lora"
        )

    @property
    def reserve(self) -> float:
        """Share of the training groups that SFT does not see."""
        if isinstance(self.pairs, SampledPairs) and self.prefers and self.tunes:
            return self.pairs.reserve
        return 0.0

    @property
    def tunes(self) -> bool:
        """Whether there is supervised fine-tuning at all."""
        return "sft" in self.stages

    @property
    def prefers(self) -> bool:
        """Whether preferences are trained at all."""
        return "prefer" in self.stages

    @property
    def registered_model(self) -> str:
        """Name of the registered model in MLflow."""
        return self.register_.model or self.name


class Job(Frozen):
    """What one step takes from the configuration.

    Attributes:
        changes_nothing: Fields that change no result; all others go into the fingerprint.
    """

    changes_nothing: ClassVar[frozenset[str]] = frozenset()


class PrepareJob(Job):
    """What ``prepare`` takes.

    Attributes:
        seed: Deals new groups, draws rows.
        data: Where rows come from.
        name: Of the registered model: groups keep the split that they had when a model of that
            name was trained. None remembers nothing.
    """

    changes_nothing = frozenset({"name"})

    seed: int
    data: DataSettings
    name: str | None = Field(default=None, exclude=True)

    @property
    def remembered(self) -> str | None:
        """Name under which splits are remembered; None where the source brings its own."""
        return self.name if isinstance(self.data, FilesData) else None


class SftJob(Job):
    """What ``sft`` takes.

    Attributes:
        seed: Of everything random.
        model: The base.
        sft: Training settings.
        reserve: Share of the training groups that it does not see.
        max_new_tokens: Longest answer, where answers choose the best checkpoint; None takes the
            default of ``evaluate``.
        metric: That judges them.
        engine: What trains.
        features: Room for image features.
        checkpoint_minutes: How old the newest checkpoint may get.
        store: Where checkpoints are shared with other machines.
    """

    changes_nothing = frozenset({"checkpoint_minutes", "features", "store"})

    seed: int
    model: ModelSettings
    sft: SftSettings
    reserve: float = added(0.0)
    max_new_tokens: int | None = added(None)
    metric: str = added(RELAXED_ACCURACY)
    engine: Engine = "packed"
    features: FeatureSettings = FeatureSettings()
    checkpoint_minutes: float = added(CHECKPOINT_MINUTES, gt=0)
    store: str | None = added(None)


class PairsJob(Job):
    """What ``pairs`` takes.

    Attributes:
        seed: Of everything random.
        pairs: Where pairs come from.
        max_new_tokens: Longest answer.
        batch_size: Answers sampled at once.
        model: The base, where no SFT model is sampled from.
        metric: That tells a mistake of sampled answers.
        features: Room for image features.
    """

    changes_nothing = frozenset({"features"})

    seed: int
    pairs: PairsSettings
    max_new_tokens: int
    batch_size: int
    model: ModelSettings | None = added(None)
    metric: str = added(RELAXED_ACCURACY)
    features: FeatureSettings = FeatureSettings()


class PreferJob(Job):
    """What ``prefer`` takes.

    Attributes:
        seed: Of everything random.
        prefer: Training settings.
        engine: What trains.
        features: Room for image features.
        checkpoint_minutes: How old the newest checkpoint may get.
        store: Where checkpoints are shared with other machines.
        model: The base, where no SFT model is trained further.
        prompt: Its prompt.
    """

    changes_nothing = frozenset({"checkpoint_minutes", "features", "store"})

    model: ModelSettings | None = added(None)
    prompt: str = added(BARE_QUESTION)
    seed: int
    prefer: PreferSettings
    engine: Engine = "packed"
    features: FeatureSettings = FeatureSettings()
    checkpoint_minutes: float = added(CHECKPOINT_MINUTES, gt=0)
    store: str | None = added(None)


class AnswersJob(Job):
    """What asking one model takes.

    Attributes:
        seed: Draws the rows where there are more than ``max_rows``.
        split: Which rows.
        gray: Whether every image is replaced by a gray one.
        swapped: Whether every row is asked about another row's images.
        max_new_tokens: Longest answer.
        batch_size: Rows at once; greedy answers do not depend on it.
        max_rows: At most this many rows.
        ground: What computes the answers beside the model (:mod:`vlm_ops.models.ground`); a change
            asks again. Every model is asked in its dtype.
        features: Room for image features.
        metric: What judges the answers.
        metric_version: Of its rules.
    """

    changes_nothing = frozenset({"batch_size", "features"})

    seed: int
    split: Split
    gray: bool
    max_new_tokens: int
    batch_size: int
    max_rows: int | None
    swapped: bool = False
    ground: dict[str, str] = {}
    features: FeatureSettings = FeatureSettings()
    metric: str = added(RELAXED_ACCURACY)
    metric_version: int = added(1)


class ChooseJob(Job):
    """What choosing the candidate takes."""

    seed: int


class EvaluateJob(Job):
    """What scoring answers takes."""

    seed: int
    max_rows: int | None
    resamples: int
    metric: str = added(RELAXED_ACCURACY)


class GateJob(Job):
    """What ``gate`` takes."""

    seed: int
    gate: GateSettings
    resamples: int
