"""A model as MLflow keeps it: files that any process with MLflow can load and ask.

The package is a pyfunc made *from code*: a script, the library's sources, and plain files.
No object is pickled into it, so it loads with ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false``::

    packaged_model.py       what MLflow runs
    artifacts/model.json    which model this is: settings and hashes
    artifacts/adapter/      as PEFT writes it; absent for a bare base and a whole model
    artifacts/weights/      a whole model, after full fine-tuning; it needs no base
    artifacts/processor/    tokenizer, image processor, chat template
    artifacts/base/         the base's files, if it is small enough to travel along
    code/vlm_ops/           the library's sources as they were, without those that only make data
                            or a base: all in one archive, as each file is a request to the store
"""

import io
import zipfile
from pathlib import Path
from typing import Any

from vlm_ops.artifacts import WEIGHTS, ModelRef
from vlm_ops.config.sections import ModelSettings
from vlm_ops.errors import ModelError
from vlm_ops.models.identity import base_sha256
from vlm_ops.store.fingerprint import sha256_bytes, sha256_file

FILES = "artifacts"
DESCRIPTION = "model.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER = f"adapter/{ADAPTER_WEIGHTS}"
CONTENT_TAG = "vlm_ops.content"
SOURCES = "sources.zip"
"""In ``code/vlm_ops``; Python imports from it what is not beside it."""

_NOT_PACKED = ("charts", "pretraining")
"""Rooms that make the demo's data and the tiny base; no model needs them to answer."""


def open_package(artifacts: Path) -> ModelRef:
    """Read which model a package holds, with its paths pointing into the package.

    Args:
        artifacts: The package's folder ``artifacts``.

    Raises:
        ModelError: A file is missing, or is not the one the package was made with.
    """
    try:
        model = ModelRef.model_validate_json((artifacts / DESCRIPTION).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{artifacts}: holds no packaged model ({error})") from error
    changes: dict[str, Any] = {}
    base = artifacts / "base"
    if base.is_dir():
        changes["settings"] = model.settings.model_copy(update={"id": str(base), "revision": None})
    if model.adapter_sha256 is not None:
        weights = artifacts / ADAPTER
        found = sha256_file(weights) if weights.is_file() else "no file"
        if found != model.adapter_sha256:
            raise ModelError(
                f"{weights}: expected sha256 {model.adapter_sha256}, found {found}: the file "
                f"was changed after it was registered"
            )
        changes["adapter"] = artifacts / "adapter"
    if model.weights_sha256 is not None:
        found = base_sha256(artifacts / WEIGHTS)
        if found != model.weights_sha256:
            raise ModelError(
                f"{artifacts / WEIGHTS}: expected content {model.weights_sha256}, found {found}: "
                f"the files were changed after they were registered"
            )
        changes["weights"] = artifacts / WEIGHTS
    return model.model_copy(update=changes)


def settings_of_base(model: ModelRef) -> ModelSettings:
    """Return how a model's base was found where the model was trained.

    A small base travels in the package, and the model is loaded from there: its description still
    says what the base is called.
    """
    package = Path(model.settings.id).parent
    if model.adapter is None or model.adapter.parent != package:
        return model.settings
    return ModelRef.model_validate_json((package / DESCRIPTION).read_bytes()).settings


def zipped_sources(package: Path) -> bytes:
    """Return what goes along of the library's folder, as an archive: the same one each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(package.rglob("*.py")):
            if (name := path.relative_to(package)).parts[0] not in _NOT_PACKED:
                archive.writestr(zipfile.ZipInfo(name.as_posix()), path.read_bytes())
    return buffer.getvalue()


def sources_sha256(package: Path) -> str:
    """Return one hash over those sources of the library's folder, or of its packed copy."""
    packed = package / SOURCES
    return sha256_bytes(packed.read_bytes() if packed.exists() else zipped_sources(package))
