"""Which adapter a registered ``model.start`` is, asked once at the start of a run."""

from typing import Any, NamedTuple

from vlm_ops.config.names import registered_name
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import CHAMPION, FRESH, StartVersion
from vlm_ops.errors import ModelError, RegistryError
from vlm_ops.models.identity import base_sha256, local_folder
from vlm_ops.models.start import find_start, refuse_another_base
from vlm_ops.registry.registry import Registry
from vlm_ops.store.fingerprint import SHORT

MODELS = "models"
"""Where the files of versions lie in a runs folder, by content."""


class Started(NamedTuple):
    """A configuration whose start is an adapter by content.

    Attributes:
        config: The same, with ``model.start_version``; at the base where there is no champion.
        said: What the first training starts at, in words; None where the file says it: the base.
    """

    config: PipelineConfig
    said: str | None


def settle_start(config: PipelineConfig, uri: str | None) -> Started:
    """Ask the registry which adapter ``model.start`` is; none of its weights are fetched.

    Args:
        config: The whole configuration; its runs folder is absolute.
        uri: Of the MLflow server; None where nothing was ever registered.

    Raises:
        ModelError: The version is a whole model or of another base; or a folder has no adapter.
        RegistryError: There is no such version, or it is in doubt who is champion.
        ServiceError: The server does not answer.
    """
    model = config.model
    if not model.start_is_registered:
        start = find_start(model)
        return Started(config, None if start is None else f"the training goes on from {start}")
    named = registered_name(model.start)
    name, asked = named or (config.registered_model, _champion(config, uri))
    if asked is None:
        said = f"the training starts at the base with a fresh adapter: {name} has no champion yet"
        return Started(_with(config, start=FRESH), said)
    if uri is None:
        raise RegistryError(f"model.start {model.start}: nothing was ever registered here")
    number, found = Registry(uri, name).described(asked)
    version = f"models:/{name}/{number}"
    if found.adapter_sha256 is None:
        raise ModelError(
            f"model.start {model.start}: {version} was fully fine-tuned: it is a whole model and "
            f"has no adapter to go on from. Name a version with an adapter (`vlm-ops models "
            f"{name}` lists them), or set model.start: base"
        )
    base = local_folder(model)
    ours = None if base is None else base_sha256(base)
    refuse_another_base(version, found.base_sha256, ours)
    start_version = StartVersion(
        name=version,
        adapter_sha256=found.adapter_sha256,
        folder=config.execution.runs / MODELS / found.content[:SHORT],
    )
    went_on = _with(config, start_version=start_version)
    who = ", the champion" if model.start == CHAMPION else ""
    return Started(went_on, f"the training goes on from {find_start(went_on.model)}{who}")


def fetch_start(config: PipelineConfig, uri: str) -> None:
    """Fetch the files of the version that a training goes on from, if they are not there.

    Raises:
        RegistryError: The version or its files are gone, or are not what was registered.
        OutputError: The runs folder can't be written to.
        ServiceError: The server does not answer.
    """
    if (version := config.model.start_version) is None:
        return
    named = registered_name(version.name)
    assert named is not None
    name, number = named
    Registry(uri, name).download(number, version.folder.parent)


def _champion(config: PipelineConfig, uri: str | None) -> str | None:
    if uri is None:
        return None
    standing = Registry(uri, config.registered_model).standing()
    if standing.doubt is not None:
        raise RegistryError(f"model.start {CHAMPION}: {standing.doubt}")
    return None if standing.champion is None else standing.champion.version


def _with(config: PipelineConfig, **changes: Any) -> PipelineConfig:
    model = config.model.model_copy(update=changes)
    return config.model_copy(update={"model": model})
