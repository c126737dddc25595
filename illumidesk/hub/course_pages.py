"""Pages about a course for those who run it: who may see them, and what they say when something is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from jupyterhub.handlers import BaseHandler
from tornado import web

from illumidesk.errors import IllumiDeskError
from illumidesk.hub.classroom import Classroom
from illumidesk.registry import Course

#: Seconds to wait for a grader before the page says that it starts.
PATIENCE = 1.5


class CoursePage(BaseHandler):  # type: ignore[misc]
    """Base of `/hub/courses/COURSE/…`."""

    @property
    def classroom(self) -> Classroom:
        """People and courses."""
        classroom: Classroom = self.settings["classroom"]
        return classroom

    def course(self, course_id: str) -> Course:
        """The course, where this person may run it.

        Raises:
            web.HTTPError: where they may not; whether there is such a course is nobody else's business.
        """
        # Pages of people's servers come from the same address: what they fetch in somebody's name is refused.
        self.check_xsrf_cookie()
        user = self.current_user
        course = self.classroom.registry.course(course_id)
        if course is None or not (user.admin or self.classroom.may_run(course_id, user.name)):
            raise web.HTTPError(403, f"{user.name} does not run {course_id}.")
        return course

    async def show(self, template: str, **values: Any) -> None:
        """Finish with a page that nobody keeps."""
        self.set_header("Cache-Control", "no-store")
        self.finish(await self.render_template(template, **values))

    async def with_grader(self, course_id: str, page: Callable[[], Awaitable[None]]) -> None:
        """Finish with `page` once the grader runs; until then with one that says that it starts, and comes back.

        Raises:
            IllumiDeskError: where it does not start.
        """
        start = asyncio.ensure_future(self.classroom.grader(course_id))
        done, _ = await asyncio.wait({start}, timeout=PATIENCE)
        if not done:
            # It goes on; what comes of it, the next request is told.
            start.add_done_callback(lambda task: task.exception())
            await self.show("grader_starting.html", course_id=course_id)
            return
        start.result()
        await page()

    async def explain(self, error: IllumiDeskError, course: Course) -> None:
        """A page that says what is wrong."""
        self.log.warning("%s %s: %s", self.request.method, self.request.path, error.message)
        self.set_status(error.status)
        await self.show("course_problem.html", course=course, problem=error, here=self.request.uri)
