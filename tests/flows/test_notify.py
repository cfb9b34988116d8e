"""Messages that a real Prefect server sends to a real receiver."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.states import Completed
from receiver import LIMIT_S, Receiver, receiving
from small import prefect_client

from flows import notify
from flows.disk import look_at_disk
from flows.servers.services import Services
from vlm_ops.errors import ConfigError, ServiceError

pytestmark = pytest.mark.slow
SECRET = "T0KEN-of-the-hook"


@pytest.fixture
def receiver(pair: Services) -> Iterator[Receiver]:
    with receiving() as found:
        yield found
    for target in notify.targets():
        notify.remove(target.name)


def end(name: str, message: str) -> None:
    """Have a run of the flow's name end in a state."""

    @flow(name="retrain", flow_run_name="weekly.yaml", persist_result=False)
    def retrain() -> Any:
        if name == "Failed":
            raise ValueError(message)
        return Completed(name=name, message=message, data={})

    retrain(return_state=True)


def test_each_end_is_told_once_with_its_numbers_and_its_page(
    receiver: Receiver, pair: Services, runs: Path
) -> None:
    made = notify.add(f"{receiver.url}/hook/{SECRET}?key={SECRET}", ["promoted", "failed"], "ops")
    assert made == notify.Target("ops", "webhook at 127.0.0.1", ("failed", "promoted"))
    assert notify.targets() == [made]

    end("Promoted", "small version 2: promoted\n- +4.1 points (95 % interval +1.0 to +7.2)")
    end("Refused", "nobody asked for this")
    end("Failed", "no room on the disk")
    failed = receiver.wait_for(lambda message: message["title"].startswith("Failed"))
    promoted = receiver.wait_for(lambda message: message["title"].startswith("Promoted"))
    assert promoted["title"] == "Promoted: weekly.yaml"
    assert promoted["message"].startswith("small version 2: promoted\n- +4.1 points (95 % interval")
    assert f"\nPrefect: {pair.prefect_ui_url}/runs/flow-run/" in promoted["message"]
    assert "no room on the disk" in failed["message"]
    paths = [path for path, _ in receiver.got]
    assert paths == [f"/hook/{SECRET}?key={SECRET}"] * 2

    # What the server tells of the block, its automations and its log holds no address.
    with prefect_client(pair.prefect_api_url, runs) as client:
        told = client.post("/automations/filter", json={}).text
        told += client.post("/block_documents/filter", json={}).text
    assert "vlm-ops-notify-ops" in told
    assert SECRET not in told

    receiver.status = 404
    with pytest.raises(ServiceError, match=r"ops: webhook at 127.0.0.1 did not take .*404") as bad:
        notify.try_out("ops")
    assert SECRET not in str(bad.value)
    before, deadline = actions(pair, runs), time.monotonic() + LIMIT_S
    end("Promoted", "another one")
    receiver.wait_for(lambda message: "another one" in message["message"])
    while actions(pair, runs) == before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert SECRET not in (runs / "logs" / "prefect-server.log").read_text(encoding="utf-8")


def actions(pair: Services, runs: Path) -> int:
    """How many actions of automations have ended, well or not."""
    ended = ["prefect.automation.action.executed", "prefect.automation.action.failed"]
    with prefect_client(pair.prefect_api_url, runs) as client:
        answer = client.post("/events/filter", json={"filter": {"event": {"name": ended}}})
    total: int = answer.json()["total"]
    return total


def test_a_target_is_tried_replaced_and_removed(receiver: Receiver) -> None:
    first = notify.add(receiver.url, list(notify.USUAL))
    assert first.name.startswith("webhook-")
    assert notify.try_out(first.name) == first
    receiver.wait_for(lambda message: "A test" in message["message"])
    again = notify.add(receiver.url, ["refused"], first.name)
    assert notify.targets() == [again]
    with pytest.raises(ConfigError, match=r"nobody called 'op' is told; known: webhook-"):
        notify.remove("op")
    notify.remove(first.name)
    assert notify.targets() == []


def test_an_address_that_does_not_answer(pair: Services) -> None:
    url = f"http://127.0.0.1:9/{SECRET}"
    notify.add(url, ["failed"], "gone")
    try:
        with pytest.raises(ServiceError, match=r"gone: .*onnection.*check the address") as found:
            notify.try_out("gone")
    finally:
        notify.remove("gone")
    assert SECRET not in str(found.value)
    assert found.value.__cause__ is None


def test_no_result_for_a_while_and_a_full_disk(receiver: Receiver, tmp_path: Path) -> None:
    notify.add(receiver.url, ["skipped-for=10s", "disk-low"], "ops")
    end("Skipped", "nothing has come")
    look_at_disk(tmp_path, 0)
    look_at_disk(tmp_path, 1e9)
    full = receiver.wait_for(lambda message: message["title"].startswith("Disk low"))
    assert full["title"] == f"Disk low: {tmp_path}"
    assert f"GB are free where {tmp_path} lies" in full["message"]
    quiet = receiver.wait_for(lambda message: message["title"].startswith("No result"))
    assert quiet["title"] == "No result for 10s: weekly.yaml"
    assert "Skipped, nothing has come" in quiet["message"]
    assert len(receiver.got) == 2


@pytest.mark.parametrize(
    ("url", "events", "said"),
    [
        ("hooks.example.org/x", ["failed"], "without a scheme"),
        (f"nowhere://{SECRET}", ["failed"], r"nowhere://….*is not understood"),
        ("https://example.org/x", ["promotd"], "did you mean 'promoted'"),
        ("https://example.org/x", ["skipped-for=3 days"], r"as .*3d"),
        ("https://example.org/x", ["skipped-for=5s"], "10 seconds at least"),
    ],
)
def test_bad_input(
    url: str, events: list[str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigError, match=said) as found:
        notify.add(url, events)
    assert SECRET not in str(found.value) + caplog.text


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "Slack"),
        ("https://discord.com/api/webhooks/4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "Discord"),
        ("https://a.logic.azure.com:443/workflows/0123456789abcdef0123456789abcdef/triggers/manual"
         "/paths/invoke?api-version=2016-06-01&sp=%2F&sv=1.0&sig=Jsig0123456789abcdef0123456789abc",
         "Power Automate"),
        ("mailto://me:password@example.org", "E-Mail at example.org"),
    ],
)  # fmt: skip
def test_who_is_told_by_the_name_of_the_service(url: str, where: str) -> None:
    assert notify.named(url).where.startswith(where)
    assert "password" not in notify.named(url).name
