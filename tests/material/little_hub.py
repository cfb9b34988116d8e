"""A hub on this machine: it has one commit of everything, has nothing, or is away."""

import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vlm_ops.data.hub import HubFiles

AWAY = "away"


def fetched(folder: Path) -> Callable[..., HubFiles]:
    """Stand in for a download: the files are in this folder."""
    return lambda name, _, cache, subset=None, *_rest: HubFiles(folder, name, cache, subset)


@contextmanager
def little_hub(
    monkeypatch: pytest.MonkeyPatch, published: Path | None = None, sent: list[str] | None = None
) -> Iterator[list[str]]:
    """Yield a list: it holds the newest commit or AWAY; without one the hub has nothing.

    Args:
        monkeypatch: Leads the hub's library here.
        published: The files of every data set.
        sent: Gets the path of each file whose content is asked for.
    """
    commits: list[str] = []
    files = {} if published is None else {
        path.relative_to(published).as_posix(): path.read_bytes()
        for path in sorted(published.rglob("*")) if path.is_file()
    }  # fmt: skip

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if commits and AWAY not in commits and "/resolve/" in self.path:
                path = urllib.parse.unquote(self.path)
                self._send_file(path.split(f"/resolve/{commits[0]}/")[1])
                return
            self.send_response(500 if AWAY in commits else 200 if commits else 404)
            if not commits:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if commits and AWAY not in commits:
                self.wfile.write(json.dumps(self._answer(commits[0])).encode())

        do_HEAD = do_GET  # noqa: N815  (the server looks for it)

        def _answer(self, commit: str) -> Any:
            if "/tree/" in self.path:
                return [{"type": "file", "path": path, "size": len(content), "oid": tag(content)}
                        for path, content in files.items()]  # fmt: skip
            named = [{"rfilename": path} for path in files]
            return {"id": "team/charts", "sha": commit, "tags": [], "downloads": 0,
                    "siblings": named}  # fmt: skip

        def _send_file(self, path: str) -> None:
            content = files[path]
            self.send_response(200)
            self.send_header("ETag", f'"{tag(content)}"')
            self.send_header("X-Repo-Commit", commits[0])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)
                if sent is not None:
                    sent.append(path)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        files_at = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files_at)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield commits
        server.shutdown()


def tag(content: bytes) -> str:
    """Name a file's content."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
