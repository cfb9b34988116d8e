"""``export``: a model as a folder that other programs load."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_ops.cli.console import err, out, print_json, progress
from vlm_ops.cli.models import opened
from vlm_ops.cli.run import AsJson, Runs
from vlm_ops.config.names import registered_name
from vlm_ops.errors import ConfigError

if TYPE_CHECKING:
    from vlm_ops.artifacts import ModelRef
    from vlm_ops.registry.story import Story
    from vlm_ops.serving.export import Exported


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(export)


def export(
    model: Annotated[
        str, typer.Argument(help="models:/demo@champion, models:/demo/3, or a step's folder.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the model.")],
    merged: Annotated[
        bool, typer.Option("--merged/--adapter", help="Whole weights, or the adapter alone.")
    ] = True,
    push: Annotated[
        str | None, typer.Option(metavar="TEAM/NAME", help="Send it to the hub, once checked.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="With --push: not for all.")] = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Write a model as a folder that transformers, TRL and vLLM load.

    It is loaded and asked before it appears: it must answer as the model does.

    Example: vlm-ops export models:/demo@champion demo-merged
    """
    # Read when transformers is imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    _check_push(push, private)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    found, story = _find(model, runs)
    from transformers.utils import logging as library

    from vlm_ops.serving.export import export as write

    library.disable_progress_bar()
    with progress():
        done = write(found, folder, "merged" if merged else "adapter", story)
    for notice in done.notices:
        err.print(f"Note: {notice}.", markup=False)
    if not as_json:
        _tell(done, found.settings.quantization)
    pushed = {} if push is None else {"pushed": _push(folder, push, private)}
    if as_json:
        told = {"output": str(folder), "form": done.form, "notices": list(done.notices)}
        print_json({**told, **done.agreement._asdict(), **pushed})
    elif pushed:
        out.print(f"sent to {pushed['pushed']}", markup=False)


def _check_push(hub_id: str | None, private: bool) -> None:
    """Refuse, before anything is written, what can't be sent."""
    if hub_id is not None:
        from vlm_ops.serving.push import check_hub_id

        check_hub_id(hub_id)
    elif private:
        raise ConfigError("--private says who sees it on the hub: give --push TEAM/NAME too")


def _push(folder: Path, hub_id: str, private: bool) -> str:
    from vlm_ops.serving.push import push

    with progress():
        return push(folder, hub_id, private=private)


def _tell(done: "Exported", quantization: str) -> None:
    agreement = done.agreement
    out.print(
        f"{done.form} model in {done.folder}: {agreement.same} of {agreement.asked} answers are "
        f"the model's own, not quantised",
        markup=False,
    )
    if agreement.as_served is not None:
        out.print(
            f"as it is served, in {quantization}: {agreement.as_served} of {agreement.asked}",
            markup=False,
        )


def _find(model: str, runs: Path) -> "tuple[ModelRef, Story | None]":
    registered = registered_name(model)
    if registered is None:
        from vlm_ops.serving.predict import find_model

        return find_model(model, tracking_uri=None, cache=runs / "models"), None
    name, version = registered
    with opened(name, runs) as registry:
        # By its number: an alias may move meanwhile.
        story = registry.story(version)
        return registry.download(story.version, runs / "models"), story
