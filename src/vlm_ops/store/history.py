"""Which folders each run of a pipeline used, so that those that no run needs can be told.

A step that was found again leaves no trace of its own; here it does.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from vlm_ops.errors import OutputError
from vlm_ops.store.files import at_home, make_folder, write_whole
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.frozen import Frozen
from vlm_ops.store.lock import one_at_a_time

FOLDER = "history"


class PastRun(Frozen):
    """A run: what it used, whether it made it or found it.

    Attributes:
        pipeline: Name of the registered model.
        when: It last used these folders.
        folders: Names in the runs folder.
    """

    pipeline: str
    when: datetime
    folders: frozenset[str]

    def file(self, runs: Path) -> Path:
        """Return where it is kept."""
        name = fingerprint([self.pipeline, sorted(self.folders)])[:SHORT]
        return runs / FOLDER / f"{name}.json"


def note_run(runs: Path, pipeline: str, folders: Iterable[str], *, ended: bool) -> None:
    """Note what a run of a pipeline uses; to be called as it goes, holding the runs folder.

    A run that used no more than an earlier one, as a trial does, is the earlier one again; one that
    uses more takes its place.

    Args:
        runs: The runs folder.
        pipeline: Name of the registered model.
        folders: All folders that it used up to now.
        ended: Whether these are all; before, nobody knows which earlier run it is.

    Raises:
        OutputError: It can't be written, or what is there can't be read.
    """
    with one_at_a_time(runs, FOLDER, "notes what it uses"):
        _note(
            runs,
            PastRun(pipeline=pipeline, when=datetime.now(UTC), folders=frozenset(folders)),
            ended,
        )


def _note(runs: Path, now: PastRun, ended: bool) -> None:
    before = [run for run in past_runs(runs) if run.pipeline == now.pipeline]
    whole = next((run for run in before if run.folders >= now.folders), None)
    if whole is not None:
        if not ended:
            return
        now = now.model_copy(update={"folders": whole.folders})
    make_folder(runs / FOLDER)
    write_whole(now.file(runs), now.model_dump_json() + "\n")
    for run in before:
        if run.folders < now.folders:
            forget(runs, run)


def outputs_named(runs: Path, *names: str) -> set[str]:
    """Return the folders of a runs folder that a configuration names, or something in them.

    Args:
        runs: The runs folder.
        names: Of models or adapters; what is no path in there counts for nothing.
    """
    root = runs.resolve()
    paths = [at_home(name).resolve() for name in names]
    return {p.relative_to(root).parts[0] for p in paths if p.is_relative_to(root) and p != root}


def past_runs(runs: Path) -> list[PastRun]:
    """Return what was noted, the newest first.

    Raises:
        OutputError: A file can't be read.
    """
    found = []
    for path in (runs / FOLDER).glob("*.json"):
        try:
            found.append(PastRun.model_validate_json(path.read_bytes()))
        except FileNotFoundError:
            continue  # another run has just taken its place
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{path}: can't be read as what a run used ({error}). Remove the file: what it "
                f"names counts as used by no run that is known."
            ) from error
    return sorted(found, key=lambda run: run.when, reverse=True)


def forget(runs: Path, run: PastRun) -> None:
    """Remove what was noted of a run."""
    run.file(runs).unlink(missing_ok=True)
