"""Links from nbgrader's formgrader to the hub's pages of the course: send grades, roster, extensions.

nbgrader's templates stay as they are. Ours extend them through their blocks, and a script of ours adds links to the
rows of tables, which nbgrader makes in the browser. Where a later nbgrader has other rows, the sidebar's links remain;
where it has other blocks, nothing is added.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import resources
from typing import Any
from urllib.parse import quote

from jinja2 import BaseLoader, ChoiceLoader, DictLoader, Environment, PrefixLoader
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado import web

from illumidesk import names
from illumidesk.errors import IllumiDeskError

#: nbgrader's pages that have the sidebar.
_PAGES = (
    "gradebook_assignments",
    "gradebook_notebook_submissions",
    "gradebook_notebooks",
    "manage_assignments",
    "manage_students",
    "manage_students_assignments",
    "manage_students_notebook_submissions",
    "manage_submissions",
)
_SIDEBAR = (("grades", "Send grades"), ("roster", "Roster"), ("extensions", "Extensions"))
#: What a page's address says. nbgrader puts it into scripts as it is.
_FROM_ADDRESS = ("assignment_id", "notebook_id", "student_id")

_PAGE = """\
{%- extends "nbgrader/PAGE.tpl" -%}
FROM_ADDRESS
{%- block sidebar -%}
{{ super() }}
{%- for address, text in illumidesk.sidebar %}
<li role="presentation"><a class="illumidesk-hub" href="{{ address | e }}" target="_blank" rel="noopener">
{{- text }}<span class="sr-only"> (opens in a new tab)</span></a></li>
{%- endfor %}
{%- endblock -%}
{%- block script -%}
{{ super() }}
<script src="{{ illumidesk.script | e }}" data-page="PAGE" data-grades="{{ illumidesk.grades | e }}"></script>
{%- endblock -%}
"""


def course_pages(environment: Mapping[str, str]) -> str:
    """The address of the hub's pages of the course whose grader this is; "" where this is no grader.

    Args:
        environment: the process's variables.
    """
    base = environment.get("JUPYTERHUB_BASE_URL", "")
    try:
        course_id = names.check_course_id(environment.get("JUPYTERHUB_SERVICE_NAME", ""))
    except IllumiDeskError:
        return ""
    return url_path_join(base, "hub/courses", quote(course_id)) if base.startswith("/") else ""


def with_links(jinja: Environment, course: str, script: str) -> None:
    """Have nbgrader's pages show our links.

    Args:
        jinja: the formgrader's templates.
        course: the address of the hub's pages of the course.
        script: the address of our script.
    """
    theirs = jinja.loader
    if not isinstance(theirs, BaseLoader):
        return
    known = set(theirs.list_templates())
    ours = {f"{page}.tpl": _page(page) for page in _PAGES if f"{page}.tpl" in known}
    jinja.globals["illumidesk"] = {
        "sidebar": [(f"{course}/{page}", text) for page, text in _SIDEBAR],
        "grades": f"{course}/grades",
        "script": script,
    }
    jinja.filters["illumidesk_in_script"] = in_script
    jinja.loader = ChoiceLoader([DictLoader(ours), PrefixLoader({"nbgrader": theirs}), theirs])


def _page(page: str) -> str:
    safe = "".join(
        f"{{%- if {name} is defined %}}{{% set {name} = {name} | illumidesk_in_script %}}{{% endif -%}}\n"
        for name in _FROM_ADDRESS
    )
    return _PAGE.replace("FROM_ADDRESS", safe).replace("PAGE", page)


def in_script(text: object) -> str:
    """`text` as it may stand between the quotes of a script's string.

    nbgrader writes `var assignment_id = "{{ assignment_id }}"` with what the page's address says: a quote in a name
    would break the page, and a link from elsewhere could run a script in it.
    """
    inside = json.dumps(str(text), ensure_ascii=False)[1:-1]
    return inside.replace('\\"', "\\u0022").replace("<", "\\u003c").replace(">", "\\u003e")


class ScriptHandler(JupyterHandler):
    """`GET illumidesk/formgrader/links.js`."""

    @web.authenticated
    async def get(self) -> None:
        """The script."""
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("Cache-Control", "no-cache")
        self.finish((resources.files("illumidesk.grader") / "static/links.js").read_bytes())


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "illumidesk.grader.formgrader"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Nothing yet: extensions are loaded by name, and nbgrader's comes after ours."""


async def _start_jupyter_server_extension(server: Any) -> None:
    application = server.web_app
    jinja, course = application.settings.get("nbgrader_jinja2_env"), course_pages(os.environ)
    if jinja is None or not course:
        return
    base = application.settings["base_url"]
    address = url_path_join(base, "illumidesk/formgrader/links.js")
    application.add_handlers(".*$", [(address, ScriptHandler)])
    with_links(jinja, course, address)
