"""Unpack what the version before left, as if it had been written in a folder of one's own."""

import sqlite3
import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).with_name("before.tar.xz")
PLACE = "@PLACE@"
"""Stands for the folder that holds all of it, wherever its path was written."""
DATABASE = Path("runs", "mlflow", "mlflow.db")


def unpack(folder: Path) -> Path:
    """Unpack the archive and write the folder's path where the version before wrote its own.

    Args:
        folder: Made when missing; gets ``small.yaml``, ``rows.jsonl``, images, ``base/`` and
            ``runs/``.

    Returns:
        The folder, as an absolute path.

    Raises:
        ValueError: The path can't stand in JSON as it is.
    """
    place = folder.resolve()
    if any(character in str(place) for character in '"\\'):
        raise ValueError(f"{place}: found a quote or a backslash, which JSON would escape")
    place.mkdir(parents=True, exist_ok=True)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place, filter="data")
    replace(place, PLACE, str(place))
    return place


def replace(place: Path, old: str, new: str) -> list[str]:
    """Replace a text in all files of a place and in every column of MLflow's database.

    Returns:
        Where it stood: paths below the place, and ``table.column`` of the database.
    """
    found = _replace_in_database(place / DATABASE, old, new)
    for path in sorted(place.rglob("*")):
        if not path.is_file() or path == place / DATABASE:
            continue
        content = path.read_bytes()
        if old.encode() in content:
            path.write_bytes(content.replace(old.encode(), new.encode()))
            found.append(path.relative_to(place).as_posix())
    return found


def _replace_in_database(database: Path, old: str, new: str) -> list[str]:
    found = []
    connection = sqlite3.connect(database)
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        for _, column, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
            done = connection.execute(
                f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) '
                f'WHERE instr("{column}", ?)',
                (old, new, old),
            )
            if done.rowcount:
                found.append(f"{table}.{column}")
    connection.commit()
    connection.execute("VACUUM")
    connection.close()
    return found
