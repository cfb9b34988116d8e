"""Times as people type them."""

import re
from datetime import timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SHORTEST = timedelta(seconds=10)
"""The shortest interval, and the shortest wait for what does not come, that Prefect takes."""

EXPECTED = "expected a time of 10 seconds at least, as 90s, 5m, 12h or 3d"


def span(text: str) -> timedelta | None:
    """Read ``5m`` or ``3d``; None where that is no time, or one of under 10 seconds."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    time = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    return time if time >= _SHORTEST else None
