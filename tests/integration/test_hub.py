"""The hub's management API, pages and spawner, against a real hub and a real proxy."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest

from illumidesk.http_unix import request_json
from tests.integration.conftest import Stack
from tests.support.person import Person, Refused


@pytest.fixture(scope="module", autouse=True)
def demo(stack: Stack) -> None:
    """What the installer makes."""
    stack.expect(201, "POST", "users", {"name": "admin", "admin": True})
    for name in ("instructor1", "student1"):
        stack.expect(201, "POST", "users", {"name": name})
    stack.expect(201, "POST", "courses", {"course_id": "intro101", "title": "Introduction"})
    stack.expect(200, "PUT", "courses/intro101/members/instructor1", {"role": "instructor"})
    stack.expect(200, "PUT", "courses/intro101/members/student1", {"role": "student"})


def test_only_the_command_lines_token_manages(stack: Stack) -> None:
    admin = stack.sign_in("admin")
    for path in ("users", "courses", "status"):
        with pytest.raises(Refused) as refused:
            admin.hub_api("GET", f"illumidesk/{path}")
        assert refused.value.response.status_code == 403
    anybody = Person(stack.url, "x")
    assert anybody.get("/hub/api/illumidesk/users").status_code == 403


def test_doing_it_twice(stack: Stack) -> None:
    assert stack.manage("POST", "courses", {"course_id": "intro101"})[0] == 200
    assert stack.expect(200, "GET", "courses/intro101")["title"] == "Introduction"
    assert stack.manage("POST", "users", {"name": "student1"})[0] == 200
    assert stack.expect(200, "PUT", "courses/intro101/members/student1", {"role": "student"})["created"] is False


def test_a_form_that_has_expired_is_shown_again(stack: Stack) -> None:
    """As where it stood open overnight, or somebody else signed in in another tab."""
    nobody = Person(stack.url, "nobody")
    answer = nobody.session.post(f"{stack.url}/hub/login", data={"username": "student1", "password": "x"}, timeout=30)
    assert answer.status_code == 403
    assert "Login form invalid or expired. Try again." in answer.text
    assert 'name="password"' in answer.text


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "message"),
    [
        ("POST", "courses", {"course_id": "Über Kurs"}, 400, "not a valid course id"),
        ("POST", "courses", {"course_id": "illumidesk-cli"}, 409, "is the name of a service"),
        ("POST", "courses", {"course_id": 7}, 400, "course_id"),
        ("POST", "courses", {"course_id": "x", "titel": "y"}, 400, "titel"),
        ("GET", "courses/none", None, 404, "there is no course none"),
        ("DELETE", "courses/none", None, 404, "there is no course none"),
        ("PUT", "courses/intro101/members/nobody-here", {"role": "student"}, 404, "there is no user"),
        ("PUT", "courses/intro101/members/student1", {"role": "god"}, 400, "not a role"),
        ("POST", "users", {"name": "root"}, 400, "reserved"),
        ("POST", "users", {"name": "../../etc"}, 400, "not a valid user name"),
        ("GET", "users/none", None, 404, "there is no user none"),
        ("PATCH", "users/admin", {"admin": False}, 409, "only administrator"),
        ("DELETE", "users/admin", None, 409, "only administrator"),
    ],
)
def test_what_is_wrong_is_said(stack: Stack, method: str, target: str, body: object, status: int, message: str) -> None:
    answer = stack.expect(status, method, target, body)
    assert message in answer["message"]
    assert "Traceback" not in str(answer)


def test_jupyterhubs_own_admin_page_renames_nobody_and_brings_nobody_back(stack: Stack) -> None:
    admin = stack.sign_in("admin")
    with pytest.raises(Refused) as refused:
        admin.hub_api("PATCH", "users/student1", {"name": "student-one"})
    assert "A name stays" in refused.value.response.json()["message"]
    assert admin.hub_api("PATCH", "users/student1", {"name": "student1", "admin": False})["admin"] is False
    stack.expect(201, "POST", "users", {"name": "wasthere"})
    stack.expect(200, "DELETE", "users/wasthere")
    with pytest.raises(Refused) as refused:
        admin.hub_api("POST", "users/wasthere")
    assert refused.value.response.status_code == 400
    assert stack.manage("GET", "users/wasthere")[0] == 404


def test_a_password_is_changed_on_its_page(stack: Stack) -> None:
    stack.expect(201, "POST", "users", {"name": "changer"})
    person = stack.sign_in("changer")
    person.get("/hub/auth/change-password").raise_for_status()
    form = {"password": "another good one", "_xsrf": person.xsrf("/hub/")}
    page = person.session.post(f"{stack.url}/hub/auth/change-password", data=form, timeout=60)
    assert "has been changed" in page.text
    Person(stack.url, "changer", "another good one").sign_in()
    with pytest.raises(Refused):
        stack.sign_in("changer")


def test_jupyterhubs_own_admin_page_makes_and_removes_people_too(stack: Stack) -> None:
    admin = stack.sign_in("admin")
    admin.hub_api("POST", "users/viapanel")
    assert stack.expect(200, "GET", "users/viapanel")["admin"] is False
    for name in ("daemon", "grader-x"):
        with pytest.raises(Refused):
            admin.hub_api("POST", f"users/{name}")
        stack.expect(404, "GET", f"users/{name}")
    stack.expect(200, "PUT", "courses/intro101/members/viapanel", {"role": "student"})
    admin.hub_api("DELETE", "users/viapanel")
    stack.expect(404, "GET", "users/viapanel")
    assert "viapanel" not in str(stack.expect(200, "GET", "courses/intro101")["members"])
    assert "--restore" in stack.expect(409, "POST", "users", {"name": "viapanel"})["hint"]


def test_a_person_starts_computes_and_stops(stack: Stack) -> None:
    student = stack.sign_in("student1")
    student.start_server()
    assert student.run("5*4") == "20"
    shown = stack.expect(200, "GET", "users/student1")
    assert shown["server"]["active"] is True
    assert shown["server"]["ready"] is True
    assert shown["has_password"] is True
    assert stack.expect(200, "GET", "status")["users_online"] >= 1
    stack.expect(200, "POST", "users/student1/stop")
    assert stack.expect(200, "GET", "users/student1")["server"]["active"] is False


def test_a_grader_opens_for_those_who_teach(stack: Stack) -> None:
    teacher = stack.sign_in("instructor1")
    deadline = time.monotonic() + 120
    while True:
        response = teacher.get("/services/intro101/lab?formgrader=true")
        assert response.ok, response.text
        if response.url.startswith(f"{stack.url}/services/intro101/lab"):
            break
        assert "is starting" in response.text
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert "formgrader=true" in response.url
    assert stack.expect(200, "GET", "courses/intro101")["grader"]["active"] is True
    student = stack.sign_in("student1")
    assert student.get("/services/intro101/lab").status_code == 403
    # The hub's cookie is not the grader's: a stranger to the course is refused by the grader itself, too.
    assert student.get("/services/intro101/api/contents").status_code == 403


def test_the_hub_restarts_and_everything_goes_on(stack: Stack) -> None:
    student = stack.sign_in("student1")
    student.start_server()
    teacher = stack.sign_in("instructor1")
    while not teacher.get("/services/intro101/lab").url.startswith(f"{stack.url}/services/intro101/lab"):
        time.sleep(0.5)
    kernel = student.start_kernel()
    kernel.run("x = 41")
    for name in ("hub", "proxy"):
        stack.kill(name)
        stack.start(name)
        deadline = time.monotonic() + 30
        while (response := student.get(f"{student.base}api/status")).status_code != 200:
            assert time.monotonic() < deadline, f"{response.status_code} {response.text}"
            time.sleep(0.2)
        assert kernel.run("x + 1") == "42"
        deadline = time.monotonic() + 30
        while (response := teacher.get("/services/intro101/api/status")).status_code != 200:
            assert time.monotonic() < deadline, f"{response.status_code} {response.text}"
            time.sleep(0.2)
    assert stack.expect(200, "GET", "users/student1")["server"]["ready"] is True
    assert {c["course_id"] for c in stack.expect(200, "GET", "courses")["courses"]} == {"intro101"}


def test_a_supervisor_that_is_away_is_said_so(stack: Stack) -> None:
    student = stack.sign_in("student1")
    student.start_server()
    stack.kill("supervisor")
    try:
        answer = stack.expect(503, "POST", "users", {"name": "later"})
        assert "supervisor" in answer["message"]
        # Who works goes on working.
        assert student.run("5*4") == "20"
        assert stack.expect(200, "GET", "users/student1")["server"]["ready"] is True
    finally:
        stack.start("supervisor")
    deadline = time.monotonic() + 30
    while stack.manage("POST", "users", {"name": "later"})[0] not in {200, 201}:
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_removing_a_course_takes_its_service_along(stack: Stack) -> None:
    stack.expect(201, "POST", "courses", {"course_id": "short"})
    stack.expect(200, "PUT", "courses/short/members/instructor1", {"role": "instructor"})
    teacher = stack.sign_in("instructor1")
    assert "/services/short/" in teacher.get("/hub/home").text
    assert stack.expect(200, "DELETE", "courses/short")["archive"].endswith(".tar.gz")
    assert "/services/short/" not in teacher.get("/hub/home").text
    assert teacher.get("/services/short/lab").status_code == 403
    # The id may be used again, and nobody is in the new course.
    stack.expect(201, "POST", "courses", {"course_id": "short"})
    assert stack.expect(200, "GET", "courses/short")["members"] == []
    stack.expect(200, "DELETE", "courses/short")


def test_answers_that_come_at_once_get_through_the_proxy(stack: Stack) -> None:
    """What is refused without work is answered before the proxy has quite finished sending it (keep-alive.mjs)."""
    nobody = Person(stack.url, "nobody")
    url = f"{stack.url}/hub/api/users/student1/tokens"
    seen = {nobody.session.post(url, json={"note": "x"}, timeout=30).status_code for _ in range(300)}
    assert seen == {403}


def test_a_server_that_cannot_start_says_why(stack: Stack) -> None:
    student = stack.sign_in("student1")
    stack.expect(200, "POST", "users/student1/stop")
    link = stack.paths.environments / "default"
    target = link.readlink()
    link.unlink()
    try:
        student.get("/hub/spawn")
        page = student.get("/hub/spawn-pending/student1")
    finally:
        link.symlink_to(target)
    assert page.status_code == 404
    assert "Your server cannot start: there is no environment default." in page.text
    student.start_server()
    assert student.run("5*4") == "20"


# What was cut off in the middle


def test_a_removal_whose_answer_was_lost_is_finished(stack: Stack) -> None:
    """The hub is killed after the supervisor has removed the course, and before it has forgotten it itself."""
    stack.expect(201, "POST", "courses", {"course_id": "lost"})
    status, answer = request_json(
        "POST", stack.paths.supervisor_socket, "/v1/remove_course", body={"course_id": "lost"}, timeout=60
    )
    assert status == 200
    assert stack.expect(200, "DELETE", "courses/lost")["archive"] == answer["archive"]
    stack.expect(404, "GET", "courses/lost")


def test_a_start_of_the_hub_puts_right_what_was_cut_off(stack: Stack) -> None:
    stack.expect(201, "POST", "courses", {"course_id": "half"})
    stack.expect(201, "POST", "users", {"name": "halfgone"})
    stack.expect(200, "DELETE", "users/halfgone")
    stack.kill("hub")
    with closing(sqlite3.connect(stack.paths.hub_state / "jupyterhub.sqlite")) as database, database:
        # A course's removal that had come as far as this, and a person's that had come as far as the registry.
        database.execute("DELETE FROM oauth_clients WHERE identifier = 'service-half'")
        database.execute("INSERT INTO users (name, admin, cookie_id) VALUES ('halfgone', 0, 'x')")
    stack.start("hub")
    admin = stack.sign_in("admin")
    assert "halfgone" not in [user["name"] for user in admin.hub_api("GET", "users")]
    stack.expect(200, "PUT", "courses/half/members/instructor1", {"role": "instructor"})
    teacher = stack.sign_in("instructor1")
    deadline = time.monotonic() + 120
    while not teacher.get("/services/half/lab").url.startswith(f"{stack.url}/services/half/lab"):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    stack.expect(200, "DELETE", "courses/half")


def test_who_cannot_be_taken_out_is_still_shown(stack: Stack) -> None:
    stack.kill("supervisor")
    try:
        stack.expect(503, "DELETE", "courses/intro101/members/student1")
    finally:
        stack.start("supervisor")
    members = stack.expect(200, "GET", "courses/intro101")["members"]
    assert {"name": "student1", "role": "student"} in members


def test_a_wrong_title_makes_nothing(stack: Stack) -> None:
    stack.expect(400, "POST", "courses", {"course_id": "title", "title": "x" * 300})
    assert not (stack.paths.home / "grader-title").exists()


def test_a_database_that_cannot_be_used_is_said_so(stack: Stack) -> None:
    with closing(sqlite3.connect(stack.paths.hub_state / "jupyterhub.sqlite")) as database:
        database.execute("BEGIN EXCLUSIVE")
        answer = stack.expect(503, "POST", "users", {"name": "latecomer"})
    assert answer["message"] == "the hub cannot use its database: database is locked"
    assert "df -h" in answer["hint"]
    assert stack.manage("POST", "users", {"name": "latecomer"})[0] in {200, 201}


def test_who_teaches_makes_git_links(stack: Stack) -> None:
    teacher, student = stack.sign_in("instructor1"), stack.sign_in("student1")
    page = teacher.get("/hub/git-link")
    assert page.status_code == 200
    for name in ("repository", "branch", "file", "app", "folder", "link", "next"):
        assert f'id="{name}"' in page.text
        assert f'<label class="form-label mb-1" for="{name}">' in page.text
    assert 'href="/hub/git-link"' in teacher.get("/hub/home").text
    refused = student.get("/hub/git-link")
    assert refused.status_code == 403
    assert "teaches no course here" in refused.text
    assert "git-link" not in student.get("/hub/home").text
    assert Person(stack.url, "x").get("/hub/git-link").url.startswith(f"{stack.url}/hub/login")
