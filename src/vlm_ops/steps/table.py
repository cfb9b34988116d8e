"""The steps of the pipeline: what each one takes, where that comes from, what does the work.

This is the only place that knows. The flow walks through the table, ``vlm-ops step`` takes one
stage of it, and the process of a heavy step finds its function here. Functions are imported when
they run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vlm_ops.artifacts import (
    AnswerSet,
    Choice,
    Evaluation,
    PreferencePairs,
    PreparedData,
    TrainedAdapter,
    ValidationScores,
)
from vlm_ops.config.pipeline import (
    AnswersJob,
    ChooseJob,
    GateJob,
    Job,
    PairsJob,
    PipelineConfig,
    PreferJob,
    PrepareJob,
    SftJob,
)
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.metrics import METRIC_VERSION
from vlm_ops.evaluation.protocol import ASKING_VERSION, ground_of_answers
from vlm_ops.models.ground import LIBRARIES
from vlm_ops.records import BARE_QUESTION, Split
from vlm_ops.steps import jobs
from vlm_ops.store.artifact import Artifact

CHAMPION = "champion"
"""What comes from the registry and not from a step: the champion's
:class:`~vlm_ops.artifacts.ModelRef`."""

AGAINST = "against"
"""What the registry says beside it: a :class:`~vlm_ops.records.Against`."""


_STATISTICS = ("numpy", "scipy")


@dataclass(frozen=True)
class From:
    """Where an input of a step comes from.

    Attributes:
        step: A key of ``STEPS``, ``CHAMPION`` or ``AGAINST``.
        part: Attribute of that step's artifact; empty for the artifact itself.
        optional: Whether the step that takes it can do without.
        otherwise: Where it comes from if it is not there.
    """

    step: str
    part: str = ""
    optional: bool = False
    otherwise: "From | None" = None

    @property
    def steps(self) -> tuple[str, ...]:
        """All steps that it may come from."""
        return (self.step, *(self.otherwise.steps if self.otherwise else ()))


@dataclass(frozen=True)
class Step:
    """One piece of work.

    Attributes:
        name: Its own.
        stage: What people call the work it belongs to: a stage is one or more steps.
        work: The same for steps that do the same on other inputs; it names folders.
        version: Raised when the same job must give another output than before.
        job: Builds what the step takes from the whole configuration.
        output: Type of what it leaves.
        function: ``module:function``, imported when the step runs.
        inputs: Where each parameter of the function comes from. Where something is not there that
            it can't do without, the step is left out, and so is what needs its output.
        libraries: What computes it, by the names of the distributions; kept in its record.
        heavy: Whether it loads a model, so that it belongs into a process of its own.
        wanted: Whether a configuration asks for it at all.
    """

    name: str
    stage: str
    work: str
    version: int
    job: Callable[[PipelineConfig], Job]
    output: type[Artifact]
    function: str
    inputs: Mapping[str, From]
    libraries: tuple[str, ...] = (*LIBRARIES, "accelerate", "pillow", "torchvision", "trl")
    heavy: bool = True
    wanted: Callable[[PipelineConfig], bool] = lambda _: True


def _answers(
    name: str, model: From, split: Split, *, stage: str = "evaluate", **images: bool
) -> Step:
    """One model's answers to one split, with its images, gray ones or other rows'."""
    return Step(
        name=name,
        stage=stage,
        work="answers",
        version=100 * METRIC_VERSION + ASKING_VERSION,
        job=lambda config: AnswersJob(
            seed=config.seed,
            split=split,
            max_rows=config.evaluate.max_rows,
            ground=ground_of_answers(config.model),
            features=config.features,
            **{"gray": False} | images,
            **jobs.asked(config),
            **jobs.judged_by(config),
        ),
        output=AnswerSet,
        function="vlm_ops.evaluation.answers:ask",
        inputs={"rows": From("prepare", split), "model": model},
    )


_DATA = From("prepare")
_SFT = From("sft", optional=True)
_SFT_MODEL = From("sft", "model")
_BASE = From("sft", "base", otherwise=From("prefer", "base"))
_PREFERRED_MODEL = From("prefer", "model")
_CANDIDATE = From("choose", "model")

_ALL = (
    Step(
        name="prepare",
        stage="prepare",
        work="prepare",
        version=1,
        job=lambda config: PrepareJob(
            seed=config.seed, data=config.data, name=config.registered_model
        ),
        output=PreparedData,
        function="vlm_ops.data.prepare:prepare",
        inputs={},
        libraries=("datasets", "pillow", "pyarrow"),
    ),
    Step(
        name="sft",
        stage="sft",
        work="sft",
        version=2,
        job=lambda config: SftJob(
            model=config.model,
            sft=config.sft,
            reserve=config.reserve,
            **jobs.answered_in_training(config),
            **jobs.training(config),
        ),
        output=TrainedAdapter,
        function="vlm_ops.training.sft:train_sft",
        inputs={"data": _DATA},
        wanted=lambda config: config.tunes,
    ),
    Step(
        name="pairs",
        stage="pairs",
        work="pairs",
        version=3,
        job=lambda config: PairsJob(
            seed=config.seed,
            pairs=config.pairs,
            features=config.features,
            **jobs.asked(config),
            **jobs.mistakes_by(config),
            **jobs.start(config),
        ),
        output=PreferencePairs,
        function="vlm_ops.training.pairs:make_pairs",
        inputs={"data": _DATA, "sft": _SFT},
        wanted=lambda config: config.prefers,
    ),
    Step(
        name="prefer",
        stage="prefer",
        work="prefer",
        version=2,
        job=lambda config: PreferJob(
            prefer=config.prefer,
            prompt=BARE_QUESTION if config.tunes else config.data.prompt,
            **jobs.training(config),
            **jobs.start(config),
        ),
        output=TrainedAdapter,
        function="vlm_ops.training.prefer:train_prefer",
        inputs={"pairs": From("pairs", "usable"), "sft": _SFT},
        wanted=lambda config: config.prefers,
    ),
    _answers("base on validation", _BASE, "validation", stage="choose"),
    _answers("sft on validation", _SFT_MODEL, "validation", stage="choose"),
    _answers("preferred on validation", _PREFERRED_MODEL, "validation", stage="choose"),
    Step(
        name="validation",
        stage="choose",
        work="validation",
        version=1,
        job=jobs.scoring,
        output=ValidationScores,
        function="vlm_ops.evaluation.validation:score_validation",
        inputs={
            "data": _DATA,
            "base_answers": From("base on validation"),
            "sft_answers": From("sft on validation", optional=True),
            "preferred_answers": From("preferred on validation", optional=True),
        },
        libraries=_STATISTICS,
        heavy=False,
    ),
    Step(
        name="choose",
        stage="choose",
        work="choose",
        version=2,
        job=lambda config: ChooseJob(seed=config.seed),
        output=Choice,
        function="vlm_ops.evaluation.choose:choose",
        inputs={
            "sft": _SFT,
            "prefer": From("prefer", optional=True),
            "sft_answers": From("sft on validation", optional=True),
            "preferred_answers": From("preferred on validation", optional=True),
        },
        libraries=_STATISTICS,
        heavy=False,
    ),
    # The candidate first: it is often the model that was asked last on validation.
    _answers("candidate on test", _CANDIDATE, "test"),
    _answers("candidate on gray", _CANDIDATE, "test", gray=True),
    _answers("candidate on swapped", _CANDIDATE, "test", swapped=True),
    _answers("sft on test", _SFT_MODEL, "test"),
    _answers("sft on gray", _SFT_MODEL, "test", gray=True),
    _answers("preferred on test", _PREFERRED_MODEL, "test"),
    _answers("base on test", _BASE, "test"),
    Step(
        name="evaluate",
        stage="evaluate",
        work="evaluate",
        version=3,
        job=jobs.scoring,
        output=Evaluation,
        function="vlm_ops.evaluation.evaluate:evaluate",
        inputs={
            "data": _DATA,
            "sft": _SFT,
            "choice": From("choose"),
            "base_answers": From("base on test"),
            "sft_answers": From("sft on test", optional=True),
            "preferred_answers": From("preferred on test", optional=True),
            "candidate_answers": From("candidate on test"),
            "sft_gray_answers": From("sft on gray", optional=True),
            "candidate_gray_answers": From("candidate on gray"),
            "candidate_swapped_answers": From("candidate on swapped"),
        },
        libraries=_STATISTICS,
    ),
    _answers("champion on test", From(CHAMPION), "test", stage="gate"),
    Step(
        name="gate",
        stage="gate",
        work="gate",
        version=4,
        job=lambda config: GateJob(
            seed=config.seed, gate=config.gate, resamples=config.evaluate.resamples
        ),
        output=GateDecision,
        function="vlm_ops.evaluation.gate:gate",
        inputs={
            "evaluation": From("evaluate"),
            "candidate": From("candidate on test"),
            "candidate_gray": From("candidate on gray"),
            "candidate_swapped": From("candidate on swapped"),
            "base": From("base on test"),
            "champion": From("champion on test", optional=True),
            "against": From(AGAINST),
        },
        libraries=_STATISTICS,
        heavy=False,
    ),
)

STEPS: dict[str, Step] = {step.name: step for step in _ALL}
"""By name, in the order of the pipeline."""

STAGES = tuple(dict.fromkeys(step.stage for step in _ALL))
"""In the order of the pipeline."""

TRIAL = STAGES[: STAGES.index("choose") + 1]
"""What is done before the test rows are read."""


def steps_of(stage: str, config: PipelineConfig | None = None) -> tuple[Step, ...]:
    """Return the steps of a stage, in their order; of those that a configuration asks for."""
    steps = (step for step in STEPS.values() if step.stage == stage)
    return tuple(step for step in steps if config is None or step.wanted(config))


def first_training(config: PipelineConfig) -> str:
    """Return the first stage that takes a GPU: SFT, or pairs where there is none."""
    return next(stage for stage in TRIAL[1:] if steps_of(stage, config))


def meets_champion(stage: str) -> bool:
    """Tell whether a stage has to know the champion."""
    needs = (need for step in steps_of(stage) for need in step.inputs.values())
    return any(need.step == CHAMPION for need in needs)
