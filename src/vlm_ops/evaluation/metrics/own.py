"""A metric of the user's own: one function, found by ``module:function``."""

import hashlib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from vlm_ops.errors import ConfigError
from vlm_ops.evaluation.metric import Metric, of_rows

Worth = Callable[[str, Iterable[str]], float | None]


def own(name: str) -> Metric:
    """Load a metric by its place.

    Args:
        name: ``module:function``, of a module that Python finds (installed, or in a folder of
            ``PYTHONPATH`` other than the working one). It is a function of what the model said and
            the accepted answers that gives 0 to 1, or None where it says nothing of a row; or a
            :class:`Metric`.

    Returns:
        The metric, called ``name``. Its version is a hash of its module's file, and of the version
        that a :class:`Metric` names, so that answers are judged anew when one of them changes.

    Raises:
        ConfigError: There is no such module or function.
    """
    place, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(place)
        found = getattr(module, attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"no metric {name!r}: {error}; expected module:function, of a module that Python finds "
            "(install it, or name its folder in PYTHONPATH; the one where you work is left out)"
        ) from error
    if not isinstance(found, Metric):
        if not callable(found):
            raise ConfigError(f"metric {name!r} is {found!r}; expected a function or a Metric")
        found = Metric(name, of_rows(found))
    written = Path(module.__file__).read_bytes() if module.__file__ else b""
    hashed = hashlib.sha256(b"%d:%b" % (found.version, written)).digest()
    return replace(found, name=name, version=int.from_bytes(hashed[:4]))
