"""The fork server: whom it serves, and what comes of those that it forked when it ends, fails or is renewed.

What such servers do, and that nothing tells them from ordinary ones, is in test_both_ways.py.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Person
from tests.support.ways import ORDINARY, SERVICE, SOCKET, how, until


def start(classroom: Classroom, name: str) -> Person:
    classroom.cli("user", "add", name)
    classroom.cli("enroll", "intro101", name, "--role", "student")
    person = classroom.sign_in(name)
    classroom.cli("user", "stop", name)
    person.start_server()
    return person


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
    return start(classroom, "plain1")


def test_kernels_are_forked_within_the_unit(classroom: Classroom, forked: Person) -> None:
    assert how(classroom, "fork1") == "forked"
    kernel = forked.start_kernel()
    assert "Kernel forked as process" in classroom.journal("jupyter-fork1.service")
    parent = kernel.run("import os; print(os.getppid())").strip()
    assert "/jupyter-fork1.service" in classroom.machine.read_text(f"/proc/{parent}/cgroup")
    assert "kernel-helper" in classroom.machine.read_text(f"/proc/{parent}/comm")
    kernel.stop()


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
    assert how(classroom, "fork8") == "forked"
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
    assert how(classroom, "plain1").startswith("there are packages in /home/plain1/.local")
    assert ordinary.run("import mine_alone; print(mine_alone.VALUE)").strip() == "42"


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


def test_it_ends_while_a_class_comes(classroom: Classroom, forked: Person) -> None:
    """Restarted and killed, again and again: everybody's server comes up, and nobody's that runs ends."""
    names = [f"load{number}" for number in range(10)]
    classroom.cli("user", "add", *names)
    people = [classroom.sign_in(name) for name in names]
    classroom.cli("user", "stop", *names)
    kernel = forked.start_kernel()
    kernel.run("x = 41")
    before = classroom.main_pid("jupyter-fork1.service")
    since = classroom.machine.run(["date", "+%s.%N"]).stdout.strip()
    ends = (["systemctl", "restart", SERVICE], ["systemctl", "kill", "--signal=KILL", SERVICE])
    with ThreadPoolExecutor(len(people)) as pool:
        coming = [pool.submit(person.start_server) for person in people]
        # As often as systemd lets it begin again within a minute (StartLimitBurst).
        for command in (*ends, *ends):
            until(lambda: classroom.is_active(SERVICE) or all(one.done() for one in coming))
            classroom.machine.run(command)
        for one in coming:
            one.result()
    assert [person.run("5*4") for person in people] == ["20"] * len(people)
    # At the first try: the hub would have tried once more.
    journal = ["journalctl", "--no-pager", "-o", "cat", "--since", f"@{since}"]
    assert "trying once more" not in classroom.machine.run([*journal, "-u", "illumidesk-hub"]).stdout
    assert classroom.main_pid("jupyter-fork1.service") == before
    assert kernel.run("x + 1") == "42"
    kernel.stop()
    print({name: how(classroom, name) for name in names})
    # It is back by itself.
    start(classroom, names[0])
    assert how(classroom, names[0]) == "forked"
    classroom.cli("user", "stop", *names)


def test_one_that_does_not_come_up_holds_nobody_up(classroom: Classroom) -> None:
    folder = f"/run/systemd/system/{SERVICE}.d"
    classroom.machine.write_text(f"{folder}/broken.conf", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    classroom.machine.run(["systemctl", "daemon-reload"])
    classroom.machine.run(["systemctl", "stop", SOCKET, SERVICE])
    try:
        person = start(classroom, "fork5")
        assert how(classroom, "fork5").startswith("it ")
        assert person.run("5*4") == "20"
    finally:
        classroom.machine.run(["rm", "-r", folder])
        classroom.machine.run(["systemctl", "daemon-reload"])
        classroom.machine.run(["systemctl", "reset-failed", SOCKET, SERVICE], check=False)
    again = start(classroom, "fork6")
    assert how(classroom, "fork6") == "forked"
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
        assert how(classroom, "fork7") == "forked"
        assert f"{link.rsplit('/', 1)[1]} is another build now" in classroom.journal(SERVICE)
        assert classroom.main_pid(SERVICE) == parent
        assert person.run("5*4") == "20"
        assert classroom.main_pid("jupyter-fork1.service") == before
    finally:
        classroom.machine.run(["sh", "-c", f"ln -s {build} {link}.new && mv -T {link}.new {link}"])
        classroom.machine.run(["systemctl", "restart", SERVICE])
        classroom.machine.run(["rm", "-r", f"{build}x"])
