"""The management API for grades and extensions: `/hub/api/illumidesk/courses/ID/…`."""

from __future__ import annotations

from typing import Any

from illumidesk.errors import IllumiDeskError
from illumidesk.hub.api import ManagementHandler
from illumidesk.hub.extension_pages import check_extension, check_penalties
from illumidesk.hub.grades import Line, Preview, delivery_model, place_model
from illumidesk.registry.store import unknown_course


class GradesHandler(ManagementHandler):
    """`courses/ID/grades`."""

    async def get(self, course_id: str) -> None:
        """The assignments; with `?assignment=` what sending its grades would do."""
        assignment = self.get_query_argument("assignment", "", strip=False)
        if assignment:
            self.answer(_preview_model(await self.classroom.grades.preview(course_id, assignment)))
        else:
            self.answer({"assignments": await self.classroom.grades.assignments(course_id)})

    async def post(self, course_id: str) -> None:
        """Send an assignment's grades."""
        fields = self.body(assignment=str, students=list, partial=bool, again=bool)
        sent = await self.classroom.grades.send(
            course_id,
            fields.get("assignment", ""),
            students=_texts(fields.get("students")),
            partial=fields.get("partial", False),
            again=fields.get("again", False),
            asked_by="root",
        )
        self.answer({"queued": sent.queued, "left": sent.left})


class DeliveriesHandler(ManagementHandler):
    """`courses/ID/deliveries`."""

    async def get(self, course_id: str) -> None:
        """How they stand."""
        assignment = self.get_query_argument("assignment", "", strip=False)
        self.answer({"deliveries": self.classroom.grades.status(course_id, assignment)})

    async def post(self, course_id: str) -> None:
        """Try again what was refused or waits."""
        fields = self.body(assignment=str, students=list)
        count = self.classroom.grades.retry(course_id, fields.get("assignment", ""), _texts(fields.get("students")))
        self.answer({"count": count})


class ColumnHandler(ManagementHandler):
    """`courses/ID/column`."""

    async def get(self, course_id: str) -> None:
        """The columns that an assignment may have."""
        assignment = self.get_query_argument("assignment", "", strip=False)
        self.answer({"places": await self.classroom.grades.places(course_id, assignment)})

    async def put(self, course_id: str) -> None:
        """Choose the column of an assignment."""
        fields = self.body(assignment=str, platform=int, key=str)
        column = await self.classroom.grades.choose(
            course_id, fields.get("assignment", ""), fields.get("platform", 0), fields.get("key", "")
        )
        self.answer({"assignment": column.assignment, "column": column.label})


class BookHandler(ManagementHandler):
    """`courses/ID/book`."""

    async def get(self, course_id: str) -> None:
        """Every score in the gradebook, and what is known of the students."""
        grader = await self.classroom.grader(course_id)
        people: dict[str, dict[str, str]] = {}
        for platform, _ in self.classroom.registry.grades.contexts(course_id):
            for name, identity in self.classroom.registry.grades.identities(platform.id).items():
                people[name] = {"full_name": identity.full_name, "email": identity.email, "lms_user_id": identity.sub}
        students = [name for name, role in self.classroom.registry.members(course_id) if role == "student"]
        self.answer({"assignments": await grader.all_scores(), "students": students, "people": people})

    async def post(self, course_id: str) -> None:
        """Take scores from elsewhere."""
        fields = self.body(rows=list)
        grader = await self.classroom.grader(course_id)
        known = {one.name for one in self.classroom.registry.all_members(course_id)}
        for row in fields.get("rows", []):
            student = row.get("student") if isinstance(row, dict) else None
            if student not in known:
                raise IllumiDeskError(
                    f"{student} is not in {course_id}", hint=f"`illumidesk enroll {course_id} NAME` puts people into it"
                )
        self.answer(await grader.import_scores(fields.get("rows", [])))


class ExtensionsHandler(ManagementHandler):
    """`courses/ID/extensions`."""

    async def get(self, course_id: str) -> None:
        """Who has more time."""
        self.answer({"extensions": await (await self.classroom.grader(course_id)).extensions()})

    async def put(self, course_id: str) -> None:
        """Give more time, or take it away (0 seconds)."""
        fields = self.body(student=str, assignment=str, seconds=int)
        student, assignment = fields.get("student", ""), fields.get("assignment", "")
        seconds = fields.get("seconds", 0)
        if self.classroom.registry.course(course_id) is None:
            raise unknown_course(course_id)
        check_extension(student, assignment, seconds)
        if seconds and self.classroom.registry.membership(course_id, student) is None:
            raise IllumiDeskError(f"{student} is not in {course_id}", status=404)
        grader = await self.classroom.grader(course_id)
        given = await grader.set_extension(student, assignment, seconds)
        check_penalties(given)
        self.answer(given)


def _texts(values: Any) -> list[str] | None:
    if values is None:
        return None
    if not all(isinstance(one, str) for one in values):
        raise IllumiDeskError("students are names")
    return list(values)


def _preview_model(preview: Preview) -> dict[str, Any]:
    return {
        "assignment": preview.assignment,
        "maximum": preview.maximum,
        "places": [place_model(place, preview.assignment) for place in preview.places],
        "lines": [_line_model(line) for line in preview.lines],
    }


def _line_model(line: Line) -> dict[str, Any]:
    column = None if line.place is None else line.place.column
    return {
        "student": line.name,
        "full_name": line.full_name,
        "standing": line.standing,
        "score": None if line.wanted is None else line.wanted.score,
        "maximum": None if line.wanted is None else line.wanted.maximum,
        "sent_as": line.scale,
        "why": line.why,
        "hint": line.hint,
        "delivery": None if line.delivery is None or column is None else delivery_model(column, line.delivery),
    }


_COURSE = r"/api/illumidesk/courses/([^/]+)"
grade_api_handlers = [
    (rf"{_COURSE}/grades", GradesHandler),
    (rf"{_COURSE}/deliveries", DeliveriesHandler),
    (rf"{_COURSE}/column", ColumnHandler),
    (rf"{_COURSE}/book", BookHandler),
    (rf"{_COURSE}/extensions", ExtensionsHandler),
]
