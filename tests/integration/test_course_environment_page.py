"""The page on which instructors ask for packages, and the management API that answers them, against a real hub."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.integration.conftest import Stack
from tests.support.person import Person

PAGE = "/hub/courses/intro101/environment"


@pytest.fixture(scope="module", autouse=True)
def course(stack: Stack) -> None:
    stack.expect(201, "POST", "users", {"name": "admin", "admin": True})
    stack.expect(201, "POST", "courses", {"course_id": "intro101", "title": "Introduction"})
    stack.expect(201, "POST", "courses", {"course_id": "other"})
    for name, role, course_id in (
        ("teacher", "instructor", "intro101"),
        ("assistant", "ta", "intro101"),
        ("student", "student", "intro101"),
        ("stranger", "instructor", "other"),
    ):
        stack.expect(201, "POST", "users", {"name": name})
        stack.expect(200, "PUT", f"courses/{course_id}/members/{name}", {"role": role})


@pytest.fixture(scope="module")
def stack_settings() -> dict[str, Any]:
    # TAs may run the course otherwise; not say what it needs.
    return {"grades": {"tas_may_send": True}}


def post(person: Person, page: str = PAGE, **fields: str) -> requests.Response:
    fields = {"_xsrf": person.xsrf("/hub/"), **fields}
    return person.session.post(f"{person.url}{page}", data=fields, timeout=60)


def waiting(stack: Stack) -> list[tuple[str, str]]:
    answer = stack.expect(200, "GET", "package-requests")
    return [(one["requirement"], one["asked_by"]) for one in answer["requests"]]


def test_an_instructor_asks_and_reads_the_answer(stack: Stack) -> None:
    teacher = stack.sign_in("teacher")
    home = teacher.get("/hub/home").text
    assert PAGE in home
    page = teacher.get(PAGE)
    assert page.status_code == 200
    assert "Packages of Introduction" in page.text
    assert "<code>default</code>" in page.text
    assert post(teacher, packages="pandas\r\nnumpy >= 2, <3 , polars\r\n").status_code == 200
    assert waiting(stack) == [("pandas", "teacher"), ("numpy<3,>=2", "teacher"), ("polars", "teacher")]
    assert stack.expect(200, "GET", "status")["package_requests"] == 3
    assert post(teacher, take_back="polars").status_code == 200

    body = {"packages": ["pandas", "none"], "answer": "granted"}
    granted = stack.expect(200, "POST", "courses/intro101/package-requests", body)
    assert [one["requirement"] for one in granted["requests"]] == ["pandas"]
    body = {"packages": ["Numpy"], "answer": "declined", "reason": "<b>too</b> big"}
    stack.expect(200, "POST", "courses/intro101/package-requests", body)
    assert waiting(stack) == []
    page = teacher.get(PAGE)
    assert "&lt;b&gt;too&lt;/b&gt; big" in page.text
    assert "<b>too</b>" not in page.text


def test_nobody_else(stack: Stack) -> None:
    for name in ("assistant", "student", "stranger"):
        person = stack.sign_in(name)
        assert person.get(PAGE).status_code == 403, name
        assert post(person, packages="pandas").status_code == 403, name
        home = person.get("/hub/home").text
        assert PAGE not in home
        assert ("/hub/courses/other/environment" in home) == (name == "stranger")
    nobody = Person(stack.url, "x")
    assert nobody.get(PAGE).url.startswith(f"{stack.url}/hub/login")
    admin = stack.sign_in("admin")
    assert admin.get(PAGE).status_code == 200
    assert admin.get("/hub/courses/none/environment").status_code == 403
    teacher = stack.sign_in("teacher")
    forged = teacher.session.post(f"{stack.url}{PAGE}", data={"packages": "pandas"}, timeout=60)
    assert forged.status_code == 403
    assert waiting(stack) == []


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("", "No package is named"),
        ("git+https://evil.example/x", "is an address or a path"),
        ("--index-url=https://evil.example", "is an option"),
        ("../x", "is an address or a path"),
        ("<script>alert(1)</script>", "is an address or a path"),
        ("two words", "is not a package"),
        ("x" * 5001, "This is too much at a time"),
        ("\n".join(f"p{number}" for number in range(60)), "more than 50 packages"),
    ],
)
def test_nonsense_is_told_and_kept_nowhere(stack: Stack, typed: str, sentence: str) -> None:
    teacher = stack.sign_in("teacher")
    answer = post(teacher, packages=typed)
    assert answer.status_code in (400, 409)
    assert sentence in answer.text
    assert "<script>alert(1)" not in answer.text
    assert waiting(stack) == []


def test_what_is_wrong_is_said(stack: Stack) -> None:
    said = stack.expect(404, "GET", "courses/none/package-requests")
    assert "there is no course none" in said["message"]
    said = stack.expect(400, "POST", "courses/intro101/package-requests", {"packages": ["x"], "answer": "perhaps"})
    assert "granted, declined" in said["message"]
    said = stack.expect(400, "POST", "courses/intro101/package-requests", {"packages": [], "answer": "granted"})
    assert "no package is named" in said["message"]
