"""What somebody works in, chosen by a link, a page, a query or JupyterHub's API, in a real hub and real servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import requests

from tests.integration.conftest import Stack
from tests.support.person import Person


@pytest.fixture(scope="module")
def stack_settings() -> dict[str, Any]:
    return {
        "workspaces": {
            "offered": ["notebook", "lab", "nbclassic", "vscode", "theia", "rstudio"],
            "types": {"own": {"title": "Ours", "path": "api/status"}},
        },
        "courses": {
            "bio101": {"environment": "bio"},
            "chem": {"workspace": "notebook"},
            "phys": {"workspaces": ["lab", "own", "vscode"]},
        },
    }


@pytest.fixture(scope="module", autouse=True)
def people(stack: Stack) -> None:
    (stack.paths.environments / "bio").symlink_to((stack.paths.environments / "default").resolve())
    for name in ("ana", "ben", "eve"):
        stack.expect(201, "POST", "users", {"name": name})
    for course_id in ("bio101", "chem", "phys"):
        stack.expect(201, "POST", "courses", {"course_id": course_id, "title": course_id.upper()})
        stack.expect(200, "PUT", f"courses/{course_id}/members/ana", {"role": "student"})
    stack.expect(200, "PUT", "courses/bio101/members/ben", {"role": "student"})


@pytest.fixture
def programs(stack: Stack) -> Iterator[Path]:
    """As if VS Code were installed."""
    (stack.paths.workspaces / "vscode").mkdir(parents=True, exist_ok=True)
    yield stack.paths.workspaces
    (stack.paths.workspaces / "vscode").rmdir()


@pytest.fixture
def ana(stack: Stack) -> Person:
    return started(stack, "ana", False)


@cache
def signed_in(url: str, name: str) -> Person:
    person = Person(url, name)
    person.sign_in()
    return person


def started(stack: Stack, name: str, running: bool, path: str = "/hub/spawn") -> Person:
    """Somebody who is signed in, and whose server runs (from `path`) or does not."""
    stack.expect(200, "POST", f"users/{name}/stop")
    person = signed_in(stack.url, name)
    if running:
        person.get(path)
        person.wait_ready()
    return person


def leads_to(person: Person, path: str) -> tuple[str, dict[str, str]]:
    """Where a page of the hub sends the browser, and the query there."""
    answer = person.get(path, allow_redirects=False)
    assert answer.status_code == 302, f"{path}: {answer.status_code} {answer.text}"
    parts = urlsplit(answer.headers["Location"])
    return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}


def environment_of(person: Person) -> str:
    """The environment from which the person's server was started."""
    path = person.run("import os; print(os.environ['PATH'].split(':')[0])")
    return Path(path).parent.name


@pytest.mark.parametrize(
    ("link", "chosen"),
    [
        ("/lab", "lab"),
        ("/notebook", "notebook"),
        ("/nbclassic/", "nbclassic"),
        ("/emacs", "notebook"),
        ("/LAB", "notebook"),
        ("/%C3%BC%00", "notebook"),
        ("/" + quote("../../etc/passwd", safe=""), "notebook"),
        ("/" + quote("<script>alert(1)</script>", safe=""), "notebook"),
        ("/" + "x" * 3000, "notebook"),
        ("/lab?course=none", "lab"),
        ("/lab?course=%ff%00", "lab"),
        ("/lab?next=https://evil.example/", "lab"),
        ("/lab?next=//evil.example/", "lab"),
        ("", ""),
        ("/", ""),
    ],
)
def test_a_link_starts_what_it_names(ana: Person, link: str, chosen: str) -> None:
    paths = {"notebook": "tree", "lab": "lab", "nbclassic": "nbclassic/tree", "": ""}
    place, query = leads_to(ana, f"/hub/workspaces{link}")
    assert place == "/hub/spawn/ana"
    assert query.get("opt-workspace_type", "") == chosen
    assert "opt-course" not in query
    assert query["next"] == f"/user/ana/{paths[chosen]}"


def test_a_link_names_a_page_of_its_own(ana: Person) -> None:
    page = "/hub/user-redirect/git-pull?repo=a%2Fb&app=lab"
    _, query = leads_to(ana, f"/hub/workspaces?course=bio101&next={quote(page, safe='')}")
    assert query == {"opt-course": "bio101", "next": page}


@pytest.mark.parametrize(
    ("link", "chosen"),
    [
        ("/lab?course=chem", "notebook"),
        ("/vscode?course=chem", "notebook"),
        ("?course=chem", "notebook"),
        ("/emacs?course=phys", "lab"),
        ("/notebook?course=phys", "lab"),
        ("/own?course=phys", "own"),
        ("/nbclassic?course=bio101", "nbclassic"),
    ],
)
def test_a_course_has_the_last_word(ana: Person, link: str, chosen: str) -> None:
    _, query = leads_to(ana, f"/hub/workspaces{link}")
    assert (query["opt-workspace_type"], query["opt-course"]) == (chosen, link.rpartition("=")[2])


def test_a_course_is_nobody_elses(stack: Stack) -> None:
    eve = started(stack, "eve", False)
    _, query = leads_to(eve, "/hub/workspaces/lab?course=chem")
    assert (query["opt-workspace_type"], query.get("opt-course")) == ("lab", None)


def test_what_is_not_there_is_said_in_a_sentence(ana: Person) -> None:
    answer = ana.get("/hub/workspaces/vscode")
    assert answer.status_code == 404
    assert "VS Code is not installed on this machine" in answer.text
    assert "/hub/workspaces/lab" in answer.text
    for page in ("vscode", "vscode/", "vscode/?folder=/x", "rstudio/", "theia/"):
        answer = ana.get(f"/user-redirect/{page}")
        assert answer.status_code == 404, page
        assert "is not installed on this machine" in answer.text
    answer = ana.get("/hub/workspaces/nbclassic?course=phys")
    assert answer.status_code == 403
    assert "Classic Notebook is not offered in PHYS" in answer.text
    assert "/hub/workspaces/lab?course=phys" in answer.text


def test_what_is_installed_is_there_at_once(ana: Person, programs: Path) -> None:
    assert leads_to(ana, "/hub/workspaces/vscode?course=phys")[1]["next"] == "/user/ana/vscode/"
    place, query = leads_to(ana, "/hub/user-redirect/vscode/?folder=/x")
    assert (place, query["next"]) == ("/hub/spawn/ana", "/user/ana/vscode/?folder=%2Fx")


def test_one_server_changes_between_workspaces(stack: Stack) -> None:
    ana = started(stack, "ana", True, "/hub/workspaces/notebook")
    assert ana.open_server("").url == f"{stack.url}/user/ana/tree"
    assert leads_to(ana, "/hub/workspaces/lab") == ("/user/ana/lab", {})
    assert leads_to(ana, "/hub/workspaces/emacs") == ("/user/ana/tree", {})
    assert leads_to(ana, "/hub/workspaces/own?course=phys") == ("/user/ana/api/status", {})
    assert leads_to(ana, "/hub/workspaces") == ("/user/ana/", {})
    assert ana.get("/hub/workspaces/nbclassic").url == f"{stack.url}/user/ana/nbclassic/tree"
    for page in ("lab", "tree", "nbclassic", "nbclassic/tree"):
        answer = ana.get(f"/user-redirect/{page}")
        assert answer.status_code == 200, page
        assert urlsplit(answer.url).path.startswith(f"/user/ana/{page}")
    home = ana.get("/hub/home").text
    for name in ("notebook", "lab", "nbclassic"):
        assert f'href="/hub/workspaces/{name}"' in home
    assert 'href="/hub/workspaces/vscode"' not in home
    assert 'href="/hub/workspaces?course=bio101"' in home


def test_a_course_brings_its_environment(stack: Stack) -> None:
    ana = started(stack, "ana", True, "/hub/workspaces/lab?course=bio101")
    ana.open_server()
    assert environment_of(ana) == "bio"
    # Another course of hers has none of its own: what runs keeps what it has until she says so.
    answer = ana.get("/hub/workspaces/notebook?course=chem")
    assert answer.status_code == 409
    assert "Your server runs with other packages than CHEM has" in answer.text
    assert leads_to(ana, "/hub/workspaces/lab?course=bio101") == ("/user/ana/lab", {})
    assert leads_to(ana, "/hub/workspaces/lab") == ("/user/ana/lab", {})
    stack.kill("hub")
    stack.start("hub")
    wait_for(ana)
    assert ana.get("/hub/workspaces/notebook?course=chem").status_code == 409
    refused = ana.session.post(f"{stack.url}/hub/workspaces/notebook?course=chem", timeout=60)
    assert refused.status_code == 403
    answer = ana.session.post(
        f"{stack.url}/hub/workspaces/notebook?course=chem",
        data={"_xsrf": ana.xsrf("/hub/")},
        headers={"Referer": f"{stack.url}/hub/workspaces/notebook?course=chem"},
        timeout=120,
    )
    assert answer.ok, answer.text
    ana.wait_ready()
    ana.open_server()
    assert environment_of(ana) == "default"
    # A choice is for one start: the next one that names nothing has the role's, since she is in several courses.
    ana = started(stack, "ana", True, "/hub/workspaces/lab?course=bio101")
    ana = started(stack, "ana", True)
    ana.open_server()
    assert environment_of(ana) == "default"


def wait_for(person: Person) -> None:
    """Wait until the hub answers again."""
    deadline = time.monotonic() + 60
    while person.get("/hub/api/").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_whoever_is_in_one_course_needs_no_link(stack: Stack) -> None:
    ben = started(stack, "ben", True)
    ben.open_server()
    assert environment_of(ben) == "bio"


@pytest.mark.parametrize(
    ("options", "page"),
    [
        ({"opt-workspace_type": "nbclassic"}, "nbclassic/tree"),
        ({"workspace_type": {"$ne": 1}, "course": [None]}, "tree"),
    ],
)
def test_the_api_chooses_no_more_than_a_link(stack: Stack, options: dict[str, Any], page: str) -> None:
    ana = started(stack, "ana", False)
    ana.hub_api("POST", "users/ana/server", options)
    ana.wait_ready()
    assert ana.open_server("").url == f"{stack.url}/user/ana/{page}"


@pytest.mark.parametrize("query", ["opt-workspace_type=notebook", "workspace_type=notebook"])
def test_a_query_of_jupyterhubs_own_page_chooses(stack: Stack, query: str) -> None:
    ana = started(stack, "ana", True, f"/hub/spawn?{query}")
    assert ana.open_server("").url == f"{stack.url}/user/ana/tree"


def test_no_page_asks_where_there_is_nothing_but_notebooks(ana: Person) -> None:
    ana.get("/hub/spawn")
    ana.wait_ready()


def test_a_page_asks_where_there_is_a_choice(stack: Stack, programs: Path) -> None:
    ana = started(stack, "ana", False)
    page = ana.get("/hub/spawn")
    assert page.url.startswith(f"{stack.url}/hub/spawn")
    for text in ('value="vscode"', "VS Code", "about 450 MB of memory", "<title>A list of files beside lines of code"):
        assert text in page.text
    assert page.text.count('type="radio"') == 4
    answer = post_choice(ana, "vscode")
    assert answer.ok, answer.text
    ana.wait_ready()
    assert default_page(ana) == "/user/ana/vscode/"


def test_a_link_that_says_where_it_leads_is_not_asked(stack: Stack, programs: Path) -> None:
    ana = started(stack, "ana", False)
    ana.get("/user-redirect/lab")
    ana.wait_ready()


def test_a_courses_link_asks_for_the_course(stack: Stack, programs: Path) -> None:
    ana = started(stack, "ana", False)
    page = ana.get("/hub/workspaces?course=phys")
    assert page.status_code == 200
    for name in ("lab", "own", "vscode"):
        assert f'href="/hub/workspaces/{name}?course=phys"' in page.text
    assert "workspaces/notebook" not in page.text
    assert leads_to(ana, "/hub/workspaces?course=chem")[1]["opt-workspace_type"] == "notebook"


@pytest.mark.parametrize("choice", ["lab' --x\x00", ""])
def test_what_the_page_is_sent_is_looked_up(stack: Stack, programs: Path, choice: str) -> None:
    ana = started(stack, "ana", False)
    ana.get("/hub/spawn")
    answer = post_choice(ana, choice)
    assert answer.ok, answer.text
    ana.wait_ready()
    assert default_page(ana) == ("/user/ana/tree" if choice else "/user/ana/lab")


def post_choice(person: Person, choice: str) -> requests.Response:
    return person.session.post(
        f"{person.url}/hub/spawn/{person.name}?_xsrf={quote(person.xsrf('/hub/'))}",
        data={"workspace_type": choice},
        headers={"Referer": f"{person.url}/hub/spawn"},
        timeout=120,
    )


def default_page(person: Person) -> str:
    """The page that the person's server opens first."""
    person.open_server("tree")
    return urlsplit(person.get(person.base, allow_redirects=False).headers["Location"]).path
