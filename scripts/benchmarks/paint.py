"""From the click in an LMS to a notebook, in Chromium: seconds and bytes.

First and second opening of Lab, as people's servers alone answer (called stock here) and as our proxy helps.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import OURS, STOCK, Figure
from tests.support.lms import lms
from tests.support.lms_thread import served


def measure(rounds: int) -> tuple[list[Figure], dict[str, Any]]:
    """So many rounds.

    Both ways alternate. At the first opening nothing runs and the browser is new; at the second the person's server
    runs and the browser has been there. Medians of `rounds`.
    """
    from playwright.sync_api import sync_playwright

    from tests.browser.conftest import QUIET
    from tests.integration.conftest import build_proxy, running_stack
    from tests.support.paint import Opening, Wire, click_to_notebook, opening, own_browser

    settings = {"sign_in": {"lti": {"loopback_platforms": True}}}

    def once(folder: Path, program: Path, *, static: bool) -> tuple[Opening, Opening]:
        with (
            running_stack(program, settings, static=static) as stack,
            Wire(stack.url).relaying() as wire,
            served(lms("moodle", 1, tool=wire.url)) as platform,
            sync_playwright() as playwright,
            own_browser(playwright, folder, QUIET) as context,
        ):
            body = {"name": "Moodle", "version": "1.1", "key": platform.key, "secret": platform.secret}
            stack.expect(201, "POST", "platforms", body)
            course = f"{platform.jwks_url.removesuffix('/jwks')}/course?version=1.1&who=student&sub=s1"

            def click(page: Any) -> None:
                click_to_notebook(page, course)

            first = opening(wire, context.new_page(), click)
            context.pages[-1].close()
            return first, opening(wire, context.new_page(), click)

    found: dict[bool, list[tuple[Opening, Opening]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name:
        program = build_proxy(Path(name))
        for number in range(rounds):
            for static, openings in found.items():
                openings.append(once(Path(name) / f"browser-{number}-{static}", program, static=static))
    result: dict[str, Any] = {}
    for static, openings in found.items():
        first, second = ([pair[which] for pair in openings] for which in (0, 1))
        firsts, seconds = (median(one.received for one in some) for some in (first, second))
        result["files from the proxy" if static else "files from people's servers"] = {
            "first_kib": round(firsts / 1024),
            "second_kib": round(seconds / 1024),
            "second_percent": round(100 * seconds / firsts, 1),
            "first_s": median(one.seconds for one in first),
            "second_s": median(one.seconds for one in second),
        }
    alone, helped = result["files from people's servers"], result["files from the proxy"]
    figures = [
        Figure(f"{which} opening of Lab from an LMS, {what}", unit, 0, {STOCK: alone[key], OURS: helped[key]})
        for which, what, unit, key in (
            ("first", "bytes", "KiB", "first_kib"),
            ("second", "bytes", "KiB", "second_kib"),
            ("first", "until a notebook is there", "s", "first_s"),
            ("second", "until a notebook is there", "s", "second_s"),
        )
    ]
    return figures, result
