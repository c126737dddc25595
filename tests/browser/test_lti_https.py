"""A launch in a frame of another site, by HTTPS, in a browser that keeps third-party cookies apart."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Playwright, expect

from tests.browser.conftest import QUIET
from tests.browser.test_first_class import wait_for_lab
from tests.browser.test_lti import add_moodle, course_page
from tests.support.certificates import make_certificate, make_key, pem, pem_of_key
from tests.support.classroom import Classroom
from tests.support.lms import LMS, lms
from tests.support.lms_thread import served

DOMAIN = "class.test.example"


@pytest.fixture(scope="module")
def moodle(classroom: Classroom) -> Iterator[LMS]:
    """The class has HTTPS under a name of its own, and an LMS is on another site."""
    port = classroom.port + 300
    key = make_key()
    classroom.machine.write_text("/root/class.pem", pem(make_certificate(key, DOMAIN)).decode())
    classroom.machine.write_text("/root/class-key.pem", pem_of_key(key).decode())
    classroom.cli("config", "set", "https.port", str(port))
    classroom.cli("config", "set", "sign_in.lti.loopback_platforms", "true")
    classroom.cli("https", "certificate", "--cert", "/root/class.pem", "--key", "/root/class-key.pem")
    try:
        with served(lms("moodle", 1, tool=f"https://{DOMAIN}:{port}")) as platform:
            add_moodle(classroom, platform)
            yield platform
    finally:
        for one in classroom.cli_json("lti", "platform", "list"):
            classroom.cli("lti", "platform", "remove", str(one["id"]), "--yes")
        classroom.cli("https", "off")
        classroom.cli("config", "unset", "https.port")
        classroom.cli("config", "unset", "sign_in.lti.loopback_platforms")
        classroom.cli("config", "reload")
        classroom.wait_for_hub()


@pytest.fixture
def context(playwright: Playwright) -> Iterator[BrowserContext]:
    """A browser that finds the class by its name, and blocks third-party cookies that are not kept apart."""
    flags = [
        *QUIET,
        f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1",
        "--test-third-party-cookie-phaseout",
    ]
    chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
    context = chromium.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    yield context
    chromium.close()


def test_from_a_frame_of_another_site_to_a_notebook(context: BrowserContext, moodle: LMS) -> None:
    page = course_page(context, moodle, sub="framed-student", target="frame")
    page.get_by_role("button", name="Open notebook").click()
    frame = page.frame_locator("iframe")
    button = frame.get_by_role("button", name="Open in a new window")
    expect(button).to_be_visible()
    # The state's cookie came back, kept apart for this site: nothing had to be asked twice.
    expect(frame.locator("input[name=ticket]")).to_have_count(1)
    with context.expect_page() as opened:
        button.click()
    wait_for_lab(opened.value)
    assert urlsplit(opened.value.url).hostname == DOMAIN
    cookies = {cookie["name"]: cookie for cookie in context.cookies(opened.value.url)}
    assert cookies["jupyterhub-session-id"]["secure"]
    # Nobody else's page may frame the notebook.
    page.evaluate("url => { document.querySelector('iframe').src = url; }", opened.value.url)
    expect(page.frame_locator("iframe").locator(".jp-LabShell")).to_have_count(0)
