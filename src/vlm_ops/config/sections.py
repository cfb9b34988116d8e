"""The sections of a pipeline's configuration, with bounds and a word on every field.

Nothing here imports a machine-learning library, so that reading a configuration is instant.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from vlm_ops.config.marks import find_mark
from vlm_ops.config.names import is_registered, registered_name
from vlm_ops.config.pictures import BoxSettings, VideoSettings
from vlm_ops.errors import ModelError
from vlm_ops.records import RELAXED_ACCURACY
from vlm_ops.store.frozen import Frozen, added

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
NearDuplicates = Literal["drop", "stop", "ignore"]
"""What is done with pictures of two splits that are almost the same."""
Frames = Literal["refuse", "first"]
"""What is done with a file of several pictures."""
Supervise = Literal["all", "last"]
"""Which answers of a chat become a row."""
WithoutImage = Literal["refuse", "accept"]
"""What is done with a row that has no image."""
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
"""What matrix products run in."""
FRESH = "base"
"""``model.start`` of a training with a fresh adapter."""
CHAMPION = "champion"
"""``model.start`` of a training that goes on from whoever is champion when the run begins."""
CHECKPOINT_MINUTES = 10.0
"""How old the newest checkpoint of a training may get."""
MAX_REFUSED = 0.01
"""Share of a source's rows that may be refused."""


def _in_order(metric: str) -> str:
    """Write a metric's kinds in one order, as ``metric(bus, year)``: they are one metric then."""
    whole, bracket, kinds = metric.removesuffix(")").partition("(")
    named = sorted({kind.strip() for kind in kinds.split(",")} - {""})
    return f"{whole}({', '.join(named)})" if bracket else metric


MetricName = Annotated[str, AfterValidator(_in_order)]


class StartVersion(Frozen):
    """The registered version that a training goes on from, as the registry named it.

    Attributes:
        name: As ``models:/demo/3``.
        adapter_sha256: Of its ``adapter_model.safetensors``.
        folder: Where its files lie, or will lie once a step needs them.
    """

    name: str
    adapter_sha256: str
    folder: Path


class ModelSettings(Frozen):
    """Which model is retrained, and in which form it is loaded."""

    id: str = "tiny"
    """``tiny`` (ships with the package), a hub id, or a folder with weights."""
    start: str = added(FRESH)
    """What the first training starts at: ``base`` with a fresh adapter; or an adapter that is there
    and is trained further: its folder, a version (``models:/demo/3``, ``models:/demo@alias``), or
    ``champion``. It must fit the base and ``sft.lora`` (``prefer.lora`` without SFT)."""
    start_version: StartVersion | None = added(None)
    """What a registered ``start`` came to; a run asks the registry and fills it in."""
    revision: str | None = None
    """Commit of a hub id; pin it, so that a retrain next month starts from the same weights.
    Without it a training takes the newest commit, and its model keeps the one that it came to."""
    quantization: Literal["nf4", "int8", "none"] = "nf4"
    """``nf4``: 4-bit NormalFloat with double quantisation (QLoRA); ``int8``: LLM.int8
    (arXiv:2208.07339); ``none``: as stored."""
    dtype: Dtype = "auto"
    """Compute type; ``auto`` takes bfloat16 where the hardware multiplies it fast, else float16 on
    a GPU and float32 on a CPU. ``float16`` is for GPUs alone."""
    longest_edge: int | None = Field(default=None, ge=32, le=4096)
    """Pixels of the longest side that the processor keeps; None keeps the model's own."""

    @field_validator("start")
    @classmethod
    def _names_a_version(cls, start: str) -> str:
        try:
            registered_name(start)
        except ModelError as error:
            raise ValueError(str(error)) from error
        return start

    @property
    def start_is_registered(self) -> bool:
        """Whether only the registry knows which adapter ``start`` is."""
        return self.start == CHAMPION or is_registered(self.start)

    @property
    def paths(self) -> tuple[str, str]:
        """What may name a folder: the model's and the start's."""
        return self.id, FRESH if self.start_is_registered else self.start


class Columns(Frozen):
    """Which column holds what. The defaults are ChartQA's names."""

    image: str = "image"
    """One image or a list: path relative to the file, or the image itself (parquet, hub)."""
    more_images: tuple[str, ...] = added(())
    """Further columns of images, which follow; empty cells are passed over (MMMU's ``image_2``)."""
    question: str = "query"
    """What is asked."""
    answers: str = "label"
    """The answer, or a list of accepted answers."""
    options: str | None = added(None)
    """List of the options of a multiple choice. They become lines of the question (``A. …``), and
    letter and text of the right one its accepted answers; the answer's cell holds a letter, a
    number counted from 0, or a text. A row without options is answered freely."""
    boxes: str | None = added(None)
    """Objects of the row's picture: a list of boxes and one of labels, or a list with both of each
    (``data.boxes``). They are the answer; no column of answers or questions need be there then."""
    video: str | None = added(None)
    """One video or a list, as an image may be given. Its frames follow the row's images, or stand
    where the text has a mark ``<video>``; ``image`` need not be there then."""
    id: str | None = None
    """Unique row id; None numbers the rows."""
    group: str | None = None
    """Rows that share it stay on one side of the split; None groups by image content."""
    kind: str | None = None
    """What is asked, for scores by kind; None calls every row ``all``."""

    @model_validator(mode="after")
    def _answer_once(self) -> "Columns":
        if self.boxes is not None and (self.options is not None or self.answers != "label"):
            raise ValueError("boxes are the answers: leave out boxes, or answers and options")
        return self


class SplitShares(Frozen):
    """How much of a source without splits of its own is kept from training."""

    validation: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of the groups for choosing checkpoints and the candidate."""
    test: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Share of the groups that no training and no choice sees; the gate decides by them."""

    @model_validator(mode="after")
    def _leave_some_for_training(self) -> "SplitShares":
        if self.validation + self.test >= 1.0:
            raise ValueError(
                f"validation {self.validation} + test {self.test} leave nothing to train on"
            )
        return self


class SplitNames(Frozen):
    """The names of a hub data set's own splits; null for one that it lacks."""

    train: str = "train"
    """Split to train on."""
    validation: str | None = "val"
    """Split for choosing checkpoints and the candidate; null takes a share of train."""
    test: str | None = "test"
    """Split that no training and no choice sees; the gate decides by it; null takes a share of
    train."""


DataForm = Literal["auto", "columns", "messages", "conversations"]  # former name


class DataCommon(Frozen):
    """What every source of rows has."""

    prompt: str = "{question}"
    """What a model that is trained here is asked; ``{question}`` stands for the row's question. It
    stays with the model: the champion is compared and served under its own."""
    shuffle_images: bool = False
    """Control experiment: shuffle the training images among the rows, so that only the format
    of the answers is left to learn. Validation and test stay as they are."""
    max_rows: int | None = Field(default=None, ge=1)
    """At most this many rows a split, drawn by the seed; None keeps all."""
    frames: Frames = added("refuse")
    """What is done with an image file of several frames or pages (GIF, TIFF, WebP, PNG, AVIF):
    ``refuse`` the row, or take the ``first`` one."""
    near_duplicates: NearDuplicates = added("ignore")
    """What is done with an image that is almost the same as one of a later split: ``ignore`` it
    without looking, ``drop`` its rows (training gives to validation and test, validation to test)
    or ``stop``. Filled forms of one template are almost the same too."""
    video: VideoSettings = added(VideoSettings())
    """Which frames of a video are taken."""
    boxes: BoxSettings = added(BoxSettings())
    """How boxes are given, and how they are written (``columns.boxes``)."""
    max_refused: float = added(MAX_REFUSED, ge=0.0, lt=1.0)
    """Share of the rows that may be left out because they can't be used; more stop the run."""
    form: DataForm = added("auto")
    """Where question and answer stand: in ``columns`` of their own, or in a column of chats that is
    called as the form; ``auto`` takes such a column where the other two are not there."""
    question: str | None = added(None)
    """What every row is asked, where no column says it, as with captions."""
    supervise: Supervise = added("all")
    """Which answers of a chat are learned and asked: ``all`` of them, each after what was said
    before it, or the ``last`` one."""
    without_image: WithoutImage = added("refuse")
    """What is done with a row that has no image: ``refuse`` it, since it may have lost one, or
    ``accept`` it as a row of text alone."""

    @model_validator(mode="after")
    def _prompt_asks_the_question(self) -> "DataCommon":
        if "{question}" not in self.prompt:
            raise ValueError(f"prompt must contain {{question}}, found {self.prompt!r}")
        if (mark := find_mark(self.prompt)) is not None:
            raise ValueError(
                f"prompt must not contain {mark}, found {self.prompt!r}: images and turns of the "
                f"chat get their marks by themselves, images stand before the text"
            )
        return self


class ChartsData(DataCommon):
    """Questions about charts drawn from real tables in installed packages."""

    type: Literal["charts"] = "charts"
    train_charts: int = Field(default=900, ge=8)
    """Charts to train on."""
    validation_charts: int = Field(default=80, ge=8)
    """Charts for choosing."""
    test_charts: int = Field(default=320, ge=8)
    """Charts of tables that no training and no choice sees; the gate decides by them."""
    questions_per_chart: int = Field(default=3, ge=1, le=12)
    """Questions asked about each chart."""
    kinds: tuple[str, ...] = ()
    """Question kinds; empty takes those that need no reading of text."""


class FilesData(DataCommon):
    """Rows in a JSON, CSV or Parquet file, images beside it."""

    type: Literal["files"]
    path: Path
    """The file; a relative path starts at the YAML file that names it."""
    images_root: Path | None = added(None)
    """Folder that all images must lie in, links followed; None takes the file's own. Relative
    paths in the rows start at the file's folder all the same."""
    columns: Columns = Columns()
    """Which column holds what."""
    split: SplitShares = SplitShares()
    """Shares kept from training, drawn by group."""
    conflicts: Literal["stop", "merge", "drop"] = added("stop")
    """What becomes of an image in several groups, as a logo or a blank page is: ``stop`` where they
    lie in different splits; ``merge`` makes one group of them; ``drop`` leaves its rows out."""


class HubData(DataCommon):
    """A data set on the Hugging Face hub, at a pinned revision."""

    type: Literal["hub"]
    id: str
    """As ``HuggingFaceM4/ChartQA``."""
    revision: str = Field(min_length=7)
    """Commit of the data set, so that a run takes the rows that you looked at. A newer commit
    brings newer ones."""
    subset: str | None = None
    """The data set's configuration name, if it has several."""
    columns: Columns = Columns()
    """Which column holds what."""
    splits: SplitNames = SplitNames()
    """The data set's own names for train, validation and test."""
    split: SplitShares = added(SplitShares())
    """Shares of train for splits that the data set lacks, drawn by group."""


DataSettings = Annotated[ChartsData | FilesData | HubData, Field(discriminator="type")]


class EvaluateSettings(Frozen):
    """How models are asked: the same rows and decoding for each of them, its own prompt."""

    metric: MetricName = added(RELAXED_ACCURACY)
    """What answers are judged by, everywhere: checkpoints (``sft.best_by: accuracy``), pairs, the
    candidate's choice, the gate. One of ours, or ``module:function`` of yours (docs/extend.md)."""
    max_new_tokens: int = Field(default=8, ge=1, le=4096)
    """Longest answer."""
    batch_size: int = Field(default=32, ge=1)
    """Rows generated at once."""
    max_rows: int | None = Field(default=None, ge=1)
    """At most this many rows a split, whole images, drawn by the seed; None takes all."""
    resamples: int = Field(default=2000, ge=200, le=100_000)
    """Bootstrap resamples of the groups behind every interval."""


class RegisterSettings(Frozen):
    """Where the finished model goes."""

    model: str | None = Field(default=None, pattern=r"^[^/:]+$")
    """Name of the registered model; None takes the pipeline's name."""
