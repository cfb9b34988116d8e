"""What a page of another origin, or a user without the auth string, can do: nothing.

The requests are those that a browser sends for such a page: with its ``Origin``, either "simple"
(a body of ``text/plain``, for which the server is not asked first) or with a preflight.
"""

import json
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from mlflow import MlflowClient
from small import login, prefect_client
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from flows.servers.services import Services

pytestmark = pytest.mark.slow

ORIGINS = (
    "http://evil.example", "null", "http://127.0.0.1:8888", "http://localhost:8888",
    "http://[::1]:8888", "https://127.0.0.1",
)  # fmt: skip
PREFECT = {
    "/flows/": {"name": "evil"},
    "/deployments/": {"name": "evil", "flow_id": str(uuid4())},
    "/automations/": {"name": "evil", "trigger": {"type": "event"}, "actions": []},
    "/work_pools/": {"name": "evil", "type": "process"},
    "/variables/": {"name": "evil", "value": "evil"},
}
MLFLOW = {
    "experiments/create": {"name": "evil"},
    "runs/create": {"experiment_id": "0", "run_name": "evil"},
    "registered-models/create": {"name": "evil"},
    "registered-models/alias": {"name": "evil", "alias": "champion", "version": "1"},
}
BODIES = ("text/plain", "application/x-www-form-urlencoded", "application/json")


def sent(origin: str | None, kind: str) -> dict[str, str]:
    return {"content-type": kind} | ({"origin": origin} if origin else {})


@pytest.mark.parametrize("origin", [*ORIGINS, None])
def test_nothing_is_made_in_prefect_without_the_auth_string(
    pair: Services, runs: Path, origin: str | None
) -> None:
    for path, values in PREFECT.items():
        for kind in BODIES:
            url, body = pair.prefect_api_url + path, json.dumps(values)
            answer = httpx.post(url, content=body, headers=sent(origin, kind))
            # Prefect asks for the CSRF token first, which is not had without the auth string.
            assert answer.status_code == 403, (path, kind)
            assert answer.json() == {"detail": "Missing CSRF token."}
            assert "access-control-allow-origin" not in answer.headers
    for path in ("/csrf-token?client=evil", "/admin/settings", "/flows/name/evil"):
        for password in (None, ("vlm-ops", "wrong")):
            answer = httpx.get(pair.prefect_api_url + path, headers=sent(origin, ""), auth=password)
            assert answer.status_code == 401, path
            assert "access-control-allow-origin" not in answer.headers
    with prefect_client(pair.prefect_api_url, runs) as client:
        token = {key: value for key, value in client.headers.items() if "csrf" in key}
    # Not even with a token that somebody else got.
    answer = httpx.post(pair.prefect_api_url + "/flows/", json={"name": "evil"}, headers=token)
    assert answer.status_code == 401
    with prefect_client(pair.prefect_api_url, runs) as client:
        for room in ("flows", "deployments", "automations", "work_pools", "variables"):
            found = client.post(f"/{room}/filter", json={}).json()
            assert "evil" not in [item["name"] for item in found]


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_browser_that_asks_first_is_told_no(pair: Services, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST"}
    asks |= {"access-control-request-headers": "authorization,content-type"}
    answers = [httpx.options(pair.prefect_api_url + path, headers=asks) for path in PREFECT]
    base = f"{pair.mlflow_url}/api/2.0/mlflow"
    answers += [httpx.options(f"{base}/{path}", headers=asks) for path in MLFLOW]
    for answer in answers:
        assert answer.status_code in (400, 403)
        assert "access-control-allow-origin" not in answer.headers


def test_with_the_auth_string_alone_a_page_could_not_write(pair: Services, runs: Path) -> None:
    user, _, password = login(runs)["PREFECT_API_AUTH_STRING"].partition(":")
    url = pair.prefect_api_url + "/flows/"
    answer = httpx.post(url, json={"name": "evil"}, auth=(user, password))
    assert (answer.status_code, answer.json()) == (403, {"detail": "Missing CSRF token."})


def talk(url: str, protocols: list[str] | None, first: str) -> None:
    with connect(url, subprotocols=protocols, origin="http://evil.example") as socket:  # type: ignore[arg-type]
        socket.send(first)
        socket.recv(timeout=10)


@pytest.mark.parametrize("path", ["/events/in", "/events/out", "/logs/out"])
@pytest.mark.parametrize("protocols", [None, ["prefect"]])
def test_prefect_s_sockets_want_it_too(
    pair: Services, path: str, protocols: list[str] | None
) -> None:
    url = pair.prefect_api_url.replace("http", "ws", 1) + path
    for first in ({"type": "auth", "token": "wrong"}, {"type": "auth"}, {"type": "filter"}):
        with pytest.raises((ConnectionClosed, InvalidHandshake)):
            talk(url, protocols, json.dumps(first))


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("api", ["api", "ajax-api"])
def test_nothing_is_made_or_read_in_mlflow_by_another_page(
    pair: Services, origin: str, api: str
) -> None:
    base = f"{pair.mlflow_url}/{api}/2.0"
    for path, values in MLFLOW.items():
        for kind in BODIES:
            body = json.dumps(values)
            answer = httpx.post(f"{base}/mlflow/{path}", content=body, headers=sent(origin, kind))
            assert answer.status_code == 403, (path, kind)
            assert "access-control-allow-origin" not in answer.headers
    for path in ("mlflow/experiments/search?max_results=9", "mlflow-artifacts/artifacts"):
        answer = httpx.get(f"{base}/{path}", headers={"origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    upload = f"{base}/mlflow-artifacts/artifacts/evil"
    assert httpx.put(upload, content=b"evil", headers={"origin": origin}).status_code == 403
    client = MlflowClient(pair.mlflow_url, pair.mlflow_url)
    assert client.search_registered_models() == []
    assert "evil" not in [item.name for item in client.search_experiments()]
    assert client.search_runs(["0"]) == []


def test_a_name_of_somebody_else_s_that_leads_here_is_refused(pair: Services) -> None:
    """DNS rebinding: in the browser's eyes the page and the server are one origin then."""
    port = pair.mlflow_url.rpartition(":")[2]
    url = f"{pair.mlflow_url}/api/2.0/mlflow/experiments/create"
    for host in (f"evil.example:{port}", "evil.example", f"10.0.0.1:{port}"):
        headers = {"host": host, "origin": f"http://{host}"}
        assert httpx.post(url, json={"name": "evil"}, headers=headers).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_their_own_pages_are_served(pair: Services, runs: Path, host: str) -> None:
    mlflow, prefect = (
        url.replace("127.0.0.1", host) for url in (pair.mlflow_url, pair.prefect_ui_url)
    )
    assert httpx.get(mlflow).status_code == httpx.get(prefect, follow_redirects=True).status_code
    search = f"{mlflow}/ajax-api/2.0/mlflow/experiments/search"
    found = httpx.post(search, json={"max_results": 9}, headers={"origin": mlflow})
    assert found.status_code == 200
    # The page asks the API by the address that it is told, 127.0.0.1.
    with prefect_client(pair.prefect_api_url, runs) as client:
        answer = client.post("/flows/filter", json={}, headers={"origin": prefect})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == prefect
