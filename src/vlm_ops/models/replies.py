"""What a model said, and whether it came to an end."""

from vlm_ops.store.frozen import Frozen, added


class Reply(Frozen):
    """What one model said.

    Attributes:
        text: The words, special tokens and outer spaces removed.
        cut_off: Whether it ran to the longest answer without an end token.
    """

    text: str
    cut_off: bool = added(False)
