"""An instructor asks for packages on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.test_first_class import picture, sign_in
from tests.support.classroom import Classroom

COURSE = "bio101"


@pytest.fixture
def phone(browser: Browser, classroom: Classroom) -> Iterator[Page]:
    classroom.cli("course", "create", COURSE, "--title", "Biology 101", "--instructor", "instructor1")
    context = browser.new_context(
        base_url=classroom.url, viewport={"width": 360, "height": 740}, device_scale_factor=2, is_mobile=True
    )
    context.set_default_timeout(60_000)
    page = context.new_page()
    yield page
    context.close()
    classroom.cli("course", "remove", COURSE, "--yes")


def test_packages(phone: Page, classroom: Classroom) -> None:
    sign_in(phone, "instructor1")
    phone.wait_for_url(re.compile(r"/(lab|hub|user)"), timeout=180_000)
    phone.goto("/hub/home")
    phone.locator(f"a[href$='/courses/{COURSE}/environment']").click()
    expect(phone.get_by_role("heading", name="Packages of Biology 101")).to_be_visible()
    phone.get_by_label("Ask for packages").fill("git+https://example.org/x")
    phone.get_by_role("button", name="Ask").click()
    expect(phone.locator("#problem")).to_contain_text("is an address or a path")
    phone.get_by_label("Ask for packages").fill("pandas\nnumpy>=2\nrdkit")
    phone.get_by_role("button", name="Ask").click()
    expect(phone.locator("#waiting li")).to_have_count(3)
    phone.get_by_role("button", name="Take the request for numpy back").click()
    expect(phone.locator("#waiting li")).to_have_count(2)
    classroom.cli("course", "env", COURSE, "decline", "rdkit", "--reason", "Please use the chemistry machine")
    phone.reload()
    expect(phone.locator("#answered")).to_contain_text("Please use the chemistry machine")
    assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    picture(phone, "phone-packages")
    phone.get_by_text("What there is").click()
    expect(phone.get_by_role("row", name=re.compile("^jupyterlab "))).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
