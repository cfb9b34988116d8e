"""The tiny base model: a real Idefics3 of 5 million parameters that sees the marks of charts."""

from importlib import resources
from pathlib import Path


def weights_folder() -> Path:
    """The folder in this package that holds model, tokenizer, processor and model card."""
    return Path(str(resources.files(__name__))) / "weights"
