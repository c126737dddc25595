"""Environments: built beside the one in use, then its link is swapped.

A build is a folder `/opt/illumidesk/builds/NAME-DIGEST` that is never changed once it is complete, so a server
that runs goes on in the build it was started from. `/opt/illumidesk/envs/NAME`, `hub` and `proxy` are links to
builds.

Only Python's own library is imported here: install.sh builds the hub's environment by running this module out of
the wheel, before anything else is installed. What users' environments need beyond it is imported when one is built.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from illumidesk.errors import IllumiDeskError
from illumidesk.host.steps import Progress, StepError, open_log
from illumidesk.paths import Paths, data

#: Written last; a build without it was interrupted.
MARKER = ".complete"
#: In a build of a users' environment: what exactly is in it (see `illumidesk.host.locks`).
LOCK = ".illumidesk.lock"
#: Rises where builds must be made anew though nothing that goes into their digest changed.
_LAYOUT = 4
#: Where an environment has what its servers give to browsers as it is.
_STATIC = (
    "share/jupyter/lab/static",
    "share/jupyter/labextensions",
    "share/jupyterhub/static",
    "lib/python*/site-packages/notebook/static",
)
#: Not `.woff`, `.png` and their like, which are compressed; nor maps, which nobody loads.
_COMPRESSIBLE = (".css", ".eot", ".js", ".json", ".svg", ".ttf", ".wasm")


@dataclass(frozen=True)
class Environment:
    """What an environment is made of.

    Args:
        name: `hub`, or a name of a users' environment.
        requirements: requirement specifiers (PEP 508), one each.
        wheel: IllumiDesk's own wheel.
        extra: the extra of that wheel to install with its dependencies; without one the wheel comes alone.
        python: the interpreter it stands on, where no conda package brings one.
        server: requirement specifiers of what serving people takes; a package that is there by another way counts.
        conda: conda's match specifications; without any the environment is a venv.
        channels: where those come from, the first one first: names or URLs.
        channel_alias: where the channels are that are given by name.
    """

    name: str
    requirements: tuple[str, ...]
    wheel: Path
    extra: str
    python: Path
    server: tuple[str, ...] = ()
    conda: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    channel_alias: str = ""

    @property
    def digest(self) -> str:
        """Changes whenever a build would come out differently for a reason of ours."""
        # Minor version only: a security update of the system's Python keeps environments working as they are.
        python = [] if self.conda else [str(self.python.resolve())]
        parts = [_LAYOUT, [*python, platform.machine()], self.asked, _file_digest(self.wheel), self.extra]
        return short_digest(json.dumps(parts))

    @property
    def asked(self) -> str:
        """A digest of the packages that are asked for, whatever the machine."""
        return short_digest(
            json.dumps([sorted(self.requirements), self.server, sorted(self.conda), self.channels, self.channel_alias])
        )


@dataclass(frozen=True)
class Pins:
    """Exactly which packages to install, in place of what is asked for.

    Args:
        conda: a lock file of rattler's, as text; empty where there is no conda package.
        pip: requirement specifiers with exact versions, of all packages and what they need.
    """

    conda: str
    pip: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Changes with the packages."""
        return short_digest(json.dumps([self.conda, self.pip]))


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
    environment: Environment,
    link: Path,
    *,
    paths: Paths,
    progress: Progress,
    refresh: bool = False,
    pins: Pins | None = None,
    keep_same: bool = False,
    before_swap: Callable[[Path], None] | None = None,
) -> bool:
    """Have `link` point to a complete build of `environment`.

    Args:
        environment: what it is made of.
        link: `/opt/illumidesk/hub` or `/opt/illumidesk/envs/NAME`.
        paths: the layout.
        progress: where commands are logged.
        refresh: build again with the newest versions allowed, though nothing of ours changed.
        pins: the packages to install exactly.
        keep_same: with `refresh`, leave the build in use where a new one would have the same packages.
        before_swap: called with the build, once it is complete and before the link points to it.

    Returns:
        Whether the link was swapped.

    Raises:
        StepError: where packages cannot be resolved or installed; the build in use stays.
    """
    digest = environment.digest
    if not refresh:
        kept = _is_what_is_wanted(link, digest, pins)
    else:
        kept = keep_same and is_current(link, digest) and _nothing_newer(environment, link, paths, progress)
    if kept:
        if before_swap is not None:
            before_swap(link.resolve())
        return False
    key = digest if pins is None else short_digest(digest + pins.digest)
    build = build_folder(paths, environment.name, key, refresh=refresh)
    if not _stands(build):
        (build / MARKER).unlink(missing_ok=True)  # the system's Python went; nothing can run from it
    try:
        with building(build, digest) as wanted:
            if wanted:
                _build_environment(environment, build, paths, progress, pins)
    except (OSError, IllumiDeskError) as error:
        raise explained(error, f"the environment {environment.name}") from None
    if keep_same and is_current(link, digest) and _same_lock(link, build):
        shutil.rmtree(build)
        if before_swap is not None:
            before_swap(link.resolve())
        return False
    if before_swap is not None:
        before_swap(build)
    swap(link, build)
    return True


def _is_what_is_wanted(link: Path, digest: str, pins: Pins | None) -> bool:
    if not is_current(link, digest) or not _stands(link):
        return False
    if pins is None:
        return True
    from illumidesk.host import locks

    return locks.pins_of(link) == pins


def _stands(build: Path) -> bool:
    """Whether a build's Python is there; one of conda packages alone need not have any."""
    python = build / "bin/python"
    return python.exists() or ((build / "conda-meta").is_dir() and not python.is_symlink())


def _nothing_newer(environment: Environment, link: Path, paths: Paths, progress: Progress) -> bool:
    """Whether a new build would have the packages of the one in use; where it is not sure, no."""
    from illumidesk.host import locks

    pins = locks.pins_of(link)
    if pins is None or not _stands(link):
        return False
    if environment.conda:
        from illumidesk.host import conda

        if not conda.is_newest(environment, pins, progress=progress):
            return False
    wanted = [*environment.requirements, *_not_of_conda(environment.server, link)]
    if not wanted or not (link / "bin/python").exists():
        return True
    ours = [found.name for found in locks.python_packages(link) if found.by == "pip"]
    newest = [word for name in ours for word in ("--upgrade-package", name)]
    said = _pip_install(["--dry-run", *newest, *_overrides(), *wanted], environment.name, link, paths, progress)
    return "Would make no changes" in said


def _same_lock(one: Path, other: Path) -> bool:
    try:
        return (one / LOCK).read_bytes() == (other / LOCK).read_bytes()
    except OSError:
        return False


def _build_environment(
    environment: Environment, build: Path, paths: Paths, progress: Progress, pins: Pins | None
) -> None:
    if environment.conda:
        from illumidesk.host import conda

        conda.build_prefix(environment, build, progress=progress, pins=pins)
        if not (build / "bin/python").exists():
            if environment.requirements:
                raise IllumiDeskError(
                    f"the environment {environment.name} has packages for pip and no Python",
                    hint="add python to its dependencies",
                )
            _keep_lock(environment, build)
            return
    else:
        # What people install for themselves (`pip install`, into ~/.local) is found only with this; ours comes first.
        own = [] if environment.extra else ["--system-site-packages"]
        uv = paths.opt / "bootstrap/bin/uv"
        progress.run(
            [uv, "venv", "--quiet", "--prompt", environment.name, *own, "--python", environment.python, build],
            what=f"making the environment {environment.name}",
            env=tool_environment(paths),
        )
    if environment.extra:
        wheel = f"illumidesk[{environment.extra}] @ {environment.wheel.as_uri()}"
        _pip_install([*environment.requirements, wheel], environment.name, build, paths, progress)
        compress_static(build)
        return
    progress.tell("Python packages")
    if pins is None:
        install_server(environment, build, paths, progress)
    elif pins.pip:
        _pip_install(["--no-deps", *pins.pip], environment.name, build, paths, progress)
    add_own_package(build, environment, paths, progress)
    compress_static(build)
    _settle_language_servers(build, progress)
    if environment.conda:
        _compile(build, progress)
    _keep_lock(environment, build)


def install_server(environment: Environment, prefix: Path, paths: Paths, progress: Progress) -> None:
    """Install into the environment at `prefix` what it asks pip for, and what serving people takes."""
    wanted = [*environment.requirements, *_not_of_conda(environment.server, prefix)]
    if wanted:
        _pip_install([*_overrides(), *wanted], environment.name, prefix, paths, progress)


def add_own_package(prefix: Path, environment: Environment, paths: Paths, progress: Progress) -> None:
    """Put IllumiDesk's own package, alone, and the settings of kernels into the environment at `prefix`."""
    _pip_install(["--no-deps", environment.wheel], environment.name, prefix, paths, progress)
    # Keeps its kernels off TCP ports.
    kernels = prefix / "etc/ipython/ipython_kernel_config.py"
    kernels.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(data("config", "ipython", kernels.name), kernels)


#: Counts the language servers that jupyter-lsp finds; fails where it is not installed.
_COUNT_LANGUAGE_SERVERS = """
from jupyter_lsp import LanguageServerManager
manager = LanguageServerManager()
manager.init_language_servers()
print(len(manager.language_servers))
"""
#: After jupyter-lsp's own file.
_NO_LANGUAGE_SERVERS = "etc/jupyter/jupyter_server_config.d/zz-illumidesk-language-servers.json"


def _settle_language_servers(build: Path, progress: Progress) -> None:
    """Look for language servers once, here. Where there are none, nobody's server has the extension that runs them.

    Otherwise every start would look through what all packages say of themselves, a quarter of what a forked server
    does. JupyterLab does without the extension, and a person's own configuration can have it back.
    """
    said = progress.run([build / "bin/python", "-I", "-c", _COUNT_LANGUAGE_SERVERS], check=False)
    if said.splitlines()[-1:] != ["0"]:
        return
    file = build / _NO_LANGUAGE_SERVERS
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"ServerApp": {"jpserver_extensions": {"jupyter_lsp": false}}}\n', "utf-8")


def compress_static(build: Path) -> int:
    """Put a compressed copy (`.gz`) beside the files of JupyterLab and of the hub's pages.

    The proxy gives them out (config/proxy/static-files.mjs). Files that would hardly become smaller are left out. The
    same file always gives the same bytes.

    Args:
        build: the environment's folder.

    Returns:
        How many copies were made.
    """
    made = 0
    for pattern in _STATIC:
        for folder in build.glob(pattern):
            for file in folder.rglob("*"):
                if file.suffix not in _COMPRESSIBLE or not file.is_file() or file.is_symlink():
                    continue
                content = file.read_bytes()
                packed = gzip.compress(content, 9, mtime=0)
                if len(packed) + 200 < len(content):
                    file.with_name(f"{file.name}.gz").write_bytes(packed)
                    made += 1
    return made


def _overrides() -> tuple[str, str]:
    return "--override", str(data("config", "overrides.txt"))


def _pip_install(arguments: Sequence[str | Path], name: str, prefix: Path, paths: Paths, progress: Progress) -> str:
    uv = paths.opt / "bootstrap/bin/uv"
    # A Python of conda's may say that it is managed by conda; here that is us.
    install: list[str | Path] = [uv, "pip", "install", "--python", prefix / "bin/python", "--break-system-packages"]
    try:
        return progress.run(
            [*install, "--compile-bytecode", *arguments],
            what=f"installing packages into {name}",
            env=tool_environment(paths),
        )
    except StepError as error:
        raise _with_reason(error, name) from None


def _with_reason(error: StepError, name: str) -> StepError:
    """uv's own reason for a failure in the sentence, where it gives one that names packages."""
    said = re.search(r"(?:╰─▶|\bcause:) (.*)", " ".join(" ".join(error.tail).split()))
    if said is None:
        return error
    reason = re.split(r"(?<=\w)\. | hint: ", said[1])[0].rstrip(".")
    what = "resolved" if reason.startswith("Because ") else "installed"
    return StepError(
        f"the packages of the environment {name} cannot be {what}: {reason[:1].lower()}{reason[1:]}", tail=error.tail
    )


def _not_of_conda(requirements: Sequence[str], prefix: Path) -> list[str]:
    """Those of `requirements` whose package conda has not brought."""
    from illumidesk.host import locks

    there = {locks.normalized(found.name) for found in locks.python_packages(prefix) if found.by == "conda"}
    return [line for line in requirements if requirement_name(line) not in there]


def requirement_name(requirement: str) -> str:
    """The package that a requirement names, as PyPI compares names; empty where it is a path or a URL alone."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(?=\s*(?:$|[\[<>=!~;@ (]))", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def _compile(prefix: Path, progress: Progress) -> None:
    """Make the bytecode of what conda brought. Some packages hold files that are no Python of this version."""
    folders = sorted((prefix / "lib").glob("python3*/site-packages"))
    command: list[str | Path] = [prefix / "bin/python", "-I", "-m", "compileall", "-q", "-j", "0"]
    progress.run([*command, *folders], check=False)


def _keep_lock(environment: Environment, build: Path) -> None:
    from illumidesk.host import locks

    (build / LOCK).write_text(locks.dump(locks.freeze(build, environment)), "utf-8")


def explained(error: OSError | IllumiDeskError, what: str) -> IllumiDeskError:
    """What went wrong in a build, for people.

    Args:
        error: as it was raised.
        what: what was built: "the environment default".
    """
    said = "\n".join(getattr(error, "tail", ())) if isinstance(error, IllumiDeskError) else ""
    if getattr(error, "errno", None) == errno.ENOSPC or re.search(r"No space left on device|os error 28\b", said):
        return StepError(
            f"the disk is full: {what} could not be built",
            hint="free some space (a build takes about as much as the environment that it takes the place of); "
            "what is in use was left as it is",
        )
    if isinstance(error, IllumiDeskError):
        return error
    where = f"{error.filename}: " if error.filename else ""
    return StepError(f"{what} could not be built: {where}{error.strerror or error}")


# Builds


def build_folder(paths: Paths, name: str, digest: str, *, refresh: bool = False) -> Path:
    """Where a build lies; `refresh` gives a new place, since programs may run from the usual one."""
    folder = paths.opt / "builds"
    if not refresh:
        return folder / f"{name}-{digest}"
    moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    serials = (f"{name}-{digest}-{moment}{suffix}" for suffix in ("Z", *(f".{number}Z" for number in range(1, 1000))))
    return next(folder / serial for serial in serials if not (folder / serial).exists())


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
        _end_builders(build)
        shutil.rmtree(build)
    build.mkdir(parents=True, mode=0o755)
    try:
        yield True
        make_readable(build)
        os.sync()  # else a power cut could leave a marker in front of half a build
        (build / MARKER).write_text(f"{digest}\n", "utf-8")
        (build / MARKER).chmod(0o644)
    except BaseException:
        (build / MARKER).unlink(missing_ok=True)
        shutil.rmtree(build, ignore_errors=True)
        raise


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
    for build in spare:
        if not (build / MARKER).exists():
            _end_builders(build)
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
    folders = [folder for folder in (paths.environments, paths.workspaces) if folder.is_dir()]
    return [paths.hub_environment, paths.proxy_program, *(link for folder in folders for link in folder.iterdir())]


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


def _end_builders(build: Path) -> None:
    """End what an interrupted build left running: uv and npm outlive an `illumidesk` that was killed.

    Only processes of this account, so no server of a person's.
    """
    mark = f"{build}/".encode()
    for _ in range(100):
        found = False
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if process.stat().st_uid != os.geteuid():
                    continue
                # A compiler is told no whole path; it works in the build.
                if mark in (process / "cmdline").read_bytes() + bytes((process / "cwd").readlink()) + b"/":
                    os.kill(int(process.name), signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(0.05)


def make_readable(folder: Path) -> None:
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


def base_python() -> Path:
    """The Python that the hub's environment stands on, and every venv of ours."""
    return Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


__all__ = [
    "Environment",
    "Pins",
    "StepError",
    "add_own_package",
    "base_python",
    "build_folder",
    "building",
    "compress_static",
    "ensure_environment",
    "explained",
    "install_server",
    "is_current",
    "keep_wheel",
    "lock",
    "main",
    "make_readable",
    "pip_settings",
    "read_requirements",
    "remove_old_builds",
    "requirement_name",
    "short_digest",
    "swap",
    "tool_environment",
    "use_wheel",
    "wheel_in_use",
]
