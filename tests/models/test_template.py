"""The prompt in a chat template: the bare question becomes what the model was trained on."""

from typing import Any

import pytest
from families import CHATML, FAMILIES, GEMMA, IDEFICS, VICUNA
from transformers.utils.chat_template_utils import render_jinja_template

from vlm_ops.config.sections import ModelSettings
from vlm_ops.model_ref import ModelRef
from vlm_ops.models.template import ask_with, with_prompt
from vlm_ops.records import Chat, Turn, as_chat

PROMPTS = (
    "{question}\nAnswer with a number.",
    "Look. {question} Once more: {question}",
    "\"quoted\" \\n {% if %} {{ x }} {# c #} 'é' 😀\n\t{question}",
)
QUESTIONS = ("Which is larger?", 'What\'s {question} "here"\n{{ 1 }}?')
BEFORE = (
    Turn(role="system", text="Be brief."),
    Turn(role="user", text="Is it a chart?"),
    Turn(role="assistant", text="Yes"),
)
TEMPLATES = (CHATML, VICUNA, GEMMA, IDEFICS, f"\n\n  {CHATML}")


def rendered(template: str, chat: Chat) -> str:
    made: Any = render_jinja_template([chat], chat_template=template, add_generation_prompt=True)
    return str(made[0][0])


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("before", [(), BEFORE])
def test_it_asks_as_the_model_is_asked(
    template: str, prompt: str, before: tuple[Turn, ...]
) -> None:
    model = ModelRef(settings=ModelSettings(), base_sha256="b", prompt=prompt)
    for question in QUESTIONS:
        for images in (0, 1, 2):
            expected = rendered(template, as_chat(model.asked(question), images, before))
            assert rendered(with_prompt(template, prompt), as_chat(question, images, before)) == (
                expected
            )


def test_images_between_the_words_stay_there() -> None:
    model = ModelRef(settings=ModelSettings(), base_sha256="b", prompt="Now: {question} Briefly.")
    question = "Is <image> larger than <image> or not?"
    asked = rendered(with_prompt(CHATML, model.prompt), as_chat(question, 2))
    assert asked == rendered(CHATML, as_chat(model.asked(question), 2))
    assert "Now: Is IMAGE larger than IMAGE or not? Briefly." in asked


def test_a_content_that_is_a_text_is_asked_so_too() -> None:
    chat: Any = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    told: Any = [{"role": "user", "content": "Q: Why?"}, chat[1]]
    assert rendered(with_prompt(CHATML, "Q: {question}"), chat) == rendered(CHATML, told)


def test_the_bare_question_changes_nothing() -> None:
    assert with_prompt(CHATML, "{question}") == CHATML


def test_the_tokenizer_asks_the_same_and_every_template_of_several_does() -> None:
    processor, _ = FAMILIES["llava"]()
    processor.chat_template = {"default": CHATML, "other": VICUNA}
    processor.tokenizer.chat_template = GEMMA
    ask_with(processor, "Q: {question}")
    assert processor.chat_template["other"] == with_prompt(VICUNA, "Q: {question}")
    assert processor.tokenizer.chat_template == with_prompt(GEMMA, "Q: {question}")
