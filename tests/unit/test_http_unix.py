"""JSON over a unix socket."""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from illumidesk.http_unix import request_json, split_unix_url
from illumidesk.paths import socket_url


class Echo(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps({"path": self.path, "token": self.headers["Authorization"], "body": json.loads(body)})
        self.send_response(201)
        self.end_headers()
        self.wfile.write(answer.encode())

    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b"<html>not json</html>")

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    path = tmp_path / "echo.sock"
    server = socketserver.ThreadingUnixStreamServer(str(path), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return path


def test_request(socket_path: Path) -> None:
    status, answer = request_json("POST", socket_path, "/a/b?c=1", token="t0ken", body={"x": [1]})
    assert status == 201
    assert answer == {"path": "/a/b?c=1", "token": "token t0ken", "body": {"x": [1]}}
    assert request_json("GET", socket_path, "/") == (503, None)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        request_json("GET", tmp_path / "none.sock", "/")


def test_urls() -> None:
    path = Path("/run/illumidesk/hub/hub.sock")
    assert split_unix_url(socket_url(path) + "/hub/api") == (path, "/hub/api")
    with pytest.raises(ValueError, match="not an http"):
        split_unix_url("http://localhost/hub/api")
