"""``predict``: ask a model."""

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from vlm_ops.cli.console import err, out, print_json
from vlm_ops.cli.data import roles
from vlm_ops.cli.run import AsJson, Runs
from vlm_ops.config.names import registered_name
from vlm_ops.errors import ConfigError, DataError, OutputError
from vlm_ops.store.files import looking_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from vlm_ops.models.loading import LoadedModel
    from vlm_ops.serving.asking import Answering
    from vlm_ops.serving.predict import Answered
    from vlm_ops.serving.rows import Questions, Wanted

_SHOWN = 10
"""Rows without an answer that a message names; the file has all of them."""

Name = Annotated[
    str, typer.Argument(help="models:/demo@champion, models:/demo/3, tiny, a hub id, a folder.")
]
Images = Annotated[
    list[str],
    typer.Option("--image", help="Image file, a folder of them, or https://…; repeatable."),
]
System = Annotated[str | None, typer.Option(help="What the model is told before all else.")]
Longest = Annotated[int, typer.Option(min=1, help="Longest answer.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")]
Question = Annotated[
    str | None, typer.Argument(help="What is asked; may hold a mark <image> for each image.")
]
Videos = Annotated[
    list[str], typer.Option("--video", help="Video file, shown as some frames; repeatable.")
]
Frames = Annotated[int, typer.Option(min=1, max=256, help="Frames of each video.")]
Input = Annotated[
    Path | None, typer.Option("--input", help="File of rows in any form that trains, instead.")
]
Output = Annotated[Path | None, typer.Option("--output", help="JSONL to write the answers to.")]
Draw = Annotated[
    Path | None, typer.Option(help="New picture to draw the boxes of the answer on the image in.")
]
Columns = Annotated[
    list[str], typer.Option("--column", metavar="ROLE=NAME", help="Which column of --input it is.")
]
ImagesRoot = Annotated[
    Path | None,
    typer.Option("--images-root", help="Folder of all images of --input; else its own."),
]
AtOnce = Annotated[int, typer.Option(min=1, help="Rows at once.")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Draw from this share.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the draw.")]
Quantization = Annotated[
    Literal["nf4", "int8", "none"] | None, typer.Option(help="Instead of the model's own.")
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"] | None,
    typer.Option(help="Instead of the model's own."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(predict)


def predict(
    model: Name,
    question: Question = None,
    images: Images = [],  # noqa: B006
    videos: Videos = [],  # noqa: B006
    frames: Frames = 8,
    system: System = None,
    draw: Draw = None,
    source: Input = None,
    target: Output = None,
    columns: Columns = [],  # noqa: B006
    images_root: ImagesRoot = None,
    batch_size: AtOnce = 32,
    max_new_tokens: Longest = 32,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    quantization: Quantization = None,
    dtype: Dtype = None,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Ask a model about images, a video or nothing to see, or about a file of rows.

    Example: vlm-ops predict models:/demo@champion --image chart.png "What color is it?"
    """
    single = question is not None and source is None and target is None
    batch = not (images or videos or draw) and source is not None and target is not None
    if not single and not batch:
        raise ConfigError(
            "give either a question (with --image FILE, --video FILE or words alone; --draw goes "
            "with one image), or --input ROWS and --output ANSWERS.jsonl"
        )
    registered_name(model)
    form = Form(model, runs, quantization, dtype)
    drawn = {"temperature": temperature, "top_p": top_p, "seed": seed}
    how = {"max_new_tokens": max_new_tokens, **drawn}
    if source is not None and target is not None:
        check_files(source, target)
        from vlm_ops.serving.rows import Wanted

        wanted = Wanted(source, images_root, roles(columns), question, system, frames)
        _answer_file(form, wanted, target, how, batch_size, as_json)
        return
    shown = _Shown(question or "", images, videos, frames, system)
    _answer_one(form, shown, how, _Told(as_json, draw))


class Form(NamedTuple):
    """Which model is asked, and in which form it is loaded."""

    model: str
    runs: Path
    quantization: str | None = None
    dtype: str | None = None

    def load(self) -> "LoadedModel":
        """Load it, without what libraries say meanwhile."""
        from transformers.utils import logging as library

        from vlm_ops.ask import load

        library.disable_progress_bar()
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        form = {"quantization": self.quantization, "dtype": self.dtype}
        return load(self.model, runs=self.runs, **form).loaded


class _Shown(NamedTuple):
    question: str
    images: list[str]
    videos: list[str]
    frames: int
    system: str | None


class _Told(NamedTuple):
    as_json: bool
    draw: Path | None


def _answer_one(form: Form, shown: _Shown, how: dict[str, Any], told: _Told) -> None:
    from vlm_ops.serving import drawing
    from vlm_ops.serving.pictures import open_pictures, open_video

    # Before torch is imported and a model is looked for: a wrong path is told at once.
    if told.draw is not None:
        drawing.check_target(told.draw)
    pictures = open_pictures(shown.images)
    if told.draw is not None and (len(pictures) != 1 or shown.videos):
        raise DataError(
            f"--draw: found {len(pictures)} images and {len(shown.videos)} videos, expected one "
            f"image, since a box does not say in which one it is"
        )
    films = [open_video(video, shown.frames) for video in shown.videos]
    from vlm_ops.serving.asking import Answering, answer, ask_about

    answering = Answering.of(**how)
    asked = ask_about(shown.question, pictures, films, shown.system)
    said = answer(form.load(), asked, answering)
    _tell_answer(said, pictures, told)


def _tell_answer(said: str, pictures: "Sequence[Image]", told: _Told) -> None:
    """Print an answer, with its boxes if it is about one picture, and draw them."""
    from vlm_ops.data.boxes import boxes_in
    from vlm_ops.serving import drawing

    found = boxes_in(said) if len(pictures) == 1 else None
    boxes = drawing.in_pixels(found or (), pictures[0].size) if found is not None else None
    if told.as_json:
        held = {} if boxes is None else {"boxes": [box._asdict() for box in boxes]}
        print_json({"answer": said, **held})
    else:
        out.print(said, markup=False)
    if out_of_it := drawing.reach_out(found or ()):
        err.print(
            f"Note: {out_of_it} boxes reach out of the picture and were cut; they are read as per "
            f"mille, and the model may write something else.",
            markup=False,
        )
    if tiny := drawing.like_fractions(found or ()):
        err.print(
            f"Note: {tiny} boxes have no number above 1. Edges are read as per mille of width and "
            f"height, from 0 to 1000, and the model may write fractions.",
            markup=False,
        )
    if told.draw is None:
        return
    if boxes is None:
        raise DataError(
            f"{told.draw}: nothing was drawn, since the answer has no boxes in it; expected "
            f'[{{"bbox_2d": [250, 100, 500, 900], "label": "cat"}}] or <loc…> tokens'
        )
    drawing.write(drawing.draw(pictures[0], boxes), told.draw)
    err.print(f"{len(boxes)} boxes drawn in {told.draw}", markup=False)


class _Pace:
    """Says how many rows a second are answered, without those of an interrupted call."""

    def __init__(self) -> None:
        self._began, self._kept = 0.0, -1

    def at(self, done: int) -> str:
        now = time.monotonic()
        if self._kept < 0:
            self._began, self._kept = now, done
        return f"{(done - self._kept) / max(now - self._began, 1e-3):.1f} rows/s"


def _answer_file(
    form: Form,
    wanted: "Wanted",
    target: Path,
    how: dict[str, Any],
    batch_size: int,
    as_json: bool,
) -> None:
    from vlm_ops.serving.asking import Answering
    from vlm_ops.serving.rows import read_questions

    answering = Answering.of(**how)
    questions = read_questions(wanted)
    done, pace = _answer_all(form, questions, target, answering, batch_size)
    if as_json:
        counts = {"rows": questions.total, "failed": len(done.failed)}
        print_json({**counts, "text_alone": questions.text_alone, "output": str(target)})
    else:
        _tell(done, pace, questions, target)
    _refuse(done.failed, questions.total, target)


def _answer_all(
    form: Form, questions: "Questions", target: Path, how: "Answering", batch_size: int
) -> tuple["Answered", str]:
    """Answer all rows; returns what became of them, and the pace."""
    from vlm_ops.serving.predict import answer_file

    model, pace = form.load(), _Pace()
    with err.status("answering") as status:

        def show(done: int, total: int) -> None:
            status.update(f"answering {done}/{total}, {pace.at(done)}")

        done = answer_file(model, questions, target, how, batch_size=batch_size, progress=show)
        return done, pace.at(questions.total)


def _tell(done: "Answered", pace: str, questions: "Questions", target: Path) -> None:
    said = questions.total - len(done.failed)
    alone = f"; {questions.text_alone} rows show no image" if questions.text_alone else ""
    again = f"; {done.kept} lines are of an interrupted call" if done.kept else ""
    out.print(f"{said} answers in {target} ({pace}){again}{alone}", markup=False)


def _refuse(failed: list[str], rows: int, target: Path) -> None:
    """Say which rows have no answer; the exit code is 1 then."""
    if failed:
        more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        raise DataError(
            f"{len(failed)} of {rows} rows have no answer: {', '.join(failed[:_SHOWN])}{more}. Why "
            f"stands in their lines of {target}, under 'error'."
        )


def check_files(source: Path, target: Path) -> None:
    """Find what is wrong with the files of rows and answers, before a model is loaded.

    Raises:
        DataError: There are no rows, or the answers would take the place of rows or of a folder.
        OutputError: The folder of the answers is not there.
    """
    with looking_at(source):
        if not source.is_file():
            raise DataError(f"{source}: there is no such file")
    with looking_at(target):
        if target.is_dir():
            raise DataError(f"{target}: found a folder, expected a file to write; add its name")
        if target.resolve() == source.resolve():
            raise DataError(
                f"{target}: --output is the file of --input, whose rows would be lost; name another"
            )
    if not target.absolute().parent.is_dir():
        raise OutputError(f"{target}: there is no folder {target.parent} to write it to; make it")
