"""The page that asks what to start, by keyboard and on a phone, and what it starts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.test_first_class import picture, sign_in, wait_for_lab
from tests.support.classroom import Classroom


@pytest.fixture(scope="module")
def choice(classroom: Classroom) -> Iterator[Classroom]:
    """A class in which people are asked."""
    classroom.cli("config", "set", "workspaces.ask", "always")
    classroom.cli("config", "reload")
    yield classroom
    classroom.cli("config", "set", "workspaces.ask", "never")
    classroom.cli("config", "unset", "courses.intro101.workspaces")
    classroom.cli("config", "reload")


@pytest.fixture(params=["desk", "phone"])
def context(request: pytest.FixtureRequest, browser: Browser, choice: Classroom) -> Iterator[BrowserContext]:
    choice.cli("user", "stop", "student1", check=False)
    if request.param == "phone":
        context = browser.new_context(
            base_url=choice.url, viewport={"width": 360, "height": 740}, device_scale_factor=2, is_mobile=True
        )
    else:
        context = browser.new_context(base_url=choice.url, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    yield context
    context.close()


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_somebody_is_asked_and_chooses_by_keyboard(context: BrowserContext, choice: Classroom) -> None:
    page = context.new_page()
    small = page.viewport_size is not None and page.viewport_size["width"] < 500
    sign_in(page, "student1")
    group = page.get_by_role("group", name="What do you want to work in?")
    expect(group).to_be_visible()
    for name in ("Notebook", "JupyterLab", "Classic Notebook"):
        option = group.get_by_role("radio", name=re.compile(rf"\b{name}\b.*about 140 MB of memory")).last
        expect(option).to_be_visible()
    assert group.get_by_role("img", name="A list of files beside a notebook and a terminal").is_visible()
    expect(group.get_by_role("radio", name=re.compile("JupyterLab"))).to_be_checked()
    assert fits(page)
    picture(page, "phone-start" if small else "start")
    group.get_by_role("radio", name=re.compile("JupyterLab")).focus()
    page.keyboard.press("ArrowDown")
    expect(group.get_by_role("radio", name=re.compile("Classic Notebook"))).to_be_checked()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Start")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/user/student1/nbclassic/tree"), timeout=180_000)
    expect(page.locator("#notebook_list")).to_be_visible()
    # The same server, in another of its pages.
    page.goto("/hub/home")
    workspaces = page.get_by_role("navigation", name="Workspaces")
    expect(workspaces).to_be_visible()
    assert fits(page)
    workspaces.get_by_role("link", name="JupyterLab").click()
    wait_for_lab(page)


def test_a_link_that_says_what_asks_nobody(context: BrowserContext, choice: Classroom) -> None:
    page = context.new_page()
    sign_in(page, "student1")
    expect(page.get_by_role("group", name="What do you want to work in?")).to_be_visible()
    page.goto("/hub/workspaces/lab?course=intro101")
    wait_for_lab(page)


def test_what_is_not_there_is_said(context: BrowserContext, choice: Classroom) -> None:
    page = context.new_page()
    sign_in(page, "student1")
    page.goto("/hub/workspaces/rstudio")
    expect(page.get_by_role("alert")).to_contain_text("RStudio is not installed on this machine")
    assert fits(page)
    page.get_by_role("link", name="JupyterLab").click()
    wait_for_lab(page)


def test_a_courses_link_offers_what_the_course_has(context: BrowserContext, choice: Classroom) -> None:
    choice.cli("config", "set", "courses.intro101.workspaces", "[lab, notebook]")
    choice.cli("config", "reload")
    page = context.new_page()
    sign_in(page, "student1")
    page.goto("/hub/workspaces?course=intro101")
    expect(page.get_by_role("heading", name="What do you want to work in?")).to_be_visible()
    expect(page.locator("#workspaces a")).to_have_count(2)
    assert fits(page)
    page.get_by_role("link", name=re.compile("JupyterLab")).focus()
    page.keyboard.press("Enter")
    wait_for_lab(page)
