"""Leaving the machine as it was."""

from __future__ import annotations

import pytest

from tests.support.classroom import Classroom

#: What a machine has for its own sake; folders of ours may lie in them, and nothing else of ours may stay.
_LEFTOVERS = (
    "find / -xdev \\( -path /proc -o -path /sys -o -path /var/lib/apt -o -path /var/cache -o -path /root/illumidesk"
    " -o -path /root/.cache -o -path /root/.npm -o -path /var/log/journal \\) -prune -o"
    " \\( -iname '*illumidesk*' -o -iname '*nbgrader*' -o -iname '*jupyter*' \\) -print"
)


@pytest.mark.last
def test_uninstall_keeps_peoples_work_and_purge_leaves_nothing(classroom: Classroom) -> None:
    student = classroom.sign_in("student1")
    student.start_server()
    student.shell("echo precious > keep.txt")

    refused = classroom.cli("uninstall", check=False, input="no\n")
    assert refused.returncode != 0
    assert classroom.is_active("illumidesk-hub.service")

    classroom.cli("uninstall", "--yes")
    units = classroom.machine.run(["systemctl", "list-units", "--all", "illumidesk*", "jupyter-*"]).stdout
    assert "0 loaded units" in units, units
    assert classroom.machine.read_text("/home/student1/keep.txt") == "precious\n"
    assert classroom.machine.run(["ss", "-Hltn", f"sport = :{classroom.port}"]).stdout == ""

    # Installed again, everything is there as before.
    classroom.install()
    classroom.wait_for_hub()
    again = classroom.sign_in("student1")
    again.start_server()
    assert "precious" in again.shell("cat keep.txt")
    teacher = classroom.sign_in("instructor1")
    classroom.open_grader(teacher, "intro101")

    classroom.cli("uninstall", "--purge", "--yes")
    for name in ("passwd", "group", "shadow", "gshadow"):
        text = classroom.machine.read_text(f"/etc/{name}")
        for ours in ("illumidesk", "student1", "instructor1", "grader-", "nbgrader-"):
            assert ours not in text, f"{ours} in /etc/{name}"
    left = [
        line for line in classroom.machine.run(["sh", "-c", _LEFTOVERS]).stdout.splitlines() if "machine" not in line
    ]
    assert left == []
    # Only what other tests made as an account of the machine's own.
    homes = set(classroom.machine.run(["ls", "-A", "/home"]).stdout.split())
    assert homes <= {"sup-mine", "ubuntu"}
