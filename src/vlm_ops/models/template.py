"""A model's prompt as a part of its chat template, so that everybody asks it the bare question."""

import json
from typing import Any

from transformers import ProcessorMixin

from vlm_ops.records import BARE_QUESTION

_AROUND_THE_QUESTION = """\
{#- Puts the prompt that the model was trained with around the last text of the user. #}
{%- set own = namespace(last=-1, first=-1, end=-1, messages=[], parts=[]) %}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{% set own.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
{%- if loop.index0 != own.last %}
{%- set own.messages = own.messages + [message] %}
{%- elif message['content'] is string %}
{%- set asked = own_prompt.replace('{question}', message['content']) %}
{%- set own.messages = own.messages + [dict(message, content=asked)] %}
{%- else %}
{%- for part in message['content'] %}
{%- if part['type'] == 'text' %}
{%- if own.first < 0 %}{% set own.first = loop.index0 %}{% endif %}
{%- set own.end = loop.index0 %}
{%- endif %}
{%- endfor %}
{%- for part in message['content'] %}
{%- if part['type'] == 'text' and own.first == own.end %}
{%- set asked = own_prompt.replace('{question}', part['text']) %}
{%- set own.parts = own.parts + [dict(part, text=asked)] %}
{%- elif loop.index0 == own.first %}
{%- set own.parts = own.parts + [dict(part, text=own_before + part['text'])] %}
{%- elif loop.index0 == own.end %}
{%- set own.parts = own.parts + [dict(part, text=part['text'] + own_after)] %}
{%- else %}
{%- set own.parts = own.parts + [part] %}
{%- endif %}
{%- endfor %}
{%- set own.messages = own.messages + [dict(message, content=own.parts)] %}
{%- endif %}
{%- endfor %}
{%- set messages = own.messages %}
"""
"""Jinja as chat templates are rendered: in a sandbox in which no list can be appended to, and with
the line break after a block left out (transformers 5, ``utils/chat_template_utils.py``)."""


def with_prompt(template: str, prompt: str) -> str:
    """Return a chat template that asks with a prompt who was asked without it.

    The prompt comes around the text of the user's last turn, as ``ModelRef.asked`` puts it there;
    where images stand between its words, before the first and after the last of them.

    Args:
        template: In Jinja.
        prompt: ``{question}`` stands for the question; that alone changes nothing.
    """
    if prompt == BARE_QUESTION:
        return template
    before, _, after = prompt.partition(BARE_QUESTION)
    texts = {"own_prompt": prompt, "own_before": before, "own_after": after}
    # Jinja's literals know Python's escapes, which are JSON's where all letters stay as they are.
    known = [f"{{%- set {name} = {json.dumps(text, ensure_ascii=False)} %}}\n"
             for name, text in texts.items()]  # fmt: skip
    return "".join(known) + _AROUND_THE_QUESTION + template


def ask_with(processor: ProcessorMixin, prompt: str) -> None:
    """Have a processor's chat templates, and those of its tokenizer, ask with a prompt."""
    whole: Any = processor
    for part in (whole, whole.tokenizer):
        found = part.chat_template
        if isinstance(found, dict):
            part.chat_template = {name: with_prompt(one, prompt) for name, one in found.items()}
        elif found:
            part.chat_template = with_prompt(found, prompt)
