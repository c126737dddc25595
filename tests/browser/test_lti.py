"""From the link in an LMS to a running notebook, in a browser. Its pictures are those of docs/lti."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

import jwt
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.test_first_class import picture, run_a_cell, wait_for_lab
from tests.support.classroom import Classroom
from tests.support.lms import LMS, lms
from tests.support.lms_thread import served


@pytest.fixture(scope="module")
def loopback(classroom: Classroom) -> Iterator[None]:
    """The LMSs of these tests are on this machine."""
    classroom.cli("config", "set", "sign_in.lti.loopback_platforms", "true")
    classroom.cli("config", "reload")
    classroom.wait_for_hub()
    yield
    for one in classroom.cli_json("lti", "platform", "list"):
        classroom.cli("lti", "platform", "remove", str(one["id"]), "--yes")
    classroom.cli("config", "set", "sign_in.lti.loopback_platforms", "false")
    classroom.cli("config", "reload")
    classroom.wait_for_hub()


def add_moodle(classroom: Classroom, platform: LMS) -> None:
    """As its administrator does by hand."""
    classroom.cli(
        *("lti", "platform", "add", "Moodle", "--lti", "1.3", "--replace"),
        *("--issuer", platform.issuer, "--client-id", platform.client_id, "--deployment", platform.deployments[0]),
        *("--auth-url", platform.auth_url, "--jwks-url", platform.jwks_url),
    )


@pytest.fixture(scope="module")
def moodle(classroom: Classroom, loopback: None) -> Iterator[LMS]:
    with served(lms("moodle", 1, tool=classroom.url)) as platform:
        add_moodle(classroom, platform)
        yield platform


@pytest.fixture(scope="module")
def sakai(classroom: Classroom, loopback: None) -> Iterator[LMS]:
    with served(lms("sakai", 2, tool=classroom.url)) as platform:
        classroom.cli(
            *("lti", "platform", "add", "Sakai", "--lti", "1.1", "--replace", "--key", platform.key),
            *("--secret-file", "-"),
            input=platform.secret,
        )
        yield platform


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    yield context
    context.close()


def course_page(context: BrowserContext, platform: LMS, **query: str) -> Page:
    """The LMS's page of the course, with the link to the tool."""
    page = context.new_page()
    parts = urlsplit(platform.jwks_url)
    page.goto(f"{parts.scheme}://{parts.netloc}/course?{urlencode(query)}")
    return page


@pytest.mark.parametrize("version", ["1.3", "1.1"])
def test_a_student_comes_to_a_running_notebook(
    context: BrowserContext, classroom: Classroom, moodle: LMS, sakai: LMS, version: str
) -> None:
    platform = moodle if version == "1.3" else sakai
    page = course_page(context, platform, version=version, who="student", sub=f"browser-student-{version}")
    page.get_by_role("button", name="Open notebook").click()
    wait_for_lab(page)
    assert urlsplit(page.url).netloc == urlsplit(classroom.url).netloc
    # Without what an earlier visit left open.
    page.goto(f"{page.url.partition('?')[0]}?reset")
    wait_for_lab(page)
    run_a_cell(page)


def test_a_teacher_comes_to_the_formgrader(context: BrowserContext, moodle: LMS) -> None:
    page = course_page(context, moodle, who="teacher")
    page.get_by_role("button", name="Open notebook").click()
    page.wait_for_url(re.compile(r"/(lab|hub)"), timeout=180_000)
    page.goto(re.sub(r"^(https?://[^/]*)/.*", r"\1/hub/home", page.url))
    page.get_by_role("button", name="Services").click()
    picture(page, "lti-services")
    page.get_by_role("link", name=re.compile("cs")).first.click()
    wait_for_lab(page)
    frame = page.frame_locator("iframe[src*='formgrader']")
    expect(frame.get_by_text("Manage Assignments").first).to_be_visible(timeout=120_000)


@pytest.mark.parametrize("version", ["1.3", "1.1"])
def test_in_a_frame_a_button_opens_a_window(context: BrowserContext, moodle: LMS, sakai: LMS, version: str) -> None:
    platform = moodle if version == "1.3" else sakai
    page = course_page(context, platform, version=version, sub=f"browser-student-{version}", target="frame")
    page.get_by_role("button", name="Open notebook").click()
    button = page.frame_locator("iframe").get_by_role("button", name="Open in a new window")
    expect(button).to_be_visible()
    picture(page, f"lti-frame-{version}")
    with context.expect_page() as opened:
        button.focus()
        page.keyboard.press("Enter")
    wait_for_lab(opened.value)


def test_without_the_cookie_the_platforms_storage_or_a_window_helps(context: BrowserContext, moodle: LMS) -> None:
    for storage in ({"storage": "_parent"}, {}):
        page = course_page(context, moodle, sub="browser-student-1.3", target="frame", **storage)

        def withhold(route: object) -> None:
            # As a browser does that keeps no cookies for pages inside another page.
            context.clear_cookies()
            route.continue_()  # type: ignore[attr-defined]

        page.route("**/auth?*", withhold)
        page.get_by_role("button", name="Open notebook").click()
        frame = page.frame_locator("iframe")
        button = frame.get_by_role("button", name="Open in a new window")
        expect(button).to_be_visible()
        if storage:
            # The launch was proved by what the platform's page kept: the button has a ticket.
            expect(frame.locator("input[name=ticket]")).to_have_count(1)
        else:
            picture(page, "lti-blocked")
        page.unroute("**/auth?*")
        with context.expect_page() as opened:
            button.click()
        wait_for_lab(opened.value)
        context.clear_cookies()


def test_a_teacher_chooses_what_a_link_opens(context: BrowserContext, moodle: LMS) -> None:
    page = course_page(context, moodle, who="teacher", target="frame")
    base = moodle.jwks_url.removesuffix("/jwks")
    moodle.next_claims = {
        "message_type": "LtiDeepLinkingRequest",
        "resource_link": None,
        "https://purl.imsglobal.org/spec/lti-dl/claim/deep_linking_settings": {
            "deep_link_return_url": f"{base}/return",
            "accept_types": ["ltiResourceLink"],
            "accept_presentation_document_targets": ["window"],
            "data": "a+b/c=&d",
        },
    }
    try:
        page.get_by_role("button", name="Open notebook").click()
        frame = page.frame_locator("iframe")
        expect(frame.get_by_role("heading", name="What shall the link open?")).to_be_visible()
        page.set_viewport_size({"width": 900, "height": 1500})
        page.locator("iframe").evaluate("frame => { frame.height = 1250; }")
        frame.get_by_label("Address for cloning").fill("nonsense")
        frame.get_by_role("button", name="Add the link").click()
        expect(frame.get_by_role("alert")).to_contain_text("no address of a git repository")
        frame.get_by_label("Address for cloning").fill("https://git.example.edu/intro.git")
        frame.get_by_label("What the link is called").fill("Week 1")
        picture(page, "lti-pick")
        frame.get_by_role("button", name="Add the link").click()
        expect(frame.get_by_role("heading", name="The link is in the course")).to_be_visible()
    finally:
        moodle.next_claims = {}
    (answer,) = moodle.returned
    said = jwt.decode(answer["JWT"], options={"verify_signature": False})
    (item,) = said["https://purl.imsglobal.org/spec/lti-dl/claim/content_items"]
    assert item["title"] == "Week 1"
    assert said["https://purl.imsglobal.org/spec/lti-dl/claim/data"] == "a+b/c=&d"


def test_a_wrong_clock_is_explained(context: BrowserContext, sakai: LMS) -> None:
    page = course_page(context, sakai, version="1.1")
    stale = sakai.signed(sakai.fields(), now=1_700_000_000)
    page.evaluate(
        "form => { for (const [name, value] of Object.entries(form)) document.forms[0].elements[name].value = value; }",
        stale,
    )
    page.get_by_role("button", name="Open notebook").click()
    expect(page.get_by_role("heading", name="Sign-in did not work")).to_be_visible()
    expect(page.get_by_text("Who can mend it")).to_be_visible()
    picture(page, "lti-refused")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
