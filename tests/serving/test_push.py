"""Sending an export to the hub: by the library itself, to a server that answers as a hub does."""

import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vlm_ops.cli.commands import app
from vlm_ops.errors import ConfigError, ModelError
from vlm_ops.serving.push import _why, check_hub_id, push

HUB_ID = "team/charts"


class Hub(ThreadingHTTPServer):
    """The few endpoints that are asked; its files are held in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.refuses: dict[str, int] = {}
        self.there, self.private, self.large = False, False, False
        self.tags: list[str] = []
        self.files: dict[str, bytes] = {}
        self.commits: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()


class Asked(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        hub = self.server
        if self.path.startswith(f"/api/models/{HUB_ID}/tree/main"):
            there = [
                {"type": "file", "path": name, "size": len(data), "oid": "0"}
                for name, data in hub.files.items()
            ]
            self._answer(200, there)
        elif not hub.there:
            self._answer(404, {"error": "Repository not found"})
        else:
            files = [{"rfilename": name} for name in hub.files]
            told = {"id": HUB_ID, "private": hub.private, "tags": hub.tags, "siblings": files}
            self._answer(200, told)

    def do_POST(self) -> None:
        hub = self.server
        hub.tokens.add(self.headers["authorization"])
        body = self.rfile.read(int(self.headers["content-length"]))
        asked = self.path.partition("?")[0].rpartition("/api/")[2]
        step = asked.removeprefix(f"models/{HUB_ID}/").partition("/")[0]
        if status := hub.refuses.get(step):
            self._answer(status, {"error": "not for you"})
        elif asked == "repos/create":
            if hub.there:
                self._answer(409, {"error": "it is there", "url": f"{hub.address}/{HUB_ID}"})
                return
            hub.there, hub.private = True, json.loads(body).get("visibility") == "private"
            self._answer(200, {"url": f"{hub.address}/{HUB_ID}"})
        elif step == "preupload":
            told = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if hub.large else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self._answer(200, {"files": told})
        elif asked.endswith("objects/batch"):
            up = {"upload": {"href": f"{hub.address}/storage"}}
            files = [{**file, "actions": up} for file in json.loads(body)["objects"]]
            self._answer(200, {"transfer": "basic", "objects": files})
        elif step == "commit":
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._answer(200, {})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(self.server.refuses["storage"], {"error": "quota"})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        hub = self.server
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del hub.files[value["path"]]
            else:
                hub.commits.append(value)
        url = f"{hub.address}/{HUB_ID}/commit/1"
        self._answer(200, {"commitUrl": url, "commitOid": "1", "success": True})

    def _answer(self, status: int, told: Any) -> None:
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "my model"
    made.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (made / name).write_bytes(name.encode())
    return made


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("private", [False, True])
def test_a_folder_is_sent_as_one_commit(hub: Hub, folder: Path, private: bool) -> None:
    assert push(folder, HUB_ID, private=private) == f"{hub.address}/{HUB_ID}"
    assert hub.files == held(folder)
    assert hub.private is private
    assert len(hub.commits) == 1
    assert hub.tokens == {"Bearer hf_test"}


def test_the_weights_of_an_earlier_export_go(hub: Hub, folder: Path) -> None:
    hub.there, hub.private, hub.tags = True, True, ["peft", "vlm-ops"]
    earlier = ("model-00001-of-00002.safetensors", "adapter_config.json", "config.json")
    own = ("notes.md", "onnx/model.safetensors", "vae/adapter_config.json", "vision.safetensors")
    hub.files = dict.fromkeys([*earlier, *own], b"earlier")
    push(folder, HUB_ID, private=True)
    assert hub.files == held(folder) | dict.fromkeys(own, b"earlier")


def test_nothing_is_sent_where_something_else_lies(hub: Hub, folder: Path) -> None:
    hub.there, hub.tags = True, ["diffusers"]
    theirs = {"unet/diffusion.safetensors": b"1", "model.safetensors": b"2", "README.md": b"3"}
    hub.files = dict(theirs)
    with pytest.raises(
        ModelError,
        match=r"^--push team/charts: found .* 3 files whose README\.md has no tag vlm-ops",
    ):
        push(folder, HUB_ID, private=False)
    assert (hub.files, hub.commits) == (theirs, [])


def test_a_new_repository_may_hold_what_the_hub_puts_there(hub: Hub, folder: Path) -> None:
    hub.there, hub.files = True, {".gitattributes": b""}
    push(folder, HUB_ID, private=False)
    assert hub.files == held(folder) | {".gitattributes": b""}


def test_a_large_file_that_is_not_taken_is_told_with_its_cause(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    hub.large, hub.refuses["storage"] = True, 403
    with pytest.raises(ModelError, match=r"denies it \(403\).*stays in .*; send it later: hf upl"):
        push(folder, HUB_ID, private=False)
    assert hub.commits == []


def test_errors_of_an_upload_are_told_by_what_is_behind_them() -> None:
    assert _why(RuntimeError("Data processing error: s3")) == (
        "it was not sent whole (Data processing error: s3)"
    )
    outer = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    outer.__cause__ = ConnectionError("broken pipe")
    assert _why(outer) == "the hub can't be reached (broken pipe)"


def test_what_is_to_be_private_is_not_sent_where_all_see_it(hub: Hub, folder: Path) -> None:
    hub.there = True
    with pytest.raises(ModelError, match=r"^--push team/charts: found a repository that is not"):
        push(folder, HUB_ID, private=True)
    assert hub.files == {}
    assert hub.commits == []


@pytest.mark.parametrize("step", ["repos", "preupload", "commit"])
@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "denies it (401): sign in"), (403, "denies it (403)"), (400, "not for")],
)
def test_a_hub_that_says_no_is_named_and_the_folder_stays(
    hub: Hub, folder: Path, step: str, status: int, said: str
) -> None:
    hub.refuses[step] = status
    with pytest.raises(ModelError) as caught:
        push(folder, HUB_ID, private=True)
    assert said in str(caught.value)
    later = f"hf upload {HUB_ID} '{folder}' --private"
    assert str(caught.value).endswith(f"stays in {folder}; send it later: {later}")
    assert len(held(folder)) == 3
    assert hub.files == {}


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_hub_the_folder_stays(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nobody)
    with pytest.raises(ModelError, match=r"the hub can't be reached .*hf upload team/charts"):
        push(folder, HUB_ID, private=False)
    assert len(held(folder)) == 3


def test_a_wrong_id_and_a_missing_token_are_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    out = tmp_path / "out"
    for arguments, error, said in (
        (["--push", HUB_ID], ModelError, "found no token of the hub; sign in with"),
        (["--push", "a/b/c"], ConfigError, "found no hub id"),
        (["--push", ""], ConfigError, "found no hub id"),
        (["--private"], ConfigError, "give --push TEAM/NAME too"),
    ):
        with pytest.raises(error, match=said):
            app(["export", "no/such-model", str(out), *arguments], standalone_mode=False)
    assert not out.exists()
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    check_hub_id(HUB_ID)


def test_an_export_is_sent_once_it_was_checked(
    hub: Hub, random_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    app(["export", str(random_base), str(out), "--push", HUB_ID, "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert told["pushed"] == f"{hub.address}/{HUB_ID}"
    assert told["same"] == told["asked"]
    assert hub.files == held(out)
