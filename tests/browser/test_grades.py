"""A teacher sends grades from a browser, and an administrator from the machine. Its pictures are those of the docs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.test_first_class import picture
from tests.browser.test_lti import loopback  # noqa: F401 -- a fixture
from tests.support.classroom import Classroom
from tests.support.lms import LMS, lms
from tests.support.lms_services import Services
from tests.support.lms_thread import Browser as Launcher
from tests.support.lms_thread import served

AGS = "https://purl.imsglobal.org/spec/lti-ags/claim/endpoint"
SCOPE = "https://purl.imsglobal.org/spec/lti-ags/scope/"
CONTEXT = {"id": "grades-1", "label": "grading101", "title": "Grading for Beginners"}
STUDENTS = {"s-1": "Ana Lima", "s-2": "Ben Osei", "s-3": "Chloé Dubois"}

#: A real run of nbgrader as the grader: its own example assignment, handed in by two. The first one's free text gets
#: its points as the formgrader gives them.
GRADE = """
set -eu
cd ~
nbgrader quickstart grading101 > /dev/null 2>&1
cd grading101
nbgrader generate_assignment ps1 > /dev/null 2>&1
for student in "$@"; do
  mkdir -p submitted/$student/ps1
  cp release/ps1/* submitted/$student/ps1/
  date -u '+%Y-%m-%d %H:%M:%S UTC' > submitted/$student/ps1/timestamp.txt
done
nbgrader autograde ps1 > /dev/null 2>&1
python - "$1" <<'POINTS'
import sys
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db?timeout=60", "grading101") as book:
    for notebook in book.find_submission("ps1", sys.argv[1]).notebooks:
        for grade in notebook.grades:
            if grade.needs_manual_grade:
                grade.manual_score, grade.needs_manual_grade = grade.max_score, False
    book.db.commit()
POINTS
"""

ASK = """
from illumidesk.http_unix import request_json
from illumidesk.paths import Paths
socket = Paths.current().grader_socket("grading101")
print(*request_json("GET", socket, "/services/grading101/illumidesk/scores"))
"""

STUDENTS_KNOWN = """
import sqlite3
book = sqlite3.connect("/home/grader-grading101/grading101/gradebook.db")
for row in book.execute("SELECT id, email, lms_user_id FROM student"):
    print(*row)
"""


class School:
    """A platform with one course here, whose grader has graded."""

    def __init__(self, classroom: Classroom, platform: LMS, services: Services) -> None:
        self.classroom, self.lms, self.services = classroom, platform, services
        self.teacher = self.launch("teacher", "t-1", "Maria Silva")
        self.students = {}
        for sub, name in STUDENTS.items():
            self.students[sub] = self.launch("student", sub, name).name()
            services.members.append({"user_id": sub, "roles": ["Learner"], "name": name})
        names = [self.students["s-1"], self.students["s-2"]]
        environment = {"PATH": "/opt/illumidesk/envs/default/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        self.classroom.machine.run(
            ["bash", "-c", GRADE, "grade", *names], user="grader-grading101", env=environment, timeout=300
        )

    def launch(self, who: Any, sub: str, name: str) -> Launcher:
        launcher = Launcher(self.classroom.url)
        given, _, family = name.partition(" ")
        claims = {
            "sub": sub,
            "name": name,
            "given_name": given,
            "family_name": family,
            "email": f"{given}.{family}@grading.example.edu".lower(),
            "context": CONTEXT,
            AGS: {
                "lineitems": self.services.line_items_url,
                "scope": [f"{SCOPE}lineitem", f"{SCOPE}score", f"{SCOPE}result.readonly"],
            },
        }
        answer = launcher.launch_13(self.lms, who, **claims)
        assert answer.status_code == 302, answer.text
        return launcher


@pytest.fixture(scope="module")
def school(classroom: Classroom, loopback: None) -> Iterator[School]:  # noqa: F811
    platform = lms("moodle", 7, tool=classroom.url)
    platform.services = services = Services(
        client_id=platform.client_id,
        tool_keys=lambda: requests.get(f"{classroom.url}/hub/lti13/jwks", timeout=30).json(),
    )
    with served(platform):
        classroom.cli(
            *("lti", "platform", "add", "Moodle of grades", "--lti", "1.3", "--replace"),
            *("--issuer", platform.issuer, "--client-id", platform.client_id),
            *("--deployment", platform.deployments[0], "--auth-url", platform.auth_url),
            *("--jwks-url", platform.jwks_url, "--token-url", services.token_url),
        )
        # What an earlier run on the same machine left.
        classroom.cli("course", "remove", "grading101", "--yes", check=False)
        yield School(classroom, platform, services)


@pytest.fixture
def page(browser: Browser, school: School) -> Iterator[Page]:
    """The teacher's browser, signed in by a launch."""
    context: BrowserContext = browser.new_context(
        base_url=school.classroom.url, locale="en-GB", viewport={"width": 1280, "height": 900}
    )
    context.set_default_timeout(60_000)
    context.add_cookies(
        [
            {"name": one.name, "value": one.value or "", "url": f"{school.classroom.url}{one.path}"}
            for one in school.teacher.session.cookies
        ]
    )
    yield context.new_page()
    context.close()


def row(page: Page, name: str) -> Any:
    return page.get_by_role("row", name=re.compile(name))


def test_a_teacher_looks_sends_and_sees_grades_arrive(page: Page, school: School) -> None:
    page.goto("/hub/courses/grading101/grades")
    # The grader may have to start first; the page comes back by itself.
    page.get_by_role("link", name="Look at the grades of ps1 and send them").click()
    expect(page.get_by_role("heading", name="ps1")).to_be_visible()
    expect(page.get_by_text("A new column ps1 will be made in Moodle of grades")).to_be_visible()
    expect(row(page, "Ana Lima")).to_contain_text("to send")
    expect(row(page, "Ben Osei")).to_contain_text("grade by hand")
    expect(row(page, "Chloé Dubois")).to_contain_text("Nothing is handed in.")
    picture(page, "grades-preview")
    # Held up once: the page goes on looking.
    school.services.fault("score", "rate-limit", after="2")
    page.get_by_role("button", name="Send 1 grade to the LMS").click()
    expect(row(page, "Ana Lima")).to_contain_text("is there", timeout=90_000)
    expect(page.locator("#summary")).to_contain_text("1 of 3 are in the LMS")
    picture(page, "grades-sent")
    page.get_by_label("also the 1 not yet graded by hand").check()
    page.get_by_role("button", name="Send to the LMS").press("Enter")
    expect(row(page, "Ben Osei")).to_contain_text("is there", timeout=90_000)
    ((_, columns),) = school.services.book.items()
    assert columns.keys() == {"s-1", "s-2"}
    assert columns["s-1"]["gradingProgress"] == "FullyGraded"
    assert columns["s-2"]["gradingProgress"] == "PendingManual"
    assert columns["s-1"]["scoreGiven"] > 0
    assert len(school.services.accepted) == 2

    # On a phone, nothing is cut off at the side.
    page.set_viewport_size({"width": 390, "height": 800})
    page.reload()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_teacher_gives_more_time(page: Page, school: School) -> None:
    page.goto("/hub/courses/grading101/extensions")
    page.get_by_label("Student").fill(school.students["s-3"])
    page.get_by_label("Assignment").select_option("ps1")
    page.get_by_label("Days").fill("two")
    page.get_by_role("button", name="Give more time").click()
    expect(page.get_by_role("alert")).to_contain_text("'two' is no number of days")
    page.get_by_label("Days").fill("2")
    page.get_by_label("Hours").fill("1,5")
    page.get_by_role("button", name="Give more time").press("Enter")
    given = row(page, school.students["s-3"])
    expect(given).to_contain_text("2 days 1 hour 30 minutes")
    picture(page, "extensions")
    given.get_by_role("button").click()
    expect(page.get_by_text("Nobody has one.")).to_be_visible()


def test_a_teacher_fetches_the_roster(page: Page, school: School) -> None:
    school.services.members += [
        {"user_id": "t-1", "roles": ["Instructor"], "name": "Maria Silva"},
        {"user_id": "s-9", "roles": ["Learner"], "name": "Dee Okafor", "given_name": "Dee", "family_name": "Okafor",
         "email": "dee.okafor@grading.example.edu"},
    ]  # fmt: skip
    page.goto("/hub/courses/grading101/roster")
    expect(page.get_by_role("row", name=re.compile("Dee Okafor"))).to_have_count(0)
    page.get_by_role("button", name=re.compile("Fetch")).click()
    expect(page.get_by_role("row", name=re.compile("Dee Okafor"))).to_be_visible(timeout=90_000)
    picture(page, "roster")
    page.set_viewport_size({"width": 390, "height": 800})
    page.reload()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    # Before any launch: an account, the course's group, and a line in the gradebook.
    listed = school.classroom.machine.run(["/opt/illumidesk/hub/bin/python", "-c", STUDENTS_KNOWN]).stdout
    assert "dee-okafor dee.okafor@grading.example.edu s-9" in listed
    assert "dee-okafor" in school.classroom.machine.run(["getent", "group", "nbgrader-grading101"]).stdout


def test_an_administrator_does_the_same_on_the_machine(school: School) -> None:
    cli, ana = school.classroom.cli, school.students["s-1"]
    assert "grading101" not in cli("grades", "show", "grading101").stdout.split("\n")[0]
    assert re.search(
        rf"{ana} .*grade by hand|{ana} .*is there", cli("grades", "send", "grading101", "ps1", "--dry-run").stdout
    )
    before = len(school.services.accepted)
    assert "nothing to send" in cli("grades", "send", "grading101", "ps1").stdout
    again = cli("grades", "send", "grading101", "ps1", "--again", "--student", ana).stdout
    assert "1 of 1 grades are in the LMS now" in again
    assert len(school.services.accepted) == before + 1
    assert "2 of 2 grades that were sent are in the LMS" in cli("grades", "status", "grading101").stdout
    assert "0 grades are tried again" in cli("grades", "retry", "grading101").stdout
    assert "ps1 goes to the column ps1 of Moodle of grades" in cli("grades", "match", "grading101", "ps1").stdout
    book = list(csv.DictReader(io.StringIO(cli("grades", "export", "grading101").stdout)))
    assert {one["student"]: one["full_name"] for one in book}[ana] == "Ana Lima"
    exam = "student,assignment,score,max_score\n" + f"{ana},Exam,17.5,20\n"
    assert "nothing was changed" in cli("grades", "import", "grading101", "-", "--dry-run", input=exam).stdout
    assert "1 scores of 1 assignments" in cli("grades", "import", "grading101", "-", input=exam).stdout
    assert "Exam" in cli("grades", "show", "grading101").stdout
    refused = cli("grades", "import", "grading101", "-", input=exam.replace("Exam", "ps1"), check=False)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "Error:" in refused.stderr
    assert "2 days" in cli("extension", "set", "grading101", ana, "--days", "2").stdout
    assert ana in cli("extension", "list", "grading101").stdout
    assert "has no more time" in cli("extension", "remove", "grading101", ana).stdout
    # The grader tells nobody but the hub: not even root, who could read the file itself.
    asked = school.classroom.machine.run(["/opt/illumidesk/hub/bin/python", "-c", ASK]).stdout
    assert asked.startswith("403"), asked
