"""Sending an exported folder to the hub."""

import logging
import shlex
from pathlib import Path

import httpx2 as httpx
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from vlm_ops.errors import ConfigError, ModelError
from vlm_ops.store.names import short

logger = logging.getLogger(__name__)

_EARLIER = ["*.safetensors", "*.safetensors.index.json", "adapter_config.json"]
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

    Args:
        folder: That was exported and checked; it stays as it is.
        hub_id: As ``TEAM/NAME``.
        private: Whether nobody else may see it; else the hub's own default holds.

    Returns:
        Address of the repository.

    Raises:
        ModelError: The hub can't be reached or says no, or the repository is there and not private
            though it is to be.
    """
    logger.info("push: sending %s to %s", folder, hub_id)
    hub = huggingface_hub.HfApi()
    try:
        made = hub.create_repo(hub_id, private=private or None, exist_ok=True)
        if private and not hub.model_info(made.repo_id).private:
            raise ModelError(
                f"--push {hub_id}: found a repository that is not private, expected a private or a "
                f"new one; nothing was sent. The checked model stays in {folder}"
            )
        hub.upload_folder(
            repo_id=made.repo_id,
            folder_path=folder,
            commit_message="Export of vlm-ops",
            delete_patterns=_EARLIER,
        )
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            why = f"the hub denies it ({status}): {_SIGN_IN} there"
        else:
            why = f"the hub answers {status}: {short(error.server_message or str(error), 200)}"
        raise _failed(folder, hub_id, private, why) from error
    except (OSError, ValueError, httpx.HTTPError) as error:
        why = f"the hub can't be reached ({short(str(error) or type(error).__name__, 120)})"
        raise _failed(folder, hub_id, private, why) from error
    return str(made)


def _failed(folder: Path, hub_id: str, private: bool, why: str) -> ModelError:
    command = shlex.join(["hf", "upload", hub_id, str(folder), *["--private"] * private])
    return ModelError(
        f"--push {hub_id}: {why}. The checked model stays in {folder}; send it later: {command}"
    )
