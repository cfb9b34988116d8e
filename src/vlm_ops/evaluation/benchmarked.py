"""What benchmarks leave: the rows that no training saw, and how every model did on them."""

from collections.abc import Mapping
from typing import Any, Self

from vlm_ops.artifacts import PreparedData
from vlm_ops.pictured import have_images
from vlm_ops.records import Score
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.frozen import Frozen, added


class Unseen(PreparedData):
    """Rows of a benchmark, as its test split, without those whose picture a training sees.

    Attributes:
        leaked: How many rows are left out because their picture, or one that is almost the same,
            is among the training or validation rows.
    """

    step = "unseen"

    leaked: int = added(0)

    @property
    def notices(self) -> tuple[str, ...]:
        """How many rows are left out, if some are."""
        if not self.leaked:
            return ()
        file = self.folder / "leaked.jsonl"
        return (f"the rows: {self.leaked} show what the run knows and are left out: {file}",)

    def completed(self, inputs: Mapping[str, Any]) -> Self | None:
        """Return the rows if they and their images are still there."""
        return self if have_images(self.rows("test"), self) else None


class BenchmarkResult(Frozen):
    """How models did on one benchmark.

    Attributes:
        protocols: By model: hash of what was asked, how, and how it was judged. A model brings its
            template and its bounds on pixels with itself, so that theirs may differ.
        scores: By model.
        kinds: By model and kind of question.
    """

    protocols: dict[str, str]
    scores: dict[str, Score]
    kinds: dict[str, dict[str, Score]]


class BenchmarkScores(Artifact):
    """How models did on every benchmark of a run: by benchmark."""

    step = "benchmarks"

    results: dict[str, BenchmarkResult]
