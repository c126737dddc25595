"""What of the fork server can be looked at without root; tests/system/test_forkserver.py does the rest."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import socket
import subprocess
import sys
from pathlib import Path

import jupyterhub.user
import pytest
from hypothesis import given
from hypothesis import strategies as st

from illumidesk.forkserver import caller, client, kernels, likeness, modules, person, personal
from illumidesk.forkserver.caller import Refused
from illumidesk.spawners.choice import server_variables

WORD = st.binary(max_size=20).filter(lambda word: b"\0" not in word)
NAME = WORD.filter(lambda word: word != b"" and b"=" not in word)
PROGRAM = b"/opt/illumidesk/envs/default/bin/jupyterhub-singleuser"


@given(st.lists(WORD, min_size=1), st.dictionaries(NAME, WORD), WORD)
def test_the_message_arrives(arguments: list[bytes], variables: dict[bytes, bytes], folder: bytes) -> None:
    assert client.unpack(client.pack(arguments, variables, folder)) == (arguments, variables, folder)


@given(st.binary(max_size=60))
def test_whatever_else_arrives_is_refused_or_understood(message: bytes) -> None:
    try:
        arguments, _, _ = client.unpack(message)
    except ValueError:
        return
    assert arguments


LOADED = personal.Environment({"LANG": "C.UTF-8"})


def program(**variables: str) -> person.Program:
    pairs = {"HOME": "/nonexistent", "LANG": "C.UTF-8"}
    given = {os.fsencode(name): os.fsencode(value) for name, value in (pairs | variables).items()}
    return person.Program([PROGRAM, b"--x"], given, b"/", [0, 1, 2])


def test_a_fork_that_would_do() -> None:
    person.check(program(JUPYTERHUB_API_TOKEN="x"), PROGRAM.decode(), LOADED)


@pytest.mark.parametrize(
    "name", ["PYTHONPATH", "PYTHONHASHSEED", "LD_PRELOAD", "LC_ALL", "MALLOC_ARENA_MAX", "SSL_CERT_FILE"]
)
def test_variables_that_count_at_the_beginning(name: str) -> None:
    with pytest.raises(Refused, match=f"the variable {name}"):
        person.check(program(**{name: "1"}), PROGRAM.decode(), LOADED)


def test_another_program() -> None:
    with pytest.raises(Refused, match="another program"):
        person.check(program(), "/opt/illumidesk/envs/other/bin/jupyterhub-singleuser", LOADED)


def test_packages_of_ones_own(tmp_path: Path) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    folder = tmp_path / ".local/lib" / version / "site-packages"
    folder.mkdir(parents=True)
    person.check(program(HOME=str(tmp_path)), PROGRAM.decode(), LOADED)
    (folder / "mine.py").touch()
    with pytest.raises(Refused, match="there are packages in"):
        person.check(program(HOME=str(tmp_path)), PROGRAM.decode(), LOADED)


def test_variables_that_modules_looked_at() -> None:
    loaded = personal.Environment({"LANG": "C.UTF-8", "HOME": "/somebody"}, {"JUPYTERLAB_DIR", "HOME", "PATH"})
    person.check(program(PATH="/other"), PROGRAM.decode(), loaded)
    with pytest.raises(Refused, match="another JUPYTERLAB_DIR"):
        person.check(program(JUPYTERLAB_DIR="/lab"), PROGRAM.decode(), loaded)


MODULE = """
import os, pathlib
HOME = pathlib.Path.home() / "x"
LIST = [os.path.expanduser("~/y"), os.environ["USER"]]
BYTES = os.fsencode(os.environ.get("HOME"))
NOTHING = os.environ.get("UNHEARD_OF", "")
def closed(kept=None):
    found = os.path.expanduser("~/z")
    return lambda: found
closed = closed()
def function(where=os.environ["HOME"]): return where
class Class:
    PREFIX = {"a": (os.getenv("JUPYTERHUB_SERVICE_PREFIX"), 1)}
    def method(self, who=os.environ["USER"]): return who
"""
OBSERVE = """
import json, sys
from illumidesk.forkserver import personal
sys.path.insert(0, sys.argv[1])
with personal.observed() as found:
    import module_of_the_test as module
places = personal.places()
person = {"HOME": "/home/ana", "USER": "ana", "JUPYTERHUB_SERVICE_PREFIX": "/user/ana/"}
for place in places:
    place.put_right(person)
left = [str(place) for place in personal.places()]
print(json.dumps([left, str(module.HOME), module.closed(),
                  module.LIST, module.BYTES.decode(), module.function(), module.Class.PREFIX,
                  module.Class().method(), sorted(found.read), found.differing(person)]))
"""


def test_what_modules_took_from_the_environment_is_put_right(tmp_path: Path) -> None:
    (tmp_path / "module_of_the_test.py").write_text(MODULE)
    argv = [sys.executable, "-c", OBSERVE, str(tmp_path)]
    left, *found, read, differing = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert left == []
    assert found == [
        "/home/ana/x",
        "/home/ana/z",
        ["/home/ana/y", "ana"],
        "/home/ana",
        "/home/ana",
        {"a": ["/user/ana/", 1]},
        "ana",
    ]
    assert {"HOME", "USER", "UNHEARD_OF", "JUPYTERHUB_SERVICE_PREFIX"} <= set(read)
    assert "UNHEARD_OF" not in differing


def test_what_modules_added_to_the_path_is_forgotten(tmp_path: Path) -> None:
    """As setuptools does it, which has copies of packages; and a package that adds its own folder."""
    for file, text in {
        "copies/__init__.py": "import sys; sys.path.append(__path__[0] + '/_vendor'); import copied",
        "copies/_vendor/copied.py": "",
        "itself/__init__.py": "import sys; sys.path.append(__path__[0])",
        "other.py": "",
    }.items():
        tmp_path.joinpath(file).parent.mkdir(parents=True, exist_ok=True)
        tmp_path.joinpath(file).write_text(text)
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from illumidesk.forkserver import personal
path = list(sys.path)
import copies, itself, other
assert {{"copied", "copies", "itself"}} <= sys.modules.keys() and sys.path != path
added = personal.additions(path)
assert sorted(added) == ["copied", "copies", "itself"], added
personal.forget_additions(path, added)
assert sys.path == path
print(sorted({{"copied", "copies", "itself", "other"}} & sys.modules.keys()))
import copies, copied
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['other']\n"


def test_randomness_is_renewed() -> None:
    random.seed(1)
    first = random.random()
    random.seed(1)
    key = bytes(multiprocessing.current_process().authkey)
    try:
        person._renew_randomness()
        assert random.random() != first
        assert bytes(multiprocessing.current_process().authkey) != key
    finally:
        multiprocessing.current_process().authkey = key


def test_limits_are_read_as_the_kernel_writes_them() -> None:
    found = likeness._parse_limits(Path("/proc/self/limits").read_text())
    assert len(found) == len(likeness._LIMITS)
    for kind, limit in found.items():
        assert resource.getrlimit(kind) == limit


def test_a_limit_that_nobody_knows_is_not_passed_over() -> None:
    text = Path("/proc/self/limits").read_text() + f"{'Max something new':<26}{'1':<21}{'1':<21}units\n"
    with pytest.raises(Refused, match="Max something new"):
        likeness._parse_limits(text)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/illumidesk.slice/illumidesk-users.slice/jupyter-ana.service", "jupyter-ana.service"),
        ("/illumidesk.slice/illumidesk-users.slice/jupyter-ana.service/sub", None),
        ("/illumidesk.slice/illumidesk-users.slice/jupyter-ana.service/../jupyter-bob.service", None),
        ("/illumidesk.slice/illumidesk-users.slice/illumidesk-grader@c.service", None),
        ("/system.slice/jupyter-ana.service", None),
        ("/user.slice/illumidesk.slice/illumidesk-users.slice/jupyter-ana.service", None),
        ("", None),
    ],
)
def test_the_unit_of_a_caller(path: str, unit: str | None) -> None:
    found = caller._UNIT.fullmatch(path)
    assert (found and found[1]) == unit


def test_hierarchies() -> None:
    version_1 = "12:cpu,cpuacct:/a\n1:name=systemd:/x/y:z\n0::/b\n"
    assert caller.parse_cgroups(version_1) == {"cpu,cpuacct": "/a", "name=systemd": "/x/y:z", "": "/b"}
    assert caller.unit_path(caller.parse_cgroups(version_1)) == "/x/y:z"
    assert caller.unit_path(caller.parse_cgroups("0::/b\n")) == "/b"


def test_who_is_in_no_persons_unit_is_refused() -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there, pytest.raises(Refused):
        caller.identify(here)


def test_the_client_runs_the_program_where_nobody_answers(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", client.__file__, str(tmp_path / "none"), "/bin/echo", "by", "itself"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "by itself\n"
    assert done.stderr.startswith("<6>Started the ordinary way, not by the fork server: it does not answer")


@pytest.mark.parametrize(("answer", "why"), [(b"", "it ended"), (b"no not you\n", "not you"), (b"nonsense\n", "")])
def test_the_client_runs_the_program_where_it_is_refused(tmp_path: Path, answer: bytes, why: str) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        argv = [sys.executable, "-I", "-S", client.__file__, str(path), "/bin/echo", "by itself"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            connection, _ = listener.accept()
            with connection:
                head, streams, _, _ = socket.recv_fds(connection, 8, 3)
                assert len(streams) == 3
                for stream in streams:
                    os.close(stream)
                rest = connection.recv(1 << 20)
                assert int.from_bytes(head, "big") >= len(rest) > 0
                connection.sendall(answer)
            out, err = process.communicate()
    assert out == "by itself\n"
    assert why in err


def test_extensions_that_configuration_names(tmp_path: Path) -> None:
    (tmp_path / "a/jupyter_server_config.d").mkdir(parents=True)
    (tmp_path / "a/jupyter_server_config.json").write_text('{"ServerApp": {"jpserver_extensions": {"one": true}}}')
    (tmp_path / "a/jupyter_server_config.d/x.json").write_text(
        '{"ServerApp": {"jpserver_extensions": {"two": false, "one": true}}}'
    )
    (tmp_path / "a/jupyter_server_config.d/y.json").write_text("not JSON")
    assert list(modules.extensions([tmp_path / "a", tmp_path / "none"])) == ["one", "two", "one"]


def test_what_cannot_be_imported_is_told() -> None:
    assert modules.load(["json", "there_is_no_such_module"]) == ["there_is_no_such_module"]


KERNELS = """
import os, resource, sys, time
from illumidesk.forkserver import kernels, personal
from illumidesk.forkserver.caller import Refused

def main():
    print(os.getcwd(), sys.argv[1:], os.environ["X"], os.getppid() == int(os.environ["JPY_PARENT_PID"]), flush=True)
    if os.environ["X"] == "sleep":
        time.sleep(60)
    sys.exit(7)

kernels._main = main
mine = {"LANG": "C.UTF-8", "HOME": "/nonexistent"}
command = [sys.executable, "-m", "ipykernel_launcher", "-f", "file.json"]
try:
    kernels.fork(command, mine, "/")
except Refused as error:
    print(error, flush=True)
run = kernels.leave_helper(personal.Environment({"LANG": "C.UTF-8"}))
if run:
    sys.exit(run())
for variables, argv in (({"PYTHONPATH": "/x"}, command), ({}, ["/usr/bin/python", *command[1:]]), ({}, command[:1])):
    try:
        kernels.fork(argv, {**mine, **variables}, "/")
    except Refused as error:
        print(error, flush=True)
one = kernels.fork(command, {**mine, "X": "1"}, "/usr")
print(one.wait(), one.poll(), flush=True)
other = kernels.fork(command, {**mine, "X": "sleep"}, "/")
time.sleep(1)
print(other.poll(), flush=True)
other.kill()
print(other.wait(), flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
last = kernels.fork(command, {**mine, "X": "sleep"}, "/")
print(resource.prlimit(last.pid, resource.RLIMIT_NOFILE), flush=True)
os.umask(0o123)
try:
    kernels.fork(command, mine, "/")
except Refused as error:
    print(error, flush=True)
time.sleep(1)
os.kill(kernels.helper.pid, 9)
print(last.wait(), flush=True)
os.kill(last.pid, 9)
"""


def test_kernels_are_forked_from_a_helper() -> None:
    done = subprocess.run([sys.executable, "-c", KERNELS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        "this server started the ordinary way",
        "the variable PYTHONPATH is set",
        "it is not the environment's own Python kernel",
        "it is not the environment's own Python kernel",
        "/usr ['-f', 'file.json'] 1 True",
        "7 7",
        "/ ['-f', 'file.json'] sleep True",
        "None",
        "-9",
        "(200, 300)",
        "this server has changed its umask, nice value or processors",
        "/ ['-f', 'file.json'] sleep True",
        "-9",
    ]


def test_the_parent_has_what_the_hub_gives_to_every_server() -> None:
    given = server_variables(Path("/opt/illumidesk/roles/learner"), Path("/opt/illumidesk/envs/default"))
    assert personal.CONSTANT.items() <= given.items()
    # The rest is a role's, or read when it is used.
    assert given.keys() - personal.CONSTANT.keys() == {"JUPYTER_CONFIG_PATH", "JUPYTER_RUNTIME_DIR", "PATH"}


IMPORT = """
import json, sys
from illumidesk.forkserver import program
begin = program.load()
hub = [name for name in sys.modules if name.partition(".")[0] in ("sqlalchemy", "alembic")]
from jupyterhub import log, scopes
import jupyterhub.orm, sqlalchemy
print(json.dumps([begin.__name__, begin.__self__.__name__, hub, hasattr(log, "log_request"),
                  scopes.orm.User is jupyterhub.orm.User, scopes.sa.inspect is sqlalchemy.inspect,
                  begin.__self__.check_hub_version.__module__]))
import asyncio
from types import SimpleNamespace
from unittest import mock
import aiohttp.connector, aiohttp.resolver
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.serverapp import ServerApp
assert program.load() is not None  # as a forked server does once more
assert aiohttp.connector.DefaultResolver is aiohttp.resolver.ThreadedResolver
assert ServerApp.no_browser_open_file is True
with mock.patch.object(ExtensionApp, "_create_loader", side_effect=KeyError):
    ExtensionApp().parse_command_line([])
    try:
        ExtensionApp().parse_command_line(["--debug"])
    except KeyError:
        print("parsed")
waits = []
async def sleep(seconds):
    waits.append(seconds)
    if len(waits) > 1:
        raise KeyError
async def notify():
    print("told after", len(waits))
server = SimpleNamespace(hub_activity_interval=300, hub_activity_url="x", log=mock.Mock(), notify_activity=notify)
with mock.patch.object(asyncio, "sleep", sleep):
    try:
        asyncio.run(begin.__self__.keep_activity_updated(server))
    except KeyError:
        print(all(240 < wait < 360 for wait in waits))
"""
#: A JupyterHub that needs more than the stand-ins have.
OTHER = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "jupyterhub").mkdir()
(folder / "jupyterhub/__init__.py").touch()
(folder / "jupyterhub/orm.py").write_text("class User: pass")
(folder / "jupyterhub/singleuser.py").write_text("from jupyterhub.orm import User as main")
sys.path.insert(0, str(folder))
from illumidesk.forkserver import program
print(program.load())
"""


def test_a_server_is_imported_without_what_only_a_hub_needs() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True)
    first, *others = done.stdout.splitlines()
    assert json.loads(first) == [
        "launch_instance", "JupyterHubSingleUser", [], True, True, True, "illumidesk.forkserver.program",
    ]  # fmt: skip
    assert others == [b"parsed", b"told after 1", b"True"]


def test_the_hub_looks_at_the_versions_itself() -> None:
    """So nobody misses it where a server does not (program.py)."""
    assert callable(jupyterhub.user._check_version)


def test_a_jupyterhub_that_needs_more_of_it_gets_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", OTHER, str(tmp_path)], capture_output=True, check=True, text=True)
    assert done.stdout == "<class 'jupyterhub.orm.User'>\n"


def test_what_matplotlib_would_have_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, folder = tmp_path / "home", tmp_path / "home/course"
    (home / ".config/matplotlib").mkdir(parents=True)
    folder.mkdir()
    for file in (home / ".config/matplotlib/matplotlibrc", home / ".fonts", folder / "matplotlibrc"):
        file.touch()
        monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
        kernels._check_matplotlib(home, folder)
        monkeypatch.setitem(sys.modules, "matplotlib", sys)
        with pytest.raises(Refused, match=f"matplotlib was loaded without {file}"):
            kernels._check_matplotlib(home, folder)
        file.unlink()
        kernels._check_matplotlib(home, folder)
