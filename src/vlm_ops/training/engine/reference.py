"""The reference's log-probabilities: asked once before training, kept beside the checkpoints."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vlm_ops.store.files import make_folder, replacing
from vlm_ops.store.fingerprint import sha256_bytes
from vlm_ops.training.losses import LogProbs
from vlm_ops.training.ranks import here

logger = logging.getLogger(__name__)

_WRITE_EVERY_S = 60.0
_FIELDS = ("chosen", "rejected", "chosen_tokens", "rejected_tokens")


class Reference:
    """Log-probabilities of every pair under the policy as it was before the first step.

    They are computed in the very batches that training and validation will form, in the same
    number format, so that the loss starts at ln 2.

    Args:
        path: A safetensors file; made if there is none, made again if it does not fit.
        identity: Of the policy, the pairs, the chat template and the batch size.
        rows: How many pairs there are.
    """

    def __init__(self, path: Path, *, identity: str, rows: int) -> None:
        self._path = path
        self._identity = identity
        self._rows = rows
        self._table: dict[str, torch.Tensor] = {}

    def prepare(
        self,
        batches: Callable[[], Iterable[dict[str, Any]]],
        ask: Callable[[dict[str, Any]], LogProbs],
    ) -> None:
        """Read the table, and ask the model what is missing in it.

        Processes that share the training ask their own batches, and give each other what they
        found.

        Args:
            batches: Gives packed pairs; with those of the other processes they hold every row that
                will be needed once.
            ask: Log-probabilities of one batch under the reference.
        """
        self._table = self._read() or {
            name: torch.zeros(self._rows, dtype=torch.int64 if "tokens" in name else torch.float32)
            for name in _FIELDS
        }
        ranks = here()
        ranks.meet()  # nobody writes before all have read
        asked, written = False, time.monotonic()
        try:
            for batch in batches():
                rows = batch["rows"].cpu()
                # Every answer has a token, its end: none means that nobody has asked yet.
                if self._table["chosen_tokens"][rows].all():
                    continue
                found, asked = ask(batch), True
                for name, column in self._table.items():
                    column[rows] = getattr(found, name).detach().cpu().to(column.dtype)
                if ranks.first and time.monotonic() - written > _WRITE_EVERY_S:
                    self._write(self._table)
                    written = time.monotonic()
            self._table, asked = _together(ranks.everyone((self._table, asked)))
        finally:
            if asked and ranks.first:
                self._write(self._table)

    def of(self, rows: torch.Tensor) -> LogProbs:
        """Return the log-probabilities of some pairs, on the device of their numbers.

        Args:
            rows: Numbers of pairs, (pairs,).
        """
        where = rows.cpu()
        return LogProbs(*(self._table[name][where].to(rows.device) for name in _FIELDS))

    def close(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)

    def _write(self, table: dict[str, torch.Tensor]) -> None:
        make_folder(self._path.parent)
        meta = {"identity": self._identity, "sha256": _digest(table)}
        with replacing(self._path) as beside:
            save_file(table, beside, metadata=meta)

    def _read(self) -> dict[str, torch.Tensor]:
        if not self._path.exists():
            return {}
        try:
            with safe_open(self._path, framework="pt") as file:
                meta = file.metadata() or {}
                table = {name: file.get_tensor(name) for name in _FIELDS}
            if meta.get("sha256") == _digest(table) and meta.get("identity") == self._identity:
                return table
        except (SafetensorError, OSError):
            pass
        logger.warning(
            "%s: was cut off, edited or is of other pairs; the reference is asked again",
            self._path.name,
        )
        return {}


def _together(
    parts: Sequence[tuple[dict[str, torch.Tensor], bool]],
) -> tuple[dict[str, torch.Tensor], bool]:
    """Put tables together, each of which has some rows; and whether any of them was asked for."""
    table = parts[0][0]
    for other, _ in parts[1:]:
        there = other["chosen_tokens"] > 0
        for name, column in table.items():
            column[there] = other[name][there]
    return table, any(asked for _, asked in parts)


def _digest(table: dict[str, torch.Tensor]) -> str:
    return sha256_bytes(b"".join(table[name].numpy().tobytes() for name in _FIELDS))
