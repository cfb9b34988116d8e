"""Steps that another machine took: found in the store that machines share, and sent there.

Nothing here decides whether a step has to run; it makes what others did look as if it had been done
here (``docs/adr/0022-a-shared-store-of-steps.md``).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

from vlm_ops.config.jobs import Job, PrepareJob
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.deal import FOLDER, Deal, deal_file, deal_of, read_deal, write_deal
from vlm_ops.errors import OutputError
from vlm_ops.steps.table import OUTPUTS
from vlm_ops.store.artifact import Artifact, read_record
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.history import outputs_named
from vlm_ops.store.lock import one_at_a_time
from vlm_ops.store.remote import Remote
from vlm_ops.store.shared import SharedStore

A = TypeVar("A", bound=Artifact)

_FETCHES = "fetches it from the store"


def recorded(folder: Path, kind: type[A], store: str | None) -> A | None:
    """Return the artifact of a complete folder, fetched if it is only in the store.

    Args:
        folder: In a runs folder.
        kind: What the step leaves.
        store: Address of the store; None for none.

    Raises:
        OutputError: The record is there but is not such an artifact.
        ServiceError: The store does not answer.
    """
    found = read_record(folder, kind)
    if found is not None or store is None or not SharedStore(store).has(folder.name):
        return found
    with one_at_a_time(folder.parent, folder.name, _FETCHES):
        found = read_record(folder, kind)
        if found is None and fetch(folder, kind, store):
            found = read_record(folder, kind)
        return found


@contextmanager
def if_free(folder: Path) -> Iterator[bool]:
    """Hold a step's folder, unless another process does, and say whether this one does."""
    with ExitStack() as held:
        free = True
        try:
            held.enter_context(one_at_a_time(folder.parent, folder.name, _FETCHES, wait_minutes=0))
        except OutputError:  # also where nothing can be written: whoever takes the step says so
            free = False
        yield free


def fetch(folder: Path, kind: type[Artifact], store: str) -> bool:
    """Fetch what a step left, with the images that it speaks of, and tell whether it was there.

    Whoever calls holds the step: others may be writing into its folder.

    Raises:
        OutputError: The record is there but is not such an artifact.
        ServiceError: The store does not answer.
    """

    def images(beside: Path) -> dict[str, Path]:
        try:
            artifact = read_record(beside, kind)
        except OutputError as error:
            raise OutputError(
                f"{store}/{folder.name}: not a record of {kind.__name__} that this version can "
                f"read: {error.__cause__}. Have all machines run one version, or remove that "
                f"folder from the store to have the step run again."
            ) from error
        return {} if artifact is None else artifact.images_beside()

    return SharedStore(store).fetch(folder, images)


def send(artifact: Artifact, store: str, *, anew: bool) -> None:
    """Send what a step left.

    Args:
        artifact: What it left.
        store: Address of the store.
        anew: Also where something is there already.

    Raises:
        ServiceError: The store does not answer.
    """
    shared = SharedStore(store)
    if anew or not shared.has(artifact.folder.name):
        shared.send(artifact.folder, artifact.images_beside())


def bring_named(config: PipelineConfig) -> None:
    """Fetch the outputs of other pipelines that a configuration names as its model, or its start.

    Raises:
        ServiceError: The store does not answer.
    """
    runs, store = config.execution.runs, config.execution.store
    if store is None:
        return
    for name in outputs_named(runs, *config.model.paths):
        kind = OUTPUTS.get(name.rpartition("-")[0])
        if kind is not None:
            recorded(runs / name, kind, store)


def rebased(value: Any, before: Path, now: Path) -> Any:
    """Return plain values with the paths below one runs folder as paths below another."""
    if isinstance(value, dict):
        return {key: rebased(part, before, now) for key, part in value.items()}
    if isinstance(value, list):
        return [rebased(part, before, now) for part in value]
    if isinstance(value, str) and f"{value}/".startswith(f"{before}/"):
        return f"{now}{value[len(str(before)) :]}"
    return value


def bring(values: Any, runs: Path, store: str) -> None:
    """Fetch the outputs of steps of which plain values name a path in a runs folder.

    Raises:
        OutputError: One is not in the store, or can't be read.
        ServiceError: The store does not answer.
    """
    for name in sorted(_named(values, runs)):
        kind = OUTPUTS.get(name.rpartition("-")[0])
        if kind is not None and recorded(runs / name, kind, store) is None:
            raise OutputError(
                f"{store}/{name}: is not there, or not whole, and a step that works on another "
                f"machine needs it. The same command makes it again if it is gone from the runs "
                f"folder, and sends it otherwise"
            )


def _named(values: Any, runs: Path) -> set[str]:
    if isinstance(values, (dict, list)):
        parts = values.values() if isinstance(values, dict) else values
        return set().union(*(_named(part, runs) for part in parts))
    if isinstance(values, str) and values.startswith(f"{runs}/"):
        return {Path(values).relative_to(runs).parts[0]}
    return set()


def agree_on_splits(job: Job, folder: Path, store: str) -> None:
    """Let all machines remember the same of the splits.

    What a machine remembers is a file of its own, named by content. Whoever writes one has read
    those that it replaces, and looks again: of two at once, the later one sees the other's.

    Args:
        job: Whose rows; only those of :func:`~vlm_ops.data.prepare.prepare` are dealt.
        folder: The step's.
        store: Address of the store.

    Raises:
        OutputError: What is remembered can't be read.
        ServiceError: The store does not answer.
    """
    file = deal_file(job.remembered) if isinstance(job, PrepareJob) else None
    if file is None:
        return
    from vlm_ops.data.remembered import recall

    assert isinstance(job, PrepareJob)
    here, place = folder / file, f"{FOLDER}/{file.stem}"
    remote = SharedStore(store).remote
    ours = recall(job, folder)
    while True:
        told = _told(remote, place)
        theirs = reduce(Deal.joined, told.values(), Deal())
        ours = ours.joined(theirs)
        if ours != read_deal(here):
            write_deal(here, ours)
        if ours == theirs:
            return
        mine = f"{place}/{sha256_file(here)}.json"
        remote.put(here, mine)
        for name in told.keys() - {mine}:
            remote.remove(name)


def _told(remote: Remote, place: str) -> dict[str, Deal]:
    """Return what machines remember, by the name of its file."""
    while True:
        found: dict[str, Deal] = {}
        files = sorted(file for file in remote.sizes(place) if file.endswith(".json"))
        for name in (f"{place}/{file}" for file in files):
            if (text := remote.read(name)) is None:
                break  # it is in another one, which was written before it went
            found[name] = deal_of(text, f"{remote.url}/{name}")
        else:
            return found
