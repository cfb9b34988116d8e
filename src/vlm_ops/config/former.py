"""Settings that were renamed: the former name still works, and a warning tells the new one.

Each section says in ``renamed`` what its fields were called before, and in ``retired`` which ones
do nothing any more, in ``reworded`` which values are read otherwise; there is no other table.
"""

import logging
from collections.abc import Mapping
from typing import Any

from vlm_ops.config.complaints import Key, Places, variants_of
from vlm_ops.errors import ConfigError
from vlm_ops.store.frozen import Frozen

logger = logging.getLogger(__name__)


def with_present_names(
    values: Mapping[str, Any], section: type[Frozen], places: Places, above: Key = ()
) -> dict[str, Any]:
    """Give the keys of one file, or of one command line, the names they have today.

    What was renamed or retired is warned of.

    Args:
        values: As they were read.
        section: What they are for.
        places: Where the keys stand; it knows the renamed ones by their present names then.
        above: The section's own key.

    Raises:
        ConfigError: A setting is given under its former and under its present name.
    """
    present: dict[str, Any] = {}
    for key, value in values.items():
        name = section.renamed.get(key, key)
        if name != key:
            _tell((*above, key), name, places, given=values)
        # A resolved configuration spells every default out; nobody chose those.
        if key in section.retired and value != section.model_fields[key].default:
            where = places.at((*above, key))
            logger.warning("%s does nothing any more: %s", where, section.retired[key])
        if name is not None:
            if name != key:
                places.rename((*above, key), (*above, name))
            for model in variants_of(section, name).values():
                if isinstance(value, Mapping) and issubclass(model, Frozen):
                    value = with_present_names(value, model, places, (*above, name))
            present[name] = _reworded(value, section, name, places.at((*above, name)))
    return present


def _reworded(value: Any, section: type[Frozen], name: str, where: str) -> Any:
    """Return a value, as it is read today where it has another meaning than before."""
    before, now = section.reworded.get(name, (None, None))
    if before is None or value != before:
        return value
    logger.warning("%s: %s is read as %s now", where, before, "null" if now is None else now)
    return now


def _tell(key: Key, name: str | None, places: Places, *, given: Mapping[str, Any]) -> None:
    if name is None:
        logger.warning("%s is no setting any more and does nothing; remove it", places.at(key))
        return
    new = (*key[:-1], name)
    if name in given:
        raise ConfigError(
            f"{places.at(key)} is the former name of {'.'.join(new)}, which is given as well "
            f"({places.of(new)}); keep {'.'.join(new)} alone"
        )
    logger.warning("%s is called %s now; rename it", places.at(key), ".".join(new))
