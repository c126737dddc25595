"""Links to workspaces: `/hub/workspaces/TYPE?course=COURSE&next=PAGE`.

Such a link starts the person's server where it does not run, and leads to a page of it. What it names is looked up in
the settings and in the registry: an unknown type is Notebook, and a course that the person is not in is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import url_path_join
from tornado import web

from illumidesk.hub.classroom import Classroom
from illumidesk.spawners.choice import asks, choose, course_of, server_role, startable
from illumidesk.workspaces.types import BUILT_IN, WorkspaceType


class WorkspaceHandler(BaseHandler):  # type: ignore[misc]
    """`/hub/workspaces/TYPE`, and `/hub/workspaces` for whoever leaves it to the settings."""

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Whatever it is: an unknown type is Notebook, and no error."""
        return value.decode("utf-8", "replace")

    @property
    def classroom(self) -> Classroom:
        """People, courses and settings."""
        classroom: Classroom = self.settings["classroom"]
        return classroom

    @web.authenticated
    async def get(self, name: str) -> None:
        """Go there, or say in one sentence why not."""
        self.set_header("Cache-Control", "no-store")
        settings, programs = self.classroom.settings, self.classroom.paths.workspaces
        course_id, spawner = self._course(), self.current_user.spawner
        types, there = settings.workspace_types(), startable(settings, programs, course_id)
        wanted = name.strip("/")
        wanted = settings.course(course_id).workspace or (wanted if wanted in types or not wanted else "notebook")
        if wanted not in there and wanted not in ("", "notebook"):
            await self._refuse(types[wanted], course_id, there)
        elif not (wanted or self._next() or spawner.active) and asks(settings, programs, course_id):
            await self._show("workspaces.html", course_id, there)
        elif spawner.active and self._named_course() and self._other_environment(course_id):
            await self._explain_environment(course_id)
        else:
            self.redirect(self._target(choose(settings, programs, wanted, course_id), course_id))

    @web.authenticated
    async def post(self, name: str) -> None:
        """Stop the server, so that the link starts it anew."""
        self.log.info("%s stops their server for %s", self.current_user.name, self.request.uri)
        await self.classroom.stop_server(self.current_user.name)
        self.redirect(self.request.uri, status=303)

    def _named_course(self) -> str:
        """The course that the link names, where the person is in it; "" is none."""
        memberships = self.classroom.registry.memberships(self.current_user.name)
        named = self.get_argument("course", "")
        return named if named in dict(memberships) else ""

    def _course(self) -> str:
        return course_of(self._named_course(), self.classroom.registry.memberships(self.current_user.name))

    def _next(self) -> str:
        """The page that the link names instead of the workspace's own; "" where it is none of this host."""
        target: str = self._validate_next_url(self.get_argument("next", ""))
        return target

    def _target(self, workspace: WorkspaceType | None, course_id: str) -> str:
        """Where the browser goes: to the server's page, or to its start, which ends there."""
        user = self.current_user
        page = self._next() or url_path_join(user.url, workspace.path if workspace else "")
        if user.spawner.ready:
            return page
        if user.spawner.active:
            place, options = "spawn-pending", {}
        else:
            place = "spawn"
            options = {"opt-course": course_id, "opt-workspace_type": workspace.name if workspace else ""}
        query = urlencode({**options, "next": page})
        return f"{url_path_join(self.hub.base_url, place, user.escaped_name)}?{query}"

    def _environment(self, course_id: str) -> str:
        role = server_role(self.classroom.registry.highest_role(self.current_user.name))
        return self.classroom.settings.environment_of(role, course_id)

    def _other_environment(self, course_id: str) -> bool:
        """Whether the running server has other packages than the course wants."""
        used = getattr(self.current_user.spawner, "environment_in_use", "")
        return bool(used) and used != self._environment(course_id)

    # Pages

    async def _refuse(self, workspace: WorkspaceType, course_id: str, there: dict[str, WorkspaceType]) -> None:
        """Say that it is not there, or not offered, and what is."""
        offered = workspace.name in self.classroom.settings.offered_workspaces(course_id)
        self.set_status(404 if offered else 403)
        self.log.info("%s has no %s to start", self.current_user.name, workspace.name)
        environment = self.classroom.paths.environments / self._environment(course_id)
        r_in_lab = workspace.name == "rstudio" and "lab" in there and has_r(environment)
        await self._show(
            "workspace_missing.html", course_id, there, missing=workspace, offered=offered, r_in_lab=r_in_lab
        )

    async def _explain_environment(self, course_id: str) -> None:
        """Say that the server must stop first, and offer it."""
        self.set_status(409)
        await self._show(
            "workspace_other_environment.html",
            course_id,
            {},
            here=self.request.uri,
            anyway=f"{self.request.path}?{urlencode({'next': self._next()})}",
            ready=self.current_user.spawner.ready,
            xsrf=self.xsrf_token.decode("ascii"),
        )

    async def _show(self, template: str, course_id: str, there: dict[str, WorkspaceType], **values: Any) -> None:
        course = self.classroom.registry.course(course_id) if course_id else None
        query = {"course": self._named_course(), "next": self._next()}
        query = {name: value for name, value in query.items() if value}
        page = await self.render_template(
            template,
            course=(course.title or course_id) if course else "",
            workspaces=list(there.values()),
            query=f"?{urlencode(query)}" if query else "",
            **values,
        )
        self.finish(page)


def has_r(environment: Path) -> bool:
    """Whether notebooks of that environment have R: its own kernel, or the machine's."""
    places = (environment / "share", Path("/usr/local/share"), Path("/usr/share"))
    return any((place / "jupyter/kernels/ir").is_dir() for place in places)


def workspaces_of(app: Any, user: Any) -> list[WorkspaceType]:
    """What somebody's home page offers: the workspaces between which they may change, where there are several."""
    if user is None:
        return []
    classroom: Classroom = app.classroom
    course_id = course_of("", classroom.registry.memberships(user.name))
    there = list(startable(classroom.settings, classroom.paths.workspaces, course_id).values())
    return there if len(there) > 1 else []


def user_redirect(path: str, request: Any, user: Any, base_url: str) -> str | None:
    """JupyterHub's hook for `/user-redirect/…`: a program that is not there leads to the page that says so."""
    name = path.strip("/").partition("/")[0]
    if name not in BUILT_IN or not BUILT_IN[name].program:
        return None
    classroom: Classroom = user.settings["classroom"]
    course_id = course_of("", classroom.registry.memberships(user.name))
    if name in startable(classroom.settings, classroom.paths.workspaces, course_id):
        return None
    return str(url_path_join(user.settings["hub"].base_url, "workspaces", name))


workspace_page_handlers = [(r"/workspaces()", WorkspaceHandler), (r"/workspaces/(.*)", WorkspaceHandler)]
