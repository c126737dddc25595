"""A first class in a browser. Its pictures are those of docs/first-class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support.classroom import ARTEFACTS, Classroom
from tests.support.person import PASSWORD

PICTURES = ARTEFACTS / "screenshots"


def picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=Path(PICTURES / f"{name}.png"))


@pytest.fixture
def context(browser: Browser, classroom: Classroom) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=classroom.url, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    yield context
    context.close()


def sign_in(page: Page, name: str, url: str = "") -> None:
    page.goto(f"{url}/hub/login")
    page.get_by_label("Username").fill(name)
    page.locator("#password_input").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()


def wait_for_lab(page: Page) -> None:
    page.wait_for_url(re.compile(r"/lab"), timeout=180_000)
    expect(page.locator(".jp-Launcher, .jp-Notebook, .jp-FileBrowser").first).to_be_visible(timeout=120_000)


def run_a_cell(page: Page) -> None:
    page.locator(".jp-LauncherCard").filter(has_text="Python 3").first.click()
    editor = page.locator(".jp-Notebook .jp-CodeCell .cm-content").first
    expect(editor).to_be_visible()
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=90_000)
    editor.click()
    page.keyboard.type("5*4")
    expect(editor).to_have_text("5*4")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").filter(has_text="20").first).to_be_visible(timeout=90_000)


def test_a_student_signs_in_and_runs_a_cell(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    expect(page.get_by_text("First time here?")).to_be_visible()
    picture(page, "sign-in")
    sign_in(page, "student1")
    wait_for_lab(page)
    # Without what an earlier visit left open.
    page.goto("/user/student1/lab?reset")
    wait_for_lab(page)
    run_a_cell(page)
    # Nobody is asked about news from the Internet.
    expect(page.get_by_text("official Jupyter news")).to_have_count(0)
    picture(page, "notebook")
    page.goto("/hub/home")
    expect(page.get_by_role("heading", name="Your courses")).to_be_visible()
    expect(page.get_by_role("button", name="Services")).to_have_count(0)
    picture(page, "student-home")


def test_an_instructor_opens_the_formgrader(context: BrowserContext, classroom: Classroom) -> None:
    page = context.new_page()
    sign_in(page, "instructor1")
    page.wait_for_url(re.compile(r"/(lab|hub)"), timeout=180_000)
    page.goto("/hub/home")
    page.get_by_role("button", name="Services").click()
    picture(page, "services")
    page.get_by_role("link", name=re.compile("intro101")).first.click()
    wait_for_lab(page)
    frame = page.frame_locator("iframe[src*='formgrader']")
    expect(frame.get_by_text("Manage Assignments").first).to_be_visible(timeout=120_000)
    picture(page, "formgrader")


def test_pages_fit_a_phone(browser: Browser, classroom: Classroom) -> None:
    context = browser.new_context(
        base_url=classroom.url, viewport={"width": 360, "height": 740}, device_scale_factor=2, is_mobile=True
    )
    try:
        page = context.new_page()
        page.goto("/hub/login")
        picture(page, "phone-sign-in")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        sign_in(page, "instructor1")
        page.wait_for_url(re.compile(r"/(lab|hub|user)"), timeout=180_000)
        page.goto("/hub/home")
        expect(page.get_by_role("heading", name="Your courses")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        picture(page, "phone-home")
    finally:
        context.close()
