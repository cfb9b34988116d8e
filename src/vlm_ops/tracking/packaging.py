"""Writing a model as an MLflow package, and keeping it as a LoggedModel of a run."""

import base64
import io
import shutil
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType
from PIL import Image

import vlm_ops
from vlm_ops.artifacts import ADAPTER, WEIGHTS, ModelRef
from vlm_ops.errors import ModelError
from vlm_ops.models.export import copy_adapter
from vlm_ops.models.loading import files_of, load_processor
from vlm_ops.tracking.package import CONTENT_TAG, DESCRIPTION, FILES, SOURCES, zipped_sources

SCRIPT = Path(__file__).with_name("packaged_model.py")
MODEL_TYPE = "image-text-to-text"
_THE_REST = f'__path__.append(__file__.removesuffix("__init__.py") + "{SOURCES}")\n'

_SMALL_BASE_BYTES = 64 << 20
_BASE_SUFFIXES = {".json", ".safetensors", ".jinja", ".txt", ".model"}
_REQUIREMENTS = (
    "accelerate", "bitsandbytes", "mlflow", "peft", "pillow", "pydantic", "torch", "torchvision",
    "transformers",
)  # fmt: skip


def log_packaged_model(client: MlflowClient, run_id: str, name: str, model: ModelRef) -> str:
    """Keep a model as a LoggedModel of a run.

    Args:
        client: Bound to the server.
        run_id: The run that made or measured the model.
        name: As ``candidate``.
        model: Its files.

    Returns:
        The LoggedModel's id, ``m-…``; the one that the run has already if it is the same.

    Raises:
        ModelError: The model's files are missing.
    """
    run = client.get_run(run_id)
    logged = _begun(client, run, name, model) or client.create_logged_model(
        run.info.experiment_id,
        name=name,
        source_run_id=run_id,
        model_type=MODEL_TYPE,
        tags={CONTENT_TAG: model.content},
        params=_params(model),
    )
    if logged.status != LoggedModelStatus.READY:
        _send(client, run_id, logged, model)
    linked = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
    if logged.model_id not in linked:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _begun(client: MlflowClient, run: Run, name: str, model: ModelRef) -> LoggedModel | None:
    """Return what an earlier call has made of the same model, whether or not it was cut off."""
    found = client.search_logged_models(
        [run.info.experiment_id],
        filter_string=f"source_run_id = '{run.info.run_id}' AND name = '{name}'",
    )
    same = [one for one in found if one.tags.get(CONTENT_TAG) == model.content]
    return min(same, key=lambda one: one.status != LoggedModelStatus.READY, default=None)


def _send(client: MlflowClient, run_id: str, logged: LoggedModel, model: ModelRef) -> None:
    try:
        with tempfile.TemporaryDirectory() as scratch:
            package = Path(scratch) / "package"
            described = Model(run_id=run_id, model_id=logged.model_id, model_uuid=logged.model_id)
            save_package(model, package, described)
            client.log_model_artifacts(logged.model_id, str(package))
    except BaseException:
        # The server may be what failed; the next try goes on with this one.
        with suppress(MlflowException):
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
        raise
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def save_package(model: ModelRef, folder: Path, described: Model | None = None) -> None:
    """Write a model as an MLflow model folder; ``described`` is MLflow's own record of it.

    Raises:
        ModelError: The model's files are missing.
    """
    with tempfile.TemporaryDirectory() as scratch:
        staging = Path(scratch)
        _stage_files(model, staging / FILES)
        _stage_sources(staging / "vlm_ops")
        mlflow.pyfunc.save_model(
            path=str(folder),
            mlflow_model=described,
            python_model=str(SCRIPT),
            artifacts={path.stem: str(path) for path in sorted((staging / FILES).iterdir())},
            code_paths=[str(staging / "vlm_ops")],
            signature=_signature(),
            input_example=_example(),
            pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
        )


def _params(model: ModelRef) -> dict[str, str]:
    settings = {f"model.{key}": str(value) for key, value in model.settings}
    hashes = {"base_sha256": model.base_sha256, "adapter_sha256": str(model.adapter_sha256)}
    if model.weights_sha256 is not None:
        hashes["weights_sha256"] = model.weights_sha256
    return {**settings, **hashes}


def _stage_files(model: ModelRef, target: Path) -> None:
    target.mkdir()
    if model.adapter is not None:
        # PEFT notes the folder that the base was loaded from; the package is told its base apart.
        copy_adapter(model.adapter, target / ADAPTER, Path(model.settings.id).name)
    try:
        load_processor(model).save_pretrained(target / "processor")
    except OSError as error:
        raise ModelError(f"model.id {model.settings.id!r}: no processor ({error})") from error
    folder = files_of(model)
    files = [path for path in folder.iterdir() if path.suffix in _BASE_SUFFIXES]
    settings = model.settings
    if model.weights or sum(path.stat().st_size for path in files) <= _SMALL_BASE_BYTES:
        packed = target / (WEIGHTS if model.weights else "base")
        packed.mkdir()
        for path in files:
            shutil.copyfile(path, packed / path.name)
        if Path(settings.id).is_dir():
            # The path on this machine means nothing elsewhere; the folder's name is for people.
            settings = settings.model_copy(update={"id": Path(settings.id).resolve().name})
    nowhere = {"settings": settings, "adapter": None, "weights": None}
    described = model.model_copy(update=nowhere)
    (target / DESCRIPTION).write_text(described.model_dump_json(indent=2) + "\n", "utf-8")


def _stage_sources(target: Path) -> None:
    root = Path(vlm_ops.__file__).parent
    target.mkdir()
    (target / SOURCES).write_bytes(zipped_sources(root))
    first = (root / "__init__.py").read_text("utf-8")
    (target / "__init__.py").write_text(f"{first}\n{_THE_REST}", "utf-8")


def _signature() -> ModelSignature:
    inputs = Schema([ColSpec(AnyType(), "image"), ColSpec(DataType.string, "question")])
    options = (("max_new_tokens", DataType.long, 64), ("batch_size", DataType.long, 8))
    params = [ParamSpec(*each) for each in options]
    return ModelSignature(inputs, Schema([ColSpec(DataType.string)]), ParamSchema(params))


def _example() -> list[dict[str, str]]:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "white").save(buffer, format="PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    return [{"image": image, "question": "How many bars are there?"}]
