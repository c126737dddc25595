"""Kill, reinstall, reboot: what runs goes on, and nothing is lost."""

from __future__ import annotations

import time

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Kernel, Person
from tests.support.ways import Way, how, until

SERVERS = ["jupyter-student1.service", "jupyter-student3.service"]
COUNTER = """
import threading, time
count = 0
def tick():
    global count
    while True:
        count += 1
        time.sleep(0.05)
threading.Thread(target=tick, daemon=True).start()
"""


@pytest.fixture
def students(classroom: Classroom) -> list[Person]:
    """Two whose servers run: one that started by itself, and one that was forked."""
    people = [Way(classroom, "ordinary").running("student1"), Way(classroom, "forked").running("student3")]
    Way(classroom, "forked").choose()
    return people


@pytest.fixture
def counting(students: list[Person]) -> list[Kernel]:
    """A kernel of each, which computes in the background."""
    kernels = [student.start_kernel() for student in students]
    for kernel in kernels:
        kernel.run(COUNTER)
    return kernels


def counts(kernels: list[Kernel]) -> list[int]:
    return [int(kernel.run("count")) for kernel in kernels]


def grew(kernels: list[Kernel], before: list[int]) -> bool:
    """Whether every kernel has gone on."""
    return all(now > then for now, then in zip(counts(kernels), before, strict=True))


def wait_until_usable(person: Person, timeout: float = 60) -> None:
    """Wait until the proxy leads to the person's server again, without signing in again."""
    deadline = time.monotonic() + timeout
    while True:
        response = person.get(f"{person.base}api/status")
        if response.status_code == 200:
            return
        assert time.monotonic() < deadline, f"{response.status_code} {response.url}"
        time.sleep(0.3)


@pytest.mark.smoke
@pytest.mark.parametrize("victim", ["hub", "proxy", "supervisor"])
def test_killed_while_kernels_compute(
    classroom: Classroom, students: list[Person], counting: list[Kernel], victim: str
) -> None:
    teacher = classroom.sign_in("instructor1")
    base = classroom.open_grader(teacher, "intro101")
    units = [*SERVERS, "illumidesk-grader@intro101.service"]
    pids = [classroom.main_pid(unit) for unit in units]
    before = counts(counting)
    killed = classroom.main_pid(f"illumidesk-{victim}.service")

    classroom.machine.run(["kill", "-9", str(killed)])

    classroom.wait_for_hub()
    for student in students:
        wait_until_usable(student)
    assert grew(counting, before)
    assert [classroom.main_pid(unit) for unit in units] == pids
    deadline = time.monotonic() + 30
    while teacher.get(f"{base}api/status").status_code != 200:
        assert time.monotonic() < deadline, "the proxy lost the grader"
        time.sleep(0.3)
    assert classroom.main_pid(f"illumidesk-{victim}.service") != killed
    # And all three work together again: somebody starts, somebody stops.
    other = classroom.sign_in("instructor1")
    other.start_server()
    assert other.run("5*4") == "20"
    other.hub_api("DELETE", "users/instructor1/server")
    deadline = time.monotonic() + 30
    while classroom.is_active("jupyter-instructor1.service"):
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_upgrade_over_a_running_class(classroom: Classroom, students: list[Person], counting: list[Kernel]) -> None:
    """install.sh once more: first with nothing new, then with a new version of everything."""
    before = counts(counting)
    pids = [classroom.main_pid(unit) for unit in SERVERS]
    hub = classroom.main_pid("illumidesk-hub.service")
    proxy = classroom.main_pid("illumidesk-proxy.service")
    read_secrets = ["sh", "-c", "cd /etc/illumidesk/secrets && cat *"]
    secrets = classroom.machine.run(read_secrets).stdout
    people = [user["name"] for user in classroom.cli_json("user", "list")]
    build = ["readlink", "-f", "/opt/illumidesk/envs/default"]
    old_build = classroom.machine.run(build).stdout.strip()
    classroom.cli("config", "set", "limits.tasks", "500")

    assert "Restarted: illumidesk-hub. Running notebooks went on." in classroom.install()
    assert "Restarted: nothing." in classroom.install()
    hub_after = classroom.main_pid("illumidesk-hub.service")
    assert hub_after != hub

    version = "/root/illumidesk/illumidesk/__init__.py"
    classroom.machine.run(["sed", "-i", 's/^__version__ = .*/__version__ = "99.0"/', version])
    said = classroom.install()
    assert "IllumiDesk 99.0 is up to date" in said
    classroom.wait_for_hub()
    for student in students:
        wait_until_usable(student)
    assert "99.0" in classroom.cli("version").stdout
    assert classroom.main_pid("illumidesk-hub.service") != hub_after
    assert classroom.main_pid("illumidesk-proxy.service") == proxy

    assert grew(counting, before)
    assert [classroom.main_pid(unit) for unit in SERVERS] == pids
    assert classroom.machine.run(read_secrets).stdout == secrets
    assert [user["name"] for user in classroom.cli_json("user", "list")] == people
    assert "tasks: 500" in classroom.machine.read_text("/etc/illumidesk/config.yaml")
    # The server goes on in the build that it was started from; the next start takes the new one.
    new_build = classroom.machine.run(build).stdout.strip()
    assert new_build != old_build
    for kernel in counting:
        assert kernel.run("import sys; print(sys.prefix)").strip() in {old_build, "/opt/illumidesk/envs/default"}
    assert classroom.machine.run(["test", "-d", old_build], check=False).returncode == 0
    classroom.cli("config", "unset", "limits.tasks")
    classroom.cli("config", "reload")


def test_reboot_brings_everything_back(classroom: Classroom, students: list[Person]) -> None:
    for student in students:
        student.shell("echo 'my work' > work.txt")
    classroom.machine.reboot()
    classroom.wait_for_hub()
    for unit in ("illumidesk-proxy", "illumidesk-hub", "illumidesk-supervisor"):
        assert classroom.is_active(f"{unit}.service")
    for student in students:
        again = classroom.sign_in(student.name)
        again.start_server()
        assert how(classroom, student.name) == "forked"
        assert "my work" in again.shell("cat work.txt")
    teacher = classroom.sign_in("instructor1")
    classroom.open_grader(teacher, "intro101")


def test_no_secret_is_in_the_journal(classroom: Classroom) -> None:
    journal = classroom.machine.run(["journalctl", "--no-pager", "-o", "cat"]).stdout
    secrets = classroom.machine.run(["sh", "-c", "cd /etc/illumidesk/secrets && cat *"]).stdout
    for line in secrets.split():
        value = line.split("=", 1)[-1]
        assert value not in journal
    assert "correct horse" not in journal


def test_systemd_reads_its_units_anew_while_a_class_works(
    classroom: Classroom, students: list[Person], counting: list[Kernel]
) -> None:
    """As each `apt install` of a service does."""
    teacher = classroom.sign_in("instructor1")
    base = classroom.open_grader(teacher, "intro101")
    pids = [classroom.main_pid(unit) for unit in SERVERS]
    before = counts(counting)
    for _ in range(3):
        classroom.machine.run(["systemctl", "daemon-reload"])
    time.sleep(2)
    assert grew(counting, before)
    assert [classroom.main_pid(unit) for unit in SERVERS] == pids
    assert teacher.get(f"{base}api/status").status_code == 200
    for unit, student in zip(SERVERS, students, strict=True):
        assert classroom.show(unit, "LoadState") == "loaded"
        assert student.hub_api("GET", f"users/{student.name}")["servers"][""]["ready"] is True
        # It can still be stopped, and started again.
        student.hub_api("DELETE", f"users/{student.name}/server")
        until(lambda unit=unit: not classroom.is_active(unit))
        student.start_server()
        assert student.run("5*4") == "20"
