"""Pages of ours in the hub."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import get_scopes_for
from jupyterhub.utils import url_path_join
from tornado import web

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.hub.classroom import Classroom

#: Seconds to wait for a grader before the page says that it starts.
_PATIENCE = 1.5


@dataclass(frozen=True)
class ServiceLink:
    """An entry of the Services menu, as JupyterHub's template reads it."""

    name: str
    href: str


class GraderHandler(BaseHandler):  # type: ignore[misc]
    """`/hub/services/COURSE/…`: where the proxy leads while a grader does not run. Starts it and goes there."""

    @web.authenticated
    async def get(self, course_id: str) -> None:
        """Start the grader, show that it starts, end at what was asked for."""
        classroom: Classroom = self.settings["classroom"]
        if not {"access:services", f"access:services!service={course_id}"} & set(self.expanded_scopes):
            # Whether there is such a course is nobody's business who does not teach it.
            raise web.HTTPError(403, f"{self.current_user.name} does not teach {course_id}.")
        if classroom.registry.course(course_id) is None:
            raise web.HTTPError(404, f"There is no course {course_id}.")
        start = classroom.grader_start(course_id)
        done, _ = await asyncio.wait({start}, timeout=_PATIENCE)
        if not done:
            self.set_header("Cache-Control", "no-store")
            self.finish(await self.render_template("grader_starting.html", course_id=course_id))
            return
        classroom.forget_grader_start(course_id)
        error = start.exception()
        if isinstance(error, IllumiDeskError):
            self.log.error("grader of %s: %s", course_id, error)
            self.set_status(error.status)
            page = await self.render_template(
                "grader_failed.html", course_id=course_id, problem=error, here=self.request.uri
            )
            self.finish(page)
            return
        start.result()
        self.redirect(self.request.uri.removeprefix(self.hub.base_url.rstrip("/")))


class GitLinkHandler(BaseHandler):  # type: ignore[misc]
    """`/hub/git-link`: makes links that fetch git repositories, in the browser alone."""

    @web.authenticated
    async def get(self) -> None:
        """Show the form to those who teach."""
        classroom: Classroom = self.settings["classroom"]
        if not self.current_user.admin and not any(
            role != "student" for _, role in classroom.registry.memberships(self.current_user.name)
        ):
            raise web.HTTPError(403, f"{self.current_user.name} teaches no course here.")
        self.set_header("Cache-Control", "no-store")
        self.finish(await self.render_template("git_link.html", public_url=classroom.settings.public_address()))


def services_of(app: Any, user: Any) -> list[ServiceLink]:
    """The Services menu: the graders that this user may open, then services with an address of their own.

    JupyterHub lists only services with a TCP address; graders have none.
    """
    if user is None:
        return []
    scopes = get_scopes_for(user.orm_user)
    classroom: Classroom = app.classroom
    links = [
        ServiceLink(name=_title(course.title, course.course_id), href=grader_url(course.course_id))
        for course in classroom.registry.courses()
        if {"access:services", f"access:services!service={course.course_id}"} & scopes
    ]
    links += [
        ServiceLink(name=service.name, href=service.href)
        for service in app._service_map.values()
        if service.url and service.display and {"access:services", f"access:services!service={service.name}"} & scopes
    ]
    return links


def courses_of(app: Any, user: Any) -> list[dict[str, str]]:
    """The courses on somebody's home page: id, title, role and addresses.

    The grader's and that of the page about packages are there for those who may open them, the workspace's where the
    course has something for itself.
    """
    if user is None:
        return []
    registry = app.classroom.registry
    titles = {course.course_id: course.title for course in registry.courses()}
    return [
        {
            "course_id": course_id,
            "title": titles.get(course_id, "") or course_id,
            "role": {"student": "student", "ta": "teaching assistant", "instructor": "instructor"}[role],
            "grader": grader_url(course_id) if role != "student" else "",
            "environment": url_path_join(app.hub.base_url, f"courses/{course_id}/environment")
            if role == "instructor"
            else "",
            "workspace": workspace_url(course_id) if course_id in app.classroom.settings.courses else "",
        }
        for course_id, role in registry.memberships(user.name)
    ]


def grader_url(course_id: str) -> str:
    """Where a course's formgrader opens, in JupyterLab."""
    return f"/services/{names.check_course_id(course_id)}/lab?formgrader=true"


def workspace_url(course_id: str, page: str = "") -> str:
    """Where a person's server opens for a course; `page` is a path of this host, or "" for what the settings say."""
    query = urlencode({"course": names.check_course_id(course_id), **({"next": page} if page else {})})
    return f"/hub/workspaces?{query}"


def _title(title: str, course_id: str) -> str:
    return f"{title} ({course_id})" if title else course_id


page_handlers = [(r"/services/([a-z0-9_-]+)(?:/.*)?", GraderHandler), (r"/git-link", GitLinkHandler)]
