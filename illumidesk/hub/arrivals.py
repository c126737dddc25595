"""Whom the host has been told of: accounts, and who is in which course there.

The registry says who is what; the host follows, at the latest before a person's server starts. A hub that was restarted
does not know what the host has, and tells it again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from illumidesk.errors import IllumiDeskError
from illumidesk.registry import MemberRole

if TYPE_CHECKING:
    from illumidesk.hub.classroom import Classroom

#: Seconds without a launch after which those who launched are made members on the host.
CALM = 2.0

log = logging.getLogger("illumidesk.arrivals")


class Arrivals:
    """Tells the host of people, once each in the hub's life.

    Args:
        classroom: people and courses, and the supervisor.
        calm: seconds without a launch after which nobody waits for the processor any more.

    Attributes:
        changing: held while the host is told who is in a course and who is not, so that the last word is the
            registry's.
    """

    def __init__(self, classroom: Classroom, *, calm: float = CALM) -> None:
        self._classroom = classroom
        self._calm = calm
        self.changing = asyncio.Lock()
        #: What this hub has finished on the host since it started: people, and who is what in which course.
        self._accounts: set[str] = set()
        self._members: dict[tuple[str, str], MemberRole] = {}
        #: Who has launched and is not yet a member on the host, in order; and the loop's time of the last of them.
        self._waiting: dict[str, None] = {}
        self._last = 0.0
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """End what waits: whoever is not on the host yet comes there before their server starts."""
        if self._task is not None:
            self._task.cancel()

    def is_member(self, course_id: str, name: str, role: str | None) -> bool:
        """Whether this hub has done all that this membership needs."""
        return self._members.get((course_id, name)) == role

    async def admit(self, course_id: str, name: str, role: MemberRole) -> None:
        """Make somebody a member on the host.

        Raises:
            IllumiDeskError: where the supervisor refuses or does not answer.
        """
        async with self.changing:
            await self._admit(course_id, name, role)

    async def expel(self, course_id: str, name: str) -> None:
        """Take somebody out of a course on the host; the caller holds `changing`."""
        self._members.pop((course_id, name), None)
        await self._classroom.supervisor.set_membership(course_id, name, member=False)

    async def ensure(self, name: str) -> None:
        """Have the account, and all memberships that the registry knows, on the host. Once in the hub's life it is told
        all of them, since a launch does not wait for it, and an older version did not tell it of staff.

        Raises:
            IllumiDeskError: where the account cannot be had. Without a course's folders the person can still work.
        """
        self._waiting.pop(name, None)
        classroom = self._classroom
        async with self.changing:
            classroom.check_present(name)
            await self._ensure_account(name)
        for course_id, role in classroom.registry.memberships(name):
            if self.is_member(course_id, name, role):
                continue
            try:
                await classroom.ensure_set_up(course_id)
                async with self.changing:
                    if (course_id, role) in classroom.registry.memberships(name):  # nobody changed it while we waited
                        await self._admit(course_id, name, role)
            except IllumiDeskError as error:
                log.warning("%s as %s of %s: %s", name, role, course_id, error.message)

    def soon(self, name: str) -> None:
        """Have `ensure` done when launches have calmed down, since a class that clicks at the same minute waits for the
        same processor. Nobody waits for it, but the person's server before it starts.
        """
        self._waiting[name] = None
        self._last = asyncio.get_running_loop().time()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._let_arrive())

    def forget(self, name: str) -> None:
        """Tell the host of the account again before the person's next server starts, which this time did not."""
        self._accounts.discard(name)

    def forget_course(self, course_id: str) -> None:
        """The course is to go, and nobody is in it."""
        self._members = {key: role for key, role in self._members.items() if key[0] != course_id}

    async def _let_arrive(self) -> None:
        # One after the other: the host makes one account at a time, and servers that start need the processor.
        while self._waiting:
            wait = self._last + self._calm - asyncio.get_running_loop().time()
            if wait > 0:
                await asyncio.sleep(wait)
                continue
            name = next(iter(self._waiting))
            try:
                await self.ensure(name)
            except IllumiDeskError as error:
                log.warning("%s is not on the host yet: %s", name, error.message)
            except Exception:
                log.exception("%s is not on the host yet", name)

    async def _admit(self, course_id: str, name: str, role: MemberRole) -> None:
        await self._ensure_account(name)
        await self._classroom.supervisor.set_membership(course_id, name, member=True, staff=role != "student")
        self._members[course_id, name] = role

    async def _ensure_account(self, name: str) -> None:
        if name not in self._accounts:
            await self._classroom.supervisor.ensure_account(name)
            self._accounts.add(name)
