"""The configuration of a whole pipeline."""

import math
from itertools import product
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from vlm_ops.config.benchmark import BenchmarkSettings, read_named
from vlm_ops.config.execution import ExecutionSettings
from vlm_ops.config.gate import BenchmarkTerms, GateSettings
from vlm_ops.config.pairs import DatasetThumbs, PairsSettings, SampledPairs
from vlm_ops.config.sections import (
    FRESH,
    ChartsData,
    DataSettings,
    EvaluateSettings,
    ModelSettings,
    RegisterSettings,
)
from vlm_ops.config.training import (
    Engine,
    FeatureSettings,
    OptimSettings,
    PreferSettings,
    SftSettings,
)
from vlm_ops.config.validation import ValidationSettings
from vlm_ops.store.frozen import Frozen, added
from vlm_ops.store.names import nearest

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
    validation: ValidationSettings | None = added(None)
    """Several tasks that choose together; None leaves checkpoints and candidate to the own rows."""
    benchmarks: tuple[Annotated[BenchmarkSettings, BeforeValidator(read_named)], ...] = added(())
    """What every model of a run is measured on beside the test rows: names of benchmarks, or YAML
    files with one, or ``{name: …, gray: true}`` of either; the gate takes them all
    (``gate.benchmarks``)."""
    gate: GateSettings = GateSettings()
    register_: RegisterSettings = Field(default=RegisterSettings(), alias="register")
    execution: ExecutionSettings = ExecutionSettings()

    @model_validator(mode="after")
    def _benchmarks_have_names_of_their_own(self) -> "PipelineConfig":
        names = [one.name for one in self.benchmarks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"benchmarks: two are called {twice[0]!r}; each needs its own name")
        for name in self.gate.benchmarks:
            if name not in names:
                raise ValueError(
                    f"gate.benchmarks: {name!r} is not measured{nearest(name, names)}; name it in "
                    f"benchmarks, which has {', '.join(names) or 'none'}"
                )
        told = [one.model_fields_set & {"metric", "settings"} for one in
                (self.gate, *self.gate.benchmarks.values())]  # fmt: skip
        if key := next((min(keys) for keys in told if keys), None):
            raise ValueError(
                f"gate: {key} is not set here; evaluate.metric and each benchmark tell it"
            )
        return self

    @model_validator(mode="after")
    def _what_chooses_does_not_judge(self) -> "PipelineConfig":
        for one, other in product(self.choosing, self.benchmarks):
            same = (one.data, one.split, one.kinds) == (other.data, other.split, other.kinds)
            if same or one.name == other.name:
                raise ValueError(
                    f"validation.benchmarks: {one.name!r} asks the rows of {other.name!r} in "
                    f"benchmarks, which the gate rules on; take it out of one of the two"
                )
        return self

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

    @model_validator(mode="after")
    def _gpus_share_a_step(self) -> "PipelineConfig":
        gpus = self.execution.gpus
        if gpus <= 1:
            return self
        if self.engine == "trl":
            raise ValueError(
                f"execution.gpus {gpus} needs engine: packed; TRL's own trainers train on one GPU "
                f"here, set execution.gpus: 1"
            )
        if self.validation or (self.tunes and self.sft.best_by == "accuracy"):
            asks = "validation" if self.validation else "sft.best_by accuracy"
            raise ValueError(
                f"execution.gpus {gpus}: {asks} asks the model on one GPU; leave it out, or set "
                f"execution.gpus: 1"
            )
        asked = (("sft", self.sft, self.tunes), ("prefer", self.prefer, self.prefers))
        for name, optim, wanted in asked:
            if wanted and optim.accumulation % gpus:
                raise ValueError(_undealt(name, optim, gpus))
        return self

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
    def choosing(self) -> tuple[BenchmarkSettings, ...]:
        """The benchmarks that choose checkpoints and candidate."""
        return self.validation.benchmarks if self.validation else ()

    @property
    def margins(self) -> GateSettings:
        """What the gate asks for: its terms for every benchmark, and what each of them is."""
        terms = {
            one.name: self.gate.benchmarks.get(one.name, BenchmarkTerms()).model_copy(
                update={"metric": one.metric, "settings": one.asked}
            )
            for one in self.benchmarks
        }
        metric = self.evaluate.metric
        return self.gate.model_copy(update={"benchmarks": terms, "metric": metric})

    @property
    def registered_model(self) -> str:
        """Name of the registered model in MLflow."""
        return self.register_.model or self.name


def _undealt(name: str, optim: OptimSettings, gpus: int) -> str:
    rows = optim.batch_size * optim.accumulation
    if rows % gpus:
        advice = f"choose batch_size and accumulation so that {gpus} divides accumulation"
    else:
        size = math.gcd(optim.batch_size, rows // gpus)
        advice = (
            f"{name}.batch_size: {size} and {name}.accumulation: {rows // size} take the same rows "
            f"a step"
        )
    return (
        f"execution.gpus {gpus}: the {optim.accumulation} forward passes of a step of {name} "
        f"({name}.accumulation) can't be dealt to {gpus} GPUs evenly; {advice}, or set "
        f"execution.gpus: 1"
    )
