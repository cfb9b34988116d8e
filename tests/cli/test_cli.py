"""The command line: light until it works, clear when it can't, one line with --json."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command

from vlm_ops.cli.commands import app
from vlm_ops.cli.run import _promoting

HEAVY = ("torch", "transformers", "prefect", "mlflow", "datasets", "peft", "trl")
LOADED = f"""
import sys
from vlm_ops.cli import main
sys.argv = ["vlm-ops", *sys.argv[1:]]
try:
    main()
finally:
    sys.exit(",".join(name for name in {HEAVY} if name in sys.modules) or 0)
"""
WAITING = """
import time
import typer
from vlm_ops.cli.console import guarded
app = typer.Typer()
@app.command()
def wait() -> None:
    print("waiting", flush=True)
    time.sleep(60)
guarded(app)
"""


def environment(**values: str) -> dict[str, str]:
    dropped = ("PREFECT_", "MLFLOW_TRACKING_URI", "VLM_OPS_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | values


def call(cwd: Path, *arguments: str | Path, **values: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "vlm_ops.cli", *map(str, arguments)],
        cwd=cwd, env=environment(**values), capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip


def refused(cwd: Path, *arguments: str | Path, **values: str) -> str:
    """Call with bad input and return what stderr says."""
    done = call(cwd, *arguments, **values)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.count("Error:") == 1
    return done.stderr


def commands() -> Iterator[tuple[str, str]]:
    """Yield each command as it is typed, and its help text."""
    waiting = [("vlm-ops", get_command(app))]
    while waiting:
        name, command = waiting.pop()
        below = getattr(command, "commands", {})
        waiting += [(f"{name} {word}", inner) for word, inner in below.items()]
        if not below:
            yield name, command.help or ""


def test_help_is_quick(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = call(tmp_path, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "predict" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 1.0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("run", "demmo"),
        ("step", "sftt", "demo"),
        ("predict", "tiny"),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_to_help_or_to_refuse(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "text"), list(commands()))
def test_every_command_has_help_with_an_example_of_itself(name: str, text: str) -> None:
    first, _, rest = text.partition("\n")
    assert first.endswith(".")
    assert f"Example: {name} " in f"{rest} "


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "demmo"), ("demmo", "did you mean 'demo'?", "Presets: demo")),
        (("run", "demo", "--set", "sft.learning_rat=1"), ("--set sft", "'learning_rate'?")),
        (("run", "demo", "--set", "sft.lora.rank=0"), ("--set sft.lora.rank", "found 0")),
        (("run", "demo", "--set", "sft.lora.rank"), ("expected key.path=value",)),
        (("step", "train", "demo"), ("no step 'train'", "prepare, sft")),
        (("step", "sft", "demo"), ("needs the output of 'prepare'", "vlm-ops step prepare demo")),
        (("step", "gate", "demo"), ("needs the output of 'prepare'", "vlm-ops step prepare demo")),
        (("run", "demo", "--runs", "file/runs"), ("file/runs", "can't be written")),
        (("step", "prepare", "demo", "--runs", "file/runs"), ("file/runs", "can't be")),
        (("models", "demo", "--runs", "no-such"), ("no runs folder at", "no-such", "--runs")),
        (("predict", "models:/demo@champion", "What?"), ("no runs folder at",)),
        (("clean", "--runs", "no-such"), ("no-such: there is no such folder", "--runs")),
        (("deploy", "demo", "--runs", "no-such"), ("no Prefect server", "vlm-ops up")),
        (("notify", "list", "--runs", "no-such"), ("no runs folder at",)),
        (("notify", "add", "https://a.b/c", "--on", "promotd"), ("did you mean 'promoted'?",)),
        (("notify", "add", "mailto://a:b@c.d", "--on", "alias"), ("expected https://",)),
        (("predict", "tiny"), ("give either a question", "--output")),
        (("predict", "tiny", "What?", "--output", "x"), ("give either a question (with --image",)),
        (("predict", "tiny", "What?", "--image", "file"), ("file: an image that can't be",)),
        (("predict", "tiny", "What?", "--video", "file"), ("file: a video that can't be",)),
        (("predict", "tiny", "What?", "--image", "empty"), ("empty: found no picture in this",)),
        (("chat", "tiny", "--image", "no.png"), ("no.png: there is no such file",)),
        (("predict", "tiny", "What?", "--input", "x"), ("give either a question",)),
        (("predict", "tiny", "What?", "--image", "no.png"), ("no.png: there is no such file",)),
        (("predict", "tiny", "--input", "file", "--output", "no/a"), ("no folder no",)),
        (("predict", "models:/demo", "What?", "--image", "file"), ("models:/name@champion",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_bad_input_ends_with_words_on_stderr_alone(
    tmp_path: Path, arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    as_json = () if arguments[0] == "chat" else ("--json",)
    message = refused(tmp_path, *arguments, *as_json)
    for part in said:
        assert part in message
    assert not (tmp_path / "no-such").exists()


def test_a_missing_file_is_told_before_a_server_is_started(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("extends: demo\ndata: {type: files, path: rows.jsonl}\n")
    assert "rows.jsonl" in refused(tmp_path, "run", "my.yaml", "--json")
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]


def test_a_key_in_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("extends: demo\nsft:\n  learning_rat: 1\n")
    assert "my.yaml:3" in refused(tmp_path, "run", "my.yaml", "--json")


def test_a_model_that_is_nowhere_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    asked = ("What?", "--image", "a.png", "--json")
    message = refused(tmp_path, "predict", "no/such-model", *asked, HF_HUB_OFFLINE="1")
    assert "'no/such-model'" in message
    assert "work offline: demo" in message


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for command in (("run", "demo"), ("models", "demo")):
            message = refused(tmp_path, *command, "--json", MLFLOW_TRACKING_URI=nobody)
            assert f"MLFLOW_TRACKING_URI is {nobody}" in message
            assert "vlm-ops up" in message
        both = {"PREFECT_API_URL": f"{nobody}/api", "MLFLOW_TRACKING_URI": nobody}
        message = refused(tmp_path, "notify", "list", "--json", **both)
        assert f"PREFECT_API_URL is {nobody}/api" in message  # and no runs folder is asked for


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        message = refused(tmp_path, "up", "--runs", tmp_path / "runs", "--prefect-port", port)
    assert f"port {port} for the Prefect server is taken" in message
    assert "--prefect-port" in message


def write_rows(folder: Path, question: str = "query") -> Path:
    for number in range(10):
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(folder / f"{number}.png")
    lines = [
        {"image": f"{number}.png", question: "How red?", "label": str(number)}
        for number in range(10)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = folder / "my.yaml"
    config.write_text(
        "data:\n  type: files\n  path: rows.jsonl\n  split: {validation: 0.2, test: 0.2}\n"
        "execution: {runs: 'all #1: runs'}\n"
    )
    return config


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    message = refused(tmp_path, "step", "prepare", write_rows(tmp_path, "querry"), "--json")
    assert "there is no column 'query' (did you mean 'querry'?)" in message
    assert "data.columns.question" in message


def test_a_step_prints_one_line_of_json_and_is_not_done_twice(tmp_path: Path) -> None:
    config = write_rows(tmp_path)
    first = call(tmp_path, "step", "prepare", config, "--json")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("\n") == 1
    told = json.loads(first.stdout)
    assert told["skipped"] is False
    assert Path(told["folder"]).parent == tmp_path / "all #1: runs"
    assert "found again" not in first.stderr
    # As if another Pillow had computed it, which is told and changes nothing.
    record = Path(told["folder"]) / "record.json"
    told["computed"] |= {"pillow": "0.1"}
    record.write_text(json.dumps(json.loads(record.read_text()) | {"computed": told["computed"]}))
    second = call(tmp_path, "step", "prepare", config, "--json")
    assert json.loads(second.stdout) == told | {"skipped": True}
    assert "prepare: found again, computed with pillow 0.1 (now " in second.stderr
    elsewhere = call(tmp_path, "step", "prepare", config, "--runs", "b #2", "--json")
    assert Path(json.loads(elsewhere.stdout)["folder"]).parent == tmp_path / "b #2"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_how_to_go_on(number: signal.Signals, code: int) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Tests that run in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waiting\n"
    waiting.send_signal(number)
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == code
    assert "the same command goes on from there" in said
    assert "Traceback" not in said


def test_what_goes_on_from_a_trial_leaves_out_what_a_promotion_refuses() -> None:
    changes = ["gate.floor=0.2", "evaluate.metric=anls", "sft.epochs=2", "benchmarks=[charts]"]
    command = _promoting("demo", changes, Path("my runs"))
    assert command == "vlm-ops run demo --promote --set sft.epochs=2 --runs 'my runs'"
