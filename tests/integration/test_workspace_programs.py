"""Programs behind a real Jupyter server: started at the first visit, on a socket, and again when they ended."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from illumidesk.paths import data
from tests.support.notebook_server import NotebookServer, notebook_server
from tests.support.workspaces import RSERVER

#: Takes Node's place: answers with how it was called, and ends by itself when it is asked for /end.
NODE = f"""#!{sys.executable}
import json, os, socketserver, sys
from http.server import BaseHTTPRequestHandler
socket = next(word.partition("=")[2] for word in sys.argv if word.startswith("--socket="))

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/end":
            os._exit(0)
        body = json.dumps({{"pid": os.getpid(), "arguments": sys.argv[1:], "path": self.path}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return ""

class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

before = os.umask(0o177)
server = Server(socket, Handler)
os.umask(before)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    programs = folder / "root/opt/illumidesk/workspaces"
    for program, text in (("vscode/bin/node", NODE), ("rstudio/bin/rserver", RSERVER.read_text())):
        file = programs / program
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(0o755)
    (programs / "vscode/settings.json").write_text('{"telemetry.telemetryLevel": "off"}')
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[NotebookServer]:
    variables = {"ILLUMIDESK_ROOT": str(folder / "root"), "JUPYTER_RUNTIME_DIR": str(folder / "run")}
    with notebook_server(folder, (), variables=variables) as server:
        yield server


def test_vscode_is_started_at_the_first_visit(server: NotebookServer, folder: Path) -> None:
    settings = server.home / ".local/share/code-server/User/settings.json"
    assert not settings.exists()
    assert not (folder / "run/workspaces").exists()
    said = server.json("vscode/some/page?x=1")
    assert said["path"] == "/some/page?x=1"
    assert said["arguments"][-1] == str(server.home)
    assert {"--auth=none", "--disable-proxy", "--socket-mode=600"} <= set(said["arguments"])
    assert '"off"' in settings.read_text()
    runtime = folder / "run/workspaces"
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert stat.S_ISSOCK((runtime / "vscode.sock").stat().st_mode)
    settings.write_text("{}")
    assert server.json("vscode/")["pid"] == said["pid"], "once for all visits"


def test_it_is_started_again_when_it_ended(server: NotebookServer) -> None:
    first = server.json("vscode/")["pid"]
    server.get("vscode/end")
    deadline = time.monotonic() + 30
    while True:
        status, _, text = server.get("vscode/")
        if status == 200:
            break
        assert time.monotonic() < deadline, text
        time.sleep(0.2)
    assert f'"pid": {first},' not in text
    assert (server.home / ".local/share/code-server/User/settings.json").read_text() == "{}", "theirs stays"


def test_a_file_called_like_a_placeholder(server: NotebookServer) -> None:
    assert server.json("vscode/%7Bport%7D")["path"].lower() == "/%7bport%7d"


def test_rstudio(server: NotebookServer) -> None:
    status, headers, _ = server.get("rstudio/")
    assert (status, headers["Location"]) == (302, "/user/ana/rstudio/signed-in")
    assert headers["Set-Cookie"] == "user-id=x; HttpOnly; Path=/user/ana/rstudio/"
    status, _, text = server.get("rstudio/signed-in")
    assert (status, "RStudio stand-in" in text) == (200, True)
    runtime = Path(os.fspath(server.home.parent), "run/workspaces/rstudio")
    assert stat.S_IMODE((runtime / "secure-cookie-key").stat().st_mode) == 0o600


def test_one_that_is_not_there_says_so(server: NotebookServer) -> None:
    status, _, text = server.get("theia/")
    assert status == 404
    assert "illumidesk workspace install theia" in text
    assert 'href="/user/ana/lab"' in text


def test_the_address_without_a_slash(server: NotebookServer) -> None:
    status, headers, _ = server.get("vscode?folder=/home/ana/x")
    assert (status, headers["Location"]) == (302, "/user/ana/vscode/?folder=%2Fhome%2Fana%2Fx")


def test_what_the_launcher_shows(server: NotebookServer) -> None:
    listed = server.json("server-proxy/servers-info")["server_processes"]
    assert [(one["name"], one["launcher_entry"]["path_info"]) for one in listed] == [
        ("vscode", "vscode/"),
        ("rstudio", "rstudio/"),
    ]


@pytest.mark.parametrize("path", ["vscode/", "rstudio/", "theia/", "server-proxy/servers-info"])
def test_nobody_else_is_let_in(server: NotebookServer, path: str) -> None:
    status, headers, _ = server.get(path, token="wrong")
    assert status in (302, 403)
    if status == 302:
        assert "/login" in headers["Location"]


def test_no_way_to_ports(server: NotebookServer) -> None:
    port = server.url.split(":")[2].partition("/")[0]
    assert server.get(f"proxy/{port}/user/ana/api")[0] == 404
    assert server.get(f"proxy/127.0.0.1:{port}/user/ana/api")[0] == 404


def test_theias_socket(proxy_program: Path, tmp_path: Path) -> None:
    """With the Node that is installed: a server that asks for a port gets the socket, its owner's alone."""
    program = (
        "const http = require('http');"
        "const server = http.createServer((q, a) => a.end('hello'));"
        "server.listen(3000, '127.0.0.1', () => { console.log(server.address(), process.env.ILLUMIDESK_SOCKET);"
        "console.log((require('fs').statSync(process.argv[1]).mode & 0o777).toString(8)); server.close(); });"
    )
    preload = data("config", "workspaces", "theia", "socket.cjs")
    socket = tmp_path / "t.sock"
    done = subprocess.run(
        [str(proxy_program / "node/bin/node"), f"--require={preload}", "-e", program, str(socket)],
        env={"ILLUMIDESK_SOCKET": str(socket)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(socket), "undefined", "600"]
