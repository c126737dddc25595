"""The page where a student gets more time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub.utils import url_path_join
from tornado import web

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.hub.course_pages import CoursePage
from illumidesk.registry import Course

#: The longest extension, in seconds: a year.
MAX_EXTENSION = 366 * 86400


def check_extension(student: str, assignment: str, seconds: int) -> None:
    """Nothing, where that can be given.

    Args:
        student: the account.
        assignment: its name; "" for all of them.
        seconds: how much more time; 0 takes an extension away.

    Raises:
        IllumiDeskError: where it cannot.
    """
    names.check_account(student)
    if assignment:
        names.check_assignment(assignment)
    if not 0 <= seconds <= MAX_EXTENSION:
        raise IllumiDeskError("an extension is of up to 366 days", hint="give days and hours, none of them negative")


def check_penalties(given: Mapping[str, Any]) -> None:
    """Nothing, where late penalties have followed an extension at once.

    Args:
        given: what the grader answered.

    Raises:
        IllumiDeskError: where a submission must be graded again for it.
    """
    again = [f"{one['assignment']} of {one['student']}" for one in given.get("regrade", [])]
    if again:
        raise IllumiDeskError(
            f"the extension is kept, but the late penalty could not be worked out again for {', '.join(again)}",
            hint="autograde it again in the formgrader",
            status=409,
        )


def shown_time(seconds: int) -> str:
    """`1 day 2 hours`."""
    parts = []
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}{'s' if count != 1 else ''}")
    return " ".join(parts)


class ExtensionsPage(CoursePage):
    """`/hub/courses/COURSE/extensions`."""

    @web.authenticated
    async def get(self, course_id: str) -> None:
        """Who has more time, and a form to give it."""
        course = self.course(course_id)
        try:
            await self.with_grader(course_id, lambda: self._page(course))
        except IllumiDeskError as error:
            await self.explain(error, course)

    @web.authenticated
    async def post(self, course_id: str) -> None:
        """Give it, or take it away."""
        course = self.course(course_id)
        try:
            student = self.get_body_argument("student", "")
            assignment = self.get_body_argument("assignment", "")
            seconds = 0 if self.get_body_argument("remove", "") else self._seconds()
            check_extension(student, assignment, seconds)
            given = await (await self.classroom.grader(course_id)).set_extension(student, assignment, seconds)
            check_penalties(given)
        except IllumiDeskError as error:
            self.set_status(error.status)
            try:
                await self._page(course, problem=error)
            except IllumiDeskError:
                await self.explain(error, course)
            return
        self.log.info(
            "%s: %s gave %s %d seconds for %s", course_id, self.current_user.name, student, seconds, assignment
        )
        self.redirect(url_path_join(self.hub.base_url, f"courses/{course_id}/extensions"), status=303)

    def _seconds(self) -> int:
        total = 0.0
        for unit, size in (("days", 86400), ("hours", 3600)):
            text = self.get_body_argument(unit, "").strip().replace(",", ".") or "0"
            try:
                count = float(text)
            except ValueError:
                count = -1
            if not 0 <= count <= 10_000:
                raise IllumiDeskError(f"{text!r} is no number of {unit}", hint="give a number such as 2")
            total += count * size
        if total <= 0:
            raise IllumiDeskError("no time is given", hint="give days, hours or both")
        return round(total)

    async def _page(self, course: Course, problem: IllumiDeskError | None = None) -> None:
        grader = await self.classroom.grader(course.course_id)
        extensions = await grader.extensions()
        assignments = await grader.assignments()
        typed: dict[str, Any] = {
            name: self.get_body_argument(name, "") for name in ("student", "assignment", "days", "hours")
        }
        await self.show(
            "extensions.html",
            course=course,
            extensions=[{**one, "shown": shown_time(one["seconds"])} for one in extensions],
            assignments=assignments,
            students=[name for name, role in self.classroom.registry.members(course.course_id) if role == "student"],
            typed=typed,
            problem=problem,
        )


extension_page_handlers = [(r"/courses/([a-z0-9_-]+)/extensions", ExtensionsPage)]
