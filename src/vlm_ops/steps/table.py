"""The steps of the pipeline: what each one takes, where that comes from, what does the work.

This is the only place that knows. The flow walks through the table, ``vlm-ops step`` takes one
stage of it, and the process of a heavy step finds its function here. Functions are imported when
they run.
"""

from dataclasses import replace

from vlm_ops.artifacts import (
    Choice,
    Evaluation,
    PreferencePairs,
    PreparedData,
    TrainedAdapter,
    ValidationScores,
)
from vlm_ops.config.jobs import (
    AnswersJob,
    ChooseJob,
    GateJob,
    PairsJob,
    PreferJob,
    PrepareJob,
    SftJob,
)
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.records import BARE_QUESTION, Split
from vlm_ops.steps import jobs
from vlm_ops.steps.asking import asking, ground
from vlm_ops.steps.benchmarks import OUTPUTS as BESIDE
from vlm_ops.steps.benchmarks import benchmark_steps, chosen_on, judged_on, not_learned
from vlm_ops.steps.step import AGAINST as AGAINST
from vlm_ops.steps.step import CHAMPION as CHAMPION
from vlm_ops.steps.step import STATISTICS
from vlm_ops.steps.step import From as From
from vlm_ops.steps.step import Step as Step


def _answers(
    name: str, model: From, split: Split, *, stage: str = "evaluate", **images: bool
) -> Step:
    """One model's answers to one split, with its images, gray ones or other rows'."""
    return asking(
        name,
        stage,
        lambda config: AnswersJob(
            seed=config.seed,
            split=split,
            max_rows=config.evaluate.max_rows,
            ground=ground(config),
            features=config.features,
            **{"gray": False} | images,
            **jobs.asked(config),
            **jobs.judged_by(config),
        ),
        rows=From("prepare", split),
        model=model,
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
        libraries=STATISTICS,
        heavy=False,
    ),
    Step(
        name="choose",
        stage="choose",
        work="choose",
        version=2,
        job=lambda config: ChooseJob(seed=config.seed, **jobs.shares(config)),
        output=Choice,
        function="vlm_ops.evaluation.choose:choose",
        inputs={
            "sft": _SFT,
            "prefer": From("prefer", optional=True),
            "sft_answers": From("sft on validation", optional=True),
            "preferred_answers": From("preferred on validation", optional=True),
        },
        libraries=STATISTICS,
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
        libraries=STATISTICS,
    ),
    _answers("champion on test", From(CHAMPION), "test", stage="gate"),
    Step(
        name="gate",
        stage="gate",
        work="gate",
        version=4,
        job=lambda config: GateJob(
            seed=config.seed, gate=config.margins, resamples=config.evaluate.resamples
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
        libraries=STATISTICS,
        heavy=False,
    ),
)

STEPS: dict[str, Step] = {step.name: step for step in _ALL}
"""By name, in the order of the pipeline."""

OUTPUTS = {**{step.work: step.output for step in _ALL}, **BESIDE}
"""What steps leave, by their work."""

STAGES = tuple(dict.fromkeys(step.stage for step in _ALL))
"""In the order of the pipeline."""

TRIAL = STAGES[: STAGES.index("choose") + 1]
"""What is done before the test rows are read."""


def table(config: PipelineConfig) -> dict[str, Step]:
    """Return all steps of a configuration by name, in order: its benchmarks' among the others."""
    if not config.benchmarks and not config.choosing:
        return STEPS
    beside = benchmark_steps(config)
    more = {"pairs": not_learned(config), "gate": judged_on(config), **chosen_on(config)}
    own = (replace(one, inputs={**one.inputs, **more.get(one.name, {})}) for one in _ALL)
    steps = (step for one in own for step in (one, *beside.get(one.name, ())))
    return {step.name: step for step in steps}


def steps_of(stage: str, config: PipelineConfig | None = None) -> tuple[Step, ...]:
    """Return the steps of a stage, in their order; of those that a configuration asks for."""
    steps = STEPS if config is None else table(config)
    mine = (step for step in steps.values() if step.stage == stage)
    return tuple(step for step in mine if config is None or step.wanted(config))


def first_training(config: PipelineConfig) -> str:
    """Return the first stage that takes a GPU: SFT, or pairs where there is none."""
    return next(stage for stage in TRIAL[1:] if steps_of(stage, config))


def meets_champion(stage: str) -> bool:
    """Tell whether a stage has to know the champion."""
    needs = (need for step in steps_of(stage) for need in step.inputs.values())
    return any(need.step == CHAMPION for need in needs)
