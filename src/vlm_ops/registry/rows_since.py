"""What changed in the rows since those that the champion was trained on."""

from pathlib import Path

from vlm_ops.artifacts import PreparedData
from vlm_ops.data.diff import diff
from vlm_ops.errors import DataError, OutputError
from vlm_ops.records import Split
from vlm_ops.store.artifact import read_record
from vlm_ops.store.frozen import Frozen


class Counts(Frozen):
    """Rows of one split.

    Attributes:
        before: How many the champion had.
        after: How many there are now.
        added: Of those, how many are new.
        removed: How many of the champion's are gone.
        changed: How many are in both and not the same.
    """

    before: int
    after: int
    added: int
    removed: int
    changed: int


class RowsSince(Frozen):
    """Rows of a run against those of the champion that it was judged against.

    Attributes:
        champion: Its version.
        splits: What changed, by split; empty where the champion's rows are not at hand.
        moved: How many rows are in another split.
        why_not: Why they are not at hand, in words; None if they are.
    """

    champion: str
    splits: dict[Split, Counts] = {}
    moved: int = 0
    why_not: str | None = None

    @property
    def markdown(self) -> str:
        """A short table, or one line where there is nothing to compare with."""
        if self.why_not is not None:
            return self.words
        lines = ["| split | rows | added | removed | changed |", "| --- | --: | --: | --: | --: |"]
        for split, n in self.splits.items():
            cells = (split, f"{n.before:,} → {n.after:,}", n.added, n.removed, n.changed)
            lines.append(f"| {' | '.join(map(str, cells))} |")
        return "\n\n".join([f"{self.title}:", "\n".join(lines)])

    @property
    def words(self) -> str:
        """The same in one line."""
        if self.why_not is not None:
            return f"{self.title}: not compared, {self.why_not}."
        told = "; ".join(
            f"{split} {n.before:,} → {n.after:,}, {n.added:,} added, {n.removed:,} removed, "
            f"{n.changed:,} changed"
            for split, n in self.splits.items()
        )
        return f"{self.title}: {told}."

    @property
    def title(self) -> str:
        """Whose rows they are compared with."""
        moved = f", {self.moved:,} of them in another split" if self.moved else ""
        return f"Rows against those of the champion (version {self.champion}){moved}"


def rows_since(champion: str, content: str | None, data: PreparedData) -> RowsSince:
    """Compare a run's rows with those of the champion, if these are in the runs folder.

    Args:
        champion: The version that the candidate was judged against.
        content: Content hash of the rows that it was trained on; None if nothing tells.
        data: The run's rows.

    Raises:
        DataError: The run's own rows are gone or damaged.
    """
    runs = data.folder.parent
    why = f"its prepared rows are not in {runs} any more"
    if content is None:
        why = "the version does not tell which rows it was trained on"
    gone = RowsSince(champion=champion, why_not=why)
    before = data if content == data.content else prepared(runs, content)
    if before is None:
        return gone
    try:
        found = diff(before, data)
    except DataError:
        if before is data:
            raise
        return gone
    return RowsSince(
        champion=champion,
        splits={
            split: Counts(
                before=was,
                after=now,
                added=len(found.added[split]),
                removed=len(found.removed[split]),
                changed=len(found.changed[split]),
            )
            for split, (was, now) in found.rows.items()
        },
        moved=len(found.moved),
    )


def prepared(runs: Path, content: str | None) -> PreparedData | None:
    """Return the prepared rows of a content hash from a runs folder; None if they are not there."""
    for folder in sorted(runs.glob(f"{PreparedData.step}-*")):
        try:
            found = read_record(folder, PreparedData)
        except OutputError:  # of another kind, or damaged: not what is looked for
            continue
        if found is not None and found.content == content:
            return found
    return None
