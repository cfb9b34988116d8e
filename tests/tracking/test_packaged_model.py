"""A packaged model loads in a fresh process, without pickle, and answers the same."""

import base64
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, ImageDraw
from squares import last_words

import vlm_ops
from vlm_ops.artifacts import WEIGHTS, ModelRef
from vlm_ops.data.images import open_image
from vlm_ops.errors import DataError, ModelError
from vlm_ops.models import generation
from vlm_ops.models.generation import generate
from vlm_ops.models.loading import load
from vlm_ops.records import Chat, as_chat
from vlm_ops.tracking import packaging
from vlm_ops.tracking.mlflow import MlflowTracker
from vlm_ops.tracking.package import open_package, sources_sha256
from vlm_ops.tracking.packaging import save_package
from vlm_ops.tracking.runs import Runs

ASK = """
import json, sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
answers = model.predict(json.loads(sys.argv[3]), params={"max_new_tokens": 12})
import vlm_ops
print("ANSWER " + json.dumps({"answers": list(answers), "code": vlm_ops.__file__}))
"""
QUESTIONS = ["How many bars are there?", "What color is the line?", "Is it a pie chart?"]
PROMPT = "{question}\nAnswer with a single word."


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for number, size in enumerate([(128, 96), (64, 64), (200, 90)]):
        mode, ground = ("RGBA", (0, 0, 0, 0)) if number == 0 else ("RGB", "white")
        picture = Image.new(mode, size, ground)
        ImageDraw.Draw(picture).rectangle((10, 10, 40 + 9 * number, 60), fill="red")
        paths.append(folder / f"{number}.{'png' if number < 2 else 'jpg'}")
        exif = picture.getexif()
        exif[0x0112] = 6 if number == 2 else 1  # held with its right side down
        picture.save(paths[-1], exif=exif)
    return paths


def test_answers_the_same_in_a_fresh_process(
    mlflow_server: str,
    make_model: Callable[[int], ModelRef],
    pictures: list[Path],
    tmp_path: Path,
) -> None:
    ref = make_model(2).model_copy(update={"prompt": PROMPT})
    run_id = Runs(mlflow_server).start_pipeline("packaged", "run", params={}, tags={})
    uri = MlflowTracker(run_id, mlflow_server, system_metrics=False).model("candidate", ref)
    assert uri is not None
    cells = [
        str(pictures[0]),
        base64.b64encode(pictures[1].read_bytes()).decode(),
        "data:image/jpeg;base64," + base64.b64encode(pictures[2].read_bytes()).decode(),
    ]
    rows = [{"image": c, "question": q} for c, q in zip(cells, QUESTIONS, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", ASK, mlflow_server, uri, json.dumps(rows)],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [text for text in done.stdout.splitlines() if text.startswith("ANSWER ")]
    said = json.loads(line.removeprefix("ANSWER "))
    images = [[open_image(path)] for path in pictures]
    told = [as_chat(PROMPT.replace("{question}", question), 1) for question in QUESTIONS]
    expected = generate(load(ref), told, images, max_new_tokens=12, batch_size=8)
    assert said["answers"] == expected
    assert len(set(expected)) > 1, "answers that are all alike prove little"
    assert Path(said["code"]).parent.parent.name == "code", "it must run the packed sources"


def test_questions_and_pictures_reach_the_model_as_in_training(
    make_model: Callable[[int], ModelRef],
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vlm_ops.tracking.packaged_model import PackagedModel

    seen: list[Any] = []

    def generate(model: object, chats: list[Chat], images: Any, **_: object) -> list[str]:
        seen.extend(zip(last_words(chats), images, strict=True))
        return ["5"] * len(chats)

    monkeypatch.setattr(generation, "generate", generate)
    save_package(make_model(5).model_copy(update={"prompt": PROMPT}), tmp_path / "package")
    context: Any = SimpleNamespace(
        artifacts={"model": str(tmp_path / "package" / "artifacts" / "model.json")}
    )
    served = PackagedModel()
    served.load_context(context)
    cells = [[str(pictures[0]), pictures[2].read_bytes()], pictures[1].read_bytes()]
    rows: Any = [{"image": cell, "question": " <image>What color? "} for cell in cells]
    assert served.predict(context, rows) == ["5", "5"]
    assert [question for question, _ in seen] == ["What color?\nAnswer with a single word."] * 2
    ((clear, turned), (plain,)) = [images for _, images in seen]
    for image, path in zip((clear, plain, turned), pictures, strict=True):
        assert image.tobytes() == open_image(path).tobytes()
    assert clear.getpixel((0, 0)) == (255, 255, 255)
    assert turned.size == (90, 200)
    rows[1]["image"] = pictures[1].read_bytes()[:50]
    with pytest.raises(DataError, match="row 1: image can't be read"):
        served.predict(context, rows)


def test_files_of_a_package(make_model: Callable[[int], ModelRef], tmp_path: Path) -> None:
    ref = make_model(3).model_copy(update={"prompt": PROMPT})
    package = tmp_path / "package"
    save_package(ref, package)
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {
        "MLmodel",
        "packaged_model.py",
        "requirements.txt",
        "artifacts/model.json",
        "artifacts/adapter/adapter_config.json",
        "artifacts/adapter/adapter_model.safetensors",
        "artifacts/base/model.safetensors",
        "artifacts/processor/tokenizer.json",
        "code/vlm_ops/__init__.py",
        "code/vlm_ops/sources.zip",
    } <= files
    assert len(files) < 40, "each is a request to the store, for each model of each night"
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".bin", ".pyc"))]
    assert not [name for name in files if "tiny/weights" in name]
    code = package / "code" / "vlm_ops"
    before = tmp_path / "vlm_ops"  # an earlier vlm-ops packed them as they are here
    with zipfile.ZipFile(code / "sources.zip") as archive:
        archive.extractall(before)
    assert (before / "models" / "loading.py").exists()
    assert not [room for room in ("charts", "pretraining") if (before / room).exists()]
    running = sources_sha256(Path(vlm_ops.__file__).parent)
    assert sources_sha256(code) == running, "it would warn of other sources"
    assert sources_sha256(before) == running
    (before / "errors.py").write_text("# another")
    assert sources_sha256(before) != running
    with zipfile.ZipFile(code / "sources.zip", "a") as archive:
        archive.writestr("another.py", "# one more")
    assert sources_sha256(code) != running
    requirements = (package / "requirements.txt").read_text()
    assert all("==" in line for line in requirements.splitlines())
    assert "transformers==" in requirements
    texts = [package / "artifacts/model.json", package / "artifacts/adapter/adapter_config.json"]
    assert not [path for path in texts if str(ref.adapter) in path.read_text()]
    opened = open_package(package / "artifacts")
    assert opened.content == ref.content
    assert opened.prompt == PROMPT
    assert opened.settings.id == str(package / "artifacts" / "base")


def test_a_changed_adapter_is_refused(
    make_model: Callable[[int], ModelRef], tmp_path: Path
) -> None:
    save_package(make_model(4), tmp_path / "package")
    weights = tmp_path / "package/artifacts/adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="expected sha256"):
        open_package(tmp_path / "package/artifacts")


def test_a_whole_model_travels_without_its_base(
    make_whole_model: Callable[[int], ModelRef],
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vlm_ops.tracking.packaged_model import PackagedModel

    # Whole weights go along, however large.
    monkeypatch.setattr(packaging, "_SMALL_BASE_BYTES", 0)
    ref = make_whole_model(6).model_copy(update={"prompt": PROMPT})
    save_package(ref, tmp_path / "package")
    artifacts = tmp_path / "package" / "artifacts"
    assert sorted(path.name for path in artifacts.iterdir()) == ["model.json", "processor", WEIGHTS]
    assert str(tmp_path.parent) not in (artifacts / "model.json").read_text()
    opened = open_package(artifacts)
    assert opened.content == ref.content
    assert opened.weights == artifacts / WEIGHTS
    assert not Path(opened.settings.id).is_dir()
    context: Any = SimpleNamespace(artifacts={"model": str(artifacts / "model.json")})
    served = PackagedModel()
    served.load_context(context)
    rows: Any = [{"image": str(pictures[1]), "question": QUESTIONS[0]}]
    expected = generate(load(ref), [as_chat(ref.asked(QUESTIONS[0]), 1)],
                        [[open_image(pictures[1])]], max_new_tokens=64, batch_size=8)  # fmt: skip
    assert served.predict(context, rows) == expected
    shard = artifacts / WEIGHTS / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="expected content"):
        open_package(artifacts)


def test_a_folder_without_a_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no packaged model"):
        open_package(tmp_path)
