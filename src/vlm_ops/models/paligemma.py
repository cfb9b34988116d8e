"""PaliGemma's processor, so that TRL can write prompts and completions with it."""

from typing import Any

import torch
import transformers

from vlm_ops.errors import DataError

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'assistant' and not loop.first %}{{ '\\n' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<eos>' }}{% endif %}"
    "{% endfor %}"
)
"""None is published: the model reads a prefix, to which its processor adds ``<bos>`` and a line
break, and writes a suffix that ends with ``<eos>`` (arXiv:2407.07726, section 3.2.1)."""


class PaliGemmaProcessor(transformers.PaliGemmaProcessor):
    """The same, but a text without images is a suffix: it is written as it is.

    Upstream refuses such a text. Its tokens are of type 1: each sees those before it alone, where
    those of a prefix, of type 0, see all of the prefix (``modeling_paligemma.py``).
    """

    def __call__(self, images: Any = None, text: Any = None, **options: Any) -> Any:
        """Write prompts with their images, or suffixes.

        Raises:
            DataError: A prompt has no image.
        """
        if images is not None:
            if not all(images):
                raise DataError(
                    "a row has no image, and PaliGemma answers about images alone: leave such rows "
                    "out (data.without_image: refuse)"
                )
            found = super().__call__(images=images, text=text, **options)
            # Type 1 alone would be supervised, and a prompt has none.
            found.pop("labels", None)
            return found
        found = self.tokenizer(text, **options)
        kinds = [[1] * len(tokens) for tokens in found["input_ids"]]
        tensors = options.get("return_tensors") == "pt"
        found["token_type_ids"] = torch.tensor(kinds) if tensors else kinds
        return found


def two_parts(processor: Any) -> Any:
    """Let a processor that was loaded write suffixes, and give it a template if it has none."""
    processor.__class__ = PaliGemmaProcessor
    processor.chat_template = processor.chat_template or CHAT_TEMPLATE
    return processor
