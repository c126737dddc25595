"""How each program of a workspace is started: as the person, on a unix socket that this person alone can open.

Only Python's own library is used: this runs in people's servers, from any environment.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: Where RStudio Server's program lies in the vendor's packages, beside the PATH.
RSTUDIO_FOLDERS = (Path("/usr/lib/rstudio-server"), Path("/usr/lib/rstudio"))

#: For galleries with a certificate of the institution's own, which Node would not know.
_SYSTEM_CERTIFICATES = {"NODE_USE_SYSTEM_CA": "1"}


@dataclass(frozen=True)
class Place:
    """Where a program runs.

    Args:
        prefix: where it is installed.
        home: the person's home.
        runtime: a folder for sockets and other things of this run (0700, the person's).
        base_url: the path of the person's server: `/user/NAME/`.
        account: the person's account.
    """

    prefix: Path
    home: Path
    runtime: Path
    base_url: str
    account: str


@dataclass(frozen=True)
class Command:
    """What to run.

    Args:
        arguments: the program and its arguments.
        socket: where it listens.
        variables: what is added to its environment.
    """

    arguments: tuple[str, ...]
    socket: Path
    variables: Mapping[str, str] = field(default_factory=dict)


def vscode(place: Place) -> Command:
    """VS Code, as code-server. Options: https://github.com/coder/code-server/blob/main/docs/FAQ.md"""
    socket = _free(place.runtime / "vscode.sock")
    _seed(place.prefix / "settings.json", place.home / ".local/share/code-server/User/settings.json")
    return Command(
        arguments=(
            str(place.prefix / "bin/node"),
            str(place.prefix / "node_modules/code-server/out/node/entry.js"),
            # Not the person's own: it may say to listen on a port.
            f"--config={place.prefix / 'code-server.yaml'}",
            "--auth=none",
            f"--socket={socket}",
            "--socket-mode=600",
            f"--session-socket={place.runtime / 'vscode-session.sock'}",
            "--disable-telemetry",
            "--disable-update-check",
            "--disable-workspace-trust",
            "--disable-getting-started-override",
            # Its own way to ports of this machine, which any account may have opened.
            "--disable-proxy",
            # For a page that vanished with its network; one that was closed gives its memory back at once.
            "--reconnection-grace-time=1800",
            # It ends by itself when nobody has it open; the next visit starts it.
            "--idle-timeout-seconds=3600",
            str(place.home),
        ),
        socket=socket,
        variables=_SYSTEM_CERTIFICATES,
    )


def theia(place: Place) -> Command:
    """Theia. It knows ports alone, so a module loaded before it has it listen on a socket."""
    socket = _free(place.runtime / "theia.sock")
    plugins = place.prefix / "extensions"
    # Theia takes an empty address of a gallery for Open VSX. A router without registries asks nobody.
    nowhere = [f"--ovsx-router-config={place.prefix / 'no-gallery.json'}"]
    return Command(
        arguments=(
            str(place.prefix / "bin/node"),
            f"--require={place.prefix / 'socket.cjs'}",
            str(place.prefix / "lib/backend/main.js"),
            f"--plugins=local-dir:{plugins}",
            *(nowhere if os.environ.get("VSX_REGISTRY_URL") == "" else []),
            str(place.home),
        ),
        socket=socket,
        variables={
            "ILLUMIDESK_SOCKET": str(socket),
            "THEIA_CONFIG_DIR": str(place.home / ".theia"),
            **_SYSTEM_CERTIFICATES,
        },
    )


def rstudio(place: Place) -> Command:
    """RStudio Server, by the options with which jupyter-rsession-proxy runs it.

    Options that this release of it does not know are left out, as there.
    """
    socket = _free(place.runtime / "rstudio.sock")
    folder = place.runtime / "rstudio"
    folder.mkdir(mode=0o700, exist_ok=True)
    database = folder / "database.conf"
    _write_private(database, f"provider=sqlite\ndirectory={folder}\n")
    key = folder / "secure-cookie-key"
    _write_private(key, os.urandom(16).hex())
    program = place.prefix / "bin/rserver"
    known = known_options(program)
    if "www-socket" not in known:
        raise FileNotFoundError("this release of RStudio Server cannot listen on a unix socket")
    wanted = {
        "auth-none": "1",
        "www-frame-origin": "same",
        "www-verify-user-agent": "0",
        "secure-cookie-key-file": str(key),
        "server-user": place.account,
        "www-root-path": f"{place.base_url}rstudio/",
        "server-data-dir": str(folder),
        "database-config-file": str(database),
        "www-socket": str(socket),
    }
    return Command(
        arguments=(str(program), *(f"--{name}={value}" for name, value in wanted.items() if name in known)),
        socket=socket,
        variables={"USER": place.account},
    )


def known_options(program: Path) -> frozenset[str]:
    """The options that `rserver --help` names."""
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, timeout=30)
    return frozenset(re.findall(r"--([a-z][a-z0-9-]*)", done.stdout + done.stderr))


def find_rstudio() -> Path | None:
    """The folder of RStudio Server with `bin/rserver` in it; nothing where it is not on this machine."""
    for folder in RSTUDIO_FOLDERS:
        if os.access(folder / "bin/rserver", os.X_OK):
            return folder
    found = shutil.which("rserver")
    return Path(found).resolve().parent.parent if found else None


COMMANDS: Mapping[str, Callable[[Place], Command]] = {"vscode": vscode, "theia": theia, "rstudio": rstudio}


def _free(socket: Path) -> Path:
    """The socket's place, without what a run that was killed left there."""
    socket.unlink(missing_ok=True)
    return socket


def _seed(defaults: Path, own: Path) -> None:
    """Give a person's settings the values to begin with. Theirs stay as they are."""
    with contextlib.suppress(FileExistsError):
        own.parent.mkdir(parents=True, exist_ok=True)
        _write_private(own, defaults.read_text("utf-8"), flags=os.O_EXCL)


def _write_private(file: Path, text: str, *, flags: int = os.O_TRUNC) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | flags, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
