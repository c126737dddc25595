"""Servers that the fork server forked: like those that started by themselves in all that counts, and nobody else's."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Person, Refused

SERVICE = "illumidesk-forkserver@default.service"
SOCKET = "illumidesk-forkserver@default.socket"
FORKED = re.compile(r"Forked by the fork server as process (\d+)\.")
ORDINARY = "Started the ordinary way, not by the fork server: "

#: Fields of /proc/PID/status that differ between any two processes, or say how much it has done and holds.
OWN = re.compile(
    r"Name|State|(NS)?(Tgid|Ngid|Pid|PPid|pid|tgid|pgid|sid)|Uid|Gid|Groups|FDSize|Vm.*|Rss.*|HugetlbPages|Threads|SigQ"
    r"|.*ctxt_switches"
)


def start(classroom: Classroom, name: str) -> Person:
    classroom.cli("user", "add", name)
    classroom.cli("enroll", "intro101", name, "--role", "student")
    person = classroom.sign_in(name)
    stop(person)
    person.start_server()
    return person


def stop(person: Person) -> None:
    if person.hub_api("GET", f"users/{person.name}")["servers"]:
        person.hub_api("DELETE", f"users/{person.name}/server")
        until(lambda: not person.hub_api("GET", f"users/{person.name}")["servers"])


def how(classroom: Classroom, name: str) -> str:
    """How a person's server started last, by its journal."""
    lines = classroom.journal(f"jupyter-{name}.service", lines=2000).splitlines()
    said = [line for line in lines if FORKED.search(line) or ORDINARY in line]
    return said[-1] if said else ""


def proc(classroom: Classroom, name: str, file: str) -> str:
    """A file in /proc of a person's server."""
    return classroom.machine.read_text(f"/proc/{classroom.main_pid(f'jupyter-{name}.service')}/{file}")


@pytest.fixture(scope="module")
def forked(classroom: Classroom) -> Person:
    return start(classroom, "fork1")


@pytest.fixture(scope="module")
def ordinary(classroom: Classroom) -> Person:
    """Somebody with a package of their own, for whom a fork would not do."""
    person = start(classroom, "plain1")
    person.shell(
        "mkdir -p $(python -m site --user-site) && echo 'VALUE = 42' > $(python -m site --user-site)/mine_alone.py"
    )
    stop(person)
    person.start_server()
    return person


def answers(person: Person) -> bool:
    """Whether a person's server does, by now."""
    try:
        # A page first: what the browser knew of the server that is gone is worth nothing.
        return person.open_server().ok and bool(person.server("GET", "api/status"))
    except Refused:
        return False


def until(done: Callable[[], object], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_server_is_forked_into_its_own_unit(classroom: Classroom, forked: Person) -> None:
    pid = classroom.main_pid("jupyter-fork1.service")
    found = FORKED.search(how(classroom, "fork1"))
    assert found, classroom.journal("jupyter-fork1.service")
    assert int(found[1]) == pid
    assert "PPid:\t1\n" in proc(classroom, "fork1", "status")
    assert "/jupyter-fork1.service" in proc(classroom, "fork1", "cgroup")
    assert "/bin/illumidesk-singleuser\0" in proc(classroom, "fork1", "cmdline")
    assert classroom.show("jupyter-fork1.service", "StatusText") == "Ready"
    assert forked.run("import os; print(os.getcwd(), os.environ['USER'])").strip() == "/home/fork1 fork1"
    assert forked.run("6*7") == "42"
    assert "fork1\r\ndone-0" in forked.terminal("whoami")


def test_what_modules_know_of_a_person_is_the_persons(classroom: Classroom, forked: Person) -> None:
    """JupyterLab, for one, works out where settings are when it is imported: in the fork server, by root."""
    theme = "@jupyterlab/apputils-extension:themes"
    forked.server("PUT", f"lab/api/settings/{theme}", {"raw": '{"theme": "JupyterLab Dark"}'})
    folder = "/home/fork1/.jupyter/lab/user-settings/@jupyterlab/apputils-extension"
    assert "Dark" in classroom.machine.read_text(f"{folder}/themes.jupyterlab-settings")


def test_kernels_are_forked_within_the_unit(classroom: Classroom, forked: Person) -> None:
    kernel = forked.start_kernel()
    assert "Kernel forked as process" in classroom.journal("jupyter-fork1.service")
    said = kernel.run("import os, sys; print(os.getpid(), os.getppid(), sys.path[0], __name__, os.getcwd())").split()
    assert said[2:] == ["__main__", "/home/fork1"] or said[3:] == ["__main__", "/home/fork1"], said
    for number in said[:2]:
        assert "/jupyter-fork1.service" in classroom.machine.read_text(f"/proc/{number}/cgroup")
    status = classroom.machine.read_text(f"/proc/{said[0]}/status")
    assert "NoNewPrivs:\t1\n" in status
    assert "Uid:\t0" not in status
    # Nothing of the debugger, which would open a port (config/ipython).
    assert kernel.run("import sys; print('debugpy' in sys.modules)").strip() == "False"
    # Interrupted, restarted, ended by its own hand: as any kernel.
    forked.server("POST", f"api/kernels/{kernel.id}/interrupt")
    assert kernel.run("6*7") == "42"
    forked.server("POST", f"api/kernels/{kernel.id}/restart")
    assert kernel.run("6*7") == "42"
    again = kernel.run("import os; print(os.getpid())").strip()
    assert again != said[0]
    classroom.machine.run(["kill", "-9", again])
    until(lambda: kernel.run("6*7") == "42" and kernel.run("import os; print(os.getpid())").strip() != again)
    kernel.stop()
    until(lambda: classroom.machine.run(["test", "-e", f"/proc/{again}"], check=False).returncode != 0)


def test_no_two_kernels_draw_the_same_numbers(forked: Person) -> None:
    draw = "import random, uuid, tempfile; print(random.random(), uuid.uuid4(), next(tempfile._get_candidate_names()))"
    one, other = (forked.start_kernel().run(draw).split() for _ in range(2))
    assert all(first != second for first, second in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def drawing(classroom: Classroom) -> Person:
    """Somebody in an environment with what notebooks commonly begin with."""
    description = "/etc/illumidesk/environments/default.yml"
    text = classroom.machine.read_text(description)
    missing = [name for name in ("numpy", "pandas", "matplotlib") if f"- {name}" not in text]
    if missing:
        lines = "".join(f"      - {name}\n" for name in missing)
        classroom.machine.write_text(description, text.rstrip("\n") + f"\n{lines}")
        classroom.cli("env", "update", "default")
    return start(classroom, "fork8")


_LOADED = "import sys; print(*(f'matplotlib.{x}' in sys.modules for x in ('figure', 'backends.backend_agg', 'pyplot')))"
_COMPUTE = """
import io, numpy as np, pandas as pd, matplotlib as mpl, matplotlib.pyplot as plt
print(int((np.ones((400, 400)) @ np.ones((400, 400))).sum()), pd.DataFrame({"a": [1, 2]}).groupby("a").size().sum())
file = io.BytesIO(); plt.plot([1, 2]); plt.title("α"); plt.savefig(file, format="png"); plt.close()
print(file.getvalue()[1:4], mpl.rcParams["backend"], mpl.get_configdir(), mpl.get_cachedir())
print(*mpl.style.core.USER_LIBRARY_PATHS if hasattr(mpl.style, "core") else mpl.style.USER_LIBRARY_PATHS)
"""


def test_kernels_have_numpy_pandas_and_matplotlib_in_memory(classroom: Classroom, drawing: Person) -> None:
    assert FORKED.search(how(classroom, "fork8")), how(classroom, "fork8")
    one, other = drawing.start_kernel(), drawing.start_kernel()
    assert classroom.journal("jupyter-fork8.service").count("Kernel forked as process") >= 2
    assert one.run(_LOADED).split() == ["True", "True", "False"]
    home = "/home/fork8"
    assert one.run(_COMPUTE).split() == [
        "64000000", "2", "b'PNG'", "module://matplotlib_inline.backend_inline",
        f"{home}/.config/matplotlib", f"{home}/.cache/matplotlib", f"{home}/.config/matplotlib/stylelib",
    ]  # fmt: skip
    draw = "import numpy; print(numpy.random.random(), numpy.random.default_rng().random())"
    assert not set(one.run(draw).split()) & set(other.run(draw).split())
    # The fork server began without threads, so that none is missing here.
    assert "Threads:\t1\n" in classroom.machine.read_text(f"/proc/{classroom.main_pid(SERVICE)}/status")


def test_ones_own_matplotlibrc_counts(classroom: Classroom, drawing: Person) -> None:
    drawing.shell("mkdir -p ~/.config/matplotlib && echo 'lines.linewidth: 7' > ~/.config/matplotlib/matplotlibrc")
    assert drawing.run("import matplotlib; print(matplotlib.rcParams['lines.linewidth'])").strip() == "7.0"
    why = "matplotlib was loaded without /home/fork8/.config/matplotlib/matplotlibrc"
    assert f"not forked: {why}" in classroom.journal("jupyter-fork8.service")
    drawing.shell("rm ~/.config/matplotlib/matplotlibrc")


def test_own_packages_are_started_with_the_ordinary_way(classroom: Classroom, ordinary: Person) -> None:
    assert f"{ORDINARY}there are packages in /home/plain1/.local" in how(classroom, "plain1")
    assert ordinary.run("import mine_alone; print(mine_alone.VALUE)").strip() == "42"


def test_a_forked_server_is_like_an_ordinary_one(classroom: Classroom, forked: Person, ordinary: Person) -> None:
    """All that the kernel keeps of a process, field by field."""

    def status(name: str) -> dict[str, str]:
        pairs = (line.split(":", 1) for line in proc(classroom, name, "status").splitlines())
        return {key: value.strip() for key, value in pairs if not OWN.fullmatch(key)}

    one, other = status("fork1"), status("plain1")
    assert one == other
    assert {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0" * 16}.items() <= one.items()
    assert int(one["Seccomp_filters"]) > 10
    for file in ("limits", "oom_score_adj", "personality", "timerslack_ns", "coredump_filter", "loginuid", "sessionid"):
        assert proc(classroom, "fork1", file) == proc(classroom, "plain1", file), file
    for name in ("fork1", "plain1"):
        groups = classroom.machine.run(["id", "-G", name]).stdout.split()
        found = re.search(r"^Groups:\t(.*)$", proc(classroom, name, "status"), re.MULTILINE)
        assert found
        assert set(found[1].split()) == set(groups)
    cgroups = [proc(classroom, name, "cgroup").replace(name, "NAME") for name in ("fork1", "plain1")]
    assert cgroups[0] == cgroups[1]
    mounts = [
        sorted(line.split(" - ")[0].split()[4:6] + line.split(" - ")[1].split() for line in text.splitlines())
        for text in (proc(classroom, name, "mountinfo").replace(name, "NAME") for name in ("fork1", "plain1"))
    ]
    assert [line for line in mounts[0] if "systemd-private" not in str(line)] == [
        line for line in mounts[1] if "systemd-private" not in str(line)
    ]


def namespaces(classroom: Classroom, unit: str) -> dict[str, str]:
    pid = classroom.main_pid(unit)
    names = ("mnt", "ipc", "uts", "net", "pid", "user", "cgroup")
    shown = classroom.machine.run(["readlink", *(f"/proc/{pid}/ns/{name}" for name in names)]).stdout
    return dict(zip(names, shown.split(), strict=True))


def test_its_namespaces_are_its_own(classroom: Classroom, forked: Person, ordinary: Person) -> None:
    one, other, parent = (
        namespaces(classroom, unit) for unit in ("jupyter-fork1.service", "jupyter-plain1.service", SERVICE)
    )
    for name in ("mnt", "ipc", "uts"):
        assert len({one[name], other[name], parent[name]}) == 3, name
    for name in ("net", "pid", "user", "cgroup"):
        assert one[name] == other[name], name
    assert parent["net"] != one["net"]


def test_nothing_of_the_parent_is_open_in_it(classroom: Classroom, forked: Person) -> None:
    pid = classroom.main_pid("jupyter-fork1.service")
    opened = classroom.machine.run(["sh", "-c", f"readlink /proc/{pid}/fd/*"]).stdout
    assert not re.search(r"/proc/|forkserver|ns:\[", opened), opened
    assert classroom.machine.run(["readlink", f"/proc/{pid}/fd/0"]).stdout == "/dev/null\n"


def test_only_a_unit_that_starts_is_served(classroom: Classroom, forked: Person) -> None:
    """A student who speaks the protocol from a kernel gets nothing, whatever they say."""
    script = """
import os, socket
def ask(message, fds):
    s = socket.socket(socket.AF_UNIX); s.settimeout(20)
    s.connect("/run/illumidesk/forkserver/default.sock")
    try:
        socket.send_fds(s, [len(message).to_bytes(8, "big")], fds)
        s.sendall(message)
        return s.recv(200).decode()
    except OSError as error:
        return f"no {error}"
program = b"/opt/illumidesk/envs/default/bin/illumidesk-singleuser"
words = [b"/home/plain1", b"1", program, b"USER=plain1", b"HOME=/home/plain1"]
for message in (b"\\0".join(words), b"", b"x" * 100000, b"\\0" * 10):
    print(ask(message, [0, 1, 2]))
print(ask(b"", [0] * 20))
if os.fork() == 0:  # without its parent
    os.setsid()
    os._exit(0 if ask(b"\\0".join(words), [0, 1, 2]).startswith("no ") else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    before = classroom.machine.run(["pgrep", "-c", "-f", "bin/illumidesk-singleuser"]).stdout
    said = [line for line in forked.run(script).splitlines() if line]
    assert len(said) == 6, said
    assert all(line.startswith("no ") for line in said[:5]), said
    assert said[5] == "0"
    assert classroom.machine.run(["pgrep", "-c", "-f", "bin/illumidesk-singleuser"]).stdout == before
    assert "is not starting" in classroom.journal(SERVICE)


def test_accounts_of_the_machine_are_not_served(classroom: Classroom) -> None:
    """Neither root's own processes nor a unit that only has the right name."""
    client = classroom.machine.run(
        ["sh", "-c", "ls /opt/illumidesk/hub/lib/python3*/site-packages/illumidesk/forkserver/client.py"]
    ).stdout.strip()
    ask = ["/usr/bin/python3", "-I", "-S", client, "/run/illumidesk/forkserver/default.sock", "/bin/echo", "by itself"]
    for properties in (
        [],
        ["--uid=nobody"],
        ["--unit=jupyter-fork9", "--uid=nobody"],
        ["--unit=jupyter-fork9", "--slice=illumidesk-users.slice", "--uid=nobody"],
        ["--unit=jupyter-fork1x", "--slice=illumidesk-users.slice", "--uid=fork1"],
        # Right but for the sandbox: no_new_privs is missing.
        ["--unit=jupyter-root", "--slice=illumidesk-users.slice"],
    ):
        done = classroom.machine.run(["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *properties, *ask])
        assert "by itself" in done.stdout, properties
        assert ORDINARY in done.stderr, properties


def test_the_parent_is_closed_to_people(classroom: Classroom, forked: Person) -> None:
    pid = classroom.main_pid(SERVICE)
    seen = forked.shell(f"cat /proc/{pid}/environ /proc/{pid}/maps; head -c 1 /proc/{pid}/mem; kill -9 {pid}; ls /proc")
    assert "LISTEN_FDS" not in seen
    assert "libpython" not in seen
    assert f"\n{pid}\n" not in seen
    assert classroom.main_pid(SERVICE) == pid


def test_one_person_cannot_look_into_anothers(classroom: Classroom, forked: Person, ordinary: Person) -> None:
    pid = classroom.main_pid("jupyter-plain1.service")
    mine = classroom.main_pid("jupyter-fork1.service")
    looks = [f"cat /proc/{number}/environ | wc -c; ls /proc/{number}/root 2>&1 | wc -l" for number in (pid, mine)]
    for person in (forked, ordinary):
        seen = person.shell("; ".join(looks))
        assert "Permission denied" in seen or "No such file" in seen
    # As root outside, without any sandbox: still only the person's own.
    done = classroom.machine.run(["cat", f"/proc/{mine}/maps"], user="plain1", check=False)
    assert done.returncode != 0


def test_ends_are_noticed(classroom: Classroom, forked: Person) -> None:
    """systemd is its parent, so it hears how it ends."""
    kernel = forked.start_kernel()
    kernel.run("x = 1")
    forked.shell("setsid sleep 300 >/dev/null 2>&1 </dev/null &")
    unit = "jupyter-fork1.service"
    classroom.machine.run(["kill", "-9", str(classroom.main_pid(unit))])
    until(lambda: not forked.hub_api("GET", "users/fork1")["servers"], 15)
    assert classroom.show(unit, "Result") in ("signal", "success")  # success: it is forgotten already
    until(lambda: not classroom.is_active(unit))
    forked.start_server()
    assert FORKED.search(how(classroom, "fork1"))
    assert forked.run("5*4") == "20"


def test_systemctl_restarts_and_stops_it(classroom: Classroom, forked: Person) -> None:
    unit = "jupyter-fork1.service"
    before = classroom.main_pid(unit)
    classroom.machine.run(["systemctl", "restart", unit])
    until(lambda: classroom.main_pid(unit) not in (0, before))
    until(lambda: answers(forked))
    assert FORKED.search(how(classroom, "fork1"))
    assert forked.run("5*4") == "20"
    classroom.machine.run(["systemctl", "stop", unit])
    assert not classroom.is_active(unit)
    assert classroom.show(unit, "Result") == "success"
    until(lambda: not forked.hub_api("GET", "users/fork1")["servers"], 15)
    forked.start_server()


def test_a_restart_of_the_parent_leaves_servers_alone(classroom: Classroom, forked: Person) -> None:
    kernel = forked.start_kernel()
    kernel.run("x = 41")
    before = classroom.main_pid("jupyter-fork1.service")
    for command in (["systemctl", "restart", SERVICE], ["systemctl", "kill", "--signal=KILL", SERVICE]):
        classroom.machine.run(command)
        assert classroom.main_pid("jupyter-fork1.service") == before
        assert kernel.run("x + 1") == "42"
    # Whoever comes meanwhile waits, or starts by themselves.
    late = start(classroom, "fork3")
    assert late.run("5*4") == "20"


@pytest.fixture
def switched_off(classroom: Classroom) -> Iterator[None]:
    classroom.cli("config", "set", "fork_server.enabled", "false")
    classroom.cli("config", "reload")
    classroom.machine.run(["systemctl", "stop", SOCKET, SERVICE])
    yield
    classroom.cli("config", "unset", "fork_server.enabled")
    classroom.cli("config", "reload")


def test_without_it_servers_start_by_themselves(classroom: Classroom, switched_off: None) -> None:
    person = start(classroom, "fork4")
    assert how(classroom, "fork4") == ""
    assert person.run("5*4") == "20"
    assert not classroom.is_active(SERVICE)


def test_one_that_does_not_come_up_holds_nobody_up(classroom: Classroom) -> None:
    folder = f"/run/systemd/system/{SERVICE}.d"
    classroom.machine.write_text(f"{folder}/broken.conf", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    classroom.machine.run(["systemctl", "daemon-reload"])
    classroom.machine.run(["systemctl", "stop", SOCKET, SERVICE])
    try:
        person = start(classroom, "fork5")
        assert ORDINARY in how(classroom, "fork5")
        assert person.run("5*4") == "20"
    finally:
        classroom.machine.run(["rm", "-r", folder])
        classroom.machine.run(["systemctl", "daemon-reload"])
        classroom.machine.run(["systemctl", "reset-failed", SOCKET, SERVICE], check=False)
    again = start(classroom, "fork6")
    assert FORKED.search(how(classroom, "fork6")), how(classroom, "fork6")
    assert again.run("5*4") == "20"


def test_a_new_build_is_forked_from_as_soon_as_it_is_there(classroom: Classroom, forked: Person) -> None:
    before = classroom.main_pid("jupyter-fork1.service")
    parent = classroom.main_pid(SERVICE)
    link = "/opt/illumidesk/envs/default"
    build = classroom.machine.run(["readlink", "-f", link]).stdout.strip()
    # The same again at another place; only what its programs say about where they are is the old one's.
    classroom.machine.run(["cp", "-al", build, f"{build}x"])
    classroom.machine.run(["sh", "-c", f"ln -s {build}x {link}.new && mv -T {link}.new {link}"])
    try:
        person = start(classroom, "fork7")
        assert FORKED.search(how(classroom, "fork7")), how(classroom, "fork7")
        assert f"{link.rsplit('/', 1)[1]} is another build now" in classroom.journal(SERVICE)
        assert classroom.main_pid(SERVICE) == parent
        assert person.run("5*4") == "20"
        assert classroom.main_pid("jupyter-fork1.service") == before
    finally:
        classroom.machine.run(["sh", "-c", f"ln -s {build} {link}.new && mv -T {link}.new {link}"])
        classroom.machine.run(["systemctl", "restart", SERVICE])
        classroom.machine.run(["rm", "-r", f"{build}x"])
