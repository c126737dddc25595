"""Memory of each workspace while its page is open and nobody does anything, beside what it takes as it comes."""

from __future__ import annotations

import time

from playwright.sync_api import Page, sync_playwright

from benchmarks.figures import OURS, STOCK, Figure
from tests.browser.conftest import QUIET
from tests.support.classroom import Classroom
from tests.support.person import PASSWORD

NAME = "student1"
UNIT = f"jupyter-{NAME}.service"
#: What is on the page when it can be worked with.
READY = {
    "lab": ".jp-Launcher, .jp-FileBrowser",
    "tree": ".jp-FileBrowser, .jp-DirListing",
    "vscode/": ".monaco-workbench .explorer-folders-view",
    "theia/": "#theia-app-shell",
}
#: A person's own settings, before the first visit: with these the program takes its makers' defaults.
_VSCODE = f"/home/{NAME}/.local/share/code-server"
_PSS = """
import sys, pathlib
unit, total = sys.argv[1], 0
for process in pathlib.Path("/proc").iterdir():
    if not process.name.isdigit():
        continue
    try:
        if unit not in (process / "cgroup").read_text():
            continue
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        continue
    total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
print(total)
"""


def pss(classroom: Classroom) -> int:
    """Mebibytes of the unit's processes: shared pages count for each process by its part."""
    return round(int(classroom.machine.run(["python3", "-c", _PSS, UNIT]).stdout) / 1024)


def measure(classroom: Classroom, *, idle: float) -> list[Figure]:
    """Install the programs where they are not there, open each workspace in a browser by itself, and add up.

    Args:
        classroom: installed.
        idle: seconds for which nobody does anything.
    """
    for program in ("vscode", "theia"):
        classroom.machine.run(["illumidesk", "workspace", "install", program], timeout=1800)
    found: dict[str, dict[str, float | None]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET)
        for path in ("lab", "tree", "theia/", "vscode/"):
            page = browser.new_page(base_url=classroom.url)
            found[path.strip("/")] = {OURS: _once(classroom, page, path, idle)}
            page.close()
        page = browser.new_page(base_url=classroom.url)
        found["vscode"][STOCK] = _once(classroom, page, "vscode/", idle, settings="{}")
        browser.close()
    classroom.cli("user", "stop", NAME, check=False)
    person = classroom.sign_in(NAME)
    person.start_server()
    time.sleep(idle / 4)
    found["no page"] = {OURS: pss(classroom)}
    note = "the program with its makers' settings" if STOCK in found["vscode"] else ""
    return [
        Figure(f"a server with {name} open, idle", "MiB", 1, values, note=note if STOCK in values else "")
        for name, values in found.items()
    ]


def _once(classroom: Classroom, page: Page, path: str, idle: float, *, settings: str | None = None) -> int:
    classroom.cli("user", "stop", NAME, check=False)
    classroom.machine.run(["rm", "-rf", _VSCODE, f"/home/{NAME}/.theia"])
    if settings is not None:
        script = f"mkdir -p {_VSCODE}/User && echo '{settings}' > {_VSCODE}/User/settings.json"
        classroom.machine.run(["bash", "-c", script], user=NAME)
    page.set_default_timeout(180_000)
    page.goto(f"/hub/user-redirect/{path}")
    # Each page has cookies of its own.
    page.get_by_label("Username").fill(NAME)
    page.locator("#password_input").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**/user/{NAME}/{path}**")
    page.locator(READY[path]).first.wait_for()
    time.sleep(idle)
    return pss(classroom)
