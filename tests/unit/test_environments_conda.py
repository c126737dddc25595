"""Environments of conda packages, for real: py-rattler and uv, a channel in a folder, wheels made on the spot."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from illumidesk import settings
from illumidesk.cli import run
from illumidesk.errors import IllumiDeskError
from illumidesk.host import descriptions, locks, users_environments
from illumidesk.host.environments import LOCK, MARKER, keep_wheel, remove_old_builds, use_wheel
from illumidesk.host.steps import Progress, StepError
from illumidesk.host.users_environments import create, update
from illumidesk.paths import Paths
from tests.support.disks import nearly_full
from tests.support.packages import MINOR, PLACEHOLDER, CondaChannel, make_wheel

SINGLEUSER = "#!python\nprint('a server')\n"


@pytest.fixture
def channel(tmp_path: Path) -> CondaChannel:
    made = CondaChannel(tmp_path / "channel")
    made.add_python()
    made.add_module("greeting")
    made.add("tool", files={"bin/tool": f"#!/bin/sh\necho {PLACEHOLDER}\n", "share/tool.txt": PLACEHOLDER})
    return made


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    make_wheel(folder, "servething", scripts={"jupyterhub-singleuser": SINGLEUSER})
    make_wheel(folder, "idleaf")
    make_wheel(folder, "idbranch", requires=["idleaf"])
    return folder


@pytest.fixture
def paths(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A host, on which serving people takes one small package, and packages come from folders alone."""
    paths = Paths(tmp_path / "host")
    for folder in (
        paths.environments,
        paths.opt / "bootstrap/bin",
        paths.root / "run/lock",
        paths.etc / "environments",
    ):
        folder.mkdir(parents=True)
    (paths.opt / "bootstrap/bin/uv").symlink_to(Path(sys.executable).with_name("uv"))
    use_wheel(keep_wheel(make_wheel(tmp_path, "illumidesk"), paths), paths)
    monkeypatch.setattr(users_environments, "server_requirements", lambda: ("servething>=1",))
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ILLUMIDESK_INSTALL_LOCKED", raising=False)
    return paths


def described(tmp_path: Path, channel: CondaChannel, *dependencies: str, pip: tuple[str, ...] = ()) -> Path:
    lines = [f"channels: ['{channel.url}']", "dependencies:", *(f"  - {one}" for one in dependencies)]
    if pip:
        lines += ["  - pip:", *(f"      - {one}" for one in pip)]
    file = tmp_path / "environment.yml"
    file.write_text("\n".join(lines) + "\n")
    return file


def prefix(paths: Paths, name: str = "ml") -> Path:
    return (paths.environments / name).resolve()


def python(paths: Paths, code: str, name: str = "ml") -> str:
    done = subprocess.run(
        [paths.environments / name / "bin/python", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=paths.root,
    )
    return done.stdout.strip()


def test_conda_and_pip_packages(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    file = described(tmp_path, channel, "python", "greeting", "tool", pip=("idbranch",))
    environment, new = create("ml", paths, Progress(), file=file)
    assert new
    build = prefix(paths)
    assert environment.channels == (channel.url,)
    assert python(paths, "import greeting, idbranch, idleaf, illumidesk; print(greeting.__file__)") == (
        f"{paths.environments}/ml/lib/python{MINOR}/site-packages/greeting.py"
    )
    tool = subprocess.run([build / "bin/tool"], capture_output=True, text=True, check=True)
    assert tool.stdout.strip() == str(build), "packages know where they are"
    assert (build / "share/tool.txt").read_text() == str(build)
    assert (build / "bin/jupyterhub-singleuser").exists(), "what serving people takes"
    assert list((build / f"lib/python{MINOR}/site-packages/__pycache__").glob("greeting.*.pyc"))
    assert {(one.name, one.by) for one in locks.contents(build)} == {
        ("python", "conda"), ("greeting", "conda"), ("tool", "conda"),
        ("idbranch", "pip"), ("idleaf", "pip"), ("servething", "pip"), ("illumidesk", "pip"),
    }  # fmt: skip
    kept = descriptions.read(paths.etc / "environments/ml.yml")
    assert (kept.name, kept.conda, kept.pip) == ("ml", ("python", "greeting", "tool"), ("idbranch",))

    assert create("ml", paths, Progress(), file=file)[1] is False
    assert create("ml", paths, Progress())[1] is False
    assert prefix(paths) == build


def test_everybody_may_read_it_and_root_alone_write_it(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    before = os.umask(0o077)
    try:
        create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting"))
    finally:
        os.umask(before)
    seen = 0
    for path in (prefix(paths), *prefix(paths).rglob("*")):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode & 0o444 == 0o444, path
            assert not mode & 0o022, path
            seen += 1
    assert seen > 10
    assert (prefix(paths) / "conda-meta").is_dir()
    assert stat.S_IMODE((paths.etc / "environments/ml.lock").stat().st_mode) == 0o644


def test_what_the_description_or_conda_brings_is_not_brought_again(
    tmp_path: Path, paths: Paths, channel: CondaChannel
) -> None:
    channel.add_module("servething", "0.5")
    create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "servething"))
    assert python(paths, "import servething; print(servething.VERSION)") == "0.5"


def test_without_python_nobody_is_served(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    create("tools", paths, Progress(), file=described(tmp_path, channel, "tool"))
    found = users_environments.find("tools", paths, settings.Settings())
    assert (found.kind, found.state, found.serves, found.python) == ("conda", "ready", False, "")
    assert create("tools", paths, Progress())[1] is False
    with pytest.raises(IllumiDeskError, match="no Python"):
        create("both", paths, Progress(), file=described(tmp_path, channel, "tool", pip=("idleaf",)))


def test_pip_alone_takes_no_channel(tmp_path: Path, paths: Paths) -> None:
    file = tmp_path / "plain.yml"
    file.write_text(
        "name: plain\nchannels: [https://127.0.0.1:1/nowhere]\ndependencies:\n  - pip\n  - pip: [idbranch]\n"
    )
    environment, _ = create(None, paths, Progress(), file=file)
    assert users_environments.how(environment).startswith("Python packages alone, on /")
    assert python(paths, "import idbranch; print(idbranch.VERSION)", "plain") == "1.0"
    assert users_environments.find("plain", paths, settings.Settings()).kind == "pip"


# What cannot be


@pytest.mark.parametrize(
    ("dependencies", "pip", "sentence"),
    [
        (("python", "nosuch"), (), "nosuch cannot be had from file://"),
        (("python", "greeting>5"), (), "greeting>5 cannot be had from file://"),
        (("python", "greeting=>=<1"), (), "greeting=>=<1 is not a conda package"),
        (("python",), ("nowheel>2",), "nowheel"),
    ],
)
def test_a_requirement_that_cannot_be_had(
    tmp_path: Path,
    paths: Paths,
    channel: CondaChannel,
    dependencies: tuple[str, ...],
    pip: tuple[str, ...],
    sentence: str,
) -> None:
    create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting"))
    before = prefix(paths), (paths.etc / "environments/ml.yml").read_text()
    with pytest.raises(StepError) as caught:
        update("ml", paths, Progress(), file=described(tmp_path, channel, *dependencies, pip=pip))
    assert sentence in caught.value.message
    assert "\n" not in caught.value.message
    assert (prefix(paths), (paths.etc / "environments/ml.yml").read_text()) == before
    assert [build.name for build in (paths.opt / "builds").iterdir()] == [prefix(paths).name], "nothing is left"


def test_requirements_that_exclude_each_other(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    channel.add_module("greeting", "2.0")
    channel.add_module("needsold", depends=("python", "greeting <2"))
    with pytest.raises(StepError) as caught:
        create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting=2.0", "needsold"))
    assert "needsold" in caught.value.message
    assert "greeting=2.0" in caught.value.message


@pytest.mark.parametrize("channel_url", ["https://127.0.0.1:1/x", "file:///no/such/channel"])
def test_a_channel_that_cannot_be_reached(tmp_path: Path, paths: Paths, channel_url: str) -> None:
    file = tmp_path / "environment.yml"
    file.write_text(f"channels: ['{channel_url}']\ndependencies: [python]\n")
    with pytest.raises(StepError) as caught:
        create("ml", paths, Progress(), file=file)
    assert f"the channel {channel_url} cannot be read" in caught.value.message
    assert not (paths.environments / "ml").is_symlink()
    assert not (paths.etc / "environments/ml.yml").exists()


def test_channels_by_name_are_where_the_settings_say(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    """A mirror of conda's own place."""
    paths.config_file.write_text(
        f"environments:\n  channels: [{channel.folder.name}]\n  channel_alias: {channel.folder.parent.as_uri()}\n"
    )
    file = tmp_path / "environment.yml"
    file.write_text("dependencies: [greeting]\n")
    environment, _ = create("ml", paths, Progress(), file=file)
    assert environment.channels == ("channel",)
    assert python(paths, "import greeting; print(greeting.VERSION)") == "1.0"


class Mirror(http.server.SimpleHTTPRequestHandler):
    """A channel by HTTP, for whoever sends what is in `wanted`."""

    wanted = ""

    def do_GET(self) -> None:
        if self.headers.get("Authorization", "") == self.wanted:
            super().do_GET()
        else:
            self.send_error(401)

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


class PrivateMirror(Mirror):
    wanted = "Basic " + base64.b64encode(b"class:pw").decode()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Root's home, with rattler's own files."""
    home = tmp_path / "home"
    for folder in (".rattler", ".config/rattler"):
        (home / folder).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return home


@contextmanager
def served(handler: type[Mirror], folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_a_mirror_that_every_tool_of_this_kind_knows(
    tmp_path: Path, paths: Paths, channel: CondaChannel, home: Path
) -> None:
    file = tmp_path / "environment.yml"
    file.write_text("channels: [conda-forge]\ndependencies: [tool]\n")
    with served(Mirror, channel.folder) as mirror:
        (home / ".config/rattler/config.toml").write_text(
            f'[mirrors]\n"https://conda.anaconda.org/conda-forge" = ["{mirror}"]\n'
        )
        create("ml", paths, Progress(), file=file)
    assert (prefix(paths) / "bin/tool").exists()
    lock = (paths.etc / "environments/ml.lock").read_text()
    assert "https://conda.anaconda.org/conda-forge/noarch/tool-1.0-0.tar.bz2" in lock


def test_a_private_channel(tmp_path: Path, paths: Paths, channel: CondaChannel, home: Path) -> None:
    credentials = {"127.0.0.1": {"BasicHTTP": {"username": "class", "password": "pw"}}}
    (home / ".rattler/credentials.json").write_text(json.dumps(credentials))
    file = tmp_path / "environment.yml"
    file.write_text("channels: [channel]\ndependencies: [tool]\n")
    with served(PrivateMirror, channel.folder.parent) as mirror:
        paths.config_file.write_text(f"environments: {{channel_alias: '{mirror}'}}\n")
        create("ml", paths, Progress(), file=file)
    assert (prefix(paths) / "bin/tool").exists()
    for kept in (paths.etc / "environments").iterdir():
        assert "class:" not in kept.read_text()


# Newer packages, and exactly the same ones


def test_update_takes_the_newest_allowed(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting<3"))
    first = prefix(paths)
    assert update("ml", paths, Progress())[1] is False
    assert prefix(paths) == first, "nothing newer"
    channel.add_module("greeting", "2.0")
    channel.add_module("greeting", "3.0")
    assert create("ml", paths, Progress())[1] is False, "asked for newer ones by update alone"
    assert update("ml", paths, Progress())[1] is True
    assert python(paths, "import greeting; print(greeting.VERSION)") == "2.0"
    assert not first.exists(), "nothing ran from it"


def test_locked_it_comes_out_the_same(tmp_path: Path, paths: Paths, channel: CondaChannel, wheels: Path) -> None:
    file = described(tmp_path, channel, "python", "greeting", "tool", pip=("idbranch",))
    create("ml", paths, Progress(), file=file)
    exported = users_environments.export("ml", paths, as_lock=True)
    before = locks.contents(prefix(paths))
    channel.add_module("greeting", "2.0")
    channel.add("tool", "2.0", {"bin/tool": "#!/bin/sh\n"})
    make_wheel(wheels, "idleaf", "2.0")

    file.with_suffix(".lock").write_text(exported)
    create("again", paths, Progress(), file=file, locked=True)
    assert locks.contents(prefix(paths, "again")) == before
    assert (prefix(paths, "again") / LOCK).read_text() == exported
    assert update("ml", paths, Progress(), locked=True)[1] is False
    users_environments.clone("ml", "third", paths, Progress())
    assert locks.contents(prefix(paths, "third")) == before

    assert update("again", paths, Progress())[1] is True
    newer = {one.name: one.version for one in locks.contents(prefix(paths, "again"))}
    assert (newer["greeting"], newer["tool"], newer["idleaf"]) == ("2.0", "2.0", "2.0")
    assert users_environments.export("again", paths, as_lock=True) != exported


def test_an_installation_keeps_to_the_lock(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting"))
    first = prefix(paths)
    channel.add_module("greeting", "2.0")
    progress = Progress()
    users_environments.ensure_users_environment("ml", paths, progress)
    assert prefix(paths) == first
    use_wheel(keep_wheel(make_wheel(tmp_path, "illumidesk", "2.0"), paths), paths)
    users_environments.ensure_users_environment("ml", paths, progress)
    assert python(paths, "import greeting, illumidesk; print(greeting.VERSION, illumidesk.VERSION)") == "1.0 2.0"
    users_environments.ensure_users_environment("ml", paths, progress, refresh=True)
    assert python(paths, "import greeting, illumidesk; print(greeting.VERSION, illumidesk.VERSION)") == "2.0 2.0"
    assert progress.notes == []

    file = paths.etc / "environments/ml.yml"
    file.write_text(file.read_text() + "  - tool\n")
    assert users_environments.find("ml", paths, settings.Settings()).state == "changed"
    with pytest.raises(IllumiDeskError, match="the description has changed"):
        update("ml", paths, Progress(), locked=True)
    users_environments.ensure_users_environment("ml", paths, progress)
    assert "made anew: the description has changed" in progress.notes[0]
    assert update("ml", paths, Progress(), locked=True)[1] is False


# What is cut off, and what runs meanwhile


_BUILD = """
import sys
from pathlib import Path
from illumidesk.host import users_environments
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths
users_environments.server_requirements = lambda: ("servething>=1",)
users_environments.update("ml", Paths(Path(sys.argv[1])), Progress(), file=Path(sys.argv[2]))
"""


def test_killed_in_the_middle(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting"))
    first, text = prefix(paths), (paths.etc / "environments/ml.yml").read_text()
    names = [f"part{number}" for number in range(40)]
    for name in names:
        channel.add(name, files={f"share/{name}.bin": os.urandom(400_000)})
    file = described(tmp_path, channel, "python", "greeting", *names)
    process = subprocess.Popen([sys.executable, "-c", _BUILD, str(paths.root), str(file)], cwd=Path.cwd())
    builds = paths.opt / "builds"
    while process.poll() is None and not any((build / "share").is_dir() for build in builds.iterdir()):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was quicker than this test"
    half = [build for build in builds.iterdir() if build != first]
    assert len(half) == 1
    assert not (half[0] / MARKER).exists()
    assert (prefix(paths), (paths.etc / "environments/ml.yml").read_text()) == (first, text)
    assert python(paths, "import greeting; print(greeting.VERSION)") == "1.0"

    assert update("ml", paths, Progress(), file=file)[1] is True
    assert (prefix(paths) / "share/part39.bin").stat().st_size == 400_000
    assert [build.name for build in builds.iterdir()] == [prefix(paths).name]


def test_servers_go_on_in_the_build_they_were_started_from(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting"))
    first = prefix(paths)
    code = "input()\nimport greeting\nprint(greeting.VERSION, flush=True)\ninput()"
    server = subprocess.Popen(
        [first / "bin/python", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        channel.add_module("greeting", "2.0")
        assert update("ml", paths, Progress())[1] is True
        assert first.exists()
        server.stdin.write("go\n")
        server.stdin.flush()
        assert server.stdout.readline().strip() == "1.0"
        assert python(paths, "import greeting; print(greeting.VERSION)") == "2.0"
    finally:
        server.communicate("\n", timeout=30)
    assert remove_old_builds(paths) == [first.name]


def test_a_full_disk(tmp_path: Path, paths: Paths, channel: CondaChannel, wheels: Path) -> None:
    """On a small disk of its own, which takes root to mount."""
    create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting"))
    first = prefix(paths)
    channel.add("big", files={"share/big.bin": os.urandom(6_000_000)})
    make_wheel(wheels, "bulky", data=os.urandom(6_000_000))
    builds = paths.opt / "builds"
    with nearly_full(builds, 3 << 20):
        for more, pip in ((("big",), ()), ((), ("bulky",))):
            with pytest.raises(StepError) as caught:
                update("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting", *more, pip=pip))
            assert caught.value.message == "the disk is full: the environment ml could not be built"
            assert [build.name for build in builds.iterdir()] == [first.name]
            assert python(paths, "import greeting; print(greeting.VERSION)") == "1.0"


# The command line


@dataclass
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def illumidesk(paths: Paths, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    monkeypatch.setenv("ILLUMIDESK_ROOT", str(paths.root))

    def call(*words: str) -> Said:
        capfd.readouterr()
        code = run(words)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Said(code, out, err)

    return call


def test_an_environment_s_life(
    illumidesk: Callable[..., Said], tmp_path: Path, paths: Paths, channel: CondaChannel
) -> None:
    file = tmp_path / "environment.yml"
    file.write_text("name: ml\nchannels: [ours]\ndependencies: [python, greeting, {pip: [idbranch]}]\n")
    made = illumidesk("env", "create", "-f", str(file), "--channel", str(channel.folder))
    assert made.code == 0, made.err
    assert f"The environment ml is ready: 6 packages, conda packages of {channel.url}." in made.out
    assert "illumidesk config set roles.learner.environment ml" in made.out
    assert "The environment ml (conda)" in made.err
    again = illumidesk("env", "create", "ml")
    assert (again.code, "was there already" in again.out) == (0, True)

    listed = json.loads(illumidesk("env", "list", "--json").out)
    assert [(one["name"], one["kind"], one["state"], one["serves"], one["locked"]) for one in listed] == [
        ("ml", "conda", "ready", True, True)
    ]
    assert "ml" in illumidesk("env", "list").out
    shown = json.loads(illumidesk("env", "show", "ml", "--json").out)
    assert {"name": "greeting", "version": "1.0", "by": "conda"} in shown["packages"]
    assert {"name": "idleaf", "version": "1.0", "by": "pip"} in shown["packages"]
    assert "idleaf" in illumidesk("env", "show", "ml").out

    exported = descriptions.parse(illumidesk("env", "export", "ml").out, file="exported")
    assert "greeting=1.0" in exported.conda
    assert exported.pip == ("idbranch==1.0", "idleaf==1.0", "servething==1.0")
    written = illumidesk("env", "export", "ml", "--lock", "-o", str(tmp_path / "x.lock"))
    assert written.code == 0
    assert (tmp_path / "x.lock").read_text() == (paths.etc / "environments/ml.lock").read_text()

    assert illumidesk("env", "clone", "ml", "other").code == 0
    assert "was up to date" in illumidesk("env", "update", "ml").out
    words = ["env", "run", "ml", "python", "-c", "import greeting; print('ran', greeting.VERSION)"]
    call = "from illumidesk.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", call, *words], capture_output=True, text=True, check=False)
    assert done.stdout == "ran 1.0\n", done.stderr
    assert "there is no environment mll" in illumidesk("env", "run", "mll", "python").err
    assert "did you mean ml?" in illumidesk("env", "show", "mll").err

    assert illumidesk("env", "remove", "other", "--yes").code == 0
    assert illumidesk("env", "remove", "other", "--yes").code == 1
    paths.config_file.write_text("roles: {learner: {environment: ml}}\n")
    assert "ml is in use: roles.learner.environment" in illumidesk("env", "remove", "ml", "--yes").err
    assert [entry.name for entry in paths.environments.iterdir()] == ["ml"]


def test_what_cannot_be_had_is_said_in_one_sentence(
    illumidesk: Callable[..., Said], tmp_path: Path, paths: Paths, channel: CondaChannel
) -> None:
    said = illumidesk("env", "create", "ml", "--file", str(described(tmp_path, channel, "python", "nosuch")))
    assert said.code == 1
    errors = [line for line in said.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert "nosuch cannot be had" in errors[0]
    assert f"The whole log is in {paths.log}/" in said.err
    said = illumidesk("env", "create", "ml", "--channel", "https://me:secret@x.org/c")
    assert "Error: --channel: passwords and tokens" in said.err
    assert "secret" not in said.err
    assert illumidesk("env", "create").err.startswith("Error: say which environment")
    assert "there is no description of an environment ml" in illumidesk("env", "create", "ml").err
    assert "there is no environment ml" in illumidesk("env", "update", "ml").err


def test_another_description_under_the_same_name(tmp_path: Path, paths: Paths, channel: CondaChannel) -> None:
    create("ml", paths, Progress(), file=described(tmp_path, channel, "python"))
    before = prefix(paths)
    with pytest.raises(IllumiDeskError, match="already an environment ml, of another description"):
        create("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting"))
    assert prefix(paths) == before
    assert update("ml", paths, Progress(), file=described(tmp_path, channel, "python", "greeting"))[1] is True
    assert python(paths, "import greeting; print(greeting.VERSION)") == "1.0"


def test_what_serving_takes_can_be_put_into_a_registered_one(paths: Paths) -> None:
    venv = paths.root / "srv/venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--copies", venv], check=True)
    subprocess.run(["chmod", "-R", "go-w", paths.root], check=True)
    users_environments.register("mine", venv, paths, Progress(), owner=os.getuid())
    assert not users_environments.find("mine", paths, None).serves
    users_environments.register("mine", venv, paths, Progress(), with_server=True, owner=os.getuid())
    assert users_environments.find("mine", paths, None).serves
    assert python(paths, "import servething, illumidesk; print(illumidesk.VERSION)", "mine") == "1.0"
