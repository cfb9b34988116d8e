"""One step of the pipeline, and where what it takes comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vlm_ops.config.jobs import Job
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.models.ground import LIBRARIES
from vlm_ops.store.artifact import Artifact

CHAMPION = "champion"
"""What comes from the registry and not from a step: the champion's
:class:`~vlm_ops.artifacts.ModelRef`."""

AGAINST = "against"
"""What the registry says beside it: a :class:`~vlm_ops.records.Against`."""

STATISTICS = ("numpy", "scipy")
"""What computes scores and intervals."""


@dataclass(frozen=True)
class From:
    """Where an input of a step comes from.

    Attributes:
        step: Name of one, ``CHAMPION`` or ``AGAINST``.
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
