"""Who may ask a grader's server for grades: a real server on its socket, and the kernel's word for who asks."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from jupyterhub import __version__ as hub_version
from tornado import httpserver, netutil, web

from illumidesk.grader import duedates_export, gradebook
from illumidesk.host.roles import role_files
from illumidesk.http_unix import request_json
from illumidesk.settings import NBGRADER_PARTS
from tests.support.gradebooks import COURSE, GraderHome

BASE = f"/services/{COURSE}/illumidesk/"


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of JupyterHub as a server asks for at its start."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("X-JupyterHub-Version", hub_version)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def address_string(self) -> str:
        return "a server"


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def grader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, GraderHome]]:
    """The socket of a grader's `jupyterhub-singleuser`, with the files of its role. We are its hub."""
    root = tmp_path_factory.mktemp("g")
    home = GraderHome(root)
    for name, content in role_files(NBGRADER_PARTS, grader=True).items():
        file = root / "role" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    hub = _UnixServer(str(root / "hub.sock"), _Hub)
    threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True).start()
    sock = root / "g.sock"
    environment = home.environment | {
        "JUPYTER_CONFIG_PATH": f"{root / 'role'}:{home.environment['JUPYTER_CONFIG_PATH']}",
        "JUPYTERHUB_API_URL": f"http+unix://{quote(str(root / 'hub.sock'), safe='')}/hub/api",
        "JUPYTERHUB_API_TOKEN": "token-of-the-grader",
        "JUPYTERHUB_CLIENT_ID": f"service-{COURSE}",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_SERVICE_NAME": COURSE,
        "JUPYTERHUB_SERVICE_PREFIX": f"/services/{COURSE}/",
        "JUPYTERHUB_SERVICE_URL": f"http+unix://{quote(str(sock), safe='')}/services/{COURSE}/",
        "JUPYTERHUB_USER": f"grader-{COURSE}",
        "ILLUMIDESK_HUB_UID": str(os.getuid()),
    }
    log = (root / "log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterhub.singleuser", f"--ServerApp.sock={sock}", "--ServerApp.sock_mode=0660"]
        + (["--allow-root"] if os.getuid() == 0 else []),
        cwd=home.home,
        env=environment,
        stdout=log,
        stderr=log,
    )
    try:
        while not _listens(sock):
            assert server.poll() is None, (root / "log").read_text()
            time.sleep(0.1)
        yield sock, home
    finally:
        server.terminate()
        server.wait()
        log.close()
        hub.shutdown()
        hub.server_close()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def test_the_hub_is_answered(grader: tuple[Path, GraderHome], monkeypatch: pytest.MonkeyPatch) -> None:
    sock, home = grader
    home.enter(monkeypatch)

    def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
        return request_json(method, sock, BASE + path, body=body, timeout=120)  # nbgrader is imported for the first

    assert ask("GET", "assignments") == (200, {"assignments": []})
    assert ask("GET", "scores") == (200, {"assignments": []})
    student = {"id": "ana", "first_name": "Ana", "last_name": "", "email": "", "lms_user_id": "u1"}
    assert ask("PUT", "students", {"students": [student]}) == (200, {"added": 1, "changed": 0})
    status, answer = ask("GET", "assignments/p%20s%2F1/scores")
    assert (status, answer["status"]) == (400, 400)
    status, answer = ask("GET", "assignments/ps1/scores")
    assert (status, answer["status"], answer["message"]) == (404, 404, "the gradebook has no assignment ps1")
    assert ask("PUT", "students", [])[0] == 400
    assert ask("PUT", "assignments")[0] == 405
    assert ask("GET", "nothing")[0] in {403, 404}
    # An import is told like any other scores, and an extension where the student may read it
    rows = [{"student": "daemon", "assignment": "quiz", "score": 2, "max_score": 3}]
    assert ask("POST", "scores", {"rows": rows}) == (200, {"assignments": 1, "scores": 1})
    assert ask("GET", "assignments/quiz/scores")[1]["scores"][0]["score"] == 2.0
    with home.read().gradebook() as book:
        book.update_or_create_assignment("quiz", duedate="2026-03-01 12:00:00 UTC")
    (home.exchange / COURSE / "outbound/quiz").mkdir()
    granted = {"student": "daemon", "assignment": "quiz", "seconds": 60}
    assert ask("PUT", "extensions", granted) == (200, {"extensions": [granted], "regrade": []})
    assert ask("GET", "extensions") == (200, {"extensions": [granted]})
    own = json.loads((home.exchange / COURSE / "duedates/daemon.json").read_text())
    assert own == {"assignments": {"quiz": "2026-03-01T12:01:00Z"}}
    assert ask("PUT", "extensions", granted | {"student": "nobody-here", "seconds": 1})[0] == 404
    # What is too long is refused, and nothing of it is kept
    with pytest.raises((ConnectionError, http.client.HTTPException, AssertionError)):
        assert ask("PUT", "students", {"x": "y" * (gradebook.MAX_BODY + 1)})[0] == 200
    assert ask("GET", "assignments")[0] == 200
    # All else on that socket still asks who one is
    assert request_json("GET", sock, f"/services/{COURSE}/api/contents")[0] in {302, 403}


async def _status(family: int, address: Any, headers: str = "") -> int:
    if family == socket.AF_UNIX:
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address)
    writer.write(f"GET {BASE}assignments HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
    await writer.drain()
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


async def test_everybody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same handlers in this process, on a unix socket and on a TCP port."""
    GraderHome(tmp_path).enter(monkeypatch)
    monkeypatch.setattr(duedates_export, "watch", lambda: None)
    application = web.Application(base_url=f"/services/{COURSE}/", xsrf_cookies=True)
    gradebook._load_jupyter_server_extension(SimpleNamespace(web_app=application))
    server = httpserver.HTTPServer(application)
    unix = netutil.bind_unix_socket(str(tmp_path / "s.sock"))
    [tcp] = netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets([unix, tcp])
    try:
        path, port = str(tmp_path / "s.sock"), tcp.getsockname()
        mine = str(os.getuid())
        signed_in = "Authorization: token token-of-the-grader\r\nCookie: _xsrf=1; service=1\r\n"
        monkeypatch.setenv("ILLUMIDESK_HUB_UID", mine)
        assert await _status(socket.AF_UNIX, path) == 200
        # ... and it was nobody's activity: an idle grader stops although the hub asks (ServerApp.last_activity)
        assert not [key for key in application.settings if key.endswith("_last_activity")]
        # The kernel names nobody at the other end of a TCP connection
        assert await _status(socket.AF_INET, port, signed_in) == 403
        for uid in (str(os.getuid() + 1), "", "-1", "x", "4294967295"):
            monkeypatch.setenv("ILLUMIDESK_HUB_UID", uid)
            assert await _status(socket.AF_UNIX, path, signed_in) == 403
            assert await _status(socket.AF_INET, port, signed_in) == 403
        monkeypatch.delenv("ILLUMIDESK_HUB_UID")
        assert await _status(socket.AF_UNIX, path) == 403
    finally:
        server.stop()
        await server.close_all_connections()
