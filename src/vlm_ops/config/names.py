"""How registered models are written, read without MLflow."""

from vlm_ops.errors import ModelError

_SCHEME = "models:/"


def is_registered(model: str) -> bool:
    """Tell whether a model is named as a registered one."""
    return model.startswith(_SCHEME)


def registered_name(model: str) -> tuple[str, str] | None:
    """Split ``models:/name@alias`` or ``models:/name/version``; None for anything else.

    Raises:
        ModelError: It starts that way but goes on differently.
    """
    if not is_registered(model):
        return None
    rest = model.removeprefix(_SCHEME)
    for mark in ("@", "/"):
        name, found, version = rest.partition(mark)
        if found and name and version:
            return name, version
    raise ModelError(f"{model!r}: expected models:/name@champion or models:/name/3")
