"""A first lesson: sign in, start, compute; who sees what."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Person, Refused


@pytest.mark.smoke
def test_people_of_the_demo_sign_in_and_compute(classroom: Classroom) -> None:
    for name in ("instructor1", "student1"):
        person = classroom.sign_in(name)
        person.start_server()
        assert person.run("5*4") == "20"
        assert person.run("import os; print(os.getcwd(), os.environ['USER'])").split() == [
            f"/home/{name}",
            name,
        ]
        assert classroom.is_active(f"jupyter-{name}.service")


@pytest.mark.smoke
def test_the_first_password_counts(classroom: Classroom) -> None:
    classroom.sign_in("student1")
    stranger = Person(classroom.url, "student1", "another password")
    with pytest.raises(Refused, match="Invalid username or password"):
        stranger.sign_in()


def test_strangers_and_short_passwords_are_refused(classroom: Classroom) -> None:
    with pytest.raises(Refused, match="Invalid username or password"):
        classroom.person("mallory").sign_in()
    for name in ("root", "grader-intro101", "illumidesk-hub"):
        with pytest.raises(Refused):
            classroom.person(name).sign_in()
    classroom.cli("user", "add", "shorty")
    with pytest.raises(Refused, match="at least 8 characters"):
        Person(classroom.url, "shorty", "short").sign_in()
    assert "mallory" not in classroom.machine.read_text("/etc/passwd")


def services_menu(page: str) -> list[str]:
    return re.findall(r'class="dropdown-item"\s+href="([^"]+)"', page)


def test_services_show_what_one_teaches(classroom: Classroom) -> None:
    teacher = classroom.sign_in("instructor1")
    assert services_menu(teacher.get("/hub/home").text) == ["/services/intro101/lab?formgrader=true"]
    student = classroom.sign_in("student1")
    page = student.get("/hub/home").text
    assert services_menu(page) == []
    assert "intro101" in page
    assert student.get("/services/intro101/lab").status_code == 403
    assert student.get("/services/no-such-course/lab").status_code == 403


def test_a_course_comes_and_goes_while_the_hub_runs(classroom: Classroom) -> None:
    hub = classroom.main_pid("illumidesk-hub.service")
    classroom.cli("user", "add", "teacher2", "student2")
    classroom.cli("course", "create", "cs-102", "--title", "Data structures")
    classroom.cli("enroll", "cs-102", "teacher2", "--role", "instructor")
    classroom.cli("enroll", "cs-102", "student2", "--role", "student")
    # Twice is as good as once.
    classroom.cli("course", "create", "cs-102")
    classroom.cli("enroll", "cs-102", "student2", "--role", "student")
    course = classroom.cli_json("course", "show", "cs-102")
    assert course["title"] == "Data structures"
    assert {(m["name"], m["role"]) for m in course["members"]} == {
        ("teacher2", "instructor"),
        ("student2", "student"),
    }
    teacher = classroom.sign_in("teacher2")
    base = classroom.open_grader(teacher, "cs-102")
    assert teacher.run("import os; print(os.environ['USER'])", base=base).strip() == "grader-cs-102"
    # A teacher of one course is nobody in another.
    assert teacher.get("/services/intro101/lab").status_code == 403
    other = classroom.sign_in("instructor1")
    assert other.get("/services/cs-102/lab").status_code == 403
    student = classroom.sign_in("student2")
    assert student.get(f"{base}lab").status_code == 403
    # Demoted: gone from the menu at the next look.
    classroom.cli("enroll", "cs-102", "teacher2", "--role", "student")
    assert services_menu(teacher.get("/hub/home").text) == []

    removed = classroom.cli("course", "remove", "cs-102", "--yes")
    assert "/var/backups/illumidesk" in removed.stdout
    assert "grader-cs-102" not in classroom.machine.read_text("/etc/passwd")
    assert not classroom.is_active("illumidesk-grader@cs-102.service")
    assert [c["course_id"] for c in classroom.cli_json("course", "list")] == ["intro101"]
    assert classroom.sign_in("student2").get("/services/cs-102/lab").status_code == 403
    assert classroom.main_pid("illumidesk-hub.service") == hub


def test_an_admin_adds_and_removes_people(classroom: Classroom) -> None:
    classroom.cli("user", "add", "gone", "--admin")
    person = classroom.sign_in("gone")
    assert person.get("/hub/admin").status_code == 200
    classroom.cli("user", "admin", "gone", "--revoke")
    assert person.get("/hub/admin").status_code in {403, 404}
    person.start_server()
    person.shell("echo precious > keep.txt")
    classroom.cli("user", "remove", "gone", "--yes")
    assert not classroom.is_active("jupyter-gone.service")
    with pytest.raises(Refused):
        classroom.sign_in("gone")
    again = classroom.cli("user", "add", "gone", check=False)
    assert again.returncode == 1
    assert "--restore" in again.stderr
    classroom.cli("user", "add", "gone", "--restore")
    back = Person(classroom.url, "gone", "a fresh password")
    back.sign_in()
    back.start_server()
    assert "precious" in back.shell("cat keep.txt")


def test_a_name_of_the_machine_is_never_given_to_a_person(classroom: Classroom) -> None:
    classroom.machine.run(["useradd", "--create-home", "ubuntu"])
    for name in ("ubuntu", "daemon", "root"):
        done = classroom.cli("user", "add", name, check=False)
        assert done.returncode == 1, done.stdout
        assert done.stderr.startswith("Error: ")
        assert "Traceback" not in done.stderr
    assert "ubuntu" not in [user["name"] for user in classroom.cli_json("user", "list")]


def test_status_tells_who_is_online(classroom: Classroom) -> None:
    student = classroom.sign_in("student1")
    student.start_server()
    status = classroom.cli_json("status")
    text = json.dumps(status)
    assert "jupyter-student1.service" in text or "student1" in text
    for unit in ("illumidesk-hub.service", "illumidesk-proxy.service", "illumidesk-supervisor.service"):
        assert unit in text
    shown = classroom.cli("status").stdout
    assert "student1" in shown


def test_the_doctor_finds_what_is_wrong(classroom: Classroom) -> None:
    found = classroom.cli_json("doctor")
    assert found["ok"], found
    assert {one["subject"] for one in found["findings"] if one["state"] == "ok"} >= {"services", "hub", "environments"}
    assert any(one["said"].startswith("RStudio Server is not on this machine") for one in found["findings"])
    classroom.machine.run(["systemctl", "stop", "illumidesk-supervisor"])
    try:
        ill = classroom.cli("doctor", check=False)
    finally:
        classroom.machine.run(["systemctl", "start", "illumidesk-supervisor"])
    assert ill.returncode == 3
    assert "PROBLEM services     illumidesk-supervisor.service is inactive" in ill.stdout


def test_a_setting_is_changed_and_applied_without_stopping_anybody(classroom: Classroom) -> None:
    student = classroom.sign_in("student1")
    student.start_server()
    kernel = student.start_kernel()
    kernel.run("x = 41")
    before = classroom.main_pid("jupyter-student1.service")
    wrong = classroom.cli("config", "set", "limits.memry", "1G", check=False)
    assert wrong.returncode == 1
    assert "limits.memory" in wrong.stderr
    classroom.cli("config", "set", "sign_in.local.open_signup", "true")
    classroom.cli("config", "reload")
    assert classroom.main_pid("jupyter-student1.service") == before
    assert kernel.run("x + 1") == "42"
    newcomer = classroom.sign_in("newcomer")
    newcomer.start_server()
    assert newcomer.run("5*4") == "20"
    classroom.cli("config", "unset", "sign_in.local.open_signup")
    classroom.cli("config", "reload")
    with pytest.raises(Refused):
        classroom.person("newcomer2").sign_in()
    assert "# Names and passwords kept on this machine" in classroom.machine.read_text("/etc/illumidesk/config.yaml")
