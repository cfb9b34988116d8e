"""Programs that follow an alias, on real MLflow servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_fixtures import serve_mlflow
from receiver import receiving

from vlm_ops.errors import RegistryError
from vlm_ops.registry.webhooks import Follower, Webhooks

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An MLflow server that calls http addresses of this machine."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    with serve_mlflow(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}") as url:
        yield url


def test_every_move_of_an_alias_is_told(server: str) -> None:
    client = MlflowClient(tracking_uri=server, registry_uri=server)
    client.create_registered_model("charts")
    for _ in range(2):
        client.create_model_version("charts", "s3://nowhere/charts")
    webhooks = Webhooks(server)
    with receiving() as receiver:
        made = webhooks.follow("serving", f"{receiver.url}/secret-path")
        assert made == Follower("serving", f"{receiver.url}/…")
        assert webhooks.follow("serving", f"{receiver.url}/secret-path") == made
        assert webhooks.followers() == [made]
        for version in ("1", "2"):
            client.set_registered_model_alias("charts", "champion", version)
            told = receiver.wait_for(lambda body, v=version: body["data"].get("version") == v)  # type: ignore[misc]
            assert told["entity"] == "model_version_alias"
            assert told["data"] == {"name": "charts", "alias": "champion", "version": version}
        assert len(receiver.got) == 2
        assert webhooks.try_out("serving") == made
        assert webhooks.try_out("nobody") is None
        receiver.status = 403
        with pytest.raises(RegistryError, match=r"could not call .*: it answered 403") as found:
            webhooks.try_out("serving")
        assert "secret-path" not in str(found.value)
        assert webhooks.leave("serving")
        assert not webhooks.leave("serving")


def test_what_a_lost_answer_left_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    webhooks = Webhooks(f"sqlite:///{tmp_path / 'mlflow.db'}")
    client, url = webhooks.client, "http://127.0.0.1:9/secret-path"

    def lose_an_answer() -> None:
        client.create_webhook("vlm-ops-serving", url, ["model_version_alias.created"])

    webhooks.follow("serving", url)
    webhooks.follow("other", url)
    lose_an_answer()
    made = webhooks.follow("serving", url)
    assert webhooks.followers() == [made._replace(name="other"), made]
    lose_an_answer()
    assert webhooks.leave("serving")
    assert webhooks.followers() == [made._replace(name="other")]


def test_an_address_that_the_server_does_not_take(mlflow_server: str) -> None:
    for url in ("http://example.org/secret-path", "https://127.0.0.1/secret-path"):
        with pytest.raises(RegistryError, match=r"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true") as found:
            Webhooks(mlflow_server).follow("serving", url)
        assert "secret-path" not in str(found.value)
        assert found.value.__cause__ is None
    assert Webhooks(mlflow_server).followers() == []
