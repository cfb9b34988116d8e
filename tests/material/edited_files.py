"""Files of a logged model that somebody edited."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def edited(pipeline: Any, number: int, path: str, scratch: Path) -> Iterator[None]:
    """Have a file of a logged model end in one more space."""
    logged = pipeline.logged[number]
    model, folder = logged.removeprefix("models:/"), str(Path(path).parent)
    kept = pipeline.kept_file(logged, path)
    changed = scratch / kept.name
    changed.write_bytes(kept.read_bytes() + b" ")
    place = None if folder == "." else folder
    pipeline.client.log_model_artifact(model, str(changed), place)
    try:
        yield
    finally:
        pipeline.client.log_model_artifact(model, str(kept), place)
