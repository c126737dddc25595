"""Grades of a course: what the gradebook has, where it goes, and having it sent.

The gradebook is asked of the course's grader; columns and deliveries are the registry's; the queue sends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.grades.columns import Columns, Found, Place
from illumidesk.grades.deliver import share_of
from illumidesk.registry import Column, Delivery, Membership
from illumidesk.registry.grades import Wanted
from illumidesk.registry.store import iso, unknown_course

if TYPE_CHECKING:
    from illumidesk.hub.classroom import Classroom

#: The most seconds between two looks of the timer.
TICK = 60
#: Failures after which a column is looked for anew.
_LOST = frozenset({"column-gone", "course-gone"})

#: What would become of a student's grade if it were sent now: it goes for the first time, or since it has changed; it
#: is there; it is on its way; the platform refused it; something is left to grade by hand; there is nothing to send.
Standing = Literal["new", "changed", "sent", "waiting", "failed", "by-hand", "none"]
#: Those that are sent when nothing else is asked for.
TO_SEND: frozenset[Standing] = frozenset({"new", "changed", "failed"})

log = logging.getLogger("illumidesk.grades")


@dataclass(frozen=True)
class Line:
    """One student's grade of one assignment.

    Attributes:
        name: the account.
        full_name: as the platform gives it, else "".
        standing: what would become of it.
        wanted: what would be sent; None where there is nothing to send.
        scale: the same as people read it.
        why: one sentence where something is to be said, and `hint` what to do about it.
        late: seconds after the student's due date.
        delivery: what was sent, and how it went.
        place: where it goes.
    """

    name: str
    full_name: str
    standing: Standing
    wanted: Wanted | None = None
    scale: str = ""
    why: str = ""
    hint: str = ""
    late: float = 0
    delivery: Delivery | None = None
    place: Found | None = None


@dataclass(frozen=True)
class Preview:
    """What sending an assignment's grades would do.

    Attributes:
        assignment: its name.
        maximum: its points.
        places: where they go, for each platform's course that is this one.
        lines: the students, by name.
    """

    assignment: str
    maximum: float
    places: tuple[Found, ...]
    lines: tuple[Line, ...]

    def count(self) -> Counter[str]:
        """How many there are of each standing."""
        return Counter(line.standing for line in self.lines)


@dataclass
class Sent:
    """What was asked of the queue.

    Attributes:
        queued: students whose grade is on its way now.
        left: students whose grade stays here, with the reason.
    """

    queued: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


class Grades:
    """The grades of this hub's courses.

    Args:
        classroom: people and courses, graders and the registry.
    """

    def __init__(self, classroom: Classroom) -> None:
        self._classroom = classroom
        self._records = classroom.registry.grades
        self._columns = Columns(self._records, classroom.services)
        self._locks: dict[str, asyncio.Lock] = {}
        self._timer: asyncio.Task[None] | None = None
        #: By course, when the timer last looked (the loop's time).
        self._looked: dict[str, float] = {}

    # Reading

    async def assignments(self, course_id: str) -> list[dict[str, Any]]:
        """The gradebook's assignments; of each, which columns it has and how its deliveries stand."""
        grader = await self._classroom.grader(course_id)
        labels: dict[str, list[str]] = {}
        for column in self._records.columns(course_id):
            labels.setdefault(column.assignment, []).append(column.label or column.assignment)
        states: dict[str, Counter[str]] = {}
        last: dict[str, datetime] = {}
        for column, delivery in self._records.deliveries(course_id):
            states.setdefault(column.assignment, Counter())[delivery.state] += 1
            if delivery.sent_at is not None:
                last[column.assignment] = max(delivery.sent_at, last.get(column.assignment, delivery.sent_at))
        return [
            {
                **one,
                "columns": labels.get(one["name"], []),
                "deliveries": dict(states.get(one["name"], {})),
                "last_sent": iso(last.get(one["name"])),
            }
            for one in await grader.assignments()
        ]

    async def preview(self, course_id: str, assignment: str) -> Preview:
        """What sending would do, without doing it.

        Raises:
            IllumiDeskError: where there is no such course or assignment, or the grader does not answer.
        """
        names.check_assignment(assignment)
        grader = await self._classroom.grader(course_id)
        book = await grader.scores(assignment)
        async with self._lock(course_id):
            places = [
                await self._columns.find(platform, context, assignment)
                for platform, context in self._records.contexts(course_id)
            ]
        return Preview(
            assignment=assignment,
            maximum=float(book["max_score"]),
            places=tuple(places),
            lines=tuple(self._lines(course_id, book, places)),
        )

    def _lines(self, course_id: str, book: Mapping[str, Any], places: Collection[Found]) -> Iterator[Line]:
        members = {one.name: one for one in self._classroom.registry.all_members(course_id)}
        deliveries = {row.name: row for _, row in self._records.deliveries(course_id, book["assignment"])}
        whose: dict[str, tuple[Found | None, str]] = {}
        for found in places:
            for name, identity in self._records.identities(found.platform.id).items():
                whose[name] = found, identity.full_name
        links = {found.column.link_id for found in places if found.column is not None}
        # Once for all, not for each student.
        opened = {link_id: self._records.sourcedid_names(link_id) for link_id in links if link_id is not None}
        handed_in = {row["student"]: row for row in book["scores"]}
        students = {name for name, one in members.items() if one.role == "student" and one.left is None}
        for name in sorted(students | handed_in.keys()):
            place, full_name = whose.get(name, (None, ""))
            row = handed_in.get(name)
            problem = _unsendable(row, members.get(name), place)
            if problem is not None or row is None or place is None:
                why, hint = problem or ("", "")
                yield Line(name, full_name, "none", why=why, hint=hint, place=place, delivery=deliveries.get(name))
                continue
            link_id = None if place.column is None else place.column.link_id
            not_opened = link_id is not None and name not in opened[link_id]
            yield _line(name, full_name, row, place, deliveries.get(name), not_opened=not_opened)

    # Sending

    async def send(
        self,
        course_id: str,
        assignment: str,
        *,
        students: Collection[str] | None = None,
        partial: bool = False,
        again: bool = False,
        asked_by: str = "",
    ) -> Sent:
        """Have grades sent that the platform does not have yet. It returns when they are in the queue.

        Args:
            course_id: the course.
            assignment: the assignment.
            students: only theirs.
            partial: also those of which something is still to be graded by hand.
            again: also those that were sent and have not changed.
            asked_by: who asks; empty for the timer.

        Raises:
            IllumiDeskError: where nothing can be sent at all, with what to do.
        """
        self._forget_lost_columns(course_id, assignment)
        preview = await self.preview(course_id, assignment)
        check_places(course_id, preview)
        if students is not None:
            unknown = sorted(set(students) - {line.name for line in preview.lines})
            if unknown:
                raise IllumiDeskError(f"{unknown[0]} is no student of {course_id}", status=404)
        standings = TO_SEND | ({"by-hand"} if partial else set()) | ({"sent", "waiting"} if again else set())
        sent = Sent()
        wanted: dict[int, tuple[Found, list[Wanted]]] = {}
        for line in preview.lines:
            if students is not None and line.name not in students:
                continue
            if line.wanted is not None and line.place is not None and line.standing in standings:
                wanted.setdefault(id(line.place), (line.place, []))[1].append(line.wanted)
            elif line.standing in ("none", "by-hand"):
                sent.left[line.name] = line.why
        async with self._lock(course_id):
            for place, grades in wanted.values():
                column = place.column or await self._columns.make(place, assignment, preview.maximum)
                sent.queued += self._records.want(column.id, grades, asked_by=asked_by, again=again)
                self._classroom.sender.wake_platform(place.platform.id)
        if sent.queued:
            log.info("%s: %d grades of %s go, asked by %s", course_id, len(sent.queued), assignment, asked_by or "time")
        return sent

    def _forget_lost_columns(self, course_id: str, assignment: str) -> None:
        lost = {row.column_id for _, row in self._records.deliveries(course_id, assignment) if row.code in _LOST}
        for column_id in lost:
            self._records.forget_column(column_id)

    def retry(self, course_id: str, assignment: str = "", students: Collection[str] | None = None) -> int:
        """Try again at once what was refused or waits; how many grades that are."""
        self._check_course(course_id)
        count = self._records.retry(course_id, assignment, students)
        for platform, _ in self._records.contexts(course_id):
            self._classroom.sender.wake_platform(platform.id)
        return count

    async def places(self, course_id: str, assignment: str) -> list[dict[str, Any]]:
        """Where the grades go, and every column that a teacher may choose instead, for each platform's course."""
        names.check_assignment(assignment)
        self._check_course(course_id)
        found = []
        async with self._lock(course_id):
            for platform, context in self._records.contexts(course_id):
                place = await self._columns.find(platform, context, assignment)
                choices = await self._columns.choices(platform, context, assignment) if not place.problem else []
                found.append({**place_model(place, assignment), "choices": [choice_model(one) for one in choices]})
        return found

    async def choose(self, course_id: str, assignment: str, platform_id: int, key: str) -> Column:
        """Keep a teacher's choice of the column.

        Raises:
            IllumiDeskError: where there is no such column.
        """
        names.check_assignment(assignment)
        self._check_course(course_id)
        book = await (await self._classroom.grader(course_id)).scores(assignment)
        async with self._lock(course_id):
            for platform, context in self._records.contexts(course_id):
                if platform.id == platform_id:
                    return await self._columns.choose(platform, context, assignment, key, float(book["max_score"]))
        raise IllumiDeskError(f"{course_id} is no course of that platform", status=404)

    def status(self, course_id: str, assignment: str = "") -> list[dict[str, Any]]:
        """How the deliveries stand, without asking anybody."""
        self._check_course(course_id)
        return [
            delivery_model(column, delivery) for column, delivery in self._records.deliveries(course_id, assignment)
        ]

    def _check_course(self, course_id: str) -> None:
        if self._classroom.registry.course(course_id) is None:
            raise unknown_course(course_id)

    def _lock(self, course_id: str) -> asyncio.Lock:
        return self._locks.setdefault(course_id, asyncio.Lock())

    # By themselves

    def start(self) -> None:
        """Send by time, where the settings say so."""
        if self._classroom.settings.grades.auto_send:
            self._timer = asyncio.create_task(self._run())

    def stop(self) -> None:
        """End it."""
        if self._timer is not None:
            self._timer.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(min(TICK, self._classroom.settings.grades.auto_send))
            for course in self._classroom.registry.courses():
                try:
                    await self._look(course.course_id)
                except IllumiDeskError as error:
                    log.warning("%s: its grades were not sent by time: %s", course.course_id, error.message)
                except Exception:
                    log.exception("%s: its grades were not sent by time", course.course_id)

    async def _look(self, course_id: str) -> None:
        """Send what has changed, where it is time and somebody may have changed something."""
        now = asyncio.get_running_loop().time()
        last = self._looked.get(course_id)
        if last is not None and now - last < self._classroom.settings.grades.auto_send:
            return
        self._looked[course_id] = now
        if not self._records.contexts(course_id) or not self._classroom.grader_has_run(course_id, since=last):
            return
        for one in await self.assignments(course_id):
            if one["graded"]:
                try:
                    await self.send(course_id, one["name"])
                except IllumiDeskError as error:
                    log.warning("%s: the grades of %s stay here: %s", course_id, one["name"], error.message)


def check_places(course_id: str, preview: Preview) -> None:
    """Nothing, where grades have somewhere to go.

    Raises:
        IllumiDeskError: where they have not, or nobody has said where.
    """
    if not preview.places:
        raise IllumiDeskError(
            f"{course_id} comes from no LMS, so there is nowhere to send its grades",
            hint=f"`illumidesk grades export {course_id}` writes them into a file",
            status=409,
        )
    if preview.maximum <= 0:
        raise IllumiDeskError(
            f"{preview.assignment} has no points in the gradebook, so there is nothing to send",
            hint="give its cells points, and generate it and grade it again",
            status=409,
        )
    if any(place.column is not None or place.make for place in preview.places):
        return
    for place in preview.places:
        if place.problem is not None:
            raise place.problem
    raise IllumiDeskError(
        f"it is not clear which column of the LMS is for {preview.assignment}",
        hint=f"choose it once on the page of its grades, or by `illumidesk grades match {course_id} ASSIGNMENT`",
        status=409,
    )


def place_model(place: Found, assignment: str) -> dict[str, Any]:
    """Where grades go, as the command line reads it."""
    return {
        "platform": place.platform.id,
        "name": place.platform.name,
        "column": None if place.column is None else place.column.label or assignment,
        "make": place.make,
        "choices": [choice_model(one) for one in place.places],
        "problem": None if place.problem is None else place.problem.as_dict(),
    }


def choice_model(place: Place) -> dict[str, Any]:
    """A column that may be chosen."""
    return {"key": place.key, "label": place.label, "maximum": place.maximum}


def delivery_model(column: Column, delivery: Delivery) -> dict[str, Any]:
    """A delivery as pages and the command line read it."""
    return {
        "assignment": column.assignment,
        "column": column.label or column.assignment,
        "student": delivery.name,
        "state": delivery.state,
        "score": delivery.score,
        "maximum": delivery.maximum,
        "partial": delivery.partial,
        "attempts": delivery.attempts,
        "next_attempt": iso(delivery.due) if delivery.attempts else None,
        "code": delivery.code,
        "problem": delivery.problem,
        "hint": delivery.hint,
        "asked_by": delivery.asked_by,
        "sent_score": delivery.sent_score,
        "sent_maximum": delivery.sent_maximum,
        "sent_at": iso(delivery.sent_at),
    }


def _unsendable(
    row: Mapping[str, Any] | None, member: Membership | None, place: Found | None
) -> tuple[str, str] | None:
    """Why there is nothing to send of somebody, and what to do; None where there is something."""
    if row is None:
        return "nothing is handed in", ""
    if member is None:
        return "is not in this course", "put them into the course, or take their submission away"
    if member.left is not None:
        return f"has left the course ({member.left:%Y-%m-%d})", ""
    if member.role != "student":
        return "is no student of this course, so the LMS takes no grade", ""
    if place is None:
        return (
            "did not come from an LMS, which so knows nobody to give the grade to",
            "they must open a link of the course in the LMS once",
        )
    if not row["autograded"]:
        return "is not graded yet", "autograde the submission in the formgrader"
    if not float(row["max_score"]) > 0:
        return "the assignment has no points", ""
    if place.problem is not None:
        return place.problem.message, place.problem.hint
    if place.column is None and not place.make:
        return "it is not clear which column of the LMS is meant", "choose it on this page"
    return None


def _line(
    name: str,
    full_name: str,
    row: Mapping[str, Any],
    place: Found,
    delivery: Delivery | None,
    *,
    not_opened: bool,
) -> Line:
    wanted = Wanted(
        name,
        # Sums of floating-point numbers: the same grade must be the same number.
        round(max(0.0, float(row["score"])), 6),
        round(float(row["max_score"]), 6),
        comment=str(row.get("comment") or ""),
        partial=bool(row["needs_manual_grade"]),
    )
    why, hint = "", ""
    standing = _standing(wanted, delivery)
    if standing == "by-hand":
        why = "something is still to be graded by hand"
    elif delivery is not None and standing in ("waiting", "failed"):
        why, hint = delivery.problem, delivery.hint
    elif standing == "new" and not_opened:
        why = "this student has not opened the link in the LMS yet; the grade goes when they do"
    elif place.platform.version == "1.1" and wanted.score > wanted.maximum:
        why = "LTI 1.1 takes no more than the full mark: the extra points stay here"
    return Line(
        name,
        full_name,
        standing,
        wanted=wanted,
        scale=_scale(wanted, place),
        why=why,
        hint=hint,
        late=float(row.get("late_seconds") or 0),
        delivery=delivery,
        place=place,
    )


def _standing(wanted: Wanted, delivery: Delivery | None) -> Standing:
    if delivery is not None:
        if (delivery.score, delivery.maximum, delivery.comment, delivery.partial) == (
            wanted.score,
            wanted.maximum,
            wanted.comment,
            wanted.partial,
        ):
            return "waiting" if delivery.state == "sending" else delivery.state  # type: ignore[return-value]
        if not wanted.partial:
            return "changed"
    return "by-hand" if wanted.partial else "new"


def _scale(wanted: Wanted, place: Found) -> str:
    """What the platform is sent, for people."""
    if place.platform.version == "1.1":
        return f"{100 * share_of(wanted.score, wanted.maximum):.4g} %"
    return f"{wanted.score:g} of {wanted.maximum:g}"
