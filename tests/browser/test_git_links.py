"""The page that makes git links, and the page that follows one, in a browser. Neither needs a class."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jinja2
import pytest
from playwright.sync_api import Browser, Page, expect

from illumidesk.paths import data
from tests.support.notebook_server import NotebookServer, notebook_server

_STUB = """<!doctype html><html lang="en"><head><title>{% block title %}{% endblock %}</title></head>
<body>{% block main %}{% endblock %}{% block script %}{% endblock %}</body></html>"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


def test_a_link_is_made_by_keyboard(page: Page) -> None:
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.DictLoader({"page.html": _STUB}), jinja2.FileSystemLoader(data("config", "templates"))]
        ),
        autoescape=True,
    )
    text = templates.get_template("git_link.html").render(base_url="/hub/", public_url="https://class.example")
    page.set_content(text)
    link = page.get_by_role("textbox", name="Link for a browser")
    parameter = page.get_by_role("textbox", name="Custom parameter for the LMS")
    copies = page.get_by_role("button", name="Copy the link for a browser")
    expect(copies).to_be_disabled()
    page.get_by_label("Address for cloning").focus()
    page.keyboard.type("https://git.example/a b/intro.git/")
    page.keyboard.press("Tab")
    page.keyboard.type("main")
    page.keyboard.press("Tab")
    page.keyboard.type("/week 1/ü&x.ipynb")
    page.keyboard.press("Tab")
    page.keyboard.type("V")
    parts = urlsplit(link.input_value())
    assert (parts.netloc, parts.path) == ("class.example", "/hub/user-redirect/git-pull")
    asked = {
        "repo": ["https://git.example/a b/intro.git"],
        "branch": ["main"],
        "subPath": ["week 1/ü&x.ipynb"],
        "app": ["vscode"],
    }
    assert parse_qs(parts.query) == asked
    assert parameter.input_value() == f"next=git-pull?{parts.query}"
    expect(copies).to_be_enabled()
    for address in ("git@git.example:a/b.git", "javascript:alert(1)", "https://me:secret@git.example/a"):
        page.get_by_label("Address for cloning").fill(address)
        expect(page.locator("#problem")).to_be_visible()
        expect(link).to_have_value("")
        expect(copies).to_be_disabled()
    # a repository on the machine
    page.get_by_label("Address for cloning").fill("/srv/nbgrader/shared/intro101/a.git")
    expect(page.locator("#problem")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def git(folder: Path, *argv: str) -> None:
    identity = ["-c", "user.name=Teacher", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *argv], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookServer]:
    folder = tmp_path_factory.mktemp("pull")
    (folder / "root/srv/nbgrader/shared/intro101/material").mkdir(parents=True)
    with notebook_server(folder, (), variables={"ILLUMIDESK_ROOT": str(folder / "root")}) as server:
        yield server


def test_the_page_goes_on_or_says_what_was_kept(page: Page, server: NotebookServer) -> None:
    material = server.home.parent / "root/srv/nbgrader/shared/intro101/material"
    git(material, "init", "-q", "-b", "main")
    (material / "notes.md").write_text("one\n")
    git(material, "add", "-A")
    git(material, "commit", "-qm", "first")
    address = f"{server.url}git-pull?repo={material}&app=lab&subPath=notes.md&token={server.token}"
    page.goto(address)
    page.wait_for_url("**/lab/tree/material/notes.md*")
    (server.home / "material/notes.md").write_text("mine\n")
    (material / "notes.md").write_text("<b>theirs</b>\n")
    git(material, "commit", "-qam", "second")
    page.goto(address)
    expect(page.get_by_role("heading", name="Your own work was kept")).to_be_visible()
    expect(page.get_by_role("listitem")).to_contain_text("notes.md")
    expect(page.get_by_role("link", name="Go on")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/lab/tree/material/notes.md*")
    assert (server.home / "material/notes.md").read_text() == "mine\n"
    page.goto(f"{server.url}git-pull?repo=/etc&token={server.token}")
    expect(page.get_by_role("heading", name="It could not be fetched")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("not in a folder of this machine")
