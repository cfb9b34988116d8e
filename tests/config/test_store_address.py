"""The address of a shared store: two kinds, and no credentials in it."""

import pytest

from vlm_ops.config.load import load_config
from vlm_ops.errors import ConfigError


@pytest.mark.parametrize(
    "address", ["s3://bucket", "s3://bucket/of/a/team", "file:///mnt/share", "file:///mnt/a b/"]
)
def test_a_bucket_and_a_mount_are_addresses(address: str) -> None:
    assert load_config("demo", [f"execution.store={address}"]).execution.store == address


@pytest.mark.parametrize(
    "address",
    ["bucket", "/mnt/share", "file://share", "s3://", "s3:///x", "gs://bucket", "file:///"],
)
def test_anything_else_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"expected s3://bucket/prefix or file:///folder"):
        load_config("demo", [f"execution.store={address}"])


def test_credentials_in_it_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="holds credentials") as refused:
        load_config("demo", ["execution.store=s3://key:planted-secret@bucket/x"])
    assert "planted-secret" not in str(refused.value)
