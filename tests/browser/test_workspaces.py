"""Each workspace in a browser, through hub and proxy: a file is opened, changed and saved, and a command runs."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.classroom import ARTEFACTS, Classroom
from tests.support.extensions import said_by, vsix
from tests.support.gallery import Gallery, gallery
from tests.support.person import PASSWORD
from tests.support.workspaces import ensure_program, ensure_rstudio

PICTURES = ARTEFACTS / "screenshots"
NAME = "student1"
FILE = f"/home/{NAME}/hello.py"
#: Who a terminal belongs to, what the file does there, and what is in it.
RUN = "id -un > said; python3 hello.py >> said; cat hello.py >> said\n"
SAID = f"/home/{NAME}/said"
#: A teacher's repository, in a folder of this machine from which links of the course's members may fetch.
LESSONS = "/srv/nbgrader/shared/intro101/lessons"
#: Written into people's Node, to see whom they ask.
WHOM = Path(__file__).parents[1] / "support" / "whom.cjs"

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
    """A page of somebody whose programs and Lab remember nothing: what they had open, and had not saved, comes back."""
    classroom.cli("user", "stop", NAME, check=False)
    forget = "rm -rf said .jupyter/lab/workspaces .local/share/code-server .theia lessons"
    classroom.machine.run(["bash", "-c", f"{forget}; echo 'print(1)' > {FILE}"], user=NAME, cwd=f"/home/{NAME}")
    context = browser.new_context(
        base_url=classroom.url, viewport={"width": 1280, "height": 800}, ignore_https_errors=True
    )
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


def see_files(page: Page, program: str, *names: str) -> None:
    """Wait for the program with its list of files, which has these."""
    if program == "vscode":
        expect(page.locator(".monaco-workbench")).to_be_visible(timeout=180_000)
        files = page.locator(".explorer-folders-view")
    else:
        expect(page.locator("#theia-app-shell")).to_be_visible(timeout=180_000)
        files = page.locator("#files")
        tab = page.locator("#shell-tab-explorer-view-container")
        expect(tab).to_be_visible(timeout=180_000)
        if not files.is_visible():
            tab.click()
    for name in names:
        expect(files.get_by_text(name, exact=True)).to_be_visible(timeout=180_000)


def edit(page: Page, program: str, text: str) -> None:
    """Open the file from the list, add a comment to it and save.

    In a comment nothing is suggested, and no bracket or quote is closed by an editor that has read the language's rules
    in the middle of what was typed.
    """
    files, editor = {
        "vscode": (".explorer-folders-view", ".editor-instance"),
        "theia": ("#files", ".theia-editor"),
    }[program]
    page.locator(files).get_by_text("hello.py", exact=True).dblclick()
    lines = page.locator(f"{editor} .view-lines").first
    expect(lines).to_contain_text("print(1)")
    lines.click()
    expect(page.locator(f"{editor} :focus")).to_have_count(1)
    page.keyboard.press("Control+End")
    page.keyboard.type(f"# {text}")
    expect(lines).to_contain_text(f"# {text}")
    page.keyboard.press("Control+S")


def run_in_terminal(page: Page, key: str) -> None:
    """Open a terminal, wait until its shell asks, and run the file."""
    page.keyboard.press(key)
    terminal = page.locator(".xterm:visible")
    expect(terminal).to_have_count(1)
    expect(terminal.locator(".xterm-rows")).to_contain_text("$")
    expect(terminal.locator(".xterm-helper-textarea")).to_be_focused()
    page.keyboard.type(RUN)


def run_command(page: Page, title: str) -> None:
    """By the list of commands, which both programs have on the same key. It knows what was there when it was opened."""
    asked = page.locator(".quick-input-widget input[type=text]")
    found = page.locator(".quick-input-list .monaco-list-row").filter(has_text=title).first
    deadline = time.monotonic() + 120
    while True:
        page.keyboard.press("F1")
        expect(asked).to_be_focused()
        asked.fill(f">{title}")
        with contextlib.suppress(AssertionError):
            expect(found).to_be_visible(timeout=3000)
            break
        assert time.monotonic() < deadline, f"there is no command {title}"
        page.keyboard.press("Escape")
    page.keyboard.press("Enter")


def test_vscode(page: Page, classroom: Classroom) -> None:
    have(classroom, "vscode")
    enter(page, "vscode")
    see_files(page, "vscode", "hello.py")
    edit(page, "vscode", "by VS Code")
    wait_for_file(classroom, FILE, "by VS Code")
    run_in_terminal(page, "Control+`")
    wait_for_file(classroom, SAID, f"{NAME}\n1\nprint(1)\n# by VS Code")
    # No chat, no question about trust, nothing about telemetry.
    expect(page.get_by_text(re.compile("Do you trust|telemetry", re.I))).to_have_count(0)
    expect(page.get_by_role("tab", name=re.compile("Chat"))).to_have_count(0)
    picture(page, "vscode")


def test_theia(page: Page, classroom: Classroom) -> None:
    have(classroom, "theia")
    enter(page, "theia")
    see_files(page, "theia", "hello.py")
    edit(page, "theia", "by Theia")
    wait_for_file(classroom, FILE, "by Theia")
    run_in_terminal(page, "Control+Shift+`")
    wait_for_file(classroom, SAID, f"{NAME}\n1\nprint(1)\n# by Theia")
    cookies = {one["path"] for one in page.context.cookies() if "theia" in one.get("name", "").lower()}
    assert cookies <= {f"/user/{NAME}/theia/"}, cookies
    picture(page, "theia")


@pytest.mark.parametrize("program", ["vscode", "theia"])
def test_extensions_for_everybody(page: Page, classroom: Classroom, program: str, tmp_path: Path) -> None:
    have(classroom, program)
    (tmp_path / "sums.vsix").write_bytes(vsix("sums"))
    classroom.machine.copy_in(tmp_path / "sums.vsix", "/srv/class-extensions/sums.vsix")
    ensure_program(classroom, program, "--extensions", "/srv/class-extensions")
    enter(page, program)
    see_files(page, program, "hello.py")
    run_command(page, "sums: say hello")
    expect(page.get_by_text(said_by("sums")).first).to_be_visible()


@pytest.mark.parametrize("program", ["vscode", "theia"])
def test_a_git_link(page: Page, classroom: Classroom, program: str) -> None:
    have(classroom, program)
    commit = "git -c user.name=T -c user.email=t@example.org commit -qm first"
    classroom.machine.run(
        [
            "bash",
            "-ec",
            f"rm -rf {LESSONS}; git init -q -b main {LESSONS}; cd {LESSONS}; touch week1.py; git add .; {commit}",
        ]
    )
    enter(page, "git-pull", query=f"?repo={LESSONS}&app={program}", arrive=f"/user/{NAME}/{program}/")
    see_files(page, program, "week1.py")
    # The repository's folder is what is open, not the home.
    expect(page.get_by_text("hello.py", exact=True)).to_have_count(0)
    expect(page).to_have_title(re.compile("lessons"))
    picture(page, f"git-link-{program}")


@pytest.fixture(scope="module")
def lent(classroom: Classroom, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    """A gallery whose certificate the machine knows. People's programs write down to whom they open connections."""
    machine = classroom.machine
    authority, config = "/usr/local/share/ca-certificates/gallery.crt", "/etc/jupyterhub/jupyterhub_config.d/whom.py"
    with gallery(tmp_path_factory.mktemp("gallery")) as running:
        machine.write_text(authority, running.authority.decode())
        machine.write_text("/srv/whom.cjs", WHOM.read_text())
        machine.write_text(config, 'c.Spawner.environment = {"NODE_OPTIONS": "--require=/srv/whom.cjs"}\n')
        machine.run(["update-ca-certificates"])
        machine.run(["systemctl", "restart", "illumidesk-hub"])
        classroom.wait_for_hub()
        try:
            yield running
        finally:
            machine.run(["rm", "-f", authority, config, "/srv/whom.cjs"])
            machine.run(["update-ca-certificates", "--fresh"])
            machine.run(["systemctl", "restart", "illumidesk-hub"])
            classroom.wait_for_hub()


@pytest.mark.parametrize("program", ["vscode", "theia"])
@pytest.mark.parametrize("there", [True, False], ids=["gallery", "no-gallery"])
def test_a_gallery(page: Page, classroom: Classroom, lent: Gallery, program: str, there: bool) -> None:
    """An extension is found, and nobody else is asked; nobody at all where there is no gallery."""
    have(classroom, program)
    lent.asked.clear()
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    classroom.machine.run(["rm", "-f", f"/home/{NAME}/whom"])
    classroom.cli("config", "set", "workspaces.gallery", lent.url if there else "")
    classroom.cli("config", "reload")
    try:
        enter(page, program)
        see_files(page, program, "hello.py")
        page.keyboard.press("Control+Shift+X")
        if program == "vscode":
            page.locator(".extensions-search-container .view-lines").click()
            page.keyboard.type("lent")
            found = page.locator(".extension-list-item").filter(has_text="Says hello from lent")
        else:
            page.locator(".theia-vsx-extensions-search-bar input").fill("lent")
            found = page.locator(".theia-vsx-extension").filter(has_text="Says hello from lent")
        if there:
            expect(found).to_be_visible()
            if program == "theia":  # in VS Code the button stays off for what the stand-in gives
                found.get_by_text("Install", exact=True).click()
                page.get_by_role("button", name="OK").click()
                run_command(page, "lent: say hello")
                expect(page.get_by_text(said_by("lent")).first).to_be_visible()
        else:
            page.wait_for_timeout(5000)
            expect(found).to_have_count(0)
        picture(page, f"gallery-{program}-{there}")
    finally:
        classroom.cli("config", "unset", "workspaces.gallery")
        classroom.cli("config", "reload")
    whom = set(classroom.machine.run(["cat", f"/home/{NAME}/whom"], check=False).stdout.split())
    there_too = {urlsplit(lent.url).netloc} if there else set()
    assert whom <= there_too
    assert hosts - {urlsplit(classroom.url).netloc, ""} <= there_too
    assert bool(lent.asked) is there


@pytest.mark.parametrize(("path", "opened"), [("lab", "lab/tree/hello.py"), ("tree", "edit/hello.py")])
def test_lab_and_notebook(page: Page, classroom: Classroom, path: str, opened: str) -> None:
    have(classroom, "vscode")
    enter(page, opened, query="?reset")
    editor = page.locator(".jp-FileEditor .cm-content").first
    expect(editor).to_contain_text("print(1)", timeout=180_000)
    editor.click()
    page.keyboard.press("Control+End")
    page.keyboard.type("# by Jupyter")
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
    terminal.click()
    # Its shell may ask later: Lab keeps what is typed until then. What it shows is drawn, and cannot be waited for.
    expect(terminal.locator(".xterm-helper-textarea")).to_be_focused()
    page.keyboard.type(RUN)
    wait_for_file(classroom, SAID, f"{NAME}\n1\nprint(1)\n# by Jupyter")
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
