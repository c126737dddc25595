"""Each workspace in a browser, through hub and proxy: a file is opened, changed and saved, and a command runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.classroom import ARTEFACTS, Classroom
from tests.support.person import PASSWORD
from tests.support.workspaces import ensure_program, ensure_rstudio

PICTURES = ARTEFACTS / "screenshots"
NAME = "student1"
FILE = f"/home/{NAME}/hello.py"


expect.set_options(timeout=60_000)


def picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=Path(PICTURES / f"{name}.png"))


def have(classroom: Classroom, name: str) -> None:
    """Have a program; a server looks for them when it starts."""
    there = {one["name"]: one["state"] for one in classroom.cli_json("workspace", "list")}
    if there[name] != "ready":
        ensure_rstudio(classroom) if name == "rstudio" else ensure_program(classroom, name)
        classroom.cli("user", "stop", NAME, check=False)


@pytest.fixture
def page(browser: Browser, classroom: Classroom) -> Iterator[Page]:
    # Not what other tests had open in Lab, which would come back.
    begin = f"rm -rf said .jupyter/lab/workspaces; echo 'print(1)' > {FILE}"
    classroom.machine.run(["bash", "-c", begin], user=NAME, cwd=f"/home/{NAME}")
    context = browser.new_context(base_url=classroom.url, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    page = context.new_page()
    try:
        yield page
    finally:
        picture(page, "last-workspace")
        context.close()


def enter(page: Page, path: str, *, query: str = "", arrive: str = "") -> None:
    """By the link that an LMS would have: sign in first, start the server, and arrive."""
    page.goto(f"/hub/user-redirect/{path}{query}")
    page.get_by_label("Username").fill(NAME)
    page.locator("#password_input").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile(re.escape(arrive or f"/user/{NAME}/{path}")), timeout=180_000)


def wait_for_file(classroom: Classroom, file: str, text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in (said := classroom.machine.run(["cat", file], check=False).stdout):
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


def test_vscode(page: Page, classroom: Classroom) -> None:
    have(classroom, "vscode")
    enter(page, "vscode")
    expect(page.locator(".monaco-workbench")).to_be_visible(timeout=180_000)
    page.get_by_role("treeitem", name="hello.py").first.dblclick()
    editor = page.locator(".editor-instance .view-lines").first
    expect(editor).to_contain_text("print(1)")
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("print('by VS Code')\n")
    page.keyboard.press("Control+S")
    wait_for_file(classroom, FILE, "by VS Code")
    page.keyboard.press("Control+`")
    expect(page.locator(".terminal-wrapper.active .xterm-rows, .terminal-wrapper.active canvas").first).to_be_visible()
    page.wait_for_timeout(2000)
    page.keyboard.type("id -un > said; python3 hello.py | tee -a said\n")
    wait_for_file(classroom, f"/home/{NAME}/said", f"{NAME}\nby VS Code")
    # No chat, no question about trust, nothing about telemetry.
    expect(page.get_by_text(re.compile("Do you trust|telemetry", re.I))).to_have_count(0)
    expect(page.get_by_role("tab", name=re.compile("Chat"))).to_have_count(0)
    picture(page, "vscode")


def test_theia(page: Page, classroom: Classroom) -> None:
    have(classroom, "theia")
    enter(page, "theia")
    expect(page.locator("#theia-app-shell")).to_be_visible(timeout=180_000)
    page.locator("#shell-tab-explorer-view-container").click()
    explorer = page.locator("#files")
    expect(explorer.get_by_text("hello.py")).to_be_visible(timeout=60_000)
    explorer.get_by_text("hello.py").dblclick()
    editor = page.locator(".theia-editor .view-lines").first
    expect(editor).to_contain_text("print(1)")
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("print('by Theia')\n")
    page.keyboard.press("Control+S")
    wait_for_file(classroom, FILE, "by Theia")
    page.keyboard.press("Control+Shift+`")
    expect(page.locator(".xterm").first).to_be_visible()
    page.wait_for_timeout(2000)
    page.keyboard.type("id -un > said; python3 hello.py | tee -a said\n")
    wait_for_file(classroom, f"/home/{NAME}/said", f"{NAME}\nby Theia")
    cookies = {one["path"] for one in page.context.cookies() if "theia" in one.get("name", "").lower()}
    assert cookies <= {f"/user/{NAME}/theia/"}, cookies
    picture(page, "theia")


@pytest.mark.parametrize(("path", "opened"), [("lab", "lab/tree/hello.py"), ("tree", "edit/hello.py")])
def test_lab_and_notebook(page: Page, classroom: Classroom, path: str, opened: str) -> None:
    have(classroom, "vscode")
    enter(page, opened, query="?reset")
    editor = page.locator(".jp-FileEditor .cm-content").first
    expect(editor).to_contain_text("print(1)", timeout=180_000)
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("print('by Jupyter')\n")
    page.keyboard.press("Control+S")
    wait_for_file(classroom, FILE, "by Jupyter")
    if path == "lab":
        page.locator("[data-command='launcher:create']:visible").first.click()
        # What is installed is in its launcher, too.
        expect(page.locator(".jp-LauncherCard").filter(has_text="VS Code").first).to_be_visible()
        page.locator(".jp-LauncherCard").filter(has_text="Terminal").first.click()
    else:
        page.goto(f"/user/{NAME}/terminals/1")
    terminal = page.locator(".jp-Terminal").first
    expect(terminal).to_be_visible(timeout=60_000)
    page.wait_for_timeout(2000)
    terminal.click()
    page.keyboard.type("id -un > said; python3 hello.py | tee -a said\n")
    wait_for_file(classroom, f"/home/{NAME}/said", f"{NAME}\nby Jupyter")
    picture(page, f"workspace-{path}")


def test_rstudio_stand_in(page: Page, classroom: Classroom) -> None:
    have(classroom, "rstudio")
    enter(page, "rstudio")
    expect(page.get_by_role("heading", name="RStudio stand-in")).to_be_visible(timeout=60_000)
    # It was redirected within its own path, as the real one does.
    assert page.url.endswith(f"/user/{NAME}/rstudio/signed-in")
    expect(page.get_by_text(f"as {NAME}")).to_be_visible()


def test_a_program_that_is_not_there(page: Page, classroom: Classroom) -> None:
    have(classroom, "rstudio")
    classroom.cli("user", "stop", NAME, check=False)
    classroom.cli("workspace", "remove", "rstudio", "--yes")
    try:
        enter(page, "rstudio", arrive="/hub/workspaces/rstudio")
        expect(page.get_by_role("alert")).to_contain_text("RStudio is not installed on this machine")
        # The stand-in brought R and its kernel, which stay.
        page.get_by_role("link", name="R in JupyterLab").click()
        page.wait_for_url(re.compile(rf"/user/{NAME}/lab"), timeout=180_000)
        page.locator("[data-command='launcher:create']:visible").first.click()
        expect(page.locator(".jp-LauncherCard").filter(has_text=re.compile(r"^\s*R")).first).to_be_visible(
            timeout=180_000
        )
        # An old link to the program itself is answered by the server, in a sentence.
        page.goto(f"/user/{NAME}/rstudio/")
        expect(page.get_by_role("heading", name="RStudio cannot be opened")).to_be_visible()
        expect(page.get_by_text("illumidesk workspace install rstudio")).to_be_visible()
        expect(page.get_by_role("link", name=re.compile("JupyterLab"))).to_be_visible()
    finally:
        classroom.cli("user", "stop", NAME, check=False)
