"""What a learner, an instructor, a grader and somebody without a course get: environment, pages, routes, limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Person

#: What each role has here that differs from the others.
SET = {
    "roles.learner.environment": "learn",
    "roles.learner.default_url": "/tree",
    "roles.learner.limits.memory": "900M",
    "roles.instructor.environment": "teach",
    "roles.instructor.limits.memory": "1100M",
}
PREFIX = "import sys, os; print(os.path.realpath(sys.prefix))"
KEYS = (*SET, "courses.intro101.environment", "courses.intro101.workspace")


def remove(classroom: Classroom) -> None:
    for key in KEYS:
        classroom.cli("config", "unset", key, check=False)
    classroom.cli("config", "reload")
    classroom.cli("user", "stop", "student1", "instructor1", check=False)
    classroom.cli("user", "remove", "guest1", "--yes", check=False)
    classroom.machine.run(["systemctl", "stop", "illumidesk-grader@intro101"], check=False)
    for name in ("learn", "teach"):
        classroom.cli("env", "remove", name, "--yes", check=False)


@pytest.fixture(scope="module")
def roles(classroom: Classroom) -> Iterator[Classroom]:
    """A class in which each role has something of its own."""
    remove(classroom)
    for name in ("learn", "teach"):
        classroom.cli("env", "clone", "default", name)
    for key, value in SET.items():
        classroom.cli("config", "set", key, value)
    classroom.cli("user", "add", "guest1")
    classroom.cli("config", "reload")
    yield classroom
    remove(classroom)


def started(classroom: Classroom, name: str) -> Person:
    """Somebody whose server was started now."""
    classroom.cli("user", "stop", name, check=False)
    person = classroom.sign_in(name)
    person.start_server()
    return person


def environment_of(person: Person, base: str | None = None) -> str:
    """The environment of a kernel."""
    found = re.fullmatch(r"/opt/illumidesk/builds/(\w+)-[^/]+\n", person.run(PREFIX, base=base))
    assert found is not None
    return found[1]


def routes(person: Person, base: str | None = None) -> set[str]:
    """Which of nbgrader's routes the server has."""
    paths = ("assignments?course_id=intro101", "formgraders", "formgrader", "nbgrader_version")
    return {path.partition("?")[0] for path in paths if person.get(f"{base or person.base}{path}").status_code == 200}


def shown(person: Person, base: str | None = None) -> set[str]:
    """nbgrader's parts of JupyterLab that are not switched off."""
    page = person.get(f"{base or person.base}lab").text
    found = re.search(r'<script id="jupyter-config-data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    off = {name.removeprefix("@jupyter/nbgrader:") for name in json.loads(found[1])["disabledExtensions"]}
    return {"assignment-list", "course-list", "create-assignment", "formgrader", "validate-assignment"} - off


def memory(classroom: Classroom, unit: str) -> int:
    """The unit's limit, in MiB."""
    return int(classroom.show(unit, "MemoryMax")) >> 20


def first_page(person: Person) -> str:
    return urlsplit(person.get(person.base, allow_redirects=False).headers["Location"]).path


def test_a_learner(roles: Classroom) -> None:
    student = started(roles, "student1")
    assert environment_of(student) == "learn"
    assert shown(student) == {"assignment-list", "validate-assignment"}
    assert not {"formgraders", "formgrader"} & routes(student)
    assert "assignments" in routes(student)
    assert memory(roles, "jupyter-student1.service") == 900
    assert first_page(student) == "/user/student1/tree"


def test_an_instructor(roles: Classroom) -> None:
    teacher = started(roles, "instructor1")
    assert environment_of(teacher) == "teach"
    assert shown(teacher) == {"assignment-list", "course-list"}
    assert {"assignments", "formgraders"} <= routes(teacher)
    assert "formgrader" not in routes(teacher)
    assert memory(roles, "jupyter-instructor1.service") == 1100
    assert first_page(teacher) == "/user/instructor1/lab"


def test_somebody_without_a_course(roles: Classroom) -> None:
    guest = started(roles, "guest1")
    assert environment_of(guest) == "default"
    assert shown(guest) == set()
    assert not {"assignments", "formgraders", "formgrader"} & routes(guest)
    assert memory(roles, "jupyter-guest1.service") == 1024
    assert first_page(guest) == "/user/guest1/lab"


def test_a_grader(roles: Classroom) -> None:
    teacher = roles.sign_in("instructor1")
    base = roles.open_grader(teacher, "intro101")
    assert environment_of(teacher, base) == "default"
    assert shown(teacher, base) == {"create-assignment", "formgrader"}
    assert "formgrader" in routes(teacher, base)
    assert not {"assignments", "formgraders"} & routes(teacher, base)


def test_every_page_is_one_server(roles: Classroom) -> None:
    """Notebook 7, JupyterLab and the classic Notebook, by JupyterHub's own links and by ours."""
    student = started(roles, "student1")
    pid = roles.main_pid("jupyter-student1.service")
    for link, path, mark in (
        ("/user-redirect/tree", "tree", "notebook"),
        ("/user-redirect/lab", "lab", "jupyter-config-data"),
        ("/user-redirect/nbclassic/tree", "nbclassic/tree", "notebook_list"),
        ("/user-redirect/nbclassic", "nbclassic/tree", "notebook_list"),
        ("/hub/workspaces/notebook", "tree", "notebook"),
        ("/hub/workspaces/lab?course=intro101", "lab", "jupyter-config-data"),
        ("/hub/workspaces/nbclassic", "nbclassic/tree", "notebook_list"),
        ("/hub/workspaces/no-such", "tree", "notebook"),
    ):
        answer = student.get(link)
        assert answer.status_code == 200, link
        assert urlsplit(answer.url).path == f"/user/student1/{path}", link
        assert mark in answer.text, link
    assert roles.main_pid("jupyter-student1.service") == pid


def test_a_course_has_its_own(roles: Classroom) -> None:
    """Its environment comes before the role's, for its people and its grader, and what runs keeps what it has."""
    student = started(roles, "student1")
    roles.cli("config", "set", "courses.intro101.environment", "teach")
    roles.cli("config", "set", "courses.intro101.workspace", "nbclassic")
    roles.cli("config", "reload")
    assert environment_of(student) == "learn"
    answer = student.get("/hub/workspaces/lab?course=intro101")
    assert answer.status_code == 409
    assert "it must stop before it can start with those" in answer.text
    student = started(roles, "student1")
    assert environment_of(student) == "teach"
    assert first_page(student) == "/user/student1/nbclassic/tree"
    assert student.get("/hub/workspaces/lab?course=intro101").url.endswith("/user/student1/nbclassic/tree")
    roles.machine.run(["systemctl", "stop", "illumidesk-grader@intro101"])
    teacher = roles.sign_in("instructor1")
    assert environment_of(teacher, roles.open_grader(teacher, "intro101")) == "teach"
    assert environment_of(started(roles, "guest1")) == "default"
