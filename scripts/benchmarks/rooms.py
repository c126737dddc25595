"""Two classes in one throwaway machine: ours, and a stock JupyterHub with the same packages.

Stock is what its own documentation has: JupyterHub as root with SystemdSpawner, configurable-http-proxy, accounts made
by `useradd`, JupyterLab, Notebook and nbgrader with the extensions that they switch on, and every timeout and limit as
it comes. Its passwords are firstuseauthenticator's, hashed by bcrypt; ours are hashed by Argon2id.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from machine import Machine

from benchmarks.figures import FORKED, OURS

UV = "/opt/illumidesk/bootstrap/bin/uv"
USERS = "/opt/illumidesk/envs/default/bin/python"
HUB = "/opt/illumidesk/hub/bin/python"
NODE = "/opt/illumidesk/proxy/node/bin/node"
PROXY = "/opt/illumidesk/proxy/node_modules/configurable-http-proxy/bin/configurable-http-proxy"
STANDIN = Path(__file__).with_name("standin.py")
#: How many servers an administrator's script starts or stops at the same time.
AT_ONCE = 10
ENVIRONMENT = "/etc/illumidesk/environments/default.yml"
#: How many people JupyterHub lists at a time, at most (`JupyterHub.api_page_max_limit`).
PAGE = 200


@dataclass
class Room:
    """A class with a hub at `url`.

    Args:
        machine: where it is.
        port: its public port.
    """

    machine: Machine
    port: int
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    prefix: ClassVar[str] = ""
    #: The units that serve everybody.
    services: ClassVar[tuple[str, ...]] = ()
    hub_unit: ClassVar[str] = ""

    @property
    def url(self) -> str:
        """The public address."""
        return f"http://127.0.0.1:{self.port}"

    def unit(self, name: str) -> str:
        """The unit of a person's server."""
        raise NotImplementedError

    def names(self, number: int, kind: str = "") -> list[str]:
        """So many people of that kind, for whom there are accounts."""
        wanted = [f"{self.prefix}{kind}{n:03}" for n in range(1, number + 1)]
        there = {line.partition(":")[0] for line in self.machine.read_text("/etc/passwd").splitlines()}
        missing = [name for name in wanted if name not in there]
        if missing:
            self.add(missing)
        return wanted

    def add(self, names: list[str]) -> None:
        """Make accounts."""
        raise NotImplementedError

    def api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask the hub as an administrator's script does."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {self.token}"}
        request = Request(f"{self.url}/hub/api/{path}", data, headers, method=method)  # noqa: S310
        try:
            with urlopen(request, timeout=600) as answer:  # noqa: S310 -- http by construction
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except HTTPError as error:
            with error:
                return error.code, error.read().decode(errors="replace")

    def people(self, state: str) -> set[str]:
        """Whose servers are in that state, `ready` or `active`."""
        found: set[str] = set()
        for offset in itertools.count(0, PAGE):
            _, page = self.api("GET", f"users?state={state}&limit={PAGE}&offset={offset}")
            found.update(person["name"] for person in page)
            if len(page) < PAGE:
                break
        return found

    def running(self) -> set[str]:
        """Whose servers are ready."""
        return self.people("ready")

    def start_all(self, names: Iterable[str], timeout: float = 900) -> None:
        """Start these people's servers by the API, and wait until all are ready.

        Each is asked after by itself: to list everybody again and again would be most of what the hub does.
        """
        deadline = time.monotonic() + timeout

        def start(name: str) -> None:
            self.api("POST", f"users/{name}")
            status, answer = self.api("POST", f"users/{name}/server")
            while status == 202:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the server of {name} did not start")
                time.sleep(1)
                _, person = self.api("GET", f"users/{name}")
                status = 201 if person["servers"].get("", {}).get("ready") else 202
            if status >= 400:
                raise RuntimeError(f"{name}: {status} {answer}")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(start, names))

    def stop_all(self) -> None:
        """Stop every server, and wait until none runs."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self.api("DELETE", f"users/{name}/server"), self.people("active")))
        deadline = time.monotonic() + 300
        while self.people("active"):
            if time.monotonic() > deadline:
                raise RuntimeError("servers did not stop")
            time.sleep(0.5)

    def restart_hub(self) -> float:
        """Restart the hub; seconds until it answers."""
        began = time.monotonic()
        self.machine.run(["systemctl", "restart", self.hub_unit])
        self.wait()
        return time.monotonic() - began

    def wait(self, timeout: float = 120) -> None:
        """Wait until the hub answers through the proxy."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError), urlopen(f"{self.url}/hub/health", timeout=10) as answer:  # noqa: S310
                if answer.status == 200:
                    return
            if time.monotonic() > deadline:
                log = self.machine.run(["journalctl", "-u", self.hub_unit, "-n", "30", "--no-pager"], check=False)
                raise RuntimeError(f"the hub does not answer:\n{log.stdout}")
            time.sleep(0.05)


def _admin(token: str) -> str:
    """Lines of configuration that let the measurements start and stop servers, in both classes alike."""
    return (
        f'c.JupyterHub.services.append({{"name": "bench", "api_token": "{token}"}})\n'
        "c.JupyterHub.load_roles.append("
        '{"name": "bench", "scopes": ["admin:users", "admin:servers", "list:users"], "services": ["bench"]})\n'
    )


@dataclass
class OurRoom(Room):
    """IllumiDesk, as install.sh left it."""

    prefix = "ours"
    services = (
        "illumidesk-hub.service", "illumidesk-proxy.service", "illumidesk-supervisor.service",
        "illumidesk-forkserver@default.service",
    )  # fmt: skip
    hub_unit = "illumidesk-hub.service"

    def unit(self, name: str) -> str:
        """`jupyter-NAME.service`."""
        return f"jupyter-{name}.service"

    def cli(self, *argv: str) -> str:
        """Run `illumidesk …`; what it printed."""
        return self.machine.run(["illumidesk", *argv], timeout=900).stdout

    def add(self, names: list[str]) -> None:
        """By the command line."""
        self.cli("user", "add", *names)

    def set_up(self) -> None:
        """Let the measurements in, and platforms on this machine."""
        file = "/etc/jupyterhub/jupyterhub_config.d/50-bench.py"
        self.machine.write_text(file, _admin(self.token), 0o640)
        self.machine.run(["chgrp", "illumidesk-hub", file])
        self.cli("config", "set", "sign_in.lti.loopback_platforms", "true")
        self.cli("config", "reload")

    def add_packages(self) -> None:
        """pandas and matplotlib, as an administrator adds packages."""
        text = self.machine.read_text(ENVIRONMENT)
        wanted = ("pandas>=2.2,<4", "matplotlib>=3.10,<4")
        missing = [one for one in wanted if f"- {one.partition('>')[0]}" not in text]
        if missing:
            lines = "".join(f"      - {one}\n" for one in missing)
            self.machine.write_text(ENVIRONMENT, text.rstrip("\n") + f"\n{lines}")
            self.cli("env", "update", "default")

    def systems(self) -> tuple[str, ...]:
        """`OURS` and, in a version that has a fork server, `FORKED`."""
        return (OURS, FORKED) if "fork_server" in self.cli("config", "show") else (OURS,)

    def use(self, system: str) -> None:
        """Have servers started with or without the fork server from now on."""
        if FORKED not in self.systems():
            return
        wanted = "true" if system == FORKED else "false"
        if f"enabled: {wanted}" not in self.cli("config", "get", "fork_server"):
            self.cli("config", "set", "fork_server.enabled", wanted)
            self.cli("config", "reload")
            self.wait()

    def check(self, system: str, name: str) -> None:
        """See that a person's running server was started as `system` has it.

        Raises:
            RuntimeError: where it was not: its figures would be another system's.
        """
        said = self._said(name)
        forked = "Forked by the fork server" in said
        if system == FORKED and not forked:
            why = next(
                (line for line in said.splitlines() if "not by the fork server" in line), "its journal is silent"
            )
            raise RuntimeError(f"the server of {name} was to be forked and was not: {why}")
        if system == OURS and forked:
            raise RuntimeError(f"the server of {name} was forked, though the fork server is off")

    def check_kernel(self, system: str, name: str) -> None:
        """Likewise of a kernel that was just started in a forked server."""
        if system == FORKED and "Kernel forked as process" not in self._said(name):
            raise RuntimeError(
                f"the kernel of {name} was to be forked and was not; see journalctl -u {self.unit(name)}"
            )

    def _said(self, name: str) -> str:
        unit = self.unit(name)
        start = self.machine.run(["systemctl", "show", "--property=InvocationID", "--value", unit]).stdout.strip()
        return self.machine.run(["journalctl", "--output=cat", "--no-pager", f"_SYSTEMD_INVOCATION_ID={start}"]).stdout

    def use_standins(self, on: bool) -> None:
        """Have stand-ins started instead of servers, or servers again."""
        if on:
            folder = "/opt/illumidesk/envs/standin"
            self.machine.run(["install", "-d", "-m", "755", folder, f"{folder}/bin"])
            self.machine.write_text(f"{folder}/bin/jupyterhub-singleuser", STANDIN.read_text("utf-8"), 0o755)
            self.cli("config", "set", "roles.standard.environment", "standin")
        else:
            self.cli("config", "unset", "roles.standard.environment")
        self.cli("config", "reload")
        self.wait()


_STOCK = """\
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub_port}
c.JupyterHub.db_url = "sqlite:////srv/stock/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "/srv/stock/cookie_secret"
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.JupyterHub.spawner_class = "systemdspawner.SystemdSpawner"
c.Spawner.cmd = ["/opt/stock/bin/jupyterhub-singleuser"]
c.Spawner.default_url = "/lab"
c.Authenticator.allow_all = True
"""

#: The hub's unit and its proxy's: apart, as JupyterHub's documentation has it, so that the CPU of each can be told.
_HUB = """\
[Unit]
Description=A stock JupyterHub, to compare with
[Service]
Environment=PATH=/opt/stock/bin:/usr/bin:/bin:/usr/sbin:/sbin
EnvironmentFile=/srv/stock/proxy.env
WorkingDirectory=/srv/stock
ExecStart=/opt/stock/bin/jupyterhub --config /srv/stock/jupyterhub_config.py
"""
_PROXY = """\
[Unit]
Description=The proxy of a stock JupyterHub
[Service]
EnvironmentFile=/srv/stock/proxy.env
Environment=NODE_ENV=production
ExecStart={node} {proxy} --ip=127.0.0.1 --port={port} --api-ip=127.0.0.1 --api-port={api_port} \\
    --default-target=http://127.0.0.1:{hub_port} --error-target=http://127.0.0.1:{hub_port}/hub/error --log-level=warn
"""

#: What a stock hub is configured to besides, by what is measured.
STOCK_KINDS = {
    "class": 'c.JupyterHub.authenticator_class = "firstuseauthenticator.FirstUseAuthenticator"\n',
    "patient": (
        'c.JupyterHub.authenticator_class = "firstuseauthenticator.FirstUseAuthenticator"\n'
        "c.Spawner.start_timeout = c.Spawner.http_timeout = 1800\n"
    ),
    "idle": (
        'c.JupyterHub.authenticator_class = "firstuseauthenticator.FirstUseAuthenticator"\n'
        'c.Spawner.cmd = ["/opt/stock/bin/standin"]\n'
        "c.JupyterHub.cleanup_servers = False\n"
    ),
}


@dataclass
class StockRoom(Room):
    """A stock JupyterHub, on three ports from `port` on."""

    prefix = "stock"
    services = ("stock-hub.service", "stock-proxy.service")
    hub_unit = "stock-hub.service"

    def unit(self, name: str) -> str:
        """`jupyter-NAME-singleuser.service`."""
        return f"jupyter-{name}-singleuser.service"

    def add(self, names: list[str]) -> None:
        """By useradd."""
        script = 'for name; do useradd --create-home --shell /bin/bash "$name"; done'
        self.machine.run(["sh", "-c", script, "sh", *names])

    def set_up(self, *, packages: bool = False) -> None:
        """Install what is not there, in our versions where we have it."""
        run = self.machine.run
        if run(["test", "-e", "/opt/stock/bin/jupyterhub"], check=False).returncode:
            run(["/usr/bin/python3", "-m", "venv", "--without-pip", "/opt/stock"])
            # The users' environment has the say where both have a package. What is a checkout of ours is left out.
            pins: dict[str, str] = {}
            for python in (HUB, USERS):
                for line in run([UV, "pip", "freeze", "--python", python]).stdout.splitlines():
                    name, is_pin, _ = line.partition("==")
                    if is_pin and name != "illumidesk":
                        pins[name] = line
            run(["mkdir", "-p", "-m", "700", "/srv/stock"])
            self.machine.write_text("/srv/stock/pins.txt", "\n".join(pins.values()) + "\n")
            own = [
                "jupyterhub", "jupyterhub-systemdspawner", "jupyterhub-firstuseauthenticator", "jupyterlab", "notebook",
                "nbgrader", "ipykernel", "ipywidgets", "nbgitpuller",
            ]  # fmt: skip
            install = [USERS, "-m", "pip", "--python", "/opt/stock/bin/python", "install", "-q"]
            run([*install, "-c", "/srv/stock/pins.txt", *own], timeout=1200)
            run([*install, "jupyterhub-ltiauthenticator"], timeout=600)
        self.machine.write_text("/opt/stock/bin/standin", STANDIN.read_text("utf-8"), 0o755)
        self.machine.write_text("/srv/stock/proxy.env", f"CONFIGPROXY_AUTH_TOKEN={secrets.token_hex(32)}\n", 0o600)
        self.machine.write_text("/etc/systemd/system/stock-hub.service", _HUB)
        self.machine.write_text("/etc/systemd/system/stock-proxy.service", self._filled(_PROXY))
        run(["systemctl", "daemon-reload"])
        if packages:
            version = run([UV, "pip", "freeze", "--python", USERS]).stdout
            wanted = [line for line in version.splitlines() if line.startswith(("pandas==", "numpy==", "matplotlib=="))]
            run([USERS, "-m", "pip", "--python", "/opt/stock/bin/python", "install", "-q", *wanted], timeout=600)

    def use(self, kind: str, more: str = "") -> None:
        """Run the hub as `STOCK_KINDS` has it, with `more` lines of configuration. People's servers end.

        Raises:
            RuntimeError: where it does not come up.
        """
        self.machine.run(["systemctl", "stop", *self.services])
        self.machine.run(["sh", "-c", "systemctl stop 'jupyter-stock*'; rm -f /srv/stock/jupyterhub.sqlite"])
        text = self._filled(_STOCK) + STOCK_KINDS.get(kind, "") + more + _admin(self.token)
        self.machine.write_text("/srv/stock/jupyterhub_config.py", text, 0o600)
        self.machine.run(["systemctl", "start", *self.services])
        self.wait()

    def _filled(self, text: str) -> str:
        return text.format(port=self.port, hub_port=self.port + 1, api_port=self.port + 2, node=NODE, proxy=PROXY)


@dataclass
class Rooms:
    """Both classes in one machine."""

    machine: Machine
    ours: OurRoom
    stock: StockRoom

    @classmethod
    def of(cls, machine: Machine, port: int) -> Rooms:
        """Both, set up, in a machine where install.sh has run; ports from `port` to `port + 3` are theirs."""
        rooms = cls(machine, OurRoom(machine, port), StockRoom(machine, port + 1))
        rooms.ours.set_up()
        rooms.stock.set_up()
        return rooms
