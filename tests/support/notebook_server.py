"""A real Jupyter server with nbgrader, as a role's files shape it, without a hub: for what runs in people's servers."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from illumidesk.host.roles import role_files
from illumidesk.paths import data

REPOSITORY = Path(__file__).resolve().parents[2]


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class NotebookServer:
    """A server that runs, and the folders that it has."""

    url: str
    token: str
    home: Path
    exchange: Path

    def get(self, path: str, *, token: str | None = None) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and text of an answer; a redirect is not followed."""
        wanted = self.token if token is None else token
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"token {wanted}"})
        try:
            with urllib.request.build_opener(_Stay).open(request, timeout=120) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()

    def json(self, path: str) -> Any:
        status, _, text = self.get(path)
        assert status == 200, text
        return json.loads(text)


def write_config(folder: Path, shown: tuple[str, ...], exchange: Path) -> None:
    """The files of a role that sees these parts of nbgrader, and nbgrader's configuration for everybody."""
    for name, content in role_files(shown).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    text = data("config", "nbgrader", "global_nbgrader_config.py").read_text("utf-8")
    (folder / "nbgrader_config.py").write_text(text.replace("/srv/nbgrader/exchange", str(exchange)))


@contextlib.contextmanager
def notebook_server(
    folder: Path, shown: tuple[str, ...], *, variables: Mapping[str, str] | None = None, base: str = "/user/ana/"
) -> Iterator[NotebookServer]:
    """Start one and wait until it answers.

    Args:
        folder: for everything; `home` and `exchange` in it may be there already.
        shown: the parts of nbgrader that its role sees.
        variables: more variables of its environment.
        base: its base URL.
    """
    home, exchange, config = (folder / name for name in ("home", "exchange", "config"))
    for each in (home, exchange, config, folder / "share/labextensions"):
        each.mkdir(parents=True, exist_ok=True)
    write_config(config, shown, exchange)
    labextension = folder / "share/labextensions/illumidesk"
    if not labextension.is_symlink():
        labextension.symlink_to(REPOSITORY / "illumidesk/labextension")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        "HOME": str(home),
        "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        "JUPYTER_CONFIG_PATH": str(config),
        "JUPYTER_PATH": str(folder / "share"),
        "JUPYTER_TOKEN": token,
        **(variables or {}),
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.base_url={base}",
        f"--ServerApp.root_dir={home}", "--LabApp.news_url=None", "--LabApp.check_for_updates_class="
        "jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    server = NotebookServer(f"http://127.0.0.1:{port}{base}", token, home, exchange)
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, (folder / "server.log").read_text()
            with contextlib.suppress(OSError):
                if server.get("api")[0] == 200:
                    break
            assert time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(30)
