"""What is ours in nbgrader's pages, in a browser.

Most of it needs no class: a Jupyter server on this machine has the same pages. The last test walks through a class.
"""

from __future__ import annotations

import json
import re
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, FrameLocator, Locator, Page, expect

from tests.browser.test_first_class import picture, sign_in, wait_for_lab
from tests.support.classroom import Classroom
from tests.support.notebook_server import NotebookServer, notebook_server

NOTEBOOK = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
NAMES = ("ps1", "it's b", 'Übung <2> & "3"')
STUDENTS = ("ana", "o'neil b")
WORK = """
import json, pathlib, sys
from datetime import datetime, timedelta, timezone
exchange = pathlib.Path("/srv/nbgrader/exchange", sys.argv[1])
for folder in (exchange / "outbound" / sys.argv[2], pathlib.Path.home() / sys.argv[1] / "source" / sys.argv[2]):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "problem.ipynb").write_text(sys.argv[3])
    folder.chmod(0o755)
due = datetime.now(timezone.utc) + timedelta(days=2, hours=1)
(exchange / "duedates.json").write_text(json.dumps({"assignments": {sys.argv[2]: due.isoformat()}}))
(exchange / "duedates.json").chmod(0o644)
"""


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(locale="en-GB", timezone_id="Europe/Berlin", viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    yield context
    context.close()


# The Assignment List


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def release(exchange: Path, course: str, name: str) -> None:
    folder = exchange / course / "outbound" / name
    folder.mkdir(parents=True)
    (folder / "problem.ipynb").write_text(NOTEBOOK)


def write_dates(exchange: Path, **moments: datetime) -> None:
    dates = {"assignments": {name: stamp(moment) for name, moment in moments.items()}}
    (exchange / "bio101/duedates.json").write_text(json.dumps(dates))


def open_assignment_list(page: Page) -> None:
    page.get_by_role("menuitem", name="Nbgrader").click()
    page.get_by_role("menuitem", name="Assignment List").click()


def row(page: Page, status: str, name: str) -> Locator:
    return page.locator(f"#{status}_assignments_list > .list_item").filter(has_text=name)


def test_students_see_when_assignments_are_due(context: BrowserContext, tmp_path: Path) -> None:
    exchange = tmp_path / "exchange"
    for name in ("soon", "late", "next year", "open"):
        release(exchange, "bio101", name)
    (exchange / "bio101/inbound").mkdir()
    (exchange / "bio101/inbound").chmod(0o1777)
    exchange.chmod(0o777)
    now = datetime.now(UTC)
    soon, far = now + timedelta(days=2, hours=1), now.replace(year=now.year + 1, month=7, day=2, hour=21, minute=30)
    write_dates(exchange, **{"soon": soon, "late": now - timedelta(hours=2, minutes=5), "next year": far})
    with notebook_server(tmp_path, ("assignment-list",)) as server:
        page = context.new_page()
        page.goto(f"{server.url}lab?reset&token={server.token}")
        wait_for_lab(page)
        open_assignment_list(page)
        expect(row(page, "released", "soon")).to_contain_text(
            re.compile(r"due \w+,? \d+ \w+( \d{4})?,? \d\d:\d\d \(in 2 days\)")
        )
        # In the browser's time zone, two hours ahead in summer.
        expect(row(page, "released", "next year")).to_contain_text(re.compile(rf"2 Jul,? {now.year + 1},? 23:30 \(in "))
        expect(row(page, "released", "late")).to_contain_text("(2 hours late)")
        expect(row(page, "released", "open").locator("time")).to_have_count(0)
        picture(page, "due-dates")

        row(page, "released", "late").get_by_role("button", name="Fetch").click()
        expect(row(page, "fetched", "late")).to_contain_text("(2 hours late)")
        expect(page.locator("#assignments time")).to_have_count(3)
        row(page, "fetched", "late").get_by_role("button", name="Submit").click()
        expect(row(page, "submitted", "late")).to_contain_text("(2 hours ago)")
        expect(row(page, "fetched", "late")).to_contain_text("(2 hours ago)")

        # A date that the teacher has moved or taken away is seen as soon as the list is loaded again.
        write_dates(exchange, soon=soon + timedelta(days=3))
        page.get_by_title("Refresh assignments list").click()
        expect(row(page, "released", "soon")).to_contain_text("(in 5 days)")
        expect(page.locator("#assignments time")).to_have_count(1)


# The formgrader


@pytest.fixture
def grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookServer]:
    """A grader with assignments and students whose names have what names can have."""
    from nbgrader.api import Gradebook

    course = tmp_path / "home/bio101"
    for name in NAMES:
        (course / "source" / name).mkdir(parents=True)
        (course / "source" / name / "p.ipynb").write_text(NOTEBOOK)
    config = f"c = get_config()\nc.CourseDirectory.root = {str(course)!r}\nc.CourseDirectory.course_id = 'bio101'\n"
    (tmp_path / "home/nbgrader_config.py").write_text(config)
    # nbgrader calls alembic by its name.
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts"), prepend=":")
    with Gradebook(f"sqlite:///{course}/gradebook.db", "bio101") as book:
        for student in STUDENTS:
            book.add_student(student)
        for name in NAMES:
            book.add_assignment(name)
            for student in STUDENTS:
                book.add_submission(name, student)
                (course / "submitted" / student / name).mkdir(parents=True)
                (course / "submitted" / student / name / "p.ipynb").write_text(NOTEBOOK)
    grader = {"JUPYTERHUB_SERVICE_NAME": "bio101", "JUPYTERHUB_BASE_URL": "/"}
    with notebook_server(
        tmp_path, ("create-assignment", "formgrader"), variables=grader, base="/services/bio101/"
    ) as server:
        yield server


def links(place: Page | FrameLocator) -> Locator:
    return place.locator("#main-table a.illumidesk-hub")


def test_the_formgrader_leads_to_the_hubs_pages(context: BrowserContext, grader: NotebookServer) -> None:
    origin = grader.url.removesuffix("/services/bio101/")
    wanted = {f"/hub/courses/bio101/grades/{quote(name)}" for name in NAMES}

    def shown(page: Page) -> list[str]:
        expect(links(page)).to_have_count(len(NAMES))
        addresses = [link.get_attribute("href") or "" for link in links(page).all()]
        return [address.replace("'", "%27") for address in addresses]

    page = context.new_page()
    page.goto(f"{grader.url}formgrader/manage_assignments?token={grader.token}")
    before = shown(page)
    assert set(before) == wanted
    expect(page.get_by_role("link", name="Send to LMS: ps1 (opens in a new tab)")).to_be_visible()
    page.get_by_role("columnheader", name="Name").click()
    assert shown(page) == before[::-1]
    # A row that nbgrader draws again.
    page.evaluate("models.each(model => model.set('num_submissions', 7))")
    expect(page.get_by_role("link", name="7", exact=True)).to_have_count(len(NAMES))
    assert shown(page) == before[::-1]

    for address, names in (
        (f"manage_submissions/{quote(NAMES[2])}", [f"{quote(NAMES[2])}?student={quote(one)}" for one in STUDENTS]),
        (f"manage_students/{quote(STUDENTS[1])}", [f"{quote(one)}?student={quote(STUDENTS[1])}" for one in NAMES]),
    ):
        page.goto(f"{grader.url}formgrader/{address}")
        expect(links(page)).to_have_count(len(names))
        found = {(link.get_attribute("href") or "").replace("'", "%27") for link in links(page).all()}
        assert found == {f"/hub/courses/bio101/grades/{one}" for one in names}

    # In JupyterLab it is a frame that may not open windows.
    page.goto(f"{grader.url}lab?reset&formgrader=true")
    frame = page.frame_locator("iframe[src*='formgrader']")
    expect(links(frame)).to_have_count(len(NAMES), timeout=120_000)
    picture(page, "formgrader-links")
    with context.expect_page() as opened:
        frame.get_by_role("link", name="Send to LMS: ps1").click()
    expect(opened.value).to_have_url(f"{origin}/hub/courses/bio101/grades/ps1")
    with context.expect_page() as opened:
        frame.get_by_role("link", name="Roster").press("Enter")
    expect(opened.value).to_have_url(f"{origin}/hub/courses/bio101/roster")
    assert page.url.startswith(f"{grader.url}lab")


# In a class


def test_a_class_finds_it(browser: Browser, classroom: Classroom) -> None:
    name = "Übung 1"
    classroom.cli("course", "create", "pages101", "--instructor", "instructor1")
    classroom.cli("user", "add", "pia")
    classroom.cli("enroll", "pages101", "pia")
    classroom.machine.run(["python3", "-c", WORK, "pages101", name, NOTEBOOK], user="grader-pages101")
    context = browser.new_context(base_url=classroom.url, locale="en-GB", viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    try:
        page = context.new_page()
        sign_in(page, "pia")
        wait_for_lab(page)
        expect(page.locator(".jp-Launcher").first).to_be_visible()
        open_assignment_list(page)
        expect(row(page, "released", name)).to_contain_text("(in 2 days)")
        # Where a link in an LMS leads.
        page.goto(f"/hub/user-redirect/illumidesk/assignment?course=pages101&name={quote(name)}")
        page.wait_for_url(re.compile(r"/user/pia/lab/.*problem\.ipynb"), timeout=180_000)
        expect(page.get_by_role("tab", name="problem.ipynb")).to_be_visible(timeout=120_000)
    finally:
        context.close()
    context = browser.new_context(base_url=classroom.url, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    try:
        page = context.new_page()
        sign_in(page, "instructor1")
        page.wait_for_url(re.compile(r"/(lab|hub)"), timeout=180_000)
        page.goto("/services/pages101/lab?formgrader=true")
        frame = page.frame_locator("iframe[src*='formgrader']")
        expect(links(frame)).to_have_count(1, timeout=180_000)
        with context.expect_page() as opened:
            frame.get_by_role("link", name=f"Send to LMS: {name}").click()
        expect(opened.value).to_have_url(f"{classroom.url}/hub/courses/pages101/grades/{quote(name)}")
    finally:
        context.close()
