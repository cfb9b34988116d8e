"""The section of a configuration that says where preferences come from: pairs or thumbs.

Nothing here imports a machine-learning library, so that reading a configuration is instant.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from vlm_ops.config.sections import MAX_REFUSED, Frames
from vlm_ops.store.frozen import Frozen, added

PreferenceForm = Literal["pairs", "thumbs"]


class SampledPairs(Frozen):
    """Pairs of the SFT model's own sampled answers, a right one and its most frequent wrong one."""

    reworded = {"samples": (1, 2)}

    type: Literal["sampled"] = "sampled"
    temperature: float = Field(default=1.0, gt=0.0, le=5.0)
    """Of the sampling."""
    samples: int = Field(default=4, ge=2, le=64)
    """Answers sampled for each row; a pair takes a right and a wrong one."""
    reserve: float = added(0.0, ge=0.0, lt=1.0)
    """Share of the training groups that SFT does not see, so that pairs are sampled on rows that
    are new to it, as feedback from production is; 0 samples on rows that it has learned."""
    max_pairs: int = Field(default=600, ge=8)
    """At most this many pairs to train on, spread over kinds."""
    max_validation_pairs: int = Field(default=150, ge=8)
    """At most this many held-out pairs, from validation rows."""


class PairColumns(Frozen):
    """Which column of a preference data set holds what. The defaults are RLAIF-V's names."""

    images: str = "images"
    """One image or a list."""
    prompt: str = "prompt"
    """Text, or chat messages of system and user."""
    chosen: str = "chosen"
    """Text, or a chat message of the assistant."""
    rejected: str = "rejected"
    """Text, or a chat message of the assistant."""


class ThumbColumns(Frozen):
    """Which column of thumbs holds what. The defaults are TRL's names."""

    images: str = "images"
    """One image or a list."""
    prompt: str = "prompt"
    """Text, or chat messages of system and user."""
    completion: str = "completion"
    """Text, or a chat message of the assistant."""
    label: str = "label"
    """The thumb: true or false, 1 or 0, up or down."""


class Labelled(Frozen):
    """What somebody else labelled, in a file or on the hub.

    Attributes:
        form: What the rows are.
    """

    form: ClassVar[PreferenceForm]

    path: Path | None = None
    """A file of rows, as data.path; a relative path starts at the YAML file that names it."""
    images_root: Path | None = added(None)
    """Folder that all images of a file must lie in, links followed; None takes the file's own."""
    id: str | None = None
    """A hub id, as ``HuggingFaceH4/rlaif-v_formatted``."""
    revision: str | None = None
    """Commit of the hub id."""
    subset: str | None = added(None)
    """The hub data set's configuration name, if it has several."""
    split: str = "train"
    """Split of the hub data set."""
    validation: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the images whose rows are held out."""
    frames: Frames = added("refuse")
    """What is done with an image file of several frames or pages, as in ``data.frames``."""
    max_refused: float = added(MAX_REFUSED, ge=0.0, lt=1.0)
    """Share of the rows that may be left out because they can't be used; more stop the run."""

    @model_validator(mode="after")
    def _one_source(self) -> "Labelled":
        if (self.path is None) == (self.id is None):
            raise ValueError("give either path (a file) or id (a hub data set)")
        if self.id is not None and self.revision is None:
            raise ValueError(f"id {self.id!r} needs a revision: pin what is trained on")
        return self

    @property
    def named(self) -> dict[str, str]:
        """Column by role: images and prompt, then what was said of them."""
        found: dict[str, str] = self.model_dump(include={"columns"})["columns"]
        return found

    @property
    def at_most(self) -> int | None:
        """How many rows are drawn by the seed; None keeps all."""
        found: int | None = getattr(self, f"max_{self.form}")
        return found


class DatasetPairs(Labelled):
    """Pairs that somebody else labelled."""

    form = "pairs"

    type: Literal["dataset"]
    columns: PairColumns = PairColumns()
    """Which column holds what."""
    max_pairs: int | None = Field(default=None, ge=8)
    """At most this many pairs, drawn by the seed; None keeps all."""


class DatasetThumbs(Labelled):
    """Thumbs that somebody gave single answers: a prompt, a completion, up or down."""

    form = "thumbs"

    type: Literal["thumbs"]
    columns: ThumbColumns = ThumbColumns()
    """Which column holds what."""
    max_thumbs: int | None = Field(default=None, ge=8)
    """At most this many thumbs, drawn by the seed; None keeps all."""


PairsSettings = Annotated[SampledPairs | DatasetPairs | DatasetThumbs, Field(discriminator="type")]
