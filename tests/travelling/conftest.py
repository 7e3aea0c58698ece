"""A hub on this machine, as much of it as huggingface-hub asks for when a model is pushed and
fetched: files by repository, in memory, one commit each."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

Repositories = dict[str, dict[str, bytes]]


class _Handler(BaseHTTPRequestHandler):
    repositories: Repositories
    asked: list[str]

    def do_POST(self) -> None:
        self.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            said = json.loads(body)
            name = "/".join(filter(None, (said.get("organization"), said["name"])))
            self.repositories.setdefault(name, {})
            return self._json({"url": f"http://{self.headers['Host']}/{name}"})
        name = "/".join(parts[2:4])
        if parts == ["api", "validate-yaml"]:  # the head of the card
            return self._json({"errors": [], "warnings": []})
        if parts[4] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.repositories[name][line["value"]["path"]] = content
        commit = self._commit(name)
        url = f"http://{self.headers['Host']}/{name}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit, "commitMessage": ""})

    def do_GET(self, bodies: bool = True) -> None:
        self.asked.append(f"{self.command} {self.path}")
        parts = urlsplit(self.path).path.strip("/").split("/")
        api = parts[0] == "api"
        name = "/".join(parts[2:4] if api else parts[:2])
        files = self.repositories.get(name)
        if files is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, bodies)
        commit = self._commit(name)
        if api and "tree" in parts:
            rows = [
                {"type": "file", "path": path, "size": len(content), "oid": _digest(content)}
                for path, content in files.items()
            ]
            return self._json(rows)
        if api:
            siblings = [{"rfilename": path} for path in files]
            return self._json({"id": name, "sha": commit, "siblings": siblings, "tags": []})
        path = "/".join(parts[4:])
        if path not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, bodies)
        headers = {"ETag": f'"{_digest(files[path])}"', "X-Repo-Commit": commit}
        self._send(200, files[path], headers, bodies)

    def do_HEAD(self) -> None:
        self.do_GET(bodies=False)

    def _commit(self, name: str) -> str:
        return _digest(b"".join(self.repositories[name].values()))

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, True)

    def _send(self, status: int, body: bytes, headers: dict[str, str], bodies: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if bodies:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def standing_in() -> Iterator[tuple[str, Repositories, list[str]]]:
    """Its address, what it holds, and what was asked of it, while the block lasts."""
    own: dict[str, Any] = {"repositories": {}, "asked": []}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), own))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", own["repositories"], own["asked"]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in, and an empty cache of downloads."""
    with standing_in() as (address, repositories, asked):
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setenv("HF_TOKEN", "hf_none")
        yield repositories, asked
