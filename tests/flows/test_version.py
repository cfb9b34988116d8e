"""A worker of another version than the deployment's refuses the run."""

import pytest

import vlm_ops
from flows.version import made_by, refuse_other
from vlm_ops.errors import ConfigError


@pytest.mark.parametrize("deployed", [None, "", "8f2c1d", made_by()])
def test_the_same_version_and_deployments_that_name_none_pass(deployed: str | None) -> None:
    refuse_other(deployed)


def test_another_version_is_refused_with_both() -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_other("vlm-ops 99.0")
    assert f"this worker has vlm-ops {vlm_ops.__version__}" in str(refused.value)
    assert "made by vlm-ops 99.0" in str(refused.value)
