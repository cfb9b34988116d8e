"""A deployment says which version of vlm-ops made it, and a worker of another one refuses its runs.

In a fleet that is half upgraded, the worker that is free first would decide how a model is trained.
"""

import vlm_ops
from vlm_ops.errors import ConfigError

_OURS = "vlm-ops "


def made_by() -> str:
    """Return what a deployment that is made here says of its maker."""
    return f"{_OURS}{vlm_ops.__version__}"


def refuse_other(deployed: str | None) -> None:
    """Refuse the run of a deployment that another version made.

    Args:
        deployed: The deployment's version in Prefect. Those of earlier versions, or made by
            Prefect's own command, don't name vlm-ops, and pass.

    Raises:
        ConfigError: It names another version.
    """
    if deployed is None or not deployed.startswith(_OURS) or deployed == made_by():
        return
    raise ConfigError(
        f"this worker has {made_by()}, and the deployment was made by {deployed}: nothing is "
        "trained; bring all workers to one version, then call `vlm-ops deploy` again with it"
    )
