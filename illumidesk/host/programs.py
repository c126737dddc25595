"""The programs of workspaces: installed once for everybody, built beside the one in use, then its link is swapped.

VS Code (code-server) and Theia come from npm, by the lock files in config/workspaces. RStudio Server is a Debian
package of its vendor's, which is not redistributed: an administrator names it with its checksum.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from illumidesk.errors import IllumiDeskError
from illumidesk.host import apt
from illumidesk.host.environments import (
    MARKER,
    build_folder,
    building,
    explained,
    is_current,
    remove_old_builds,
    short_digest,
    swap,
)
from illumidesk.host.node import node_wheel, npm_cli, npm_environment
from illumidesk.host.steps import Progress, StepError
from illumidesk.paths import Paths, data
from illumidesk.workspaces.commands import find_rstudio
from illumidesk.workspaces.types import BUILT_IN, WorkspaceType, installed

#: Rises where builds must be made anew though nothing that goes into their digest changed.
_LAYOUT = 2
#: What of config/workspaces/NAME is compiled. The rest lies beside it.
_COMPILED = ("package.json", "package-lock.json", "prune.txt")
#: In a build: the digest of what was compiled, and the folders of extensions that were added.
_PROGRAM = ".program"
#: Seconds without a byte after which a download is given up.
_DOWNLOAD_TIMEOUT = 60.0

RSTUDIO = "rstudio"
#: The vendor's package, and the unit that it starts on all addresses.
_RSTUDIO_PACKAGE = "rstudio-server"
_RSTUDIO_UNIT = "rstudio-server.service"
#: R itself, and its kernel for notebooks.
_R_PACKAGES = ("r-base-core", "r-cran-irkernel")
NO_RSTUDIO = "RStudio Server is not on this machine, and no package index that it uses has it"


@dataclass(frozen=True)
class NodeProgram:
    """A program out of npm.

    Args:
        name: the workspace type.
        packages: Debian packages that its build takes.
        extensions: where extensions for everybody lie, in the build.
        manifest: tells its version, in the build.
        trial: what Node is told, to see that a build works.
    """

    name: str
    packages: tuple[str, ...]
    extensions: str
    manifest: str
    trial: tuple[str, ...]


_COMPILER = ("build-essential", "pkg-config", "python3")
NODE_PROGRAMS = {
    program.name: program
    for program in (
        NodeProgram(
            "vscode",
            packages=(*_COMPILER, "libkrb5-dev"),
            extensions="node_modules/code-server/lib/vscode/extensions",
            manifest="node_modules/code-server/package.json",
            trial=("node_modules/code-server/out/node/entry.js", "--version"),
        ),
        NodeProgram(
            "theia",
            packages=(*_COMPILER, "libsecret-1-dev"),
            extensions="extensions",
            manifest="package.json",
            trial=("--check", "lib/backend/main.js"),
        ),
    )
}


@dataclass(frozen=True)
class Found:
    """A program as it is on this machine.

    Args:
        type: the workspace type.
        state: `ready`, `absent`, or `outdated` where this version of IllumiDesk would build it otherwise.
        version: the program's own; empty where it is not known.
        folder: where it is.
        extensions: how many were installed for everybody.
        note: what somebody should know or do; may be empty.
    """

    type: WorkspaceType
    state: str
    version: str
    folder: Path | None
    extensions: int
    note: str


def program_names() -> list[str]:
    """The programs that can be installed."""
    return [name for name, one in BUILT_IN.items() if one.program]


def check_name(name: str) -> str:
    """The name of a program.

    Raises:
        IllumiDeskError: where there is none of that name.
    """
    if name not in program_names():
        raise IllumiDeskError(f"there is no program {name}", hint=f"the programs are {', '.join(program_names())}")
    return name


def node_programs(paths: Paths, asked: Sequence[str] = ()) -> list[str]:
    """The programs out of npm that are installed or asked for: those that an installation builds."""
    return [name for name in NODE_PROGRAMS if name in asked or installed(paths.workspaces, BUILT_IN[name])]


def check_node_program(name: str) -> str:
    """The name of a program that an installation can bring by itself.

    Raises:
        IllumiDeskError: where it is none of those.
    """
    if name not in NODE_PROGRAMS:
        raise IllumiDeskError(
            f"{check_name(name)} cannot be installed along with the rest",
            hint="install it afterwards: illumidesk workspace install rstudio",
        )
    return name


# VS Code and Theia


def ensure_program(name: str, paths: Paths, progress: Progress, *, extensions: Path | None = None) -> bool:
    """Have `/opt/illumidesk/workspaces/NAME` point to a complete build.

    Args:
        name: `vscode` or `theia`.
        paths: the layout.
        progress: where commands are logged.
        extensions: a folder of `.vsix` files that everybody gets, in place of those of before.

    Returns:
        Whether the link was swapped.

    Raises:
        StepError: where something cannot be had or built; what is in use stays.
    """
    program = NODE_PROGRAMS[check_node_program(name)]
    if not (node_wheel(paths) / "bin/node").exists():
        raise IllumiDeskError("IllumiDesk's Node is missing", hint="run install.sh first", status=409)
    chosen = _extensions(extensions if extensions is not None else kept_extensions(name, paths), extensions)
    link = paths.workspaces / name
    bare, digest = _digests(program, chosen)
    if is_current(link, digest):
        return False
    build = build_folder(paths, name, digest)
    try:
        with building(build, digest) as wanted:
            if wanted:
                if (link / MARKER).exists() and _described(link)[0] == bare:
                    _copy(program, link.resolve(), build)
                else:
                    apt.install(program.packages, progress)
                    _build(program, build, paths, progress)
                _finish(program, build, bare, chosen, progress)
                progress.run([build / "bin/node", *program.trial], what=f"trying {name}", cwd=build)
    except (OSError, IllumiDeskError) as error:
        raise explained(error, f"the program {name}") from None
    if extensions is not None:
        _keep_extensions(name, chosen, paths)
    swap(link, build)
    return True


def _digests(program: NodeProgram, extensions: Sequence[Path]) -> tuple[str, str]:
    """Of what is compiled, and of the whole build."""
    texts = {file.name: file.read_text("utf-8") for file in data("config", "workspaces", program.name).iterdir()}
    sources = [texts[name] for name in _COMPILED] + [data("config", "proxy", "node.txt").read_text("utf-8")]
    languages = _code_server() if program.name == "theia" else None
    bare = short_digest(json.dumps([_LAYOUT, platform.machine(), sources, languages]))
    return bare, short_digest(json.dumps([bare, sorted(texts.items()), [_sha256(file) for file in extensions]]))


def _described(build: Path) -> tuple[str, list[str]]:
    """What `_PROGRAM` says of a build; nothing where it is of an earlier version."""
    try:
        bare, added = json.loads((build / _PROGRAM).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return "", []
    return bare, added


def _copy(program: NodeProgram, source: Path, build: Path) -> None:
    """What was compiled, once more: neither network nor compiler is needed, and no second copy on the disk."""
    beside = {MARKER, _PROGRAM} | {file.name for file in _beside(program)}

    def left(folder: str, names: list[str]) -> set[str]:
        return beside & set(names) if Path(folder) == source else set()

    shutil.copytree(source, build, symlinks=True, copy_function=os.link, ignore=left, dirs_exist_ok=True)
    for name in _described(source)[1]:
        shutil.rmtree(build / program.extensions / name)


def _finish(program: NodeProgram, build: Path, bare: str, extensions: Sequence[Path], progress: Progress) -> None:
    """Add what is not compiled."""
    for file in _beside(program):
        shutil.copyfile(file, build / file.name)
    added = []
    for file in extensions:
        progress.record(f"extension {file.name}")
        added.append(unpack_extension(file, build / program.extensions).name)
    (build / _PROGRAM).write_text(json.dumps([bare, added]), "utf-8")


def _beside(program: NodeProgram) -> list[Path]:
    folder = data("config", "workspaces", program.name)
    return [file for file in folder.iterdir() if file.name not in _COMPILED]


def _build(program: NodeProgram, build: Path, paths: Paths, progress: Progress) -> None:
    for name in _COMPILED:
        shutil.copyfile(data("config", "workspaces", program.name, name), build / name)
    wheel = node_wheel(paths)
    node = build / "bin/node"
    node.parent.mkdir()
    try:
        node.hardlink_to(wheel / "bin/node")  # the proxy's, without its 120 MB a second time
    except OSError:
        shutil.copy2(wheel / "bin/node", node)
    tools = build / ".tools"
    tools.mkdir()
    (tools / "node").symlink_to(node)
    (tools / "npm").symlink_to(npm_cli(wheel))
    env = npm_environment(tools, paths)
    # The headers of this Node, and no browser that a test of theirs would want.
    env |= {"npm_config_nodedir": str(wheel), "PUPPETEER_SKIP_DOWNLOAD": "1", "NODE_OPTIONS": ""}
    progress.tell("downloading and compiling")
    npm: list[str | Path] = [node, npm_cli(wheel), "ci", "--no-audit", "--no-fund", "--no-update-notifier"]
    progress.run(npm, what=f"building {program.name}", env=env, cwd=build)
    if program.name == "theia":
        _bundle_theia(build, env, paths, progress)
    prune(build, (build / "prune.txt").read_text("utf-8"))
    shutil.rmtree(tools)


def _bundle_theia(build: Path, env: dict[str, str], paths: Paths, progress: Progress) -> None:
    """Make `lib` of Theia's packages, which is all that runs then, and add languages."""
    progress.tell("bundling")
    progress.run(
        [build / "bin/node", build / "node_modules/.bin/theia", "build", "--mode", "production"],
        what="bundling theia",
        env=env,
        cwd=build,
    )
    version, integrity = _code_server()
    pack: list[str | Path] = [build / "bin/node", npm_cli(node_wheel(paths)), "pack", f"code-server@{version}"]
    progress.run([*pack, "--ignore-scripts"], what="downloading languages", env=env, cwd=build / ".tools")
    add_languages(build / f".tools/code-server-{version}.tgz", integrity, build / "extensions")


def _code_server() -> tuple[str, str]:
    """Version and checksum of the VS Code that this IllumiDesk has."""
    lock = json.loads(data("config", "workspaces", "vscode", "package-lock.json").read_text("utf-8"))
    package = lock["packages"]["node_modules/code-server"]
    return package["version"], package["integrity"]


def add_languages(archive: Path, integrity: str, folder: Path) -> None:
    """Unpack what colours the usual languages: those of VS Code's own extensions that are grammars and no program.

    Args:
        archive: code-server's npm package.
        integrity: its checksum, as npm's lock files have it.
        folder: where the extensions go.

    Raises:
        StepError: where the checksum is another one.
    """
    with archive.open("rb") as opened:
        found = base64.b64encode(hashlib.file_digest(opened, "sha512").digest()).decode()
    if integrity != f"sha512-{found}":
        raise StepError(f"{archive.name} is not what its checksum says")
    with tarfile.open(archive) as opened_archive:
        members = {PurePosixPath(member.name): member for member in opened_archive if member.isfile()}

        def read(path: PurePosixPath) -> bytes:
            content = opened_archive.extractfile(members[path])
            return content.read() if content is not None else b""

        languages = set()
        for path in members:
            if path.match("package/lib/vscode/extensions/*/package.json"):
                manifest = json.loads(read(path))
                if "grammars" in manifest.get("contributes", {}) and not {"main", "browser"} & manifest.keys():
                    languages.add(path.parent)
        for path in members:
            home = PurePosixPath(*path.parts[:5])
            if home in languages and ".." not in path.parts:
                place = folder / path.relative_to("package/lib/vscode/extensions")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(read(path))


def prune(build: Path, patterns: str) -> None:
    """Remove what nobody needs from a build.

    Args:
        build: the folder.
        patterns: shell patterns below it, one a line; `#` begins a comment. `{machine}` stands for this one's name in
            Node (`x64`, `arm64`), and a line that begins with `!` keeps what it names.
    """
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    lines = [line.strip().replace("{machine}", machine) for line in patterns.splitlines()]
    kept = {path for line in lines if line.startswith("!") for path in build.glob(line[1:])}
    for line in lines:
        if not line or line.startswith(("#", "!")):
            continue
        for path in list(build.glob(line)):
            if path in kept or not os.path.lexists(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


# Extensions


def kept_extensions(name: str, paths: Paths) -> Path:
    """Where the extensions lie that everybody gets, for builds to come."""
    return paths.state / "workspaces" / name


def _extensions(folder: Path, asked: Path | None) -> list[Path]:
    if asked is not None and not folder.is_dir():
        raise IllumiDeskError(f"there is no folder {folder}", hint="--extensions takes a folder of .vsix files")
    found = sorted(folder.glob("*.vsix")) if folder.is_dir() else []
    if asked is not None and not found:
        raise IllumiDeskError(f"the folder {folder} has no .vsix files", hint="put the extensions into it")
    names: dict[str, Path] = {}
    for file in found:
        twin = names.setdefault(_folder_name(file).lower(), file)
        if twin != file:
            raise IllumiDeskError(
                f"{twin.name} and {file.name} are the same extension", hint=f"remove one of them from {folder}"
            )
    return found


def _folder_name(file: Path) -> str:
    return "{publisher}.{name}-{version}".format(**_manifest(file))


def _manifest(file: Path) -> dict[str, object]:
    """The package.json of an extension.

    Raises:
        IllumiDeskError: where the file is no extension.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            read = json.loads(archive.read("extension/package.json"))
        if not all(isinstance(read[key], str) and PurePosixPath(read[key]).name == read[key] for key in _IDENTITY):
            raise ValueError("no name")
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        raise IllumiDeskError(f"{file} is no extension of VS Code", hint="download it again, as a .vsix") from None
    return dict(read)


_IDENTITY = ("publisher", "name", "version")


def unpack_extension(file: Path, folder: Path) -> Path:
    """Put an extension into a folder of unpacked ones; where it is now."""
    target = folder / _folder_name(file)
    target.mkdir(parents=True)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            parts = PurePosixPath(member.filename).parts
            if member.is_dir() or parts[:1] != ("extension",) or ".." in parts:
                continue
            place = target.joinpath(*parts[1:])
            place.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, place.open("wb") as opened:
                shutil.copyfileobj(source, opened)
            if member.external_attr >> 16 & 0o100:
                place.chmod(0o755)
    return target


def _keep_extensions(name: str, files: Sequence[Path], paths: Paths) -> None:
    folder = kept_extensions(name, paths)
    fresh = folder.with_name(f".{name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, fresh / file.name)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


# RStudio


def ensure_rstudio(paths: Paths, progress: Progress, *, package: str = "", sha256: str = "") -> bool:
    """Have RStudio Server installed, its own service off, and `/opt/illumidesk/workspaces/rstudio` point to it.

    Args:
        paths: the layout.
        progress: where commands are logged.
        package: the vendor's Debian package, a file or an https address; empty where it is installed already.
        sha256: its checksum, 64 hexadecimal digits.

    Returns:
        Whether anything was installed.

    Raises:
        IllumiDeskError: where it cannot be had, or is not what its checksum says; nothing is changed then.
    """
    if package:
        if len(sha256) != 64 or not all(digit in "0123456789abcdef" for digit in sha256.lower()):
            raise IllumiDeskError(
                "the package of RStudio Server needs its checksum",
                hint="give the 64 digits that the vendor's download page shows, with --sha256",
            )
        with _package_file(package, sha256.lower(), paths) as file:
            _quiet_unit(paths, progress)
            apt.install([str(file), *_R_PACKAGES], progress)
        (paths.state / "rstudio-package").write_text(f"{sha256.lower()}\n", "utf-8")
    folder = find_rstudio()
    if folder is None:
        raise IllumiDeskError(
            NO_RSTUDIO,
            hint="download its package for this system from its vendor, Posit, and run: "
            "illumidesk workspace install rstudio --package FILE.deb --sha256 CHECKSUM",
            status=404,
        )
    _quiet_unit(paths, progress)
    progress.run(["systemctl", "disable", "--now", _RSTUDIO_UNIT], check=False)
    link = paths.workspaces / RSTUDIO
    if link.is_symlink() and link.resolve() == folder.resolve():
        return bool(package)
    swap(link, folder)
    return True


def _quiet_unit(paths: Paths, progress: Progress) -> None:
    """Keep the vendor's service from starting: it listens on all addresses.

    The package starts it while it is installed, and again at each upgrade. A condition that does not hold is no
    failure, as a masked unit would be.
    """
    file = _drop_in(paths)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"# People's RStudio runs behind their own servers.\n[Unit]\nConditionPathExists=!{paths.opt}\n"
        )
        progress.run(["systemctl", "daemon-reload"])


def _drop_in(paths: Paths) -> Path:
    return paths.root / f"etc/systemd/system/{_RSTUDIO_UNIT}.d/illumidesk.conf"


def loud_unit(paths: Paths, progress: Progress) -> None:
    """Undo `_quiet_unit`. The vendor's service stays disabled."""
    file = _drop_in(paths)
    if file.exists():
        file.unlink()
        if not any(file.parent.iterdir()):
            file.parent.rmdir()
        progress.run(["systemctl", "daemon-reload"], check=False)


@contextmanager
def _package_file(source: str, sha256: str, paths: Paths) -> Iterator[Path]:
    """The package, checked, where only root can change it."""
    folder = paths.state / "download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)  # apt reads it as an account of its own
    file = folder / f"{_RSTUDIO_PACKAGE}.deb"
    try:
        if source.startswith("https://"):
            _download(source, file)
        elif "://" in source:
            raise IllumiDeskError(f"{source} is no https address", hint="give a file or an https address")
        else:
            try:
                shutil.copyfile(source, file)
            except OSError as error:
                raise IllumiDeskError(f"{source}: {error.strerror}") from None
        found = _sha256(file)
        if found != sha256:
            raise IllumiDeskError(
                f"{source} is not what its checksum says: it has {found}",
                hint="download it again, and look at the checksum once more; nothing was installed",
            )
        yield file
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(address: str, file: Path) -> None:
    try:
        with (
            urllib.request.urlopen(address, timeout=_DOWNLOAD_TIMEOUT) as source,  # noqa: S310 -- https alone
            file.open("wb") as opened,
        ):
            shutil.copyfileobj(source, opened)
    except (OSError, urllib.error.URLError) as error:
        raise IllumiDeskError(f"{address} cannot be downloaded: {getattr(error, 'reason', error)}") from None


# All of them


def remove(name: str, paths: Paths, progress: Progress) -> list[str]:
    """Remove a program. Those that people have open go on until they end.

    Returns:
        The builds that were removed.

    Raises:
        IllumiDeskError: where it is not installed.
    """
    link = paths.workspaces / check_name(name)
    if not link.is_symlink():
        raise IllumiDeskError(f"{BUILT_IN[name].title} is not installed", status=404)
    link.unlink()
    if name == RSTUDIO:
        ours = paths.state / "rstudio-package"
        if ours.exists():
            apt.remove([_RSTUDIO_PACKAGE], progress)
            ours.unlink()
        loud_unit(paths, progress)
        return []
    shutil.rmtree(kept_extensions(name, paths), ignore_errors=True)
    return remove_old_builds(paths)


def find(name: str, paths: Paths) -> Found:
    """A program as it is on this machine."""
    type_ = BUILT_IN[check_name(name)]
    link = paths.workspaces / name
    folder = link.resolve() if link.exists() else None
    if name == RSTUDIO:
        note = ""
        if folder is None:
            note = "" if find_rstudio() else f"{NO_RSTUDIO}; R works in JupyterLab where r-cran-irkernel is installed"
        return Found(type_, "ready" if folder else "absent", _rstudio_version() if folder else "", folder, 0, note)
    if folder is None:
        return Found(type_, "absent", "", None, 0, "")
    program = NODE_PROGRAMS[name]
    chosen = _extensions(kept_extensions(name, paths), None) if os.access(kept_extensions(name, paths), os.R_OK) else []
    current = is_current(link, _digests(program, chosen)[1])
    return Found(
        type_,
        "ready" if current else "outdated",
        _version(folder / program.manifest),
        folder,
        len(chosen),
        "" if current else f"illumidesk workspace install {name} builds it as this version has it",
    )


def _version(manifest: Path) -> str:
    try:
        return str(json.loads(manifest.read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError):
        return ""


def _rstudio_version() -> str:
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", _RSTUDIO_PACKAGE], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def disk(found: Found) -> int | None:
    """Bytes of a build on disk, without Node, which is the proxy's; None for what is not built here."""
    if found.folder is None or found.type.name not in NODE_PROGRAMS:
        return None
    total = 0
    for base, _, files in os.walk(found.folder):
        for name in files:
            total += os.lstat(os.path.join(base, name)).st_blocks * 512  # noqa: PTH118 -- tens of thousands of them
    return total - (found.folder / "bin/node").stat().st_blocks * 512


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


__all__ = [
    "MARKER",
    "NODE_PROGRAMS",
    "Found",
    "add_languages",
    "check_name",
    "check_node_program",
    "disk",
    "ensure_program",
    "ensure_rstudio",
    "find",
    "kept_extensions",
    "loud_unit",
    "node_programs",
    "program_names",
    "prune",
    "remove",
    "unpack_extension",
]
