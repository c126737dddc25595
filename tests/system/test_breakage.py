"""What an administrator breaks by mistake: it is said in one line, and mended it works again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.classroom import Classroom

CONFIG = "/etc/illumidesk/config.yaml"
STATE = "/srv/jupyterhub"


def restart_hub(classroom: Classroom) -> str:
    """Restart the hub, not waiting for it; the time from which on its journal counts."""
    started = classroom.machine.run(["date", "+%F %T"]).stdout.strip()
    classroom.machine.run(["systemctl", "restart", "--no-block", "illumidesk-hub"])
    return started


def wait_for_line(classroom: Classroom, text: str, since: str, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    argv = ["journalctl", "-u", "illumidesk-hub", "--no-pager", "-o", "cat", "--since", since]
    while text not in (journal := classroom.machine.run(argv).stdout):
        assert time.monotonic() < deadline, journal
        time.sleep(0.5)


def test_a_machine_cannot_set_the_clock_of_its_host(classroom: Classroom) -> None:
    status = classroom.machine.read_text("/proc/1/status")
    bounding = int(next(line for line in status.splitlines() if line.startswith("CapBnd:")).split()[1], 16)
    cap_sys_time = 25
    assert not bounding >> cap_sys_time & 1


def test_wrong_settings_are_said_in_one_line(classroom: Classroom) -> None:
    before = classroom.machine.read_text(CONFIG)
    student = classroom.sign_in("student1")
    student.start_server()
    try:
        classroom.machine.write_text(CONFIG, before + "\nlimts: {memory: 1G}\n")
        since = restart_hub(classroom)
        wait_for_line(classroom, "there is no setting limts; did you mean limits?", since)
        assert student.run("5*4") == "20"
    finally:
        classroom.machine.write_text(CONFIG, before)
    classroom.wait_for_hub()


EMPTY_LOG = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    print(database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
database.close()
"""


@pytest.fixture
def small_disk(classroom: Classroom) -> Iterator[str]:
    """The hub's databases on a disk of their own; a file that fills it."""
    script = f"""
    set -e
    systemctl stop illumidesk-hub
    cp -a {STATE} /root/state
    mount -t tmpfs -o size=20M,mode=0700,uid=illumidesk-hub,gid=illumidesk-hub tmpfs {STATE}
    cp -a /root/state/. {STATE}
    systemctl start illumidesk-hub
    """
    classroom.machine.run(["sh", "-c", script])
    classroom.wait_for_hub()
    yield f"{STATE}/fill"
    script = f"""
    set -e
    systemctl stop illumidesk-hub
    rm -rf /root/state {STATE}/fill
    cp -a {STATE} /root/state
    umount {STATE}
    cp -a /root/state/. {STATE}
    rm -r /root/state
    systemctl start illumidesk-hub
    """
    classroom.machine.run(["sh", "-c", script])
    classroom.wait_for_hub()


def test_a_full_disk_is_said_and_free_space_is_enough(classroom: Classroom, small_disk: str) -> None:
    student = classroom.sign_in("student1")
    student.start_server()
    fill = ["sh", "-c", f"cat /dev/zero >> {small_disk} 2>/dev/null || true"]
    classroom.machine.run(fill)
    refused = classroom.cli("user", "add", "latecomer", check=False)
    assert refused.returncode == 1
    assert "the hub cannot use its database: database or disk is full" in refused.stderr
    # A write-ahead log that is there has room of its own, which may be enough for a start. So without any:
    classroom.machine.run(["rm", small_disk])
    classroom.machine.run(["systemctl", "stop", "illumidesk-hub"])
    for name in ("illumidesk.sqlite", "jupyterhub.sqlite"):
        python = ["/opt/illumidesk/hub/bin/python", "-c", EMPTY_LOG, f"{STATE}/{name}"]
        assert classroom.machine.run(python, user="illumidesk-hub").stdout == "(0, 0, 0)\n"
    classroom.machine.run(fill)
    since = restart_hub(classroom)
    wait_for_line(classroom, "the hub cannot use its database", since)
    assert student.run("5*4") == "20"
    classroom.machine.run(["rm", small_disk])
    classroom.wait_for_hub()
    assert "is added" in classroom.cli("user", "add", "latecomer").stdout
