"""systemd: our unit files, what the settings say in drop-ins, and restarts of what changed only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import json
import os
import re
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from illumidesk.errors import IllumiDeskError
from illumidesk.host.conffiles import write_file
from illumidesk.host.steps import Progress, StepError
from illumidesk.paths import Paths, data
from illumidesk.settings import Settings

PROXY = "illumidesk-proxy.service"
HUB = "illumidesk-hub.service"
SUPERVISOR = "illumidesk-supervisor.service"
SLICES = ("illumidesk.slice", "illumidesk-users.slice")
#: In the order in which they start.
SERVICES = (SUPERVISOR, PROXY, HUB)
FILES = (
    *SLICES,
    *SERVICES,
    "illumidesk-grader@.service",
    "illumidesk-forkserver@.socket",
    "illumidesk-forkserver@.service",
)

_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)


def unit_folder(paths: Paths) -> Path:
    """Where an administrator's machine keeps unit files that no package owns."""
    return paths.root / "etc/systemd/system"


def tmpfiles(paths: Paths) -> Path:
    """What makes our folders in /run at boot."""
    return paths.root / "etc/tmpfiles.d/illumidesk.conf"


def ensure_unit_files(paths: Paths, progress: Progress) -> None:
    """Install the unit files and make the folders in /run."""
    for name in FILES:
        write_file(unit_folder(paths) / name, data("systemd", name).read_bytes())
    write_file(tmpfiles(paths), data("systemd", "illumidesk.tmpfiles").read_bytes())
    progress.run(["systemd-tmpfiles", "--create", tmpfiles(paths)], what="making the folders in /run")


def ensure_drop_ins(settings: Settings, paths: Paths) -> bool:
    """Write what the settings say about units; whether anything changed. It counts from `daemon_reload` on."""
    changed = False
    for unit, content in drop_ins(settings).items():
        changed |= write_file(_drop_in(paths, unit), content.encode())
    return changed


def drop_ins(settings: Settings) -> dict[str, str]:
    """The text of each unit's drop-in.

    Raises:
        IllumiDeskError: where `proxy.bind` is neither an address nor a host's name.
    """
    head = "# Written from /etc/illumidesk/config.yaml by `illumidesk config reload`; change it there.\n"
    address = settings.proxy.bind
    if address and not _is_address(address) and not _HOST_NAME.fullmatch(address):
        raise IllumiDeskError(
            f"proxy.bind cannot be {address!r}: it is no address", hint="leave it empty to listen on every address"
        )
    loaded = settings.fork_server.at_boot if settings.fork_server.enabled else ()
    return {
        PROXY: f"{head}[Service]\n" + "".join(f"{line}\n" for line in _proxy_variables(settings)),
        SUPERVISOR: f"{head}[Unit]\n" + "".join(f"Wants=illumidesk-forkserver@{name}.service\n" for name in loaded),
        "illumidesk-users.slice": f"{head}[Slice]\nMemoryMax={settings.class_limits.memory_percent}%\n",
    }


def _proxy_variables(settings: Settings) -> Iterator[str]:
    """What the unit passes to configurable-http-proxy and to config/proxy/public-port.mjs."""
    port = settings.https.port if settings.https.domain else settings.proxy.http_port
    yield f"Environment=ILLUMIDESK_PROXY_ADDRESS={settings.proxy.bind} ILLUMIDESK_PROXY_PORT={port}"
    if settings.https.domain:
        # The places in the unit's own view, whatever the root of `paths` is.
        pair = Paths().tls / "current"
        yield f'Environment="ILLUMIDESK_PROXY_TLS=--ssl-key={pair / "key.pem"} --ssl-cert={pair / "fullchain.pem"}"'
        yield f"Environment=ILLUMIDESK_PROXY_PLAIN_PORT={settings.proxy.http_port}"
        yield f"Environment=ILLUMIDESK_PROXY_REDIRECT={settings.public_address()}"
    if settings.https.hsts and settings.public_address().startswith("https:"):
        yield f"Environment=ILLUMIDESK_PROXY_HSTS={settings.https.hsts}"
    if settings.proxy.trusted:
        yield f'Environment="ILLUMIDESK_PROXY_TRUSTED={" ".join(settings.proxy.trusted)}"'


def public_ports(settings: Settings) -> list[int]:
    """The ports that the proxy listens on, by the settings."""
    return [settings.proxy.http_port, *([settings.https.port] if settings.https.domain else [])]


def check_port(settings: Settings, paths: Paths) -> None:
    """See that the proxy will be able to listen where the settings say, before it is restarted.

    Raises:
        IllumiDeskError: where another program has that port, or this machine has no such address.
    """
    wanted = drop_ins(settings)[PROXY].encode()
    with contextlib.suppress(OSError):
        if _drop_in(paths, PROXY).read_bytes() == wanted:
            return  # the proxy itself has it
    ports = public_ports(settings)
    if len(set(ports)) < len(ports):
        raise IllumiDeskError(
            f"proxy.http_port and https.port are both {ports[0]}", hint="HTTPS needs a port of its own"
        )
    for port in ports:
        _check_port(settings.proxy.bind, port, paths)


def _check_port(address: str, port: int, paths: Paths) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port not in _held_ports(paths):
                raise IllumiDeskError(
                    f"port {port} is taken by another program{listener(port)}",
                    hint=f"ss -ltnp 'sport = :{port}' shows it; stop it, or choose another port",
                    status=409,
                ) from None
            if error.errno != errno.EADDRINUSE:
                raise IllumiDeskError(
                    f"the proxy cannot listen on {address or '*'} port {port}: {error.strerror or error}",
                    hint="proxy.bind must be an address of this machine; empty means every address",
                ) from None


def listener(port: int) -> str:
    """Who listens on a TCP port, as ` (nginx, process 123)`; nothing where that cannot be seen."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.pid
            if listens and getattr(connection.laddr, "port", None) == port:
                return f" ({psutil.Process(connection.pid).name()}, process {connection.pid})"
    return ""


def _held_ports(paths: Paths) -> list[int]:
    """The ports that the proxy listens on by now."""
    try:
        text = _drop_in(paths, PROXY).read_text("utf-8")
    except OSError:
        return []
    return [int(port) for port in re.findall(r"ILLUMIDESK_PROXY_(?:PLAIN_)?PORT=(\d+)", text)]


def _drop_in(paths: Paths, unit: str) -> Path:
    return unit_folder(paths) / f"{unit}.d/50-settings.conf"


def _is_address(text: str) -> bool:
    # A scope (fe80::1%eth0) would meet systemd's own % specifiers.
    with contextlib.suppress(ValueError):
        return "%" not in text and bool(ipaddress.ip_address(text))
    return False


@dataclass(frozen=True)
class Started:
    """What a service was (re)started with, to know whether it must be restarted.

    The record outlives a boot: what starts at boot starts with the newest.
    """

    paths: Paths

    def fingerprint(self, unit: str) -> str:
        """A digest of everything that the unit reads only when it starts."""
        hashed = hashlib.sha256()
        for file in self._inputs(unit):
            content = b""
            with contextlib.suppress(OSError):
                content = file.read_bytes()
            hashed.update(f"{file} {len(content)}\n".encode() + content)
        program = self.paths.proxy_program if unit == PROXY else self.paths.hub_environment
        hashed.update(os.fsencode(program.resolve()))
        return hashed.hexdigest()

    def is_stale(self, unit: str) -> bool:
        """Whether the unit was started with something else than what is there now."""
        return self._read().get(unit) != self.fingerprint(unit)

    def note(self, unit: str) -> None:
        """The unit starts with what is there now."""
        known = self._read()
        known[unit] = self.fingerprint(unit)
        content = json.dumps(known, indent=1, sort_keys=True) + "\n"
        write_file(self._file, content.encode(), mode=0o600)

    @property
    def _file(self) -> Path:
        return self.paths.state / "started.json"

    def _read(self) -> dict[str, str]:
        with contextlib.suppress(FileNotFoundError, ValueError):
            known: dict[str, str] = json.loads(self._file.read_text("utf-8"))
            return known
        return {}

    def _inputs(self, unit: str) -> Iterable[Path]:
        folder = unit_folder(self.paths)
        yield folder / unit
        yield from sorted((folder / f"{unit}.d").glob("*.conf"))
        if unit == PROXY:
            yield self.paths.proxy_env
        if unit == HUB:
            yield self.paths.hub_env
            yield self.paths.config_file
            yield self.paths.hub_config
            yield from sorted(self.paths.hub_config_d.glob("*.py"))


def daemon_reload(progress: Progress) -> None:
    """Have systemd read unit files anew. Running units go on."""
    progress.run(["systemctl", "daemon-reload"], what="having systemd read the units")


def enable(progress: Progress) -> None:
    """Start our units at boot."""
    progress.run(["systemctl", "enable", *SLICES, *SERVICES], what="enabling the services")


def ensure_running(paths: Paths, progress: Progress) -> list[str]:
    """Start what does not run, and restart what runs with something that changed since. Notebooks go on.

    Returns:
        The units that were started or restarted.

    Raises:
        StepError: where one does not come up, with the end of its journal.
    """
    started = Started(paths)
    touched = []
    for unit in SERVICES:
        active = progress.run(["systemctl", "is-active", unit], check=False).strip() == "active"
        if active and not started.is_stale(unit):
            continue
        progress.run(["systemctl", "reset-failed", unit], check=False)
        try:
            progress.run(["systemctl", "restart", unit], what=f"starting {unit}")
        except IllumiDeskError as error:
            raise unit_failed(unit, progress, error.message) from None
        started.note(unit)
        touched.append(unit)
    return touched


def renew_fork_servers(progress: Progress) -> None:
    """Have the fork servers that run load what their environments are now. Servers go on."""
    progress.run(["systemctl", "try-restart", "illumidesk-forkserver@*.service"], check=False)


def end_fork_server(environment: str, progress: Progress) -> None:
    """End the fork server of an environment that goes, which would keep its build in use. Servers go on."""
    unit = f"illumidesk-forkserver@{environment}"
    progress.run(["systemctl", "stop", f"{unit}.socket", f"{unit}.service"], check=False)


def unit_failed(unit: str, progress: Progress, message: str) -> IllumiDeskError:
    """The error that says why a unit does not run, by its journal."""
    journal = progress.run(["journalctl", "--no-pager", "-o", "cat", "-n", "15", "-u", unit], check=False)
    return StepError(message, tail=journal.splitlines()[-12:], hint=f"see: journalctl -u {unit}")
