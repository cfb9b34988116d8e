"""How long a text is to a model, known from its tokenizer alone: no torch, no weights."""

import logging
from collections.abc import Sequence

from vlm_ops.config.sections import ModelSettings
from vlm_ops.models.identity import small_file

logger = logging.getLogger(__name__)

_FILE = "tokenizer.json"


def token_counts(settings: ModelSettings, texts: Sequence[str]) -> list[int] | None:
    """Count the tokens of texts.

    Args:
        settings: Whose tokens.
        texts: As the model would write them.

    Returns:
        A number for each text; None where the tokenizer is not to be had, which is for whoever
        loads the model to tell.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(small_file(settings, _FILE)))
        found = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    except Exception as error:  # the hub's and the tokenizer's own errors have no one root
        logger.info("%s: the length of answers is not known (%s)", settings.id, str(error)[:200])
        return None
    return [len(text.ids) for text in found]
