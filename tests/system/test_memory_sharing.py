"""Equal pages of forked servers, joined by a kernel that does it for real (`machine.ksm`), and said where it cannot be.

The switch is the host's, which the throwaway machine shares; only processes that ask for it are concerned.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Person
from tests.support.ways import SERVICE, Way, until

pytestmark = pytest.mark.smoke

SWITCH = "/sys/kernel/mm/ksm"
PEOPLE = ("equal1", "equal2")


@pytest.fixture
def wanted(classroom: Classroom) -> Iterator[None]:
    """The setting, and a class without it afterwards."""
    yield
    classroom.cli("config", "unset", "machine.ksm")
    classroom.cli("config", "reload")
    classroom.machine.run(["sh", "-c", f"echo 0 > {SWITCH}/run; mount -o remount,bind,ro /sys"])


def stat(classroom: Classroom, unit: str) -> dict[str, str]:
    """What the kernel tells of a unit's main process."""
    text = classroom.machine.read_text(f"/proc/{classroom.main_pid(unit)}/ksm_stat")
    return dict(line.rstrip("\n").replace(":", "").split(" ", 1) for line in text.splitlines())


def joined(classroom: Classroom, name: str) -> int:
    """Pages of a person's server that are joined with others."""
    return int(stat(classroom, f"jupyter-{name}.service")["ksm_merging_pages"])


@pytest.mark.usefixtures("wanted")
def test_equal_pages_of_forked_servers_are_joined(classroom: Classroom) -> None:
    reload = ("config", "reload")
    classroom.cli("config", "set", "machine.ksm", "true")
    said = classroom.cli(*reload)
    assert "machine.ksm has no effect: this machine is a container" in said.stdout + said.stderr
    # As it is where no host has the say.
    classroom.machine.run(["mount", "-o", "remount,bind,rw", "/sys"])
    said = classroom.cli(*reload)
    if classroom.machine.release == "bookworm":
        assert "machine.ksm has no effect: it needs systemd 254, and here is 252" in said.stdout + said.stderr
        assert classroom.machine.read_text(f"{SWITCH}/run").strip() == "0"
        return
    assert "machine.ksm" not in said.stdout + said.stderr
    assert classroom.machine.read_text(f"{SWITCH}/run").strip() == "1"
    classroom.machine.run(["sh", "-c", f"echo 20000 > {SWITCH}/pages_to_scan; echo 5 > {SWITCH}/sleep_millisecs"])
    forked = Way(classroom, "forked")
    forked.choose()
    people: list[Person] = [forked.student(name) for name in PEOPLE]
    assert stat(classroom, SERVICE)["ksm_merge_any"] == "yes"
    assert stat(classroom, "illumidesk-hub.service")["ksm_merge_any"] == "no"
    until(lambda: all(joined(classroom, name) > 500 for name in PEOPLE))
    # They work as ever, and what one of them writes is its own.
    assert [person.run("print(6 * 7)").strip() for person in people] == ["42", "42"]
    classroom.cli("config", "set", "machine.ksm", "false")
    classroom.cli(*reload)
    assert classroom.machine.read_text(f"{SWITCH}/run").strip() == "2"
    until(lambda: all(joined(classroom, name) == 0 for name in PEOPLE))
    # Servers that are forked from now on are not concerned.
    forked.student(PEOPLE[0])
    assert stat(classroom, f"jupyter-{PEOPLE[0]}.service")["ksm_merge_any"] == "no"
    for name in PEOPLE:
        classroom.cli("user", "stop", name)
