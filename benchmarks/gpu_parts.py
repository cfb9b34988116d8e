"""What ``benchmarks/gpu.py`` measures: its parts and the work of each, without a library."""

from dataclasses import dataclass
from typing import Literal

BAR_GB = 5.02
"""What SmolVLM's authors need to run the 2.2B model (huggingface.co/blog/smolvlm). It is to be
trained in less."""
RECIPES = {
    "smolvlm-2.2b": "smolvlm-2.2b-chartqa-rlaifv",
    "smolvlm-256m-tiles": "smolvlm-256m-chartqa-rlaifv",
}
"""Presets, whose adapter and true weights are taken."""


@dataclass(frozen=True)
class Part:
    """One measurement, in a process of its own.

    Attributes:
        task: ``weights`` draws the model that others load.
        model: One of ``work.MODELS``.
        rows: How many.
        micro: Rows in a forward pass, or answered at once.
        batch: Rows in an optimizer step.
        share: Of the time, against the other parts' shares.
        samples: Answers to each row.
        max_new_tokens: Longest answer.
        pairs: Paired runs, if the time allows.
        bar_gb: What our peak memory must stay below, in GB of 10⁹ bytes.
    """

    task: Literal["weights", "sft", "dpo", "answers", "samples"]
    model: str
    rows: int = 0
    micro: int = 1
    batch: int = 1
    share: float = 1.0
    samples: int = 1
    max_new_tokens: int = 32
    pairs: int = 3
    bar_gb: float | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        rows = "" if self.task == "weights" else f", {self.micro} a pass"
        return f"{self.task} {self.model}{rows}"

    @property
    def against(self) -> str:
        """What stands beside ours."""
        trained = self.task in ("sft", "dpo")
        return "stock TRL" if trained else "transformers' generate, as TRL's trainers call it"


_BIG, _SMALL = RECIPES
FULL = (
    Part("weights", _BIG, share=8),
    Part("sft", _BIG, rows=16, micro=1, batch=4, share=12, bar_gb=BAR_GB),
    Part("dpo", _BIG, rows=16, micro=1, batch=4, share=12),
    Part("answers", _BIG, rows=12, micro=8, share=5),
    Part("samples", _BIG, rows=2, micro=2, share=5, samples=8),
    Part("weights", _SMALL, share=2),
    Part("sft", _SMALL, rows=32, micro=8, batch=16, share=6),
    Part("dpo", _SMALL, rows=16, micro=4, batch=8, share=6),
    Part("answers", _SMALL, rows=24, micro=16, share=3),
    Part("samples", _SMALL, rows=4, micro=4, share=3, samples=8),
    Part("sft", _BIG, rows=16, micro=4, batch=8, share=8),
)
"""The most wanted first: what no longer fits into the time is left out."""
TINY = (
    Part("sft", "tiny", rows=4, micro=1, batch=2, pairs=1, bar_gb=BAR_GB),
    Part("dpo", "tiny", rows=2, micro=1, batch=1, pairs=1),
    Part("answers", "tiny", rows=3, micro=2, pairs=2, max_new_tokens=4),
    Part("samples", "tiny", rows=2, micro=2, pairs=1, samples=3, max_new_tokens=4),
)
