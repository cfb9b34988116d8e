"""The one form of every value here: frozen, typed, and strict about what it is given."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Frozen(BaseModel):
    """A frozen value that refuses unknown fields.

    Attributes:
        renamed: Names that fields had in files of earlier versions, and what they are called now;
            None for a field that is gone.
        retired: Fields that do nothing any more but stay in fingerprints, and what holds instead.
        reworded: Values that fields had in files of earlier versions, and how they are read now.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    renamed: ClassVar[Mapping[str, str | None]] = {}
    retired: ClassVar[Mapping[str, str]] = {}
    reworded: ClassVar[Mapping[str, tuple[Any, Any]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _understand_former_names(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.keys() & cls.renamed.keys():
            return values
        named = {cls.renamed.get(key, key): value for key, value in values.items()}
        named.pop(None, None)
        return named


def added(
    default: Any, *, gt: float | None = None, ge: float | None = None, lt: float | None = None
) -> Any:
    """Declare a field that earlier versions had not.

    Where it holds its default it is in no dump, so that fingerprints and records stay those of
    before.

    Args:
        default: What earlier versions did.
        gt: What it must lie above.
        ge: Lower bound.
        lt: What it must lie below.
    """
    return Field(
        default=default, exclude_if=lambda value: bool(value == default), gt=gt, ge=ge, lt=lt
    )
