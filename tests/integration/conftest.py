"""A real hub and a real proxy as processes. What needs systemd is replaced by plain processes (tests/support), which
keep the same contract: tests/support/units_contract.py runs against both.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from illumidesk.host.environments import compress_static
from illumidesk.host.proxy import ensure_proxy
from illumidesk.host.roles import ensure_roles
from illumidesk.host.steps import Progress
from illumidesk.http_unix import request_json
from illumidesk.paths import Paths, data
from illumidesk.settings import load
from tests.support.person import Person

SCRIPTS = Path(sysconfig.get_path("scripts"))
REPOSITORY = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Stack:
    """Supervisor, proxy and hub on a layout of their own."""

    paths: Paths
    port: int
    token: str
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    #: The hub's program, where it is not its own.
    hub_command: list[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def logs(self) -> Path:
        return self.paths.root / "logs"

    def start(self, name: str) -> None:
        """Start one of supervisor, proxy, hub, and wait until it listens."""
        node = self.paths.proxy_program
        commands = {
            "supervisor": [
                sys.executable,
                str(REPOSITORY / "tests/support/run_supervisor.py"),
                str(self.paths.root),
            ],
            "proxy": [
                str(node / "node/bin/node"),
                f"--import={node / 'keep-alive.mjs'}",
                f"--import={node / 'public-port.mjs'}",
                str(node / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"),
                "--ip=127.0.0.1",
                f"--port={self.port}",
                f"--api-socket={self.paths.proxy_api_socket}",
                "--log-level=warn",
            ],
            "hub": self.hub_command or [str(SCRIPTS / "illumidesk-hub")],
        }
        listens = {
            "supervisor": self.paths.supervisor_socket,
            "proxy": self.paths.proxy_api_socket,
            "hub": self.paths.hub_socket,
        }[name]
        if name == "proxy":
            listens.unlink(missing_ok=True)
        log = (self.logs / f"{name}.log").open("ab")
        process = subprocess.Popen(
            commands[name],
            env=self.environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=self.paths.root,
        )
        log.close()
        self.processes[name] = process
        deadline = time.monotonic() + 60
        while not listening(listens):
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{self.log(name)}"
            assert time.monotonic() < deadline, f"{name} does not listen:\n{self.log(name)}"
            time.sleep(0.1)
        while name == "proxy" and not self.is_public():
            assert time.monotonic() < deadline, f"the proxy has no public port:\n{self.log(name)}"
            time.sleep(0.1)

    def is_public(self) -> bool:
        """Whether somebody listens on the public port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def terminate(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        process.wait(30)

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()[-8000:]

    def manage(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        """Ask the management API as root's command line does."""
        return request_json(
            method,
            self.paths.hub_socket,
            f"/hub/api/illumidesk/{target}",
            token=self.token,
            body=body,
            timeout=120,
        )

    def expect(self, status: int, method: str, target: str, body: object = None) -> Any:
        got, answer = self.manage(method, target, body)
        assert got == status, f"{method} {target}: {got} {answer}"
        return answer

    def sign_in(self, name: str) -> Person:
        person = Person(self.url, name)
        person.sign_in()
        return person


def listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


@pytest.fixture(scope="session")
def proxy_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The proxy as the installer builds it."""
    return build_proxy(tmp_path_factory.mktemp("proxy"))


def build_proxy(folder: Path) -> Path:
    """The proxy as the installer builds it, somewhere in `folder`."""
    paths = Paths(folder)
    bootstrap = paths.opt / "bootstrap/bin"
    bootstrap.mkdir(parents=True)
    (bootstrap / "python").symlink_to(sys.executable)
    (bootstrap / "uv").symlink_to(SCRIPTS / "uv")
    ensure_proxy(paths, Progress())
    return paths.proxy_program.resolve()


@pytest.fixture(scope="module")
def stack_settings() -> dict[str, Any]:
    """What config.yaml says besides the port; a module may give its own."""
    return {}


@pytest.fixture(scope="module")
def stack(proxy_program: Path, stack_settings: dict[str, Any]) -> Iterator[Stack]:
    with running_stack(proxy_program, stack_settings) as stack:
        yield stack


@contextlib.contextmanager
def running_stack(proxy_program: Path, stack_settings: dict[str, Any], *, static: bool = False) -> Iterator[Stack]:
    """All three of them, until the end of the block; `static` gives the environment JupyterLab's files, too."""
    # Lower case, and short enough for a socket's address.
    root = Path("/tmp") / f"illumidesk-test-{secrets.token_hex(4)}"
    root.mkdir(mode=0o755)
    paths = Paths(root)
    for folder in (
        paths.etc, paths.secrets, paths.hub_state, paths.hub_socket.parent, paths.proxy_api_socket.parent,
        paths.hub_config_d, paths.exchange, paths.home, paths.roles, paths.state, paths.archive,
        paths.unit_environments, root / "logs",
    ):  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
    paths.proxy_program.symlink_to(proxy_program)
    build = paths.opt / "builds/default/bin"
    build.mkdir(parents=True)
    for program in ("jupyterhub-singleuser", "python", "alembic"):
        shutil.copy2(SCRIPTS / program, build / program, follow_symlinks=program != "python")
    paths.environments.mkdir()
    (paths.environments / "default").symlink_to(paths.opt / "builds/default")
    if static:
        for name in ("lab/static", "labextensions"):
            shutil.copytree(Path(sys.prefix) / "share/jupyter" / name, build.parent / "share/jupyter" / name)
        compress_static(build.parent)
        static_of_hub = "share/jupyterhub/static"
        shutil.copytree(Path(sys.prefix) / static_of_hub, paths.hub_environment / static_of_hub)
        compress_static(paths.hub_environment)
    port = free_port()
    settings = {"proxy": {"http_port": port, "bind": "127.0.0.1"}, **stack_settings}
    paths.config_file.write_text(yaml.safe_dump(settings))
    ensure_roles(load(paths.config_file), paths)
    for role in paths.roles.iterdir():
        # Here every account is the one that runs the tests, which may be root's.
        text = "c.ServerApp.allow_root = True\n"
        if static:
            # As the installer settles it for an environment without language servers.
            text += "c.ServerApp.jpserver_extensions = {'jupyter_lsp': False}\n"
        (role / "jupyter_server_config.py").write_text(text)
    shutil.copy(data("config", "jupyterhub_config.py"), paths.hub_config)
    token = secrets.token_hex(32)
    environment = {
        "PATH": f"{SCRIPTS}:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(root),
        "LANG": "C.UTF-8",
        "ILLUMIDESK_ROOT": str(root),
        "CONFIGPROXY_AUTH_TOKEN": secrets.token_hex(32),
        "ILLUMIDESK_CLI_TOKEN": token,
        "PYTHONPATH": str(REPOSITORY),
        "ILLUMIDESK_PROXY_ENVIRONMENTS": str(paths.environments),
        "ILLUMIDESK_PROXY_HUB": str(paths.hub_environment),
    }
    stack = Stack(paths, port, token, environment)
    try:
        for name in ("supervisor", "proxy", "hub"):
            stack.start(name)
        yield stack
    finally:
        if {"hub", "supervisor"} <= stack.processes.keys():
            # Units outlive all three: stop them first.
            for user in stack.manage("GET", "users")[1]["users"]:
                stack.manage("POST", f"users/{user['name']}/stop")
            for course in stack.manage("GET", "courses")[1]["courses"]:
                stack.manage("DELETE", f"courses/{course['course_id']}")
        for name in list(stack.processes):
            stack.terminate(name)
        shutil.copytree(root / "logs", REPOSITORY / "artefacts" / "integration", dirs_exist_ok=True)
        shutil.rmtree(root, ignore_errors=True)
