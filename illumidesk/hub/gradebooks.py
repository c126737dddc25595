"""The gradebooks' lists of students: each course's grader is told who they are, with names and e-mail addresses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.hub.grader_client import GraderClient
from illumidesk.registry import Identity
from illumidesk.spawners.systemd import accepts

if TYPE_CHECKING:
    from illumidesk.hub.classroom import Classroom

#: Seconds that changes are collected before a grader is told.
DELAY = 3.0

log = logging.getLogger("illumidesk.gradebooks")


class Gradebooks:
    """Tells graders of students.

    Args:
        classroom: people and courses, and graders.
    """

    def __init__(self, classroom: Classroom, *, delay: float = DELAY) -> None:
        self._classroom = classroom
        self._delay = delay
        self._waiting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: dict[str, asyncio.Lock] = {}

    def soon(self, course_id: str) -> None:
        """Tell the course's grader in some seconds, where it runs then. Nobody waits for it."""
        if course_id in self._waiting:
            return
        self._waiting.add(course_id)
        task = asyncio.create_task(self._later(course_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End what waits: a grader is told everything when it starts."""
        for task in list(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _later(self, course_id: str) -> None:
        try:
            await asyncio.sleep(self._delay)
        finally:
            # What changes from now on is told anew.
            self._waiting.discard(course_id)
        try:
            await self.sync(course_id)
        except IllumiDeskError as error:
            log.warning("%s: the gradebook has not got the list of students: %s", course_id, error)
        except Exception:
            log.exception("%s: the gradebook has not got the list of students", course_id)

    async def sync(self, course_id: str, *, start: bool = False) -> None:
        """Tell the course's grader now.

        Args:
            course_id: the course.
            start: start the grader where it does not run; otherwise it is told when it starts.

        Raises:
            IllumiDeskError: where it does not start, or does not take it.
        """
        async with self._locks.setdefault(course_id, asyncio.Lock()):
            if start:
                grader = await self._classroom.grader(course_id)
            else:
                socket = self._classroom.paths.grader_socket(course_id)
                if not (self._is_active(course_id) and await accepts(socket)):
                    return
                grader = GraderClient(course_id, socket)
            students = self._students(course_id)
            if students:
                await grader.put_students(students)

    def _students(self, course_id: str) -> list[dict[str, str]]:
        found = []
        for member, identity in self._classroom.registry.roster(course_id):
            if member.role == "student" and member.left is None:
                first, last = names_of(identity)
                found.append(
                    {
                        "id": member.name,
                        "first_name": first,
                        "last_name": last,
                        "email": identity.email if identity else "",
                        "lms_user_id": identity.sub if identity else "",
                    }
                )
        return found

    def _is_active(self, course_id: str) -> bool:
        return self._classroom.units.is_active(names.grader_unit(course_id))


def names_of(identity: Identity | None) -> tuple[str, str]:
    """First and last name as the gradebook keeps them.

    A platform that says the whole name alone has it in the last name: no rule parts the names of all the world.
    """
    if identity is None:
        return "", ""
    if identity.given_name or identity.family_name:
        return identity.given_name, identity.family_name
    return "", identity.full_name
