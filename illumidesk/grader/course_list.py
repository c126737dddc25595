"""nbgrader's Course List, told by the hub which courses somebody teaches.

nbgrader's own handler asks JupyterHub over TCP and reads a service's `prefix`; here the hub is on a unix socket and
graders are reached through the hub. Only the answer to `/formgraders` is ours, the page stays nbgrader's.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from jupyter_server.utils import url_path_join
from nbgrader.server_extensions.course_list import handlers
from tornado import web

from illumidesk.http_unix import request_json, split_unix_url


def courses_taught(groups: list[str]) -> list[str]:
    """The ids of the courses whose grader the groups open, in order."""
    prefix = "formgrade-"
    return sorted(group.removeprefix(prefix) for group in groups if group.startswith(prefix))


class CourseListHandler(handlers.CourseListHandler):  # type: ignore[misc]
    """`GET /formgraders`: the courses of the one whose server this is."""

    @web.authenticated
    async def get(self) -> None:
        """Answer in the form that nbgrader's page reads."""
        try:
            groups = await asyncio.to_thread(_my_groups)
        except (OSError, ValueError, KeyError) as error:
            self.log.error("The hub did not say which courses you teach: %s", error)
            self.finish(json.dumps({"success": False, "value": "The hub does not answer; try again in a minute."}))
            return
        courses = [
            {
                "course_id": course_id,
                "url": f"/services/{course_id}/lab?formgrader=true",
                "kind": "jupyterhub",
            }
            for course_id in courses_taught(groups)
        ]
        self.finish(json.dumps({"success": True, "value": courses}))


def _my_groups() -> list[str]:
    socket, base = split_unix_url(os.environ["JUPYTERHUB_API_URL"])
    status, user = request_json("GET", socket, f"{base}/user", token=os.environ["JUPYTERHUB_API_TOKEN"])
    if status != 200:
        raise ValueError(f"status {status}")
    return list(user.get("groups", []))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "illumidesk.grader.course_list"}]


def _load_jupyter_server_extension(server: Any) -> None:
    base_url = server.web_app.settings["base_url"]
    server.web_app.settings["assignment_dir"] = server.root_dir
    server.web_app.add_handlers(
        ".*$",
        [
            (url_path_join(base_url, "formgraders"), CourseListHandler),
            (url_path_join(base_url, "nbgrader_version"), handlers.NbGraderVersionHandler),
        ],
    )
