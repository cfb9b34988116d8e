"""Steps on machines of Ray need what connects these, and an address that can be joined."""

import pytest

from vlm_ops.cli.step import resolved
from vlm_ops.config.execution import ExecutionSettings
from vlm_ops.config.load import load_config
from vlm_ops.errors import ConfigError

STORE = "execution.store=file:///mnt/share"


def test_ray_needs_a_store() -> None:
    with pytest.raises(ConfigError, match=r"where: ray needs a store.*file:///mnt/share/folder"):
        load_config("demo", ["execution.where=ray"])
    found = load_config("demo", ["execution.where=ray", STORE]).execution
    assert (found.where, found.ray_address, found.gpus) == ("ray", "auto", 1)


def test_a_ground_is_ray_s_and_no_local_command_believes_it() -> None:
    ground = "execution.ground={device: cuda}"
    with pytest.raises(ConfigError, match=r"ground is what a run with where: ray fills in"):
        load_config("demo", [ground])
    config = load_config("demo", ["execution.where=ray", STORE, ground])
    assert config.execution.ground == {"device": "cuda"}
    assert resolved(config).execution.ground is None


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "10.0.0.1", "10.0.0.1:0", "head:x"])
def test_an_address_that_can_not_be_joined_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"expected auto or host:port, as 10\.0\.0\.1:6379"):
        load_config("demo", ["execution.where=ray", STORE, f"execution.ray_address={address}"])


def test_who_works_here_keeps_the_records_of_before() -> None:
    assert (
        ExecutionSettings()
        .model_dump()
        .keys()
        .isdisjoint({"where", "ray_address", "gpus", "ground"})
    )
