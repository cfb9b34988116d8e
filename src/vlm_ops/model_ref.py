"""A model by content: which base, what was trained of it, and how it is asked."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from vlm_ops.config.names import is_registered
from vlm_ops.config.sections import ModelSettings
from vlm_ops.records import BARE_QUESTION, AboutImages
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.frozen import Frozen, added

Q = TypeVar("Q", bound=AboutImages)


class ModelRef(Frozen):
    """A model by content: a base and, unless it is the base itself, what was trained.

    Attributes:
        settings: How the base is found and loaded.
        base_sha256: Over the base's weights and processor files.
        adapter: Folder with the adapter, or None for the bare base.
        adapter_sha256: Of ``adapter_model.safetensors``.
        weights: Folder with a whole model that was made of the base by full fine-tuning; the base
            is not needed to load it.
        weights_sha256: Over its weights, configuration and processor files.
        prompt: What it was trained with and is asked with, by whoever asks it; ``{question}``
            stands for the question. Rows hold the question alone.
    """

    settings: ModelSettings
    base_sha256: str
    adapter: Path | None = None
    adapter_sha256: str | None = None
    weights: Path | None = added(None)
    weights_sha256: str | None = added(None)
    prompt: str = BARE_QUESTION

    @property
    def content(self) -> str:
        """One hash for what this model computes, wherever its files lie."""
        form = self.settings.model_dump(exclude={"id", "revision", "start", "start_version"})
        parts = [form, self.base_sha256, self.weights_sha256 or self.adapter_sha256]
        # Without a prompt of its own a model keeps the hash under which it is registered.
        return fingerprint(parts if self.prompt == BARE_QUESTION else [*parts, self.prompt])

    @property
    def untrained(self) -> "ModelRef":
        """The bare base, with its prompt."""
        trained = ("adapter", "adapter_sha256", "weights", "weights_sha256")
        return self.model_copy(update=dict.fromkeys(trained))

    def asked(self, question: str) -> str:
        """Return what the model is told when somebody asks it a question."""
        return self.prompt.replace(BARE_QUESTION, question)

    def reads(self, rows: Iterable[Q]) -> list[Q]:
        """Return rows as this model reads them: its prompt around each question."""
        return [row.asked_with(self.prompt) for row in rows]


class Start(Frozen):
    """The adapter that a training went on from, instead of a fresh one.

    Attributes:
        name: As the configuration named it; of a version ``models:/demo/3``, whatever its alias.
        adapter_sha256: Of its ``adapter_model.safetensors``.
    """

    name: str
    adapter_sha256: str

    def __str__(self) -> str:
        name = self.name if is_registered(self.name) else Path(self.name).name
        return f"{name} (adapter {self.adapter_sha256[:SHORT]})"


def whole_files(folder: Path) -> list[Path]:
    """Return the files without which a folder that transformers saved is no whole model."""
    index = folder / "model.safetensors.index.json"
    shards = ("model.safetensors",)
    if index.is_file():
        shards = tuple(set(json.loads(index.read_bytes())["weight_map"].values()))
    return [folder / name for name in ("config.json", *shards)]
