"""Answers from a base, an adapter folder or a registered model."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from vlm_ops.artifacts import ModelRef, TrainedAdapter
from vlm_ops.config.sections import ModelSettings
from vlm_ops.data.check import question_text
from vlm_ops.data.images import open_image
from vlm_ops.errors import DataError, ModelError, OutputError
from vlm_ops.models.generation import Progress, generate
from vlm_ops.models.loading import LoadedModel, base_ref
from vlm_ops.serving.names import registered_name
from vlm_ops.store.artifact import read_record

__all__ = ["answer_file", "answer_rows", "find_model"]


def find_model(model: str, *, tracking_uri: str | None, cache: Path) -> ModelRef:
    """Find a model by name.

    Args:
        model: ``tiny``, a hub id, a folder with weights, a step's folder with an adapter, or
            ``models:/name@alias``.
        tracking_uri: MLflow server for the last form.
        cache: Folder for what is downloaded.

    Raises:
        ModelError: There is no such model.
        RegistryError: There is no such version.
    """
    registered = registered_name(model)
    if registered is not None:
        if tracking_uri is None:
            raise ModelError(f"{model!r} needs an MLflow server: set MLFLOW_TRACKING_URI")
        # A base or a folder is asked without MLflow, which need not be installed.
        from vlm_ops.registry.registry import Registry

        name, version = registered
        return Registry(tracking_uri, name).download(version, cache)
    trained = read_record(Path(model), TrainedAdapter)
    return trained.model if trained is not None else base_ref(ModelSettings(id=model))


def answer_rows(
    model: LoadedModel,
    rows: Iterable[tuple[str, list[Path]]],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[str]:
    """Answer questions about image files, with the prompt that the model was measured with.

    Args:
        model: Loaded.
        rows: Question and image paths of each row.
        max_new_tokens: Longest answer.
        batch_size: Rows at once.
        progress: Called with (rows done, rows in all).

    Raises:
        DataError: An image can't be opened.
    """
    listed = list(rows)
    return generate(
        model,
        [model.ref.asked(question_text(question)) for question, _ in listed],
        [[open_image(path) for path in paths] for _, paths in listed],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )


def answer_file(
    model: LoadedModel,
    source: Path,
    target: Path,
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> int:
    """Answer a file of rows; the answers appear as ``answer`` beside what the rows hold.

    Args:
        model: Loaded.
        source: JSONL with ``image`` (a path from the file's folder, or a list) and ``query``.
        target: JSONL to write; it appears complete or not at all.
        max_new_tokens: Longest answer.
        batch_size: Rows at once.
        progress: Called with (rows done, rows in all).

    Returns:
        How many rows were answered.

    Raises:
        DataError: A line is not such a row, or an image can't be opened.
        OutputError: The target can't be written.
    """
    rows = list(_read_rows(source))
    if not rows:
        raise DataError(f"{source}: no rows; expected one JSON object a line")
    answers: list[str] = []
    chunk = 16 * batch_size
    for start in range(0, len(rows), chunk):
        some = rows[start : start + chunk]
        answers += answer_rows(
            model,
            [(str(row["query"]), _paths(row, source.parent)) for row in some],
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
        if progress is not None:
            progress(len(answers), len(rows))
    temporary = target.with_name(target.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            for row, answer in zip(rows, answers, strict=True):
                handle.write(json.dumps({**row, "answer": answer}, ensure_ascii=False) + "\n")
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: can't be written ({error.strerror})") from error
    return len(rows)


def _read_rows(source: Path) -> Iterator[dict[str, object]]:
    try:
        # Not splitlines: it also splits at characters that JSON text may hold.
        lines = source.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: can't be read as UTF-8 text ({error})") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{source}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{source}:{number}: found {line[:40]!r}, expected a JSON object")
        missing = [name for name in ("image", "query") if name not in row]
        if missing:
            raise DataError(
                f"{source}:{number}: no {' and no '.join(missing)}; found "
                f"{', '.join(sorted(row))}; expected image (a path) and query (the question)"
            )
        yield row


def _paths(row: dict[str, object], folder: Path) -> list[Path]:
    images = row["image"]
    listed = images if isinstance(images, list) else [images]
    return [folder / str(image) for image in listed]
