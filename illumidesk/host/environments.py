"""Environments: built beside the one in use, then its link is swapped.

A build is a folder `/opt/illumidesk/builds/NAME-DIGEST` that is never changed once it is complete, so a server
that runs goes on in the build it was started from. `/opt/illumidesk/envs/NAME`, `hub` and `proxy` are links to
builds.

Only Python's own library is used here: install.sh builds the hub's environment by running this module out of
the wheel, before anything else is installed.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import hashlib
import json
import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.host.steps import Progress, StepError, open_log
from illumidesk.paths import Paths, data

#: Written last; a build without it was interrupted.
MARKER = ".complete"
#: Rises where builds must be made anew though nothing that goes into their digest changed.
_LAYOUT = 2


@dataclass(frozen=True)
class Environment:
    """What an environment is made of.

    Args:
        name: `hub`, or a name of a users' environment.
        requirements: requirement specifiers (PEP 508), one each.
        wheel: IllumiDesk's own wheel.
        extra: the extra of that wheel to install with its dependencies; without one the wheel comes alone.
        python: the interpreter it stands on.
    """

    name: str
    requirements: tuple[str, ...]
    wheel: Path
    extra: str
    python: Path

    @property
    def digest(self) -> str:
        """Changes whenever a build would come out differently for a reason of ours."""
        # Minor version only: a security update of the system's Python keeps environments working as they are.
        python = [str(self.python.resolve()), platform.machine()]
        parts = [_LAYOUT, python, sorted(self.requirements), _file_digest(self.wheel), self.extra]
        return short_digest(json.dumps(parts))


def short_digest(text: str) -> str:
    """Twelve hexadecimal digits of SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _file_digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_requirements(file: Path) -> tuple[str, ...]:
    """The requirement specifiers in a file, one a line; `#` begins a comment.

    Raises:
        IllumiDeskError: where a line is an option (`-e`, `--index-url`): those belong in pip's settings.
    """
    found = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        text = line.split(" #", 1)[0].strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("-"):
            raise IllumiDeskError(
                f"{file}, line {number}: {text.split()[0]} is an option, not a package",
                hint="name packages only; package indexes belong in pip's own settings (pip config)",
            )
        found.append(text)
    return tuple(found)


def ensure_environment(
    environment: Environment, link: Path, *, paths: Paths, progress: Progress, refresh: bool = False
) -> bool:
    """Have `link` point to a complete build of `environment`.

    Args:
        environment: what it is made of.
        link: `/opt/illumidesk/hub` or `/opt/illumidesk/envs/NAME`.
        paths: the layout.
        progress: where commands are logged.
        refresh: build again with the newest versions allowed, though nothing of ours changed.

    Returns:
        Whether the link was swapped.

    Raises:
        StepError: where packages cannot be resolved or installed; the build in use stays.
    """
    digest = environment.digest
    if not refresh and is_current(link, digest) and (link / "bin/python").exists():
        return False
    build = build_folder(paths, environment.name, digest, refresh=refresh)
    if not (build / "bin/python").exists():
        (build / MARKER).unlink(missing_ok=True)  # the system's Python went; nothing can run from it
    with building(build, digest) as wanted:
        if wanted:
            _build_environment(environment, build, paths, progress)
    swap(link, build)
    return True


def _build_environment(environment: Environment, build: Path, paths: Paths, progress: Progress) -> None:
    uv = paths.opt / "bootstrap/bin/uv"
    env = tool_environment(paths)
    # What people install for themselves (`pip install`, into ~/.local) is found only with this; it ranks below ours.
    own = [] if environment.extra else ["--system-site-packages"]
    progress.run(
        [uv, "venv", "--quiet", "--prompt", environment.name, *own, "--python", environment.python, build],
        what=f"making the environment {environment.name}",
        env=env,
    )
    install: list[str | Path] = [uv, "pip", "install", "--python", build / "bin/python", "--compile-bytecode"]
    what = f"installing packages into {environment.name}"
    if environment.extra:
        wheel = f"illumidesk[{environment.extra}] @ {environment.wheel.as_uri()}"
        progress.run([*install, *environment.requirements, wheel], what=what, env=env)
        return
    if environment.requirements:
        overrides = data("config", "overrides.txt")
        progress.run([*install, "--override", overrides, *environment.requirements], what=what, env=env)
    progress.run([*install, "--no-deps", environment.wheel], what=what, env=env)
    # Keeps its kernels off TCP ports.
    kernels = build / "etc/ipython/ipython_kernel_config.py"
    kernels.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(data("config", "ipython", kernels.name), kernels)


# Builds


def build_folder(paths: Paths, name: str, digest: str, *, refresh: bool = False) -> Path:
    """Where a build lies; `refresh` gives a new place, since programs may run from the usual one."""
    serial = f"-{datetime.now(UTC):%Y%m%dT%H%M%SZ}" if refresh else ""
    return paths.opt / "builds" / f"{name}-{digest}{serial}"


def is_current(link: Path, digest: str) -> bool:
    """Whether `link` points to a complete build with this digest."""
    try:
        return (link / MARKER).read_text("utf-8").strip() == digest
    except OSError:
        return False


@contextmanager
def building(build: Path, digest: str) -> Iterator[bool]:
    """Yields whether there is anything to build in the folder `build`, and marks it complete afterwards.

    What an interrupted build left is cleared first.
    """
    if (build / MARKER).exists():
        yield False
        return
    if build.exists():
        shutil.rmtree(build)
    build.mkdir(parents=True, mode=0o755)
    yield True
    _readable(build)
    os.sync()  # else a power cut could leave a marker in front of half a build
    (build / MARKER).write_text(f"{digest}\n", "utf-8")


def swap(link: Path, target: Path) -> None:
    """Have `link` point to `target`, in one step that nobody can see half of."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, link.parent))
    fresh.replace(link)


def remove_old_builds(paths: Paths) -> list[str]:
    """Remove builds that no link names and no process runs from, and what interrupted builds left.

    Returns:
        The names of those that were removed.
    """
    folder = paths.opt / "builds"
    if not folder.is_dir():
        return []
    linked = {link.resolve() for link in _links(paths) if link.exists()}
    spare = [build for build in folder.iterdir() if build.resolve() not in linked]
    used = _used_by_processes([build.name for build in spare])
    removed = []
    for build in spare:
        if build.name not in used:
            # The marker goes first, so that half a removal is not taken for a build.
            (build / MARKER).unlink(missing_ok=True)
            shutil.rmtree(build)
            removed.append(build.name)
    return removed


def _links(paths: Paths) -> list[Path]:
    users = sorted(paths.environments.iterdir()) if paths.environments.is_dir() else []
    return [paths.hub_environment, paths.proxy_program, *users]


def _used_by_processes(builds: Sequence[str]) -> set[str]:
    """Those of `builds` that a process runs from: by its program, its arguments or a mapped library."""
    if not builds:
        return set()
    used: set[str] = set()
    marks = {name: f"/builds/{name}/".encode() for name in builds}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            seen = (process / "cmdline").read_bytes() + bytes((process / "exe").readlink()) + b"\0"
            seen += (process / "maps").read_bytes()
        except OSError:  # it ended, or is a kernel thread
            continue
        used |= {name for name, mark in marks.items() if mark in seen}
    return used


def _readable(folder: Path) -> None:
    """Everybody may read what was built and root alone write it, whatever a tool or root's umask made of it."""
    for base, _, files in os.walk(folder):
        for name in (".", *files):
            path = os.path.join(base, name)  # noqa: PTH118 - tens of thousands of them
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                continue
            wanted = (stat.S_IMODE(mode) | 0o444) & ~0o022
            if stat.S_ISDIR(mode) or mode & 0o100:
                wanted |= 0o111
            if wanted != stat.S_IMODE(mode):
                os.chmod(path, wanted)  # noqa: PTH101


# Tools

#: pip's settings that uv does not read, and the variables by which it takes the same.
_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "constraint": "UV_CONSTRAINT",
    "proxy": "HTTPS_PROXY",
}


def tool_environment(paths: Paths) -> dict[str, str]:
    """The variables for uv and npm: ours, and what pip is configured to on this machine.

    What an administrator set for uv itself stays.
    """
    env = dict(os.environ)
    python = paths.opt / "bootstrap/bin/python"
    # Its output is not logged: an index URL may carry a password.
    listed = Progress().run([python, "-m", "pip", "config", "list"], check=False) if python.exists() else ""
    for key, value in pip_settings(listed).items():
        variable = _PIP_TO_UV.get(key)
        if variable is not None and value:
            env.setdefault(variable, value)
    if env.get("UV_INDEX"):
        # pip takes the best version of all indexes; uv by default stops at the first that has the name.
        env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    # Certificates that an organisation added to the machine count; uv brings a list of its own.
    env.setdefault("UV_SYSTEM_CERTS", "1")
    env.setdefault("UV_PYTHON_INSTALL_DIR", str(paths.opt / "python"))
    env["UV_NO_PROGRESS"] = "1"
    return env


def pip_settings(listed: str) -> dict[str, str]:
    """What `pip config list` printed, by setting: variables outrank `install`, which outranks `global`.

    Local folders and files that do not exist are left out, as pip does (uv stops at them).
    """
    rank = {"global": 0, "install": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in listed.splitlines():
        name, separator, quoted = line.partition("=")
        section, _, key = name.partition(".")
        if not separator or section not in rank:
            continue
        try:
            value = str(ast.literal_eval(quoted))
        except (ValueError, SyntaxError):
            continue
        words = [word for word in value.split() if not _is_missing_folder(word)]
        if key not in found or found[key][0] <= rank[section]:
            found[key] = (rank[section], " ".join(words))
    return {key: value for key, (_, value) in found.items()}


def _is_missing_folder(location: str) -> bool:
    path = location.removeprefix("file://")
    return path.startswith("/") and not Path(path).exists()


# The wheel


def wheel_in_use(paths: Paths) -> Path:
    """The wheel that the hub's environment was installed from, for the other environments to take the same.

    Raises:
        IllumiDeskError: where there is none.
    """
    found = sorted((paths.opt / "wheels/current").glob("illumidesk-*.whl"))
    if not found:
        raise IllumiDeskError("IllumiDesk's own package is missing", hint="run install.sh", status=500)
    return found[0].resolve()


def keep_wheel(wheel: Path, paths: Paths) -> Path:
    """Copy a wheel to where it stays, and return that place. Nothing names it yet: see `use_wheel`."""
    folder = paths.opt / "wheels" / _file_digest(wheel)[:12]
    kept = folder / wheel.name
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{wheel.name}.part"
        shutil.copyfile(wheel, part)
        part.replace(kept)
    return kept


def use_wheel(kept: Path, paths: Paths) -> None:
    """Make `kept` the wheel in use, and remove those of earlier versions."""
    wheels = paths.opt / "wheels"
    swap(wheels / "current", kept.parent)
    for other in wheels.iterdir():
        if not other.is_symlink() and other != kept.parent and other.name != "from-checkout":
            shutil.rmtree(other)


@contextmanager
def lock(paths: Paths, *, wait: bool = False) -> Iterator[None]:
    """One installation at a time; install.sh may hold the lock for us.

    Args:
        paths: the layout.
        wait: whether to wait for another one to end.

    Raises:
        IllumiDeskError: where another one is running, and this does not wait.
    """
    if os.environ.get("ILLUMIDESK_INSTALL_LOCKED"):
        yield
        return
    file = paths.root / "run/lock/illumidesk-install.lock"
    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IllumiDeskError("another installation is running", hint="wait for it to end", status=409) from None
        yield


def main(arguments: Sequence[str]) -> int:
    """Build the hub's environment; run by install.sh."""
    parser = argparse.ArgumentParser(prog="illumidesk.host.environments")
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--refresh", action="store_true")
    options = parser.parse_args(arguments)
    paths = Paths()
    with open_log(paths) as log:
        progress = Progress(log)
        try:
            with lock(paths), progress.step("The hub's environment"):
                kept = keep_wheel(options.wheel, paths)
                hub = Environment("hub", (), kept, "hub", options.python)
                ensure_environment(hub, paths.hub_environment, paths=paths, progress=progress, refresh=options.refresh)
                use_wheel(kept, paths)
        except IllumiDeskError as error:
            progress.explain(error)
            return 1
    return 0


def users_environment(name: str, requirements: Path, paths: Paths) -> Environment:
    """The users' environment `name` out of the requirement list in a file, on the same Python as the hub's."""
    names.check_environment(name)
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Environment(name, read_requirements(requirements), wheel_in_use(paths), "", base)


__all__ = [
    "Environment",
    "StepError",
    "build_folder",
    "building",
    "ensure_environment",
    "is_current",
    "keep_wheel",
    "lock",
    "main",
    "pip_settings",
    "read_requirements",
    "remove_old_builds",
    "short_digest",
    "swap",
    "tool_environment",
    "use_wheel",
    "users_environment",
    "wheel_in_use",
]
