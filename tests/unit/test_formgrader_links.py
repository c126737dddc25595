"""Links from nbgrader's formgrader to the hub's pages, in nbgrader's own templates and in a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import DictLoader, Environment, FileSystemLoader
from nbgrader.server_extensions.formgrader import handlers
from tornado import web

from illumidesk.grader.formgrader import _PAGES, _start_jupyter_server_extension, course_pages, in_script, with_links
from tests.support.notebook_server import NotebookServer, notebook_server

GRADER = {"JUPYTERHUB_SERVICE_NAME": "bio101", "JUPYTERHUB_BASE_URL": "/"}
PARTS = ("create-assignment", "formgrader")
SIDEBAR = {"Send grades": "grades", "Roster": "roster", "Extensions": "extensions"}


#: An entry of ours in the sidebar.
LINK = (
    r'<li role="presentation"><a class="illumidesk-hub" href="([^"]*)" target="_blank" rel="noopener">([^<]*)'
    r'<span class="sr-only"> \(opens in a new tab\)</span></a></li>'
)


def sidebar(page: str) -> dict[str, str]:
    return {text: address for address, text in re.findall(LINK, page)}


@pytest.mark.parametrize(
    ("environment", "pages"),
    [
        (GRADER, "/hub/courses/bio101"),
        (GRADER | {"JUPYTERHUB_BASE_URL": "/class/"}, "/class/hub/courses/bio101"),
        (GRADER | {"JUPYTERHUB_SERVICE_NAME": "../x"}, ""),
        (GRADER | {"JUPYTERHUB_BASE_URL": "https://elsewhere.example/"}, ""),
        ({"JUPYTERHUB_BASE_URL": "/"}, ""),
        ({"JUPYTERHUB_SERVICE_NAME": "bio101"}, ""),
        ({}, ""),
    ],
)
def test_where_the_courses_pages_are(environment: dict[str, str], pages: str) -> None:
    assert course_pages(environment) == pages


def test_every_page_with_a_sidebar_has_them() -> None:
    """nbgrader's own templates: a page that a new version adds fails here."""
    jinja = Environment(loader=FileSystemLoader([handlers.template_path]))
    plain = Environment(loader=FileSystemLoader([handlers.template_path]))
    with_links(jinja, "/hub/courses/bio101", "/services/bio101/illumidesk/formgrader/links.js")
    with_sidebar = [
        name
        for name in plain.list_templates(["tpl"])
        if re.fullmatch(r"(manage|gradebook)_\w+\.tpl", name) and not name.endswith("_base.tpl")
    ]
    assert sorted(with_sidebar) == sorted(f"{page}.tpl" for page in _PAGES)
    for name in with_sidebar:
        ours, theirs = (one.get_template(name).render(base_url="/b", resources={}) for one in (jinja, plain))
        assert sidebar(ours) == {text: f"/hub/courses/bio101/{page}" for text, page in SIDEBAR.items()}
        assert f'data-page="{name.removesuffix(".tpl")}"' in ours
        # The rest is nbgrader's page as it is.
        rest = re.sub(r'<script src="[^"]*links.js"[^>]*></script>', "", re.sub(f"\\s*{LINK}", "", ours))
        assert "".join(rest.split()) == "".join(theirs.split())


def test_other_templates_are_left_alone() -> None:
    jinja = Environment(loader=DictLoader({"base.tpl": "<p>{% block other %}{% endblock %}", "x.tpl": "x"}))
    with_links(jinja, "/hub/courses/bio101", "/links.js")
    assert jinja.get_template("x.tpl").render() == "x"
    jinja = Environment(loader=DictLoader({"manage_students.tpl": "<p>{% block other %}{% endblock %}"}))
    with_links(jinja, "/hub/courses/bio101", "/links.js")
    assert jinja.get_template("manage_students.tpl").render() == "<p>"


@given(st.text())
@example('\\"</script>')
@example("\\")
@example("Übung 'é'\n\u2028")
def test_a_name_in_a_script_is_that_name(name: str) -> None:
    inside = in_script(name)
    assert json.loads(f'"{inside}"') == name
    assert not set(inside) & set('"<>\n')


@pytest.fixture(scope="module")
def grader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookServer]:
    folder = tmp_path_factory.mktemp("grader")
    (folder / "home").mkdir()
    course = folder / "home/bio101"
    (folder / "home/nbgrader_config.py").write_text(
        f"c = get_config()\nc.CourseDirectory.root = {str(course)!r}\nc.CourseDirectory.course_id = 'bio101'\n"
    )
    (course / "source/ps1").mkdir(parents=True)
    with notebook_server(folder, PARTS, variables=GRADER, base="/services/bio101/") as running:
        yield running


@pytest.mark.parametrize("page", ["manage_assignments", "gradebook", "manage_students", "manage_submissions/ps1"])
def test_the_grader_shows_them(grader: NotebookServer, page: str) -> None:
    status, _, text = grader.get(f"formgrader/{page}")
    assert status == 200
    assert sidebar(text) == {text: f"/hub/courses/bio101/{page}" for text, page in SIDEBAR.items()}
    (script,) = re.findall(r'<script src="([^"]*links\.js)"', text)
    assert script == "/services/bio101/illumidesk/formgrader/links.js"


def test_the_script_is_there_for_those_who_are_signed_in(grader: NotebookServer) -> None:
    status, headers, script = grader.get("illumidesk/formgrader/links.js")
    assert status == 200
    assert headers["Content-Type"].startswith("text/javascript")
    assert "MutationObserver" in script
    assert "MutationObserver" not in grader.get("illumidesk/formgrader/links.js", token="wrong")[2]


def test_an_address_puts_no_script_into_a_page(grader: NotebookServer) -> None:
    for name in ("x%22;alert(1);%2F%2F", "x%3C%2Fscript%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E", "x%0Aalert(1)"):
        status, _, page = grader.get(f"formgrader/manage_submissions/{name}")
        assert status == 200
        assert '"x";alert' not in page
        assert "<script>alert" not in page
        assert "\nalert(1)" not in page


def test_a_grader_is_nobodys_workplace(grader: NotebookServer) -> None:
    for path in ("illumidesk/assignment?course=bio101&name=ps1", "illumidesk/duedates"):
        assert grader.get(path)[0] == 404


async def test_where_there_is_no_formgrader_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GRADER.items():
        monkeypatch.setenv(name, value)
    application = web.Application(base_url="/services/bio101/")
    before = dict(application.settings), len(application.default_router.rules)
    await _start_jupyter_server_extension(SimpleNamespace(web_app=application))
    assert (application.settings, len(application.default_router.rules)) == before
