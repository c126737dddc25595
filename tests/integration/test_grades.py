"""Grades from a real gradebook, through a real hub, to a platform by LTI 1.3 and 1.1, whatever happens on the way."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from nbgrader.api import Gradebook

from tests.integration.conftest import Stack
from tests.integration.test_lti import add
from tests.support.gradebooks import GraderHome
from tests.support.lms import LMS, lms
from tests.support.lms_services import Asked, Services
from tests.support.lms_thread import Browser, served
from tests.support.person import Person

AGS = "https://purl.imsglobal.org/spec/lti-ags/claim/endpoint"
SCOPE = "https://purl.imsglobal.org/spec/lti-ags/scope/"
ON_TIME, LATE = "2026-01-01 00:00:00 UTC", "2026-12-01 00:00:00 UTC"


@pytest.fixture(scope="module")
def stack_settings() -> dict[str, Any]:
    return {"sign_in": {"lti": {"loopback_platforms": True}}}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> GraderHome:
    """A course folder after a real run: ana and mia right, ben and max wrong, cleo and moe collected only."""
    home = GraderHome(tmp_path_factory.mktemp("graded"))
    home.author("ps1")
    for right, wrong in (("ana", "ben"), ("mia", "max")):
        home.hand_in(right, "ps1", ON_TIME)
        home.hand_in(wrong, "ps1", ON_TIME, answer="return a - b")
    home.nbgrader("autograde", "ps1")
    for name in ("cleo", "moe"):
        home.hand_in(name, "ps1", ON_TIME)
    return home


@dataclass
class School:
    """One platform's course here, with its gradebook and its people's browsers."""

    stack: Stack
    lms: LMS
    services: Services
    version: str
    course: str
    browsers: dict[str, Browser] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.stack.paths.home / f"grader-{self.course}" / self.course

    def api(self, status: int, method: str, what: str, body: object = None) -> Any:
        return self.stack.expect(status, method, f"courses/{self.course}/{what}", body)

    def send(self, assignment: str = "ps1", **more: Any) -> Any:
        return self.api(200, "POST", "grades", {"assignment": assignment, **more})

    def deliveries(self) -> dict[str, dict[str, Any]]:
        return {one["student"]: one for one in self.api(200, "GET", "deliveries?assignment=ps1")["deliveries"]}

    def states(self) -> Counter[str]:
        return Counter(one["state"] for one in self.deliveries().values())

    def lines(self, assignment: str = "ps1") -> dict[str, dict[str, Any]]:
        preview = self.api(200, "GET", f"grades?assignment={quote(assignment)}")
        return {one["student"]: one for one in preview["lines"]}

    def until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"{self.deliveries()}\n{self.stack.log('hub')}"
            time.sleep(0.1)

    def settle(self) -> None:
        self.until(lambda: not {"waiting", "sending"} & self.states().keys())

    def launch(self, who: str, name: str, **more: Any) -> Browser:
        """Somebody follows the link `ps1`; their name here is `name`."""
        browser = Browser(self.stack.url)
        if self.version == "1.1":
            fields = {
                "user_id": f"id-{name}",
                "lis_person_contact_email_primary": f"{name}@example.edu",
                "lis_person_name_full": f"{name.title()} of {self.lms.brand}",
                "resource_link_id": "link-1",
                "resource_link_title": "ps1",
                "lis_outcome_service_url": self.services.outcomes_url,
                "lis_result_sourcedid": self.sourcedid(name),
                "context_id": f"context-{self.lms.id}",
                "context_label": self.course,
            }
            answer = browser.launch_11(self.lms, who, **{**fields, **more})
        else:
            claims = {
                "sub": f"id-{name}",
                "email": f"{name}@example.edu",
                "name": f"{name.title()} of {self.lms.brand}",
                "context": {"id": f"context-{self.lms.id}", "label": self.course, "title": "Course"},
                "resource_link": {"id": "link-1", "title": "Something"},
                AGS: {
                    "lineitems": self.services.line_items_url,
                    "scope": [f"{SCOPE}lineitem", f"{SCOPE}score", f"{SCOPE}result.readonly"],
                },
            }
            answer = browser.launch_13(self.lms, who, **{**claims, **more})
        assert answer.status_code == 302, answer.text
        self.browsers[name] = browser
        return browser

    def sourcedid(self, name: str) -> str:
        return f'{{"data":{{"instanceid":"1","userid":"{name}"}},"hash":"5a\\"b/<&>"}}'

    def regrade(self, scores: Mapping[str, float]) -> None:
        """What the formgrader does when somebody gives points by hand."""
        with Gradebook(f"sqlite:///{self.folder}/gradebook.db?timeout=60", self.course) as book:
            for student, score in scores.items():
                submission = book.find_submission("ps1", student)
                for grade in (grade for notebook in submission.notebooks for grade in notebook.grades):
                    grade.needs_manual_grade = False
                    if grade.cell.name == "why":
                        grade.manual_score = score
            book.db.commit()

    def book(self) -> dict[str, float]:
        """What the platform has: the part of the full mark by student."""
        if self.version == "1.1":
            return {
                name: float(self.services.outcomes.get(self.sourcedid(name)) or -1)
                for name in ("mia", "max")
                if self.services.outcomes.get(self.sourcedid(name)) is not None
            }
        return {
            user.removeprefix("id-"): score["scoreGiven"] / score["scoreMaximum"] for user, score in self.ps1().items()
        }

    def ps1(self) -> dict[str, dict[str, Any]]:
        """The last score of each user in the column ps1."""
        (number,) = (number for number, item in self.services.line_items.items() if item["label"] == "ps1")
        return self.services.book.get(number, {})


def new_school(stack: Stack, graded: GraderHome, platform: LMS, version: str, course: str) -> School:
    assert platform.services is not None
    add(stack, platform, version)
    school = School(stack, platform, platform.services, version, course)
    school.launch("teacher", "tom")
    for name in ("ana", "ben", "cleo") if version == "1.3" else ("mia", "max", "moe"):
        school.launch("student", name)
        if version == "1.3":
            platform.services.members.append({"user_id": f"id-{name}", "roles": ["Learner"]})
    for part in ("source", "release", "submitted", "autograded", "gradebook.db"):
        origin = graded.course / part
        (shutil.copytree if origin.is_dir() else shutil.copy2)(origin, school.folder / part)
    return school


def platform(stack: Stack, brand: Any, number: int) -> LMS:
    made = lms(brand, number, tool=stack.url)
    made.services = Services(
        client_id=made.client_id,
        tool_keys=lambda: requests.get(f"{stack.url}/hub/lti13/jwks", timeout=30).json(),
        key=made.key,
        secret=made.secret,
    )
    return made


@pytest.fixture(scope="module")
def canvas(stack: Stack, graded: GraderHome) -> Iterator[School]:
    """LTI 1.3 with Assignment and Grade Services."""
    with served(platform(stack, "canvas", 1)) as one:
        one.token_url = one.services.token_url if one.services else ""
        yield new_school(stack, graded, one, "1.3", "algebra")


@pytest.fixture(scope="module")
def moodle(stack: Stack, graded: GraderHome) -> Iterator[School]:
    """LTI 1.1 with Basic Outcomes."""
    with served(platform(stack, "moodle", 2)) as one:
        yield new_school(stack, graded, one, "1.1", "botany")


def test_the_way_of_grades(canvas: School) -> None:
    """By AGS: a column is made, what is graded goes, once, and what has changed goes again."""
    lines = canvas.lines()
    standing = {name: lines[name]["standing"] for name in ("ana", "ben", "cleo", "mia")}
    assert standing == {"ana": "by-hand", "ben": "by-hand", "cleo": "none", "mia": "none"}
    assert lines["cleo"]["why"] == "is not graded yet"
    assert lines["ana"]["full_name"] == "Ana of canvas"
    canvas.regrade({"ana": 4, "ben": 1})
    lines = canvas.lines()
    assert (lines["ana"]["standing"], lines["ana"]["sent_as"]) == ("new", "9 of 10")
    sent = canvas.send()
    assert sent["queued"] == ["ana", "ben"]
    assert sent["left"]["cleo"] == "is not graded yet"
    assert sent["left"]["mia"] == "is not in this course"
    canvas.settle()
    (item,) = canvas.services.line_items.values()
    assert (item["label"], item["resourceId"], item["scoreMaximum"]) == ("ps1", "ps1", 10)
    assert canvas.book() == {"ana": 0.9, "ben": 0.1}
    columns = canvas.ps1()
    assert columns["id-ana"]["activityProgress"] == "Completed"
    assert columns["id-ana"]["gradingProgress"] == "FullyGraded"
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", columns["id-ana"]["timestamp"])
    assert canvas.services.token_requests <= 3  # one for each scope that is asked for

    accepted = len(canvas.services.accepted)
    assert canvas.send()["queued"] == []
    canvas.regrade({"ben": 3})
    assert canvas.lines()["ben"]["standing"] == "changed"
    assert canvas.send()["queued"] == ["ben"]
    canvas.settle()
    assert canvas.book() == {"ana": 0.9, "ben": 0.3}
    assert len(canvas.services.accepted) == accepted + 1
    assert len(canvas.services.line_items) == 1


def test_the_way_of_grades_by_lti_11(moodle: School) -> None:
    """By Basic Outcomes: to the link of the same title, and to whoever has opened it."""
    moodle.regrade({"mia": 4, "max": 2})
    lines = moodle.lines()
    assert (lines["mia"]["standing"], lines["mia"]["sent_as"]) == ("new", "90 %")
    assert (lines["ana"]["standing"], lines["ana"]["why"]) == ("none", "is not in this course")
    assert moodle.send()["queued"] == ["max", "mia"]
    moodle.settle()
    assert moodle.book() == {"mia": 0.9, "max": 0.2}
    assert moodle.services.outcomes[moodle.sourcedid("mia")] == "0.9"
    assert moodle.send()["queued"] == []


def test_a_student_who_opens_the_link_later_gets_the_grade_then(moodle: School) -> None:
    moodle.launch("student", "dora", lis_result_sourcedid="", lis_outcome_service_url="")
    shutil.copytree(moodle.folder / "submitted/mia", moodle.folder / "submitted/dora")
    shutil.copytree(moodle.folder / "autograded/mia", moodle.folder / "autograded/dora")
    with Gradebook(f"sqlite:///{moodle.folder}/gradebook.db?timeout=60", moodle.course) as book:
        book.update_or_create_student("dora")
        made = book.add_submission("ps1", "dora", timestamp=book.find_submission("ps1", "mia").timestamp)
        for grade in (grade for notebook in made.notebooks for grade in notebook.grades):
            grade.auto_score, grade.needs_manual_grade = 1.0, False
        book.db.commit()
    line = moodle.lines()["dora"]
    assert line["standing"] == "new"
    assert "has not opened the link" in line["why"]
    assert moodle.send(students=["dora"])["queued"] == ["dora"]
    moodle.until(lambda: moodle.deliveries()["dora"]["code"] == "not-opened")
    moodle.launch("student", "dora")
    moodle.until(lambda: moodle.deliveries()["dora"]["state"] == "sent")
    assert float(moodle.services.outcomes[moodle.sourcedid("dora")] or 0) > 0


def test_extra_points_and_partial_grades(canvas: School) -> None:
    canvas.regrade({"ana": 9})
    assert canvas.lines()["ana"]["sent_as"] == "14 of 10"
    canvas.send(students=["ana"])
    canvas.settle()
    assert canvas.book()["ana"] == 1.4
    with Gradebook(f"sqlite:///{canvas.folder}/gradebook.db?timeout=60", canvas.course) as book:
        (notebook,) = book.find_submission("ps1", "ana").notebooks
        next(grade for grade in notebook.grades if grade.cell.name == "why").needs_manual_grade = True
        book.db.commit()
    assert canvas.lines()["ana"]["standing"] == "by-hand"
    assert canvas.send(students=["ana"])["queued"] == []
    assert canvas.send(students=["ana"], partial=True)["queued"] == ["ana"]
    canvas.settle()
    assert canvas.ps1()["id-ana"]["gradingProgress"] == "PendingManual"


@pytest.mark.parametrize("trouble", ["error", "rate-limit", "drop", "drop-after", "token", "html"])
def test_trouble_on_the_way_loses_nothing(canvas: School, trouble: str) -> None:
    """The platform fails at the first attempt; the second arrives, and no score is taken twice."""
    score = {"error": 1, "rate-limit": 2, "drop": 3, "drop-after": 4, "token": 5, "html": 0}[trouble]
    canvas.regrade({"ana": score, "ben": score})
    before = len(canvas.services.accepted)
    match trouble:
        case "error":
            canvas.services.fault("score", "refuse", status=503, times=2)
        case "rate-limit":
            canvas.services.fault("score", "rate-limit", after="1", times=2)
        case "token":
            canvas.services.forget_tokens()
            canvas.services.fault("token", "refuse", status=500)
        case _:
            canvas.services.fault("score", trouble, times=1)  # type: ignore[arg-type]
    assert canvas.send()["queued"] == ["ana", "ben"]
    canvas.until(
        lambda: (
            canvas.states()["sent"] >= 2
            or "failed" in canvas.states()
            or any(one["attempts"] for one in canvas.deliveries().values() if one["state"] == "waiting")
        )
    )
    canvas.api(200, "POST", "deliveries", {})
    canvas.settle()
    assert canvas.states() == {"sent": 2}, canvas.deliveries()
    assert canvas.book() == {"ana": pytest.approx((5 + score) / 10), "ben": pytest.approx(score / 10)}
    assert len(canvas.services.accepted) == before + 2


def test_who_is_gone_stops_nobody_and_is_told_in_words(canvas: School) -> None:
    canvas.regrade({"ana": 2.5, "ben": 2.5})
    gone = canvas.services.members.pop(
        next(index for index, one in enumerate(canvas.services.members) if one["user_id"] == "id-ben")
    )
    canvas.send()
    canvas.settle()
    rows = canvas.deliveries()
    assert (rows["ana"]["state"], rows["ben"]["state"]) == ("sent", "failed")
    assert "does not know this student" in rows["ben"]["problem"]
    assert rows["ben"]["hint"]
    assert canvas.lines()["ben"]["standing"] == "failed"
    canvas.services.members.append(gone)
    assert canvas.api(200, "POST", "deliveries", {"students": ["ben"]})["count"] == 1
    canvas.settle()
    assert canvas.book()["ben"] == 0.25


def test_a_column_that_is_gone_is_made_again(canvas: School) -> None:
    canvas.services.line_items.clear()
    canvas.services.scores.clear()
    canvas.regrade({"ana": 1.5, "ben": 1.5})
    canvas.send()
    canvas.settle()
    assert {one["code"] for one in canvas.deliveries().values()} == {"column-gone"}
    # Whatever goes wrong while the column is made: a sentence, and no second column.
    for kind, trouble in (("line_items", "refuse"), ("create", "refuse"), ("create", "drop-after")):
        canvas.services.fault(kind, trouble, status=503)  # type: ignore[arg-type]
        refused = canvas.api(502, "POST", "grades", {"assignment": "ps1"})
        assert refused["message"].startswith(("the LMS", "the connection to the LMS")), refused
    assert canvas.send()["queued"] == ["ana", "ben"]
    assert [item["label"] for item in canvas.services.line_items.values()] == ["ps1"]
    canvas.settle()
    assert canvas.book() == {"ana": 0.65, "ben": 0.15}


def test_where_it_is_not_clear_a_teacher_is_asked_once(canvas: School) -> None:
    services = canvas.services
    services.line_items[91] = {"label": "Homework A", "scoreMaximum": 20}
    services.line_items[92] = {"label": "Homework B", "scoreMaximum": 20}
    with Gradebook(f"sqlite:///{canvas.folder}/gradebook.db?timeout=60", canvas.course) as book:
        book.add_assignment("essay")
        book.add_notebook("essay", "essay")
        book.add_grade_cell("cell", "essay", "essay", max_score=4, cell_type="markdown")
        book.update_or_create_student("ana")
        made = book.add_submission("essay", "ana")
        made.notebooks[0].grades[0].manual_score = 3
        made.notebooks[0].grades[0].needs_manual_grade = False
        book.db.commit()
    refused = canvas.api(409, "POST", "grades", {"assignment": "essay"})
    assert "not clear which column" in refused["message"]
    (place,) = canvas.api(200, "GET", "column?assignment=essay")["places"]
    labels = {one["label"]: one["key"] for one in place["choices"]}
    assert {"Homework A", "Homework B", "essay"} <= labels.keys()
    assert "ps1" not in labels
    tom = Person(canvas.stack.url, "tom", session=canvas.browsers["tom"].session)
    page = tom.get(f"/hub/courses/{canvas.course}/grades/essay")
    assert "Homework B" in page.text
    answer = tom.session.post(
        page.url,
        data={"_xsrf": tom.xsrf("/hub/"), "do": "match", "place": f"{place['platform']} {labels['Homework B']}"},
        allow_redirects=False,
        timeout=60,
    )
    assert answer.status_code == 303, answer.text
    assert canvas.send("essay")["queued"] == ["ana"]
    canvas.until(lambda: 92 in services.book)
    assert services.book[92]["id-ana"]["scoreGiven"] == 3
    # It is remembered, and nobody else's.
    assert canvas.lines("essay")["ana"]["standing"] == "sent"
    del services.line_items[91]


def test_the_pages_are_for_those_who_run_the_course(canvas: School) -> None:
    """Instructors see and send; students, TAs, people of other courses and strangers do not; nor does a script."""
    url = f"{canvas.stack.url}/hub/courses/{canvas.course}/grades"
    canvas.launch("ta", "tina")
    for name in ("ana", "tina"):
        session = canvas.browsers[name].session
        for page in (url, f"{url}/ps1", f"{url}/ps1/status", url.replace("grades", "extensions")):
            assert session.get(page, timeout=60).status_code == 403
    assert "login" in requests.get(url, timeout=60).url
    tom = Person(canvas.stack.url, "tom", session=canvas.browsers["tom"].session)
    assert tom.get("/hub/courses/nosuch/grades").status_code == 403
    page = tom.get(f"/hub/courses/{canvas.course}/grades/ps1")
    assert page.status_code == 200
    assert "Ana of canvas" in page.text
    # What runs in a page of somebody's server is at the same address.
    by_script = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    for path in (url, f"{url}/ps1", f"{url}/ps1/status"):
        assert tom.session.get(path, headers=by_script, timeout=60).status_code == 403
    assert tom.session.get(
        f"{url}/ps1/status", headers={**by_script, "X-XSRFToken": tom.xsrf("/hub/")}, timeout=60
    ).json()["deliveries"]
    assert tom.session.post(f"{url}/ps1", data={"do": "send"}, timeout=60).status_code == 403
    canvas.regrade({"ana": 0.5})
    answer = tom.session.post(
        f"{url}/ps1", data={"_xsrf": tom.xsrf("/hub/"), "do": "send", "student": "ana"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    canvas.settle()
    assert canvas.book()["ana"] == 0.55
    assert canvas.deliveries()["ana"]["asked_by"] == "tom"


def test_without_a_platform_there_is_a_sentence(stack: Stack) -> None:
    stack.expect(201, "POST", "courses", {"course_id": "plain"})
    refused = stack.expect(404, "POST", "courses/plain/grades", {"assignment": "ps1"})
    assert "no assignment ps1" in refused["message"]
    assert stack.expect(404, "GET", "courses/nosuch/grades")["message"] == "there is no course nosuch"
    assert stack.expect(404, "POST", "courses/nosuch/deliveries", {})["message"] == "there is no course nosuch"


@pytest.fixture
def by_time(canvas: School) -> Iterator[None]:
    """A hub that sends by itself, and takes TAs for those who may send."""
    stack = canvas.stack
    before = stack.paths.config_file.read_text()
    stack.paths.config_file.write_text(f"{before}\ngrades: {{auto_send: 1s, tas_may_send: true}}\n")
    stack.terminate("hub")
    stack.start("hub")
    yield
    stack.paths.config_file.write_text(before)
    stack.terminate("hub")
    stack.start("hub")


def test_by_time_what_has_changed_goes_and_nothing_else(canvas: School, by_time: None) -> None:
    canvas.regrade({"ana": 2.2, "ben": 3.3})
    canvas.until(lambda: canvas.book() == {"ana": pytest.approx(0.72), "ben": pytest.approx(0.33)})
    taken = len(canvas.services.accepted)
    asked = len(canvas.services.asked)
    # The timer looks again, and finds nothing to do.
    time.sleep(3)
    assert (len(canvas.services.accepted), len(canvas.services.asked)) == (taken, asked)
    assert canvas.deliveries()["ana"]["asked_by"] == ""
    # And TAs may, where the settings say so.
    session = canvas.browsers["tina"].session
    assert session.get(f"{canvas.stack.url}/hub/courses/{canvas.course}/grades/ps1", timeout=60).status_code == 200


# The hub is killed


@pytest.fixture
def mortal(canvas: School) -> Iterator[Callable[[int], None]]:
    """A hub that dies; the function arms it."""
    stack = canvas.stack
    armed = stack.paths.root / "armed"
    start = stack.start

    def restart() -> None:
        stack.start("hub")

    commands = [sys.executable, "-m", "tests.support.mortal_hub", str(armed)]
    stack.terminate("hub")
    stack.hub_command = commands
    restart()
    yield lambda count: armed.write_text(str(count)) and None
    armed.unlink(missing_ok=True)
    stack.kill("hub")
    stack.hub_command = None
    start("hub")


def revive(school: School) -> bool:
    """Start the hub where it is gone; whether it was."""
    hub = school.stack.processes["hub"]
    if hub.poll() is None:
        return False
    del school.stack.processes["hub"]
    school.stack.start("hub")
    return True


def send_until_death(school: School) -> None:
    """Have it sent; the hub may be killed before it answers, or later."""
    hub = school.stack.processes["hub"]
    try:
        school.stack.manage("POST", f"courses/{school.course}/grades", {"assignment": "ps1"})
    except OSError:
        hub.wait(30)
        return
    deadline = time.monotonic() + 30
    while hub.poll() is None and time.monotonic() < deadline:
        try:
            if not {"waiting", "sending"} & school.states().keys():
                # The last step is after the last write.
                time.sleep(0.3)
                return
        except (OSError, AssertionError, ValueError):
            pass
        time.sleep(0.05)


def each_once(school: School, before: int, score: float) -> None:
    """The platform's book is the gradebook's, and took each change once."""
    # Where the hub died before the queue had it, nobody was told that it would be sent.
    school.send()
    school.settle()
    assert school.book() == {"ana": pytest.approx((5 + score) / 10), "ben": pytest.approx(score / 10)}
    taken = Counter(one.user for one in school.services.accepted[before:])
    assert taken == {"id-ana": 1, "id-ben": 1}, taken


def test_killed_at_every_step_each_score_arrives_once(canvas: School, mortal: Callable[[int], None]) -> None:
    for count in range(1, 60):
        score = 1 + count / 100
        canvas.regrade({"ana": score, "ben": score})
        before = len(canvas.services.accepted)
        mortal(count)
        send_until_death(canvas)
        died = revive(canvas)
        each_once(canvas, before, score)
        if not died:
            break
    assert not died
    assert count > 12, "the hub died too seldom for the steps that there are"


def test_killed_while_the_platform_is_at_it_each_score_arrives_once(canvas: School) -> None:
    """The hub dies while its request is under way: before the platform takes it, and before its answer is out."""
    hub = canvas.stack
    for when in ("before", "after"):
        for which in (1, 2):
            score = {"before": 2, "after": 3}[when] + which / 10
            canvas.regrade({"ana": score, "ben": score})
            before = len(canvas.services.accepted)
            seen = Counter[str]()

            async def kill(kind: str, asked: Asked, when: str = when, which: int = which, seen: Any = seen) -> None:
                if kind == "score" and asked.when == when:
                    seen["score"] += 1
                    if seen["score"] == which:
                        hub.processes["hub"].kill()
                        hub.processes["hub"].wait()

            canvas.services.on_request = kill
            send_until_death(canvas)
            canvas.services.on_request = None
            assert revive(canvas)
            each_once(canvas, before, score)
