"""The part of a pipeline's configuration that each step takes."""

from typing import ClassVar

from pydantic import Field

from vlm_ops.config.gate import GateSettings
from vlm_ops.config.pairs import PairsSettings
from vlm_ops.config.sections import CHECKPOINT_MINUTES, DataSettings, FilesData, ModelSettings
from vlm_ops.config.training import Engine, FeatureSettings, PreferSettings, SftSettings
from vlm_ops.records import BARE_QUESTION, RELAXED_ACCURACY, Split
from vlm_ops.store.frozen import Frozen, added


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


class BenchmarkJob(PrepareJob):
    """What preparing a benchmark's rows takes.

    Attributes:
        split: Of a hub data set, or of charts.
        kinds: That are asked; none names all.
    """

    split: str
    kinds: tuple[str, ...] = ()


class UnseenJob(Job):
    """What leaving out the rows of a benchmark that training sees takes.

    Attributes:
        name: Of the benchmark.
        metric: That its rows have to suit.
        max_rows: At most this many of them are asked.
        seed: Draws those.
        chooses: Whether they choose a checkpoint, so that what the gate asks is left out too.
    """

    name: str
    metric: str
    max_rows: int | None = added(None)
    seed: int = added(0)
    chooses: bool = added(False)


class Task(UnseenJob):
    """A task that chooses a checkpoint with others: the own validation rows, or a benchmark's.

    Attributes:
        share: What it counts for; all of them, 1.
        metric_version: Of the metric's rules.
        max_new_tokens: Longest answer.
        prompt: What the model is asked with; None for its own.
    """

    share: float
    metric_version: int
    max_new_tokens: int
    prompt: str | None = None


class TrainingJob(Job):
    """What ``sft`` and ``prefer`` take.

    Attributes:
        seed: Of everything random.
        validation: Tasks that choose the best checkpoint; none leaves it to the validation rows.
        engine: What trains.
        features: Room for image features.
        checkpoint_minutes: How old the newest checkpoint may get.
        store: Where checkpoints are shared with other machines.
    """

    changes_nothing = frozenset({"checkpoint_minutes", "features", "store"})

    seed: int
    validation: tuple[Task, ...] = added(())
    engine: Engine = "packed"
    features: FeatureSettings = FeatureSettings()
    checkpoint_minutes: float = added(CHECKPOINT_MINUTES, gt=0)
    store: str | None = added(None)


class SftJob(TrainingJob):
    """What ``sft`` takes.

    Attributes:
        model: The base.
        sft: Training settings.
        reserve: Share of the training groups that it does not see.
        max_new_tokens: Longest answer, where answers choose the best checkpoint; None takes the
            default of ``evaluate``.
        metric: That judges them.
        metric_version: Of its rules.
    """

    model: ModelSettings
    sft: SftSettings
    reserve: float = added(0.0)
    max_new_tokens: int | None = added(None)
    metric: str = added(RELAXED_ACCURACY)
    metric_version: int = added(1)


class PairsJob(Job):
    """What ``pairs`` takes.

    Attributes:
        seed: Of everything random.
        pairs: Where pairs come from.
        max_new_tokens: Longest answer.
        batch_size: Answers sampled at once.
        model: The base, where no SFT model is sampled from.
        metric: That tells a mistake of sampled answers.
        metric_version: Of its rules.
        features: Room for image features.
    """

    changes_nothing = frozenset({"features"})

    seed: int
    pairs: PairsSettings
    max_new_tokens: int
    batch_size: int
    model: ModelSettings | None = added(None)
    metric: str = added(RELAXED_ACCURACY)
    metric_version: int = added(1)
    features: FeatureSettings = FeatureSettings()


class PreferJob(TrainingJob):
    """What ``prefer`` takes.

    Attributes:
        prefer: Training settings.
        model: The base, where no SFT model is trained further.
        prompt: Its prompt.
    """

    model: ModelSettings | None = added(None)
    prompt: str = added(BARE_QUESTION)
    prefer: PreferSettings


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
        benchmark: Name of the benchmark that the rows belong to; None for a run's own rows.
        prompt: What every model is asked with; None asks each with its own.
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
    benchmark: str | None = added(None)
    prompt: str | None = added(None)


class ChooseJob(Job):
    """What choosing the candidate takes.

    Attributes:
        seed: Of the tosses.
        shares: What each task that chooses counts for, the own validation rows among them; none
            leaves it to those.
    """

    seed: int
    shares: dict[str, float] = added({})


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
