"""Tables that both pages have."""

from collections.abc import Mapping
from typing import Any

import yaml

from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.registry.rows_since import RowsSince
from vlm_ops.reporting.page import Table


def changed_rows(title: str, rows: RowsSince) -> Table:
    """Show what changed in the rows since those of another version."""
    if rows.why_not is not None:
        return Table(title, (), (), note=f"Not compared: {rows.why_not}.")
    return Table(
        title,
        ("split", "rows", "added", "removed", "changed"),
        tuple(
            (split, f"{n.before:,} → {n.after:,}", f"{n.added:,}", f"{n.removed:,}",
             f"{n.changed:,}")
            for split, n in rows.splits.items()
        ),
    )  # fmt: skip


def settings(config: PipelineConfig) -> str:
    """Write a whole configuration as the file that makes the same run again."""
    return yaml.safe_dump(_plain(config), sort_keys=False)


def changed_settings(before: PipelineConfig, after: PipelineConfig) -> tuple[tuple[str, ...], ...]:
    """List the settings that differ: name, before, after."""
    ours, theirs = _flat(_plain(before)), _flat(_plain(after))
    return tuple(
        (name, ours.get(name, ""), theirs.get(name, ""))
        for name in {**ours, **theirs}
        if ours.get(name, "") != theirs.get(name, "")
    )


def _plain(config: PipelineConfig) -> dict[str, Any]:
    """Return a configuration as values, without where and how a run works."""
    return config.model_dump(mode="json", by_alias=True, exclude={"execution"})


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = {one.get("name", number): one for number, one in enumerate(value)}
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = "null" if value is None else str(value)
    return flat
