"""The pages from which grades are sent, and where their way is watched."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote, urlencode

from jupyterhub.utils import url_path_join
from tornado import web

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.hub.course_pages import CoursePage
from illumidesk.hub.pages import grader_url
from illumidesk.registry import Course
from illumidesk.registry.store import iso


def grades_url(base: str, course_id: str, assignment: str = "") -> str:
    """Where a course's grades are sent from.

    Args:
        base: the hub's base URL.
        course_id: the course.
        assignment: one assignment; "" for all of them.
    """
    tail = f"/{quote(assignment, safe='')}" if assignment else ""
    return str(url_path_join(base, f"courses/{names.check_course_id(course_id)}/grades")) + tail


class GradesPage(CoursePage):
    """`/hub/courses/COURSE/grades`: the assignments."""

    @web.authenticated
    async def get(self, course_id: str) -> None:
        """List them, with how their grades stand."""
        course = self.course(course_id)
        try:
            await self.with_grader(course_id, lambda: self._page(course))
        except IllumiDeskError as error:
            await self.explain(error, course)

    async def _page(self, course: Course) -> None:
        assignments = await self.classroom.grades.assignments(course.course_id)
        for one in assignments:
            one["url"] = grades_url(self.hub.base_url, course.course_id, one["name"])
        await self.show(
            "grades.html",
            course=course,
            assignments=assignments,
            grader=grader_url(course.course_id),
            platforms=[platform.name for platform, _ in self.classroom.registry.grades.contexts(course.course_id)],
        )


class AssignmentGradesPage(CoursePage):
    """`/hub/courses/COURSE/grades/ASSIGNMENT`: what would be sent, and sending it."""

    @web.authenticated
    async def get(self, course_id: str, assignment: str) -> None:
        """Preview."""
        course = self.course(course_id)
        try:
            names.check_assignment(assignment)
            await self.with_grader(course_id, lambda: self._page(course, assignment))
        except IllumiDeskError as error:
            await self.explain(error, course)

    @web.authenticated
    async def post(self, course_id: str, assignment: str) -> None:
        """Send, try again or choose a column; then show the page."""
        course = self.course(course_id)
        here = grades_url(self.hub.base_url, course_id, assignment)
        student = self.get_body_argument("student", "")
        if self.get_body_argument("only", ""):
            here += f"?{urlencode({'student': self.get_body_argument('only')})}"
        try:
            await self._do(course_id, assignment, student)
        except IllumiDeskError as error:
            self.log.warning("%s: %s: %s", course_id, assignment, error.message)
            self.set_status(error.status)
            try:
                await self._page(course, assignment, problem=error)
            except IllumiDeskError:
                await self.explain(error, course)
            return
        self.redirect(here, status=303)

    async def _do(self, course_id: str, assignment: str, student: str) -> None:
        grades = self.classroom.grades
        match self.get_body_argument("do", "send"):
            case "match":
                platform, _, key = self.get_body_argument("place", "").partition(" ")
                if not platform.isdigit() or not key:
                    raise IllumiDeskError("no column is chosen yet", hint="choose one", status=400)
                await grades.choose(course_id, assignment, int(platform), key)
            case "retry":
                grades.retry(course_id, assignment, [student] if student else None)
            case _:
                await grades.send(
                    course_id,
                    assignment,
                    students=[student] if student else None,
                    partial=bool(self.get_body_argument("partial", "")) or bool(student),
                    again=bool(self.get_body_argument("again", "")),
                    asked_by=self.current_user.name,
                )
                # Most are there in a moment: the page need not say that they are on their way.
                await asyncio.sleep(0.3)

    async def _page(self, course: Course, assignment: str, problem: IllumiDeskError | None = None) -> None:
        preview = await self.classroom.grades.preview(course.course_id, assignment)
        only = self.get_argument("student", "")
        lines = [line for line in preview.lines if only in ("", line.name)]
        await self.show(
            "grades_assignment.html",
            course=course,
            preview=preview,
            lines=lines,
            only=only,
            counts=preview.count(),
            problem=problem,
            all_url=grades_url(self.hub.base_url, course.course_id),
            here=grades_url(self.hub.base_url, course.course_id, assignment),
            iso=iso,
        )


class GradesStatus(CoursePage):
    """`/hub/courses/COURSE/grades/ASSIGNMENT/status`: the page looks here while grades are on their way."""

    @web.authenticated
    async def get(self, course_id: str, assignment: str) -> None:
        """The deliveries as JSON."""
        self.course(course_id)
        answer: dict[str, Any] = {"deliveries": self.classroom.grades.status(course_id, assignment)}
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(answer))


_COURSE, _ASSIGNMENT = r"([a-z0-9_-]+)", r"([^/]+)"
grade_page_handlers = [
    (rf"/courses/{_COURSE}/grades", GradesPage),
    (rf"/courses/{_COURSE}/grades/{_ASSIGNMENT}", AssignmentGradesPage),
    (rf"/courses/{_COURSE}/grades/{_ASSIGNMENT}/status", GradesStatus),
]
