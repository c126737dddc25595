"""What opening Lab costs: the second opening brings hardly more than what is the person's own."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Page, Playwright

from tests.browser.conftest import QUIET
from tests.browser.test_first_class import sign_in, wait_for_lab
from tests.support.classroom import ARTEFACTS, Classroom
from tests.support.paint import Wire, opening, own_browser


def test_the_second_opening_needs_a_tenth_of_the_first(
    playwright: Playwright, classroom: Classroom, tmp_path: Path
) -> None:
    with Wire(classroom.url).relaying() as wire, own_browser(playwright, tmp_path, QUIET) as context:
        packed: list[str] = []
        context.on("response", lambda one: packed.append(one.headers.get("content-encoding", "")))

        def first(page: Page) -> None:
            sign_in(page, "student1", wire.url)
            wait_for_lab(page)

        def again(page: Page) -> None:
            page.goto(f"{wire.url}/user/student1/lab")
            wait_for_lab(page)

        openings = [opening(wire, context.new_page(), first)]
        assert packed.count("gzip") > 20
        context.pages[-1].close()
        openings.append(opening(wire, context.new_page(), again))
    figures = ARTEFACTS / "paint.json"
    figures.parent.mkdir(parents=True, exist_ok=True)
    figures.write_text(json.dumps([one.__dict__ for one in openings], indent=2) + "\n")
    assert openings[0].received > 1 << 20  # else it was not the first
    assert openings[1].received <= openings[0].received / 10
