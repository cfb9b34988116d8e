"""What differs from one family of vision language models to the next, in one frozen table."""

from dataclasses import dataclass

from vlm_ops.errors import ModelError


@dataclass(frozen=True)
class Family:
    """Where the parts of a model lie.

    Attributes:
        model_type: The ``model_type`` of its ``config.json``.
        towers: Name of the submodule, below the top-level model, of each tower.
    """

    model_type: str
    towers: dict[str, str]


_IDEFICS3_TOWERS = {
    "text": "model.text_model",
    "vision": "model.vision_model",
    "connector": "model.connector",
}

FAMILIES: dict[str, Family] = {
    name: Family(name, _IDEFICS3_TOWERS) for name in ("idefics3", "smolvlm")
}
"""Source: ``modeling_idefics3.py`` and ``modeling_smolvlm.py`` of transformers 5."""


def family_of(model_type: str) -> Family:
    """Look a family up.

    Raises:
        ModelError: The family is not in the table.
    """
    try:
        return FAMILIES[model_type]
    except KeyError:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(
            f"model family {model_type!r} is not known; expected one of: {known}"
        ) from None
