"""A benchmark: which rows are asked, in which words, and what judges the answers."""

from pathlib import Path
from typing import Any

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)

from vlm_ops.config.marks import find_mark
from vlm_ops.config.sections import ChartsData, DataSettings
from vlm_ops.errors import ConfigError
from vlm_ops.records import BARE_QUESTION, RELAXED_ACCURACY, Split
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.frozen import Frozen, added

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a benchmark may be called."""

ASKED: Split = "test"
"""Split of the prepared rows that is asked, whatever the source calls its own."""

OTHERS_NAMES = ("validation", "test", "gray", "swapped")
"""What it may not: ``candidate on test`` is a step of every run."""


class BenchmarkSettings(Frozen):
    """One benchmark: one YAML file."""

    name: str = Field(pattern=NAME)
    """What reports and MLflow call it."""
    title: str
    """What it asks, in one line for people."""
    data: DataSettings
    """Where its rows come from, and which column holds what. A row that can't be used stops it,
    unless ``data.max_refused`` says otherwise."""
    split: str = "test"
    """Which split of a hub data set, or of ``charts``, is asked; of a file all rows are."""
    prompt: str | None = None
    """What every model is asked, around the row's ``{question}``; null asks each model with the
    prompt that it was trained with."""
    max_new_tokens: int = Field(default=16, ge=1, le=4096)
    """Longest answer; decoding is greedy."""
    max_rows: int | None = Field(default=None, ge=1)
    """At most this many rows, whole images, the same ones each time; null asks all."""
    metric: str = RELAXED_ACCURACY
    """What judges the answers: one of ours, or ``module:function`` of yours."""
    slices: str | None = None
    """Column of what kind of question a row is; scores are reported for each as well."""
    kinds: tuple[str, ...] = ()
    """Kinds in that column that are asked; none names all."""
    gray: bool = added(False)
    """Whether it is asked on gray images as well, in a run the candidate; shown, never judged."""
    licence: str | None = None
    """Of the data."""
    chance: float | None = Field(default=None, ge=0.0, le=1.0)
    """Score of who guesses; null where nobody knows."""
    source: str | None = None
    """The page or the paper that it comes from."""

    @field_validator("name")
    @classmethod
    def _name_is_its_own(cls, name: str) -> str:
        if name in OTHERS_NAMES:
            raise ValueError(f"found {name!r}, which a run's own rows are called; take another")
        return name

    @model_validator(mode="before")
    @classmethod
    def _is_read_and_every_row_has_to_do(cls, values: Any) -> Any:
        values = _read(values) if isinstance(values, str) else values
        if not isinstance(values, dict) or not isinstance(values.get("data"), dict):
            return values
        return values | {"data": {"max_refused": 0.0} | values["data"]}

    @field_serializer("data", mode="wrap")
    def _say_how_many_may_not(
        self, data: DataSettings, write: SerializerFunctionWrapHandler
    ) -> Any:
        # A dump leaves the default of a pipeline's own rows out, which is another one.
        return write(data) | {"max_refused": data.max_refused}

    @model_validator(mode="after")
    def _prompt_asks_the_question(self) -> "BenchmarkSettings":
        if self.data.prompt != BARE_QUESTION:
            raise ValueError("data.prompt: prompt is a key of the benchmark itself")
        if self.prompt is None:
            return self
        if BARE_QUESTION not in self.prompt:
            raise ValueError(f"prompt must contain {{question}}, found {self.prompt!r}")
        if (mark := find_mark(self.prompt)) is not None:
            raise ValueError(f"prompt must not contain {mark}, found {self.prompt!r}")
        return self

    @model_validator(mode="after")
    def _kinds_are_named_once(self) -> "BenchmarkSettings":
        data = self.data
        if isinstance(data, ChartsData):
            if self.slices is not None or self.kinds:
                raise ValueError("slices and kinds: charts know their own, which data.kinds names")
            if self.split not in ("train", "validation", "test"):
                raise ValueError(f"split: found {self.split!r}, charts have validation and test")
        elif data.columns.kind is not None:
            raise ValueError("data.columns.kind: slices names the column of kinds; leave it out")
        elif self.kinds and self.slices is None:
            raise ValueError("kinds needs slices, which names the column that they stand in")
        return self

    @property
    def asked(self) -> str:
        """Short hash of all that decides what is asked and how it is judged.

        Files go in by their names: it is the same benchmark in another checkout.
        """
        told = self.model_dump(exclude={"name", "title", "licence", "chance", "source", "gray"})
        files = {key: path.name for key, path in told["data"].items() if isinstance(path, Path)}
        return fingerprint(told | {"data": told["data"] | files})[:SHORT]

    @property
    def rows(self) -> DataSettings:
        """The source, with the column of the kinds."""
        if isinstance(self.data, ChartsData) or self.slices is None:
            return self.data
        named: Any = self.data.columns.model_copy(update={"kind": self.slices})
        return self.data.model_copy(update={"columns": named})


def read_named(values: Any) -> Any:
    """Read a benchmark that is named with ``gray`` alone, as ``{name: charts, gray: true}``.

    Raises:
        ValueError: There is none of that name.
    """
    if not isinstance(values, dict) or values.keys() != {"name", "gray"}:
        return values
    return _read(str(values["name"])) | {"gray": values["gray"]}


def _read(source: str) -> dict[str, Any]:
    from vlm_ops.config.benchmarks import load_benchmark

    try:
        return dict(load_benchmark(source))
    except ConfigError as error:
        raise ValueError(str(error)) from error
