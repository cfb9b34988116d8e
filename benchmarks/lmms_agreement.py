"""Our scores beside lmms-eval's: one exported model, the same rows, the same words.

    python -m venv lmms
    lmms/bin/pip install lmms-eval==0.7.3 "transformers[serving]==5.23.0" "filelock<3.25"
    python benchmarks/lmms_agreement.py tiny --lmms lmms/bin/python

The model is exported as ``vlm-ops export`` does it. ``transformers serve`` of that other
environment answers for it over HTTP, and lmms-eval asks there by its own tasks ``chartqa``,
``pope`` and ``docvqa_val``: requests, post-processing, metrics and aggregation are theirs. The
rows are questions about drawn charts in the schema of those data sets; their words behind a
question are left out, because the tiny model was trained without. The exported folder is loaded and
asked in this process too, and judged by our metrics. Ends with 1 where two scores differ by more
than rounding.
Needs no GPU and no hub. docs/lmms-eval.md says what was found.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from datasets import Dataset, Image

import vlm_ops
from flows.servers.processes import free_port
from vlm_ops.charts.build import build_charts
from vlm_ops.config.sections import ChartsData
from vlm_ops.evaluation.metrics import find
from vlm_ops.serving.asking import Answering, ask_about
from vlm_ops.serving.asking import answers as answers_to
from vlm_ops.serving.pictures import open_pictures
from vlm_ops.store.jsonl import read_objects

Row = dict[str, Any]

ROUNDING = 0.0005
"""Both print tenths of a point."""
_START_S, _EVAL_S = 180, 1800
_FAILED = "[LMMS_EVAL_REQUEST_FAILED"
"""How an answer begins that lmms-eval did not get. It scores it all the same."""
_SERVED = "exported"
"""What requests call the model. lmms-eval looks for names as ``o1`` in it; a path may hold one."""


@dataclass(frozen=True)
class Task:
    """A benchmark as both sides know it.

    Attributes:
        name: As lmms-eval calls it; also its folder there, up to the first underscore.
        kinds: The charts' kinds of questions that it takes.
        doc: From a chart's row to the columns of the published data set, without the image.
        scores: Our metric by lmms-eval's name of the score.
        max_new_tokens: Longest answer, as lmms-eval's task has it.
    """

    name: str
    kinds: tuple[str, ...]
    doc: Callable[[Row], Row]
    scores: Mapping[str, str]
    max_new_tokens: int


TASKS = (
    Task(
        "chartqa",
        ("type", "count", "largest_color", "highest_line"),
        lambda row: {"answer": row["label"][0], "type": "augmented_test"},
        {"relaxed_overall": "relaxed_accuracy"},
        16,
    ),
    Task(
        "pope",
        ("compare", "trend", "existence"),
        lambda row: {"answer": row["label"][0].lower(), "question_id": row["id"]},
        {"pope_accuracy": "yes_no", "pope_f1_score": "yes_no_f1"},
        128,
    ),
    Task(
        "docvqa_val",
        ("type", "largest_color"),
        lambda row: {"answers": row["label"], "questionId": row["id"]},
        {"anls": "anls"},
        32,
    ),
)


@dataclass(frozen=True)
class Agreement:
    """One score on both sides.

    Attributes:
        task: Of lmms-eval.
        metric: Ours.
        rows: How many were asked.
        ours: Our answers, judged by us.
        theirs: Its answers, judged by it.
        mixed: Its answers, judged by us. Where this is not ``theirs``, the metrics differ; where
            it is not ``ours``, the answers do.
        same: Answers that are the same on both sides, outer spaces aside.
    """

    task: str
    metric: str
    rows: int
    ours: float
    theirs: float
    mixed: float
    same: int


def main() -> None:
    """Export, serve, ask on both sides, and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", help="what vlm-ops export takes: tiny, models:/demo@champion, …")
    parser.add_argument("--lmms", type=Path, required=True, help="Python of the other environment")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="of registered models")
    parser.add_argument("--rows", type=int, default=60, help="at most, of each benchmark")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        exported = folder / _SERVED
        export = ("export", options.model, str(exported), "--runs", str(options.runs))
        subprocess.run([sys.executable, "-m", "vlm_ops.cli", *export], check=True)
        rows = write_tasks(folder, options.rows, options.lmms)
        with served(exported, options.lmms) as url:
            theirs = asked_by_lmms(folder, url, options.lmms)
        found = list(compare(exported, rows, theirs))
    print(table(found))
    if any(abs(one.ours - one.theirs) > ROUNDING for one in found):
        sys.exit(1)


def write_tasks(folder: Path, most: int, python: Path) -> dict[str, list[Row]]:
    """Draw charts, and write the tasks of lmms-eval on their questions.

    Args:
        folder: Gets ``charts/`` and ``tasks/``.
        most: Rows of a benchmark.
        python: Of lmms-eval's environment, which has the published tasks.

    Returns:
        The charts' rows of each task, images as absolute paths.
    """
    kinds = sorted({kind for task in TASKS for kind in task.kinds})
    wanted = ChartsData(
        train_charts=8, validation_charts=8, test_charts=max(8, 2 * most), kinds=tuple(kinds)
    )  # fmt: skip
    charts = build_charts(folder / "charts", wanted, seed=7, workers=1)
    drawn = [row for _, row in read_objects(charts / "test.jsonl")]
    (folder / "tasks").mkdir()
    where = "from importlib.util import find_spec; print(find_spec('lmms_eval').origin)"
    home = Path(_output(python, "-c", where).strip()).parent / "tasks"
    taken = {}
    for task in TASKS:
        rows = [row for row in drawn if row["kind"] in task.kinds][:most]
        taken[task.name] = [row | {"image": str(charts / row["image"])} for row in rows]
        _write_task(folder / "tasks", task, taken[task.name], home)
    return taken


def _write_task(folder: Path, task: Task, rows: Sequence[Row], home: Path) -> None:
    """Write rows in the published schema, and the published task with these for the hub's."""
    docs = [{"image": row["image"], "question": row["query"]} | task.doc(row) for row in rows]
    data = folder / f"{task.name}.parquet"
    Dataset.from_list(docs).cast_column("image", Image()).to_parquet(data)
    published = home / task.name.partition("_")[0] / f"{task.name}.yaml"
    settings = {
        "include": str(published),
        "task": f"local_{task.name}",
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "generate_until",
        "lmms_eval_specific_kwargs": {"default": {"pre_prompt": "", "post_prompt": ""}},
    }
    (folder / f"local_{task.name}.yaml").write_text(yaml.safe_dump(settings))


@contextmanager
def served(exported: Path, python: Path) -> Iterator[str]:
    """Serve an exported model in float32, and yield the address of the endpoint."""
    port = free_port()
    command = [str(python.absolute().parent / "transformers"), "serve", exported.name]
    with (exported.parent / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)],
            cwd=exported.parent, stdout=log, stderr=subprocess.STDOUT, env=_environment(),
        )  # fmt: skip
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", server, exported.parent / "serve.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


def _wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and server.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"{url}: no answer from transformers serve; it said:\n{log.read_text()[-2000:]}")


def asked_by_lmms(folder: Path, url: str, python: Path) -> dict[str, tuple[Row, list[str]]]:
    """Let lmms-eval ask the endpoint; return its scores and its answers in row order, by task."""
    model = f"model_version={_SERVED},base_url={url},api_key=none,num_concurrent=1,max_retries=1"
    _output(
        python, "-m", "lmms_eval", "eval", "--model", "openai", "--model_args", model,
        "--tasks", ",".join(f"local_{task.name}" for task in TASKS),
        "--include_path", str(folder / "tasks"), "--output_path", str(folder / "lmms"),
        "--batch_size", "1", "--log_samples", folder=folder,
    )  # fmt: skip
    written = folder / "lmms"
    results = next(written.rglob("*_results.json"), None)
    if results is None:  # it ends with 0 whatever happened
        sys.exit("lmms-eval left no results; why stands above")
    scores = json.loads(results.read_text())["results"]
    found = {}
    for task in TASKS:
        (samples,) = written.rglob(f"*_samples_local_{task.name}.jsonl")
        answers = {row["doc_id"]: row["filtered_resps"] for _, row in read_objects(samples)}
        if failed := [text for text in answers.values() if text.startswith(_FAILED)]:
            sys.exit(f"{task.name}: {len(failed)} requests failed: {failed[0]}")
        found[task.name] = (scores[f"local_{task.name}"], [answers[n] for n in sorted(answers)])
    return found


def compare(
    exported: Path,
    rows: Mapping[str, Sequence[Row]],
    theirs: Mapping[str, tuple[Row, Sequence[str]]],
) -> Iterator[Agreement]:
    """Ask the exported model here, judge both sides' answers, and yield each score."""
    model = vlm_ops.load(str(exported), quantization="none", dtype="float32")
    for task in TASKS:
        scores, answers = theirs[task.name]
        expected = [row["label"] for row in rows[task.name]]
        asked = [ask_about(row["query"], open_pictures(row["image"])) for row in rows[task.name]]
        said = answers_to(model.loaded, asked, Answering.of(max_new_tokens=task.max_new_tokens))
        same = sum(a.strip() == b.strip() for a, b in zip(said, answers, strict=True))
        for name, ours in task.scores.items():
            metric = find(ours)
            own, mixed = (
                float(metric.score(metric.judge(texts, expected).sum(axis=0)))
                for texts in (said, answers)
            )
            yield Agreement(
                task.name, ours, len(said), own, float(scores[f"{name},none"]), mixed, same
            )


def table(found: Sequence[Agreement]) -> str:
    """Return a Markdown table, scores in percent."""
    lines = [
        "| lmms-eval's task | our metric | rows | ours | lmms-eval | difference | "
        "ours on its answers | same answers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{one.task}` | `{one.metric}` | {one.rows} | {100 * one.ours:.1f} | "
        f"{100 * one.theirs:.1f} | {100 * (one.ours - one.theirs):+.2f} | "
        f"{100 * one.mixed:.1f} | {one.same} of {one.rows} |"
        for one in found
    ]
    return "\n".join(lines)


def _output(python: Path, *arguments: str, folder: Path | None = None) -> str:
    """Run the other environment's Python, and return what it prints; its errors go through."""
    done = subprocess.run(
        [str(python), *arguments], stdout=subprocess.PIPE, text=True, timeout=_EVAL_S,
        env=_environment(folder),
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{python}: ended with {done.returncode}\n{done.stdout}")
    return done.stdout


def _environment(folder: Path | None = None) -> dict[str, str]:
    """The other environment: none of our packages, no hub, caches in the folder."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "NO_PROXY": "127.0.0.1"}
    return own if folder is None else own | {"HF_HOME": str(folder / "hub")}


if __name__ == "__main__":
    main()
