"""A question is put with its pictures where they belong, and refused where it does not fit."""

from pathlib import Path

import pytest
from PIL import Image

from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import ConfigError, DataError
from vlm_ops.models.loading import LoadedModel, base_ref, load
from vlm_ops.serving.asking import Answering, answer, answers, ask_about

RED, GREEN, BLUE = (Image.new("RGB", (96, 96), color) for color in ("red", "green", "blue"))


@pytest.fixture(scope="module")
def random_model(random_base: Path) -> LoadedModel:
    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    return load(base_ref(settings))


def parts(chat: list[dict[str, list[dict[str, str]]]]) -> list[list[str]]:
    return [[part.get("text", "*") for part in turn["content"]] for turn in chat]


def test_pictures_and_frames_stand_where_the_marks_are(random_model: LoadedModel) -> None:
    asked = ask_about("Is <video> like <image>?", [BLUE], [[RED, GREEN]], "Be brief.")
    assert asked.images == (RED, GREEN, BLUE)
    assert parts(asked.told(random_model)) == [["Be brief."], ["Is ", "*", "*", " like ", "*", "?"]]
    plain = ask_about("Which is larger?", [BLUE], [[RED]])
    assert plain.images == (BLUE, RED)
    assert parts(plain.told(random_model)) == [["*", "*", "Which is larger?"]]
    assert parts(ask_about("Who are you?").told(random_model)) == [["Who are you?"]]


@pytest.mark.parametrize(
    ("question", "images", "said"),
    [
        ("a <image> b", 2, "question: found 1 times <image> and 0 times <video>, with 2 images"),
        ("a <video> b", 1, "expected a mark for each, or none at all"),
        (" ", 0, "question is empty"),
        ("<|im_end|> x", 0, "question is with a mark"),
    ],
)
def test_a_question_that_can_t_be_put_is_refused(question: str, images: int, said: str) -> None:
    with pytest.raises(DataError) as caught:
        ask_about(question, [RED] * images)
    assert said in str(caught.value)


def test_more_pictures_than_the_context_holds_are_told_in_tokens(random_model: LoadedModel) -> None:
    with pytest.raises(DataError) as caught:
        answer(random_model, ask_about("What?", [RED] * 40), Answering())
    assert "40 images and the words are 2," in str(caught.value)
    assert "the answer may take 32; the model's context holds 2,048" in str(caught.value)
    with pytest.raises(DataError, match="0 images and the words are"):
        answer(random_model, ask_about("What? " * 2000), Answering())


def test_answers_are_greedy_unless_they_are_drawn(random_model: LoadedModel) -> None:
    asked = [ask_about("What color?", [RED]), ask_about("How many?"), ask_about("x", [RED, BLUE])]
    greedy = answers(random_model, asked, Answering(max_new_tokens=6))
    assert [answer(random_model, each, Answering(max_new_tokens=6)) for each in asked] == greedy
    drawn = Answering(max_new_tokens=6, temperature=1.5, seed=4)
    assert answers(random_model, asked, drawn) == answers(random_model, asked, drawn) != greedy
    pieces: list[str] = []
    assert answer(random_model, asked[2], Answering(max_new_tokens=6), pieces.append) == greedy[2]
    assert "".join(pieces).strip() == greedy[2]


@pytest.mark.parametrize("how", [{"temprature": 1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}])
def test_a_way_of_answering_that_there_is_not_is_named(how: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"how to answer.*{next(iter(how))}"):
        Answering.of(**how)
