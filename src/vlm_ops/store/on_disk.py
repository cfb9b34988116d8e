"""Values that are looked up by a text and are too many to be held in memory."""

import pickle
import sqlite3
from typing import Generic, Self, TypeVar

from vlm_ops.errors import OutputError

V = TypeVar("V")


class OnDisk(Generic[V]):
    """Values by key, in a file without a name that is gone when the block is left.

    SQLite makes the file where temporary files belong (``/var/tmp``, or ``TMPDIR``), and holds
    about 2 MB of it in memory, whatever its size. What stands in it was pickled by this process.
    """

    def __enter__(self) -> Self:
        """Make the file.

        Raises:
            OutputError: There is no room for it.
        """
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._run("PRAGMA journal_mode = OFF")  # nobody reads it after a crash
        self._run("CREATE TABLE held (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._run("BEGIN")
        return self

    def __exit__(self, *error: object) -> None:
        """Drop the file."""
        self._file.close()

    def get(self, key: str) -> V | None:
        """Return the value of a key; None if it has none."""
        found = self._run("SELECT value FROM held WHERE key = ?", _bytes(key)).fetchone()
        held: V | None = None if found is None else pickle.loads(found[0])
        return held

    def add(self, key: str, value: V) -> V | None:
        """Keep a value, unless the key has one: then return that, else None.

        Raises:
            OutputError: There is no room for it.
        """
        row = (_bytes(key), pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
        added = self._run("INSERT OR IGNORE INTO held VALUES (?, ?)", *row).rowcount
        return None if added else self.get(key)

    def _run(self, statement: str, *values: bytes) -> sqlite3.Cursor:
        try:
            return self._file.execute(statement, values)
        except sqlite3.Error as error:
            raise OutputError(
                f"a temporary file can't be written ({error}); make room, or set TMPDIR to a "
                f"folder that has some"
            ) from error


def _bytes(key: str) -> bytes:
    """Write a key as bytes, also where it holds half a character, as a JSON text may."""
    return key.encode("utf-8", "surrogatepass")
