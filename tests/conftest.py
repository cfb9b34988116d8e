"""Shared by all tests: quiet libraries, no hub, a small prepared data set, a random model."""

import gc
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A test of the flow leaves Prefect's handler on our loggers, and the next file runs without a flow.
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
# Tests run side by side, one to a core; read when torch is imported, here and in every child.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from mlflow_fixtures import make_model, make_whole_model, mlflow_server  # noqa: F401
from PIL import Image, ImageDraw

from vlm_ops.artifacts import PreparedData
from vlm_ops.records import ImageRef, Row, Split, SplitSummary
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.jsonl import write_jsonl

if TYPE_CHECKING:
    from transformers import Idefics3ForConditionalGeneration, Idefics3Processor

COLORS = ("red", "green", "blue", "orange")
SKIPS = 0
"""How many tests may be skipped on Linux. A test that is always skipped proves nothing."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let ``.ci/run`` take a part of the thorough tests."""
    parser.addoption("--thorough", default="1/1", metavar="PART/PARTS", help="whole files of them")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the longest files first, so that no worker is left with one of them at the end."""
    part, parts = map(int, config.getoption("--thorough").split("/"))
    assert 1 <= part <= parts, "--thorough: expected as 2/3, the second of three parts"
    thorough = [item for item in items if item.get_closest_marker("thorough")]
    files = sorted({item.path for item in thorough})
    left_out = {item for item in thorough if files.index(item.path) % parts != part % parts}
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=[*left_out])
    items.sort(key=lambda item: "integration" not in item.path.parts)


def pytest_collection_finish() -> None:
    """Set aside what all tests have imported: a training lets go of its model by a full collection,
    which would look through 800,000 objects of libraries each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail when more tests were skipped than this file says."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or sys.platform != "linux":  # a worker, or where the kernel's part lacks
        return
    skipped = len(reporter.stats.get("skipped", []))
    if skipped > SKIPS:
        reporter.write_line(
            f"\n{skipped} tests skipped, {SKIPS} may be (tests/conftest.py)", red=True
        )
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def level_given_back() -> Iterator[None]:
    """What a step's process logs is its own; a test that stands in for one leaves no trace."""
    ours = logging.getLogger("vlm_ops")
    before = ours.level
    yield
    ours.setLevel(before)


@pytest.fixture
def sigterm_given_back() -> Iterator[None]:
    """SIGTERM does after the test what it did before."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    left = signal.signal(signal.SIGTERM, before)
    assert left == before


@pytest.fixture(scope="session")
def tiny_processor() -> "Idefics3Processor":
    """The tiny model's processor, made anew."""
    from vlm_ops.pretraining.architecture import build_processor

    return build_processor()


@pytest.fixture(scope="session")
def random_tiny(tiny_processor: "Idefics3Processor") -> "Idefics3ForConditionalGeneration":
    """The tiny architecture, weights drawn at random; not to be changed."""
    from vlm_ops.pretraining.architecture import build_config, build_model

    model = build_model(build_config(tiny_processor), seed=0)
    model.eval()
    return model


@pytest.fixture(scope="session")
def random_base(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_processor: "Idefics3Processor",
    random_tiny: "Idefics3ForConditionalGeneration",
) -> Path:
    """The same in a folder."""
    folder = tmp_path_factory.mktemp("random-base")
    random_tiny.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def family_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small random model of a family, by its name; written once, not to be changed."""
    from families import write_family

    made: dict[str, Path] = {}

    def base(name: str) -> Path:
        if name not in made:
            made[name] = write_family(name, tmp_path_factory.mktemp(name))
        return made[name]

    return base


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Pictures of one colored square, a question on the color and one on its presence."""
    folder = tmp_path_factory.mktemp("squares")
    (folder / "images").mkdir()
    rng = random.Random(0)
    splits: dict[Split, SplitSummary] = {}
    sizes: tuple[tuple[Split, int], ...] = (("train", 24), ("validation", 8), ("test", 8))
    for split, count in sizes:
        rows = [row for number in range(count) for row in _square(folder, split, number, rng)]
        write_jsonl(folder / f"{split}.jsonl", rows)
        splits[split] = SplitSummary(rows=len(rows), images=count, groups=count, kinds={})
    return PreparedData(folder=folder, content="squares", splits=splits, source="squares")


def _square(folder: Path, split: str, number: int, rng: random.Random) -> list[Row]:
    color = rng.choice(COLORS)
    path = folder / "images" / f"{split}-{number}.png"
    picture = Image.new("RGB", (96, 96), "white")
    corner = rng.randrange(8, 40)
    ImageDraw.Draw(picture).rectangle((corner, corner, corner + 48, corner + 48), fill=color)
    # A dot of its own: no picture of one split may be one of another.
    picture.putpixel((number, 95 - len(split)), (0, 0, 0))
    picture.save(path)
    image = ImageRef(path=f"images/{path.name}", sha256=sha256_file(path), width=96, height=96)
    asked = (("color", "What color is the square?", color.capitalize()),
             ("count", "How many squares are there?", "1"))  # fmt: skip
    return [
        Row(
            id=f"{split}-{number}-{kind}",
            images=(image,),
            question=question,
            answers=(answer,),
            kind=kind,
            group=f"{split}-{number}",
        )
        for kind, question, answer in asked
    ]
