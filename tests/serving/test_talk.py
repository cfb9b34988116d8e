"""Each turn of a talk is told with all that was said and shown before."""

from pathlib import Path

import pytest
from PIL import Image

from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import DataError
from vlm_ops.models.loading import base_ref, load
from vlm_ops.records import Turn
from vlm_ops.serving.asking import Answering, Asked, answer
from vlm_ops.serving.talk import Talk

RED, GREEN = (Image.new("RGB", (96, 96), color) for color in ("red", "green"))
HOW = Answering(max_new_tokens=5)


def test_a_talk_is_what_one_call_with_all_its_turns_says(random_base: Path) -> None:
    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    model = load(base_ref(settings))
    talk = Talk(model, HOW, "Be brief.")
    pieces: list[str] = []
    talk.show([RED])
    first = talk.say("What color?", pieces.append)
    system = Turn(role="system", text="Be brief.")
    assert first == answer(model, Asked("What color?", (RED,), (system,)), HOW)
    assert "".join(pieces).strip() == first

    talk.show([GREEN] * 40)
    with pytest.raises(DataError, match="41 images and the words are"):
        talk.say("And these?", pieces.append)
    with pytest.raises(DataError, match="question is with a mark"):
        talk.say("a <image> b", pieces.append)

    talk.show([GREEN])
    second = talk.say("And this?", pieces.append)
    before = (
        system,
        Turn(role="user", text="<image>What color?"),
        Turn(role="assistant", text=first),
    )
    assert second == answer(model, Asked("<image>And this?", (RED, GREEN), before), HOW)
