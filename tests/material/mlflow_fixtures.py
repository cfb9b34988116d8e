"""Fixtures for what needs MLflow: a real server, and models that can be told apart."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings
from vlm_ops.store.fingerprint import sha256_file

START_LIMIT_S = 240


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server on a SQLite file of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    with serve_mlflow(folder, f"sqlite:///{folder / 'mlflow.db'}") as url:
        yield url


@contextmanager
def serve_mlflow(
    folder: Path, store: str, workers: int = 1, port: int | None = None
) -> Iterator[str]:
    """Have a real MLflow server answer for the duration of the block; its state goes with it.

    Args:
        folder: For artifacts and the log.
        store: URI of the database.
        workers: Processes that answer.
        port: Of one that was ended and starts again; any free one when None.
    """
    port = port or _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--workers", str(workers)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", store),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    # As ours has it: seven processes that wait for jobs would take longer to start than the server.
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **settings},
            start_new_session=True,
        )
    try:
        _wait_until_healthy(url, process, log)
        yield url
    finally:
        # SIGTERM would wait for open connections.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def make_model(
    random_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], ModelRef]:
    """Make a model with an adapter of random weights; another seed gives another model."""
    import torch
    from transformers import PreTrainedModel

    from vlm_ops.models.adapters import add_adapter
    from vlm_ops.models.loading import base_ref, load

    base = base_ref(ModelSettings(id=str(random_base), quantization="none", dtype="float32"))

    def make(seed: int) -> ModelRef:
        folder = tmp_path_factory.mktemp("adapter") / "adapter"
        plain = load(base).model
        assert isinstance(plain, PreTrainedModel)
        model = add_adapter(plain, LoraSettings(rank=4))
        torch.manual_seed(seed)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5)
        model.save_pretrained(str(folder))
        sha256 = sha256_file(folder / "adapter_model.safetensors")
        return base.model_copy(update={"adapter": folder, "adapter_sha256": sha256})

    return make


@pytest.fixture(scope="session")
def make_whole_model(
    random_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], ModelRef]:
    """Make a model as full fine-tuning leaves it; another seed gives another model."""
    import torch

    from vlm_ops.artifacts import WEIGHTS
    from vlm_ops.models.loading import base_ref, load
    from vlm_ops.models.whole import save_whole

    settings = ModelSettings(id=str(random_base), quantization="none", dtype="float32")
    base = base_ref(settings)

    def make(seed: int) -> ModelRef:
        folder = tmp_path_factory.mktemp("whole")
        loaded = load(base)
        torch.manual_seed(seed)
        for parameter in loaded.model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        loaded.model.save_pretrained(str(folder / "checkpoint"))
        digest = save_whole(base, folder / "checkpoint", ("text",), folder / WEIGHTS)
        return base.model_copy(update={"weights": folder / WEIGHTS, "weights_sha256": digest})

    return make


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_healthy(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"MLflow did not start:\n{log.read_text()[-3000:]}")
