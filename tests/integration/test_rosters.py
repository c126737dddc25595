"""Rosters of the test LMS through a real hub: people are in the course before their first launch."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nbgrader.api import Gradebook

from tests.integration.conftest import Stack
from tests.integration.test_grades import platform
from tests.integration.test_lti import add
from tests.support.lms import LMS
from tests.support.lms_services import Asked, Services
from tests.support.lms_thread import Browser, served
from tests.support.person import Person

NRPS = "https://purl.imsglobal.org/spec/lti-nrps/claim/namesroleservice"


@pytest.fixture(scope="module")
def stack_settings() -> dict[str, Any]:
    return {"sign_in": {"lti": {"loopback_platforms": True}}}


@dataclass
class Class:
    """One platform's course here."""

    stack: Stack
    lms: LMS
    services: Services
    course: str
    browsers: dict[str, Browser] = field(default_factory=dict)

    def api(self, status: int, method: str, what: str = "roster", body: object = None) -> Any:
        return self.stack.expect(status, method, f"courses/{self.course}/{what}", body)

    def launch(self, who: str, name: str) -> Browser:
        browser = Browser(self.stack.url)
        answer = browser.launch_13(
            self.lms,
            who,
            sub=f"id-{name}",
            email=f"{name}@example.edu",
            name=f"{name.title()} Launch",
            context={"id": f"context-{self.course}", "label": self.course, "title": "Course"},
            resource_link={"id": f"link-{self.course}", "title": "Course"},
            **{NRPS: {"context_memberships_url": self.services.memberships_url, "service_versions": ["2.0"]}},
        )
        assert answer.status_code == 302, answer.text
        self.browsers[name] = browser
        return browser

    def names(self, *who: str, roles: tuple[str, ...] = ("Learner",)) -> None:
        """The platform has these people in the course from now on."""
        self.services.members += [
            {
                "user_id": f"id-{name}",
                "roles": list(roles),
                "email": f"{name}@example.edu",
                "given_name": name.title(),
                "family_name": "Family",
                "name": f"{name.title()} Family",
            }
            for name in who
        ]

    def forget(self, name: str) -> None:
        self.services.members[:] = [one for one in self.services.members if one["user_id"] != f"id-{name}"]

    def fetch(self) -> dict[str, Any]:
        """Fetch the roster; how it ended."""
        self.api(202, "POST", "roster/fetch")
        return self.ended()

    def ended(self) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while True:
            state: dict[str, Any] = self.api(200, "GET", "roster/fetch")
            if state["ended"]:
                return state
            assert time.monotonic() < deadline, f"{state}\n{self.stack.log('hub')}"
            time.sleep(0.1)

    def people(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.api(200, "GET")["people"]}

    def api_course(self) -> dict[str, str]:
        answer = self.stack.expect(200, "GET", f"courses/{self.course}")
        return {one["name"]: one["role"] for one in answer["members"]}

    def students(self) -> dict[str, tuple[str, str, str, str]]:
        """What the gradebook says of each student."""
        path: Path = self.stack.paths.home / f"grader-{self.course}" / self.course / "gradebook.db"
        with Gradebook(f"sqlite:///{path}?timeout=60", self.course) as book:
            return {one.id: (one.first_name, one.last_name, one.email, one.lms_user_id) for one in book.students}


@pytest.fixture(scope="module")
def lms(stack: Stack) -> Iterator[LMS]:
    with served(platform(stack, "canvas", 1)) as one:
        one.token_url = one.services.token_url if one.services else ""
        add(stack, one, "1.3")
        yield one


@pytest.fixture
def school(stack: Stack, lms: LMS, request: pytest.FixtureRequest) -> Class:
    """A course of its own, with a teacher who has launched."""
    assert lms.services is not None
    lms.services.members.clear()
    lms.services.faults.clear()
    lms.services.on_request = None
    course = f"c-{len(stack.manage('GET', 'courses')[1]['courses'])}"
    made = Class(stack, lms, lms.services, course)
    made.launch("teacher", f"tom{course[2:]}")
    made.names(f"tom{course[2:]}", roles=("Instructor",))
    return made


def test_people_are_there_before_they_launch(school: Class) -> None:
    """Paged, with a TA whom the roster calls a Learner; the gradebook knows the students by name."""
    tom = next(iter(school.browsers))
    school.names("ana", "ben", "cleo", "tina")
    school.services.members.append({"user_id": "id-gone", "status": "Inactive", "roles": ["Learner"]})
    state = school.fetch()
    assert state["change"]["joined"] == ["ana", "ben", "cleo", "tina"], state
    assert state["change"]["unchanged"] == [tom]
    assert (state["change"]["gradebook"], state["done"], state["total"]) == ("", 5, 5)
    assert school.api_course() == {
        tom: "instructor", "ana": "student", "ben": "student", "cleo": "student", "tina": "student"
    }  # fmt: skip
    assert sum(one.kind == "members" for one in school.services.asked) >= 3
    assert (school.stack.paths.home / "ana").is_dir()
    assert school.students() == {
        name: (name.title(), "Family", f"{name}@example.edu", f"id-{name}") for name in ("ana", "ben", "cleo", "tina")
    }
    # What a launch says counts more than a roster, now and later.
    school.launch("ta", "tina")
    school.launch("student", "ana")
    assert school.people()["ana"]["source"] == "launch"
    again = school.fetch()["change"]
    assert (again["joined"], again["changed"], again["left"]) == ([], [], [])
    assert school.api_course()["tina"] == "ta"


def test_one_leaves_and_comes_back(school: Class) -> None:
    tom = next(iter(school.browsers))
    school.launch("student", "visitor1")  # an LMS admin, whom no roster names
    school.stack.expect(200, "PUT", f"courses/{school.course}/members/guest1", {"role": "student", "create": True})
    school.names("dora", "emil")
    assert school.fetch()["change"]["joined"] == ["dora", "emil"]
    school.forget("dora")
    assert school.fetch()["change"]["left"] == ["dora"]
    assert set(school.api_course()) == {tom, "emil", "visitor1", "guest1"}
    assert school.people()["dora"]["left"]
    assert (school.stack.paths.home / "dora").is_dir()
    assert "dora" in school.students()
    school.launch("student", "dora")
    assert school.api_course()["dora"] == "student"
    assert school.people()["dora"]["left"] is None
    school.forget("emil")
    school.fetch()
    school.names("emil")
    assert "emil" in school.fetch()["change"]["joined"]


def test_a_broken_list_changes_nothing(school: Class) -> None:
    """Refused half way, empty, or of other people: nobody is taken out, and nobody comes in."""
    school.names("finn", "gina", "hans")
    school.fetch()
    before = school.people()
    school.names("ida")
    school.services.on_request = None
    asked = 0

    async def refuse(kind: str, one: Asked) -> None:
        nonlocal asked
        if kind == "members" and one.when == "before":
            asked += 1
            if asked == 2:
                school.services.fault("members", "refuse", status=403, words="not allowed")

    school.services.on_request = refuse
    state = school.fetch()
    assert state["change"] is None
    assert "not allowed" in state["problem"]
    assert school.people() == before
    school.services.on_request = None
    kept = school.services.members[:]
    school.services.members.clear()
    assert "has nobody in it" in school.fetch()["problem"]
    school.names("stranger1", "stranger2")
    assert "nobody in it who was there before" in school.fetch()["problem"]
    assert school.people() == before
    school.services.members[:] = kept
    assert school.fetch()["change"]["joined"] == ["ida"]


def test_a_hub_that_is_killed_in_the_middle_is_finished_by_the_next_fetch(school: Class) -> None:
    tom = next(iter(school.browsers))
    school.names(*(f"kim{number}" for number in range(12)))
    school.api(202, "POST", "roster/fetch")
    deadline = time.monotonic() + 60
    while not 3 <= school.api(200, "GET", "roster/fetch")["done"] < 12:
        assert time.monotonic() < deadline
    school.stack.kill("hub")
    school.stack.start("hub")
    assert set(school.api_course()) < {tom, *(f"kim{number}" for number in range(12))}
    assert school.api(404, "GET", "roster/fetch")["hint"]
    state = school.fetch()
    assert state["change"]["skipped"] == {}
    assert set(school.api_course()) == {tom, *(f"kim{number}" for number in range(12))}
    assert all((school.stack.paths.home / f"kim{number}").is_dir() for number in range(12))


def test_the_page(school: Class) -> None:
    """Teachers see it and fetch with it; students, strangers and requests from elsewhere do not."""
    tom = next(iter(school.browsers))
    school.names("nora", "olaf")
    here = f"/hub/courses/{school.course}/roster"
    teacher = Person(school.stack.url, tom, session=school.browsers[tom].session)
    page = teacher.get(here)
    assert page.status_code == 200
    assert "Fetch the roster from" in page.text
    token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
    assert token
    refused = teacher.session.post(f"{school.stack.url}{here}", allow_redirects=False, timeout=60)
    assert refused.status_code == 403
    headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}
    begun = teacher.session.post(
        f"{school.stack.url}{here}", data={"_xsrf": token[1]}, headers=headers, allow_redirects=False, timeout=60
    )
    assert (begun.status_code, begun.headers["Location"]) == (302, here)
    state = school.ended()
    assert state["asked_by"] == tom
    page = teacher.get(here)
    assert "2 joined" in page.text
    assert "Nora Family" in page.text
    rows = list(csv.DictReader(io.StringIO(teacher.get(f"{here}.csv").content.decode("utf-8-sig"))))
    assert {row["account"]: row["role"] for row in rows} == {tom: "instructor", "nora": "student", "olaf": "student"}
    school.launch("student", "nora")
    student = Person(school.stack.url, "nora", session=school.browsers["nora"].session)
    for path in (here, f"{here}/state", f"{here}.csv", "/hub/courses/nothing-here/roster"):
        assert student.get(path, allow_redirects=False).status_code == 403
