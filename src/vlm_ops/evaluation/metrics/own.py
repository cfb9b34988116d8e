"""A metric of the user's own: one function, found by ``module:function``."""

import hashlib
import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vlm_ops.errors import ConfigError, DataError
from vlm_ops.evaluation.metric import Floats, Judge, Metric, of_rows

Worth = Callable[[str, Iterable[str]], float | None]
_ROUNDING = 1e-9


def own(name: str) -> Metric:
    """Load a metric by its place.

    Args:
        name: ``module:function``, of a module that Python finds (installed, or in a folder of
            ``PYTHONPATH``). It is a function of what the model said and the accepted answers that
            gives 0 to 1, or None where it says nothing of a row; or a :class:`Metric`.

    Returns:
        The metric, called ``name``. A function's version is a hash of its module's file, so that
        answers are judged anew when that changes. Judging raises a :class:`DataError` where the
        function fails or what it gives is no number within the metric's range.

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
            "(install it, or name its folder in PYTHONPATH)"
        ) from error
    if isinstance(found, Metric):
        return replace(found, name=name, judge=_checked(name, found))
    if not callable(found):
        raise ConfigError(f"metric {name!r} is {found!r}; expected a function or a Metric")
    written = Path(module.__file__).read_bytes() if module.__file__ else b""
    version = int.from_bytes(hashlib.sha256(written).digest()[:4])
    metric = Metric(name, of_rows(found), version=version)
    return replace(metric, judge=_checked(name, metric))


def _checked(name: str, metric: Metric) -> Judge:
    """Return the metric's judge, which complains about what can't be a term or a score."""

    def judge(said: Sequence[str], expected: Sequence[Sequence[str]]) -> Floats:
        try:
            terms = np.asarray(metric.judge(said, expected), dtype=np.float64)
            worth = metric.score(terms)
        except Exception as error:
            raise DataError(f"metric {name} failed: {type(error).__name__}: {error}") from error
        if terms.ndim != 2 or len(terms) != len(said):
            shape = f"({len(said)}, terms)"
            raise DataError(f"metric {name}: found terms of shape {terms.shape}; expected {shape}")
        with np.errstate(invalid="ignore"):
            low, high = worth < metric.low - _ROUNDING, worth > metric.high + _ROUNDING
        wrong = ~np.isfinite(terms).all(axis=1) | low | high
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"metric {name}, row {row + 1} of {len(said)}: found {worth[row]:g} for the answer "
                f"{said[row]!r} (accepted: {', '.join(map(repr, expected[row]))}); expected a "
                f"number from {metric.low:g} to {metric.high:g}"
            )
        return terms

    return judge
