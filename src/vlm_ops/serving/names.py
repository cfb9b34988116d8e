"""How registered models are written, read without MLflow."""

from vlm_ops.errors import ModelError

_SCHEME = "models:/"


def registered_name(model: str) -> tuple[str, str] | None:
    """Split ``models:/name@alias`` or ``models:/name/version``; None for anything else.

    Raises:
        ModelError: It starts that way but goes on differently.
    """
    if not model.startswith(_SCHEME):
        return None
    rest = model.removeprefix(_SCHEME)
    for mark in ("@", "/"):
        name, found, version = rest.partition(mark)
        if found and name and version:
            return name, version
    raise ModelError(f"{model!r}: expected models:/name@champion or models:/name/3")
