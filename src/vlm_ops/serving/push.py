"""Sending an exported folder to the hub."""

import logging
import re
import shlex
from pathlib import Path

import httpx2 as httpx
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from vlm_ops.errors import ConfigError, ModelError
from vlm_ops.serving.card import TAG
from vlm_ops.store.names import short

logger = logging.getLogger(__name__)

_EARLIER = re.compile(
    r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
    r"|adapter_model\.safetensors|adapter_config\.json"
)
"""What an earlier export left there: it would be taken for part of the model."""
_SIGN_IN = "sign in with 'hf auth login', or set HF_TOKEN to a token that may write"


def check_hub_id(hub_id: str) -> None:
    """Make sure, before anything is exported, that a hub id is one and that there is a token.

    Raises:
        ConfigError: It is none.
        ModelError: There is no token.
    """
    try:
        validate_repo_id(hub_id)
    except HFValidationError as error:
        raise ConfigError(
            f"--push {hub_id!r}: found no hub id, expected TEAM/NAME, of letters, digits, '-', '_' "
            f"and '.'"
        ) from error
    if huggingface_hub.get_token() is None:
        raise ModelError(f"--push {hub_id}: found no token of the hub; {_SIGN_IN}")


def push(folder: Path, hub_id: str, *, private: bool) -> str:
    """Send a folder to the hub as one commit; a repository that is not there is made.

    Weights of an earlier export that have no file in the folder are removed by the same commit.
    Nothing is sent to a repository that holds something else.

    Args:
        folder: That was exported and checked; it stays as it is.
        hub_id: As ``TEAM/NAME``.
        private: Whether nobody else may see it; else the hub's own default holds.

    Returns:
        Address of the repository.

    Raises:
        ModelError: The hub can't be reached or says no, or the repository is there and not private
            though it is to be, or holds what no export is.
    """
    logger.info("push: sending %s to %s", folder, hub_id)
    hub = huggingface_hub.HfApi()
    try:
        made = hub.create_repo(hub_id, private=private or None, exist_ok=True)
        there = hub.model_info(made.repo_id)
        files = {file.rfilename for file in there.siblings or ()}
        _check_room(folder, hub_id, private, there, files)
        hub.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message="Export of vlm-ops",
            delete_patterns=sorted(filter(_EARLIER.fullmatch, files)),
        )
    except ModelError:
        raise
    except (OSError, ValueError, httpx.HTTPError, RuntimeError) as error:
        raise _failed(folder, hub_id, private, _why(error)) from error
    return str(made)


def _check_room(
    folder: Path, hub_id: str, private: bool, there: huggingface_hub.ModelInfo, files: set[str]
) -> None:
    """Refuse a repository that all see though it is to be private, or that holds something else."""
    stays = f"nothing was sent. The checked model stays in {folder}"
    if private and not there.private:
        raise ModelError(
            f"--push {hub_id}: found a repository that is not private, expected a private or a "
            f"new one; {stays}"
        )
    if files - {".gitattributes"} and TAG not in (there.tags or ()):
        raise ModelError(
            f"--push {hub_id}: found a repository with {len(files)} files whose README.md has no "
            f"tag {TAG}, expected an earlier export or a new one; {stays}. Name another one. If "
            f"its model is to be replaced, add {TAG} to the tags at the top of its README.md first"
        )


def _why(error: BaseException) -> str:
    """Say why the hub did not take it."""
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"the hub denies it ({status}): {_SIGN_IN} there"
        return f"the hub answers {status}: {short(error.server_message or str(error), 200)}"
    if isinstance(error, RuntimeError):
        # The library says which file it was sending; what went wrong is the error behind.
        if error.__cause__ is not None:
            return _why(error.__cause__)
        return f"it was not sent whole ({short(str(error) or type(error).__name__, 200)})"
    return f"the hub can't be reached ({short(str(error) or type(error).__name__, 120)})"


def _failed(folder: Path, hub_id: str, private: bool, why: str) -> ModelError:
    command = shlex.join(["hf", "upload", hub_id, str(folder), *["--private"] * private])
    return ModelError(
        f"--push {hub_id}: {why}. The checked model stays in {folder}; send it later: {command}"
    )
