"""``predict``: ask a model."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_ops.cli.console import err, out, print_json
from vlm_ops.cli.run import AsJson, Runs
from vlm_ops.config.names import registered_name
from vlm_ops.errors import ConfigError, DataError, OutputError

if TYPE_CHECKING:
    from vlm_ops.artifacts import ModelRef
    from vlm_ops.models.loading import LoadedModel
    from vlm_ops.serving.predict import Answered, Questions

_SHOWN = 10
"""Rows without an answer that a message names; the file has all of them."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(predict)


def predict(
    model: Annotated[
        str, typer.Argument(help="models:/demo@champion, models:/demo/3, tiny, a hub id, a folder.")
    ],
    question: Annotated[str | None, typer.Argument(help="What is asked about --image.")] = None,
    image: Annotated[
        list[Path], typer.Option("--image", help="Image file; repeat for several.")
    ] = [],  # noqa: B006
    source: Annotated[
        Path | None, typer.Option("--input", help="JSONL with image and query, instead.")
    ] = None,
    target: Annotated[
        Path | None, typer.Option("--output", help="JSONL to write the answers to.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows at once.")] = 32,
    images_root: Annotated[
        Path | None,
        typer.Option("--images-root", help="Folder of all images of --input; else its own."),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Ask a model about an image, or about a file of them.

    Example: vlm-ops predict models:/demo@champion --image chart.png "What color is it?"
    """
    single = question is not None and bool(image) and source is None and target is None
    batch = question is None and not image and source is not None and target is not None
    if not single and not batch:
        raise ConfigError(
            "give either a question (with --image FILE), or --input ROWS.jsonl and "
            "--output ANSWERS.jsonl"
        )
    registered_name(model)
    _check_files([*image, *([source] if source else [])], target)
    if question is not None:
        from vlm_ops.serving.predict import answer

        said = answer(_load(model, runs), question, image, max_new_tokens)
        if as_json:
            print_json({"answer": said})
        else:
            out.print(said, markup=False)
    elif source is not None and target is not None:
        from vlm_ops.serving.predict import read_questions

        questions = read_questions(source, images_root)
        limits = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        failed, kept = _answer_all(_load(model, runs), questions, target, **limits)
        if as_json:
            print_json({"rows": questions.total, "failed": len(failed), "output": str(target)})
        else:
            again = f", {kept} lines of them from an interrupted call" if kept else ""
            out.print(f"{questions.total - len(failed)} answers in {target}{again}")
        _refuse(failed, questions.total, target)


def _answer_all(
    loaded: "LoadedModel", questions: "Questions", target: Path, **limits: int
) -> "Answered":
    from vlm_ops.serving.predict import answer_file

    with err.status("answering") as status:
        return answer_file(
            loaded,
            questions,
            target,
            progress=lambda done, total: status.update(f"answering {done}/{total}"),
            **limits,
        )


def _refuse(failed: list[str], rows: int, target: Path) -> None:
    """Say which rows have no answer; the exit code is 1 then."""
    if failed:
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        raise DataError(
            f"{len(failed)} of {rows} rows have no answer, for an image of theirs can't be "
            f"opened: {', '.join(failed[:_SHOWN])}{more}. Why stands in their lines of {target}, "
            f"under 'error'."
        )


def _check_files(read: list[Path], target: Path | None) -> None:
    """Find what is missing before a model is loaded."""
    for path in read:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
    if target is not None and not target.absolute().parent.is_dir():
        raise OutputError(f"{target}: there is no folder {target.parent} to write it to; make it")


def _load(model: str, runs: Path) -> "LoadedModel":
    from transformers.utils import logging as library

    from vlm_ops.models.loading import load

    library.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    return load(_find(model, runs))


def _find(model: str, runs: Path) -> "ModelRef":
    from vlm_ops.serving.predict import find_model

    if registered_name(model) is None:
        return find_model(model, tracking_uri=None, cache=runs / "models")
    from flows.servers.services import registry

    with registry(runs) as uri:
        return find_model(model, tracking_uri=uri, cache=runs / "models")
