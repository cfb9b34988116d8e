"""A chat template that begins and ends as the model does, where a published one leaves that out.

The template of LLaVA 1.5 writes no ``<s>``, which its tokenizer adds, and no ``</s>`` behind an
answer. Whoever trains on what it writes teaches a model that never stops.
"""

import logging
from typing import Any

from jinja2 import TemplateError

from vlm_ops.errors import ModelError

logger = logging.getLogger(__name__)

_ASKED = {"role": "user", "content": [{"type": "text", "text": "question"}]}
_ANSWER = "answer"
_END = (
    "{% if not add_generation_prompt and messages[-1]['role'] == 'assistant' %}"
    "{{ eos_token }}{% endif %}"
)


def with_ends(processor: Any) -> Any:
    """Let a processor's chat template write the tokens that prompts begin and answers end with.

    What the template writes already stays as it is: any special token behind the answer is its
    end, as ``<|im_end|>``.

    Args:
        processor: One without a chat template is left as it is.

    Raises:
        ModelError: The template can't write a question and its answer.
    """
    tokenizer, template = processor.tokenizer, getattr(processor, "chat_template", None)
    if not template:
        return processor
    answered = [_ASKED, {"role": "assistant", "content": [{"type": "text", "text": _ANSWER}]}]
    try:
        written = processor.apply_chat_template(answered, tokenize=False)
    except TemplateError as error:
        raise ModelError(f"the chat template can't write an answer: {error}") from error
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    behind = written.rpartition(_ANSWER)[2]
    if tokenizer.eos_token and not any(token in behind for token in special):
        template += _END
        logger.info("the chat template ends an answer with %s now", tokenizer.eos_token)
    begins = tokenizer.bos_token and tokenizer("")["input_ids"] == [tokenizer.bos_token_id]
    if begins and not written.startswith(tokenizer.bos_token):
        template = "{{ bos_token }}" + template
        logger.info("the chat template begins with %s now", tokenizer.bos_token)
    processor.chat_template = template
    return processor
