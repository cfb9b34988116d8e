"""What is served is asked in the way that training and the gate asked it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.sections import ModelSettings
from vlm_ops.data.images import ImageStore, open_image
from vlm_ops.models.loading import LoadedModel
from vlm_ops.serving import predict
from vlm_ops.serving.predict import answer_file, answer_rows, find_model

PROMPT = "{question}\nBriefly."


class Asked:
    """Stands in for generation and remembers what it is asked."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.images: list[Image.Image] = []

    def __call__(
        self, model: LoadedModel, questions: list[str], images: Any, **options: Any
    ) -> list[str]:
        self.questions += questions
        self.images += [image for row in images for image in row]
        return ["5"] * len(questions)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    stand_in = Asked()
    monkeypatch.setattr(predict, "generate", stand_in)
    return stand_in


def model(prompt: str) -> Any:
    ref = ModelRef(settings=ModelSettings(), base_sha256="b", prompt=prompt)
    # `generate` is replaced above, so that neither is ever looked at.
    return LoadedModel(model=None, processor=None, ref=ref)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompt", "told"), [(PROMPT, "What color?\nBriefly."), ("{question}", "What color?")]
)
def test_the_model_s_prompt_surrounds_the_question(asked: Asked, prompt: str, told: str) -> None:
    answer_rows(model(prompt), [(" <image>What color? ", [])], max_new_tokens=4, batch_size=1)
    assert asked.questions == [told]


def test_a_file_s_rows_get_the_prompt_and_are_written_as_they_were(
    asked: Asked, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    row = {"image": "a.png", "query": "What color?"}
    source, target = tmp_path / "rows.jsonl", tmp_path / "answers.jsonl"
    source.write_text(json.dumps(row))
    assert answer_file(model(PROMPT), source, target, max_new_tokens=4, batch_size=1) == 1
    assert asked.questions == ["What color?\nBriefly."]
    assert json.loads(target.read_text()) == {**row, "answer": "5"}


def test_a_base_is_asked_the_bare_question(random_base: Path, tmp_path: Path) -> None:
    for name in ("tiny", str(random_base)):
        found = find_model(name, tracking_uri=None, cache=tmp_path)
        assert found.asked("What color?") == "What color?"


def test_pictures_are_the_ones_that_training_sees(asked: Asked, tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 4, 6))
    clear.save(tmp_path / "clear.png")
    turned = Image.new("RGB", (40, 20), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    paths = [tmp_path / "clear.png", tmp_path / "turned.jpg"]
    answer_rows(model(PROMPT), [("What color?", paths)], max_new_tokens=4, batch_size=1)
    store = ImageStore(tmp_path / "out")
    trained = [open_image(tmp_path / "out" / store.add(path).path) for path in paths]
    assert [image.tobytes() for image in asked.images] == [image.tobytes() for image in trained]
    assert asked.images[0].getpixel((7, 0)) == (255, 255, 255)
    assert asked.images[1].size == (20, 40)
