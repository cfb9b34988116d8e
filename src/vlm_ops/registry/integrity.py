"""Whether a version's files are those that were registered.

The content hash of a version covers its weights and its prompt. Its adapter's configuration, its
processor's files and the packed code decide as much over what it answers: their hashes are taken
when it is registered and kept among its details, and one hash over them is a tag of the version.
"""

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import requests
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from vlm_ops.errors import RegistryError
from vlm_ops.registry import tags
from vlm_ops.registry.judgement import read_details
from vlm_ops.registry.package import changed, check_content, download, fetch, fetch_weights
from vlm_ops.store.fingerprint import fingerprint, sha256_file
from vlm_ops.tracking.connection import is_unanswered
from vlm_ops.tracking.package import FILES

logger = logging.getLogger(__name__)


class Checked(NamedTuple):
    """A version's files, which are what was registered.

    Attributes:
        folder: Holds them: the weights alone if an earlier vlm-ops registered the version.
        questions: Path of its recorded questions below the folder; None if it has none.
    """

    folder: Path
    questions: str | None


def hash_files(client: MlflowClient, logged: LoggedModel) -> dict[str, str]:
    """Return the hashes of a logged model's files by path.

    Raises:
        RegistryError: They can't be fetched.
        MlflowException: The server does not answer.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            download(client, logged.artifact_location, "", Path(scratch))
        except (MlflowException, requests.HTTPError, OSError) as error:
            if isinstance(error, MlflowException) and is_unanswered(error):
                raise
            raise RegistryError(
                f"the files of the logged model {logged.model_id} can't be fetched ({error})"
            ) from error
        return _hashes(Path(scratch))


def registered_files(client: MlflowClient, version: ModelVersion) -> dict[str, str] | None:
    """Return the hashes that a version's files had when it was registered.

    Returns:
        By path; None if an earlier vlm-ops registered it, which a log line says. Where their list
        is gone or was changed, the files themselves make it anew, if they are the registered ones.

    Raises:
        RegistryError: They are not, or what says which ones were registered was deleted.
        MlflowException: The server does not answer.
    """
    if tags.FILES not in version.tags:
        _make_sure_it_is_early(client, version)
        logger.info(
            "version %s of %r was registered by an earlier vlm-ops: of its files only the weights "
            "are checked",
            version.version, version.name,
        )  # fmt: skip
        return None
    listed = _listed(client, version)
    if listed is not None:
        return listed
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fetch(client, version, "", folder)
        questions = sorted(folder.glob(f"{tags.QUESTIONS}*"))
        for beside in ((), *((path.relative_to(folder).as_posix(),) for path in questions)):
            found = _hashes(folder, beside)
            if fingerprint(found) == version.tags[tags.FILES]:
                return found
    raise changed(version, "its files are not the registered ones, nor is their list")


@contextmanager
def checked(client: MlflowClient, version: ModelVersion) -> Iterator[Checked]:
    """Fetch a version's files for the duration of the block, and make sure of them.

    Args:
        client: Bound to the server.
        version: Whose files.

    Yields:
        The files, which are what was registered.

    Raises:
        RegistryError: They are gone or others.
        MlflowException: The server does not answer.
    """
    expected = registered_files(client, version)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if expected is None:
            fetch_weights(client, version, folder)
        else:
            fetch(client, version, "", folder)
            _compare(version, folder, expected)
        check_content(version, folder)
        listed = (path for path in expected or () if path.startswith(tags.QUESTIONS))
        yield Checked(folder, next(listed, None))


def check_fetched(client: MlflowClient, version: ModelVersion, folder: Path) -> None:
    """Make sure that the model's files that were fetched of a version are what was registered.

    Args:
        client: Bound to the server.
        version: Whose files.
        folder: Holds the folder ``artifacts``, complete.

    Raises:
        RegistryError: They are others.
        MlflowException: The server does not answer.
    """
    files = registered_files(client, version)
    if files is not None:
        start = f"{FILES}/"
        _compare(version, folder, {p: h for p, h in files.items() if p.startswith(start)})


def _make_sure_it_is_early(client: MlflowClient, version: ModelVersion) -> None:
    """Make sure that a version has no hash over its files because none was ever taken.

    Raises:
        RegistryError: Its details say that one was, or they are gone and nothing tells.
        MlflowException: The server does not answer.
    """
    path = version.tags.get(tags.DETAILS)
    files: dict[str, str] | None = None
    if path is not None:
        files = read_details(client, version, path).files
        if files is None:
            return
    elif tags.VERDICT not in version.tags:
        return
    name = f"version {version.version} of {version.name!r}"
    if files is None:
        raise RegistryError(
            f"{name} has lost its tags {tags.DETAILS} and {tags.FILES} in MLflow, so that nothing "
            f"says which files were registered. `vlm-ops models {version.name}` lists others."
        )
    raise RegistryError(
        f"{name} has lost its tag {tags.FILES} in MLflow: expected the hash over the files that "
        f"its details list. If nothing else was changed, set the tag again, to "
        f"{fingerprint(files)}; `vlm-ops models {version.name}` lists other versions."
    )


def _listed(client: MlflowClient, version: ModelVersion) -> dict[str, str] | None:
    try:
        found = read_details(client, version, version.tags.get(tags.DETAILS, tags.DETAILS)).files
    except RegistryError:
        return None
    return found if found and fingerprint(found) == version.tags[tags.FILES] else None


def _compare(version: ModelVersion, folder: Path, expected: Mapping[str, str]) -> None:
    """Raise if any file in a folder is gone, new or another one than expected, by its path."""
    found = _hashes(folder, expected)
    for path in sorted(found.keys() | expected.keys()):
        if path not in found:
            raise changed(version, f"its file {path} is gone")
        if path not in expected:
            raise changed(version, f"its file {path} is new")
        if found[path] != expected[path]:
            raise changed(version, f"{path}: expected sha256 {expected[path]}, found {found[path]}")


def _hashes(folder: Path, beside: Collection[str] = ()) -> dict[str, str]:
    """Hash a model's files; of its versions' details, which lie beside them, those named."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    return {
        name: sha256_file(path)
        for name, path in paths.items()
        if path.is_file() and (name in beside or not name.startswith(f"{tags.DETAILS_FOLDER}/"))
    }
