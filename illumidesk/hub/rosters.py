"""Rosters: who is in a course by its platform's list (NRPS), before anybody has launched.

A roster is read whole before anything changes. Then everybody is brought in one by one, each so that a second run
finishes what a first one began. People whom a roster no longer names are marked; their work stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy.exc import OperationalError

from illumidesk.errors import IllumiDeskError
from illumidesk.lti import nrps
from illumidesk.lti.errors import LTIError, shown
from illumidesk.lti.launch import role_of
from illumidesk.registry import Context, Identity, Membership, Platform
from illumidesk.registry.models import now
from illumidesk.registry.store import database_problem, iso, unknown_course

if TYPE_CHECKING:
    from illumidesk.hub.classroom import Classroom

#: Seconds between two looks of the timer, and after which it tries again what went wrong.
TICK = 60
AGAIN = 900

#: What a fetch is doing: it asks the platform, brings people in, or writes the gradebook's list of students.
Step = Literal["reading", "people", "gradebook"]
Progress = Callable[[int, int], None]

log = logging.getLogger("illumidesk.rosters")


@dataclass(frozen=True)
class RosterChange:
    """What a roster has changed.

    Attributes:
        joined: who is in the course now and was not, or came back.
        changed: whose role is another one.
        left: who is in it no longer.
        unchanged: whose place was right already.
        skipped: who could not be brought in, with the reason.
        gradebook: why the gradebook does not know them yet; "" where it does, or its grader does not run.
    """

    joined: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    gradebook: str = ""

    def sentence(self) -> str:
        """It in words."""
        parts = [(self.joined, "joined"), (self.changed, "with another role"), (self.left, "left")]
        said = [f"{len(names)} {word}" for names, word in parts if names]
        said.append(f"{len(self.unchanged)} unchanged")
        if self.skipped:
            said.append(f"{len(self.skipped)} left out")
        return ", ".join(said)


@dataclass
class Fetch:
    """One fetch of a roster, under way or over.

    Attributes:
        asked_by: who asked; "" for the timer.
        done: how many people have been brought in, of `total`.
        change: what came of it.
        problem: why nothing did.
    """

    asked_by: str
    started: datetime = field(default_factory=now)
    step: Step = "reading"
    done: int = 0
    total: int = 0
    ended: datetime | None = None
    change: RosterChange | None = None
    problem: IllumiDeskError | None = None

    def model(self) -> dict[str, Any]:
        """As pages and the command line read it."""
        change = self.change
        return {
            "asked_by": self.asked_by,
            "started": iso(self.started),
            "step": self.step,
            "done": self.done,
            "total": self.total,
            "ended": iso(self.ended),
            "problem": self.problem.message if self.problem else "",
            "hint": self.problem.hint if self.problem else "",
            "change": change
            and {
                "joined": list(change.joined),
                "changed": list(change.changed),
                "left": list(change.left),
                "unchanged": list(change.unchanged),
                "skipped": dict(change.skipped),
                "gradebook": change.gradebook,
                "sentence": change.sentence(),
            },
        }


@dataclass(frozen=True)
class _Read:
    """A roster that has been read whole."""

    platform: Platform
    context: Context
    members: Sequence[nrps.Member]

    def active(self) -> list[nrps.Member]:
        return [one for one in self.members if one.status == "Active"]


class Rosters:
    """The rosters of this hub's courses.

    Args:
        classroom: people and courses, and the registry.
    """

    def __init__(self, classroom: Classroom) -> None:
        self._classroom = classroom
        self._registry = classroom.registry
        self._fetches: dict[str, Fetch] = {}
        self._tasks: dict[str, asyncio.Task[RosterChange]] = {}
        self._timer: asyncio.Task[None] | None = None
        #: By course: when the timer last tried (the loop's time), and what it said then.
        self._tried: dict[str, float] = {}
        self._said: dict[str, str] = {}

    # What is known

    def state(self, course_id: str) -> Fetch | None:
        """The course's last fetch, while this hub runs."""
        return self._fetches.get(course_id)

    def sources(self, course_id: str) -> list[dict[str, Any]]:
        """The platforms' courses that are this course: whether they have a roster, and when it was last read."""
        return [
            {
                "platform": platform.name,
                "version": platform.version,
                "has_roster": bool(context.memberships_url),
                "read": iso(context.rostered),
            }
            for platform, context in self._registry.grades.contexts(course_id)
        ]

    def people(self, course_id: str) -> list[dict[str, Any]]:
        """Everybody who is or was in the course, as pages and the command line read it.

        Raises:
            IllumiDeskError: where there is no such course.
        """
        self._check_course(course_id)
        return [_person_model(member, identity) for member, identity in self._registry.roster(course_id)]

    # Fetching

    async def fetch(self, course_id: str, asked_by: str = "", progress: Progress | None = None) -> RosterChange:
        """Bring the course to what its platforms say. Whoever asks while it is under way waits for the same one.

        Args:
            course_id: the course.
            asked_by: who asks; "" for the timer.
            progress: told how many people have been brought in, and of how many.

        Raises:
            IllumiDeskError: where nothing can be fetched, or what came is not to be believed.
        """
        task = self.begin(course_id, asked_by, progress)
        # Whoever goes away must not end it.
        return await asyncio.shield(task)

    def begin(self, course_id: str, asked_by: str = "", progress: Progress | None = None) -> asyncio.Task[RosterChange]:
        """As `fetch`, without waiting; `state` tells how it goes.

        Raises:
            IllumiDeskError: where the course has no roster.
        """
        self._check_course(course_id)
        task = self._tasks.get(course_id)
        if task is None:
            self._sources_to_read(course_id)
            state = Fetch(asked_by)
            self._fetches[course_id] = state
            task = asyncio.create_task(self._run_fetch(course_id, state, progress))
            self._tasks[course_id] = task
            # Nobody may be waiting for it.
            task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return task

    async def _run_fetch(self, course_id: str, state: Fetch, progress: Progress | None) -> RosterChange:
        try:
            state.change = await self._fetch(course_id, state, progress)
        except IllumiDeskError as error:
            state.problem = error
            detail = error.detail if isinstance(error, LTIError) else ""
            if state.asked_by:
                log.warning(
                    "%s: its roster was not fetched: %s", course_id, "; ".join(filter(None, (str(error), detail)))
                )
            raise
        except OperationalError as error:
            state.problem = database_problem(error, self._classroom.paths.hub_state)
            raise state.problem from None
        except Exception:
            log.exception("%s: its roster was not fetched", course_id)
            state.problem = IllumiDeskError(
                "the roster was not fetched, because of a mistake in this classroom",
                hint="the log of the hub tells more: `illumidesk logs hub`",
                status=500,
            )
            raise state.problem from None
        finally:
            state.ended = now()
            self._tasks.pop(course_id, None)
        log.info("%s: its roster: %s; asked by %s", course_id, state.change.sentence(), state.asked_by or "time")
        return state.change

    async def _fetch(self, course_id: str, state: Fetch, progress: Progress | None) -> RosterChange:
        read = [
            _Read(platform, context, await nrps.members(self._classroom.services, platform, context.memberships_url))
            for platform, context in self._sources_to_read(course_id)
        ]
        for one in read:
            self._check_believable(course_id, one)
        state.step, state.total = "people", sum(len(one.active()) for one in read)
        joined: list[str] = []
        changed: list[str] = []
        unchanged: list[str] = []
        skipped: dict[str, str] = {}
        named: set[str] = set()
        for one in read:
            here: set[str] = set()
            for member in one.active():
                try:
                    name, became = await self._bring_in(course_id, one.platform, member)
                except IllumiDeskError as error:
                    # The supervisor or the disk would say the same of everybody, and so does a missing course.
                    if error.status >= 500 or self._registry.course(course_id) is None:
                        raise
                    skipped[_whom(member)] = error.message
                    identity = self._registry.identity(one.platform.id, member.user_id)
                    here |= set() if identity is None else {identity.name}
                else:
                    here.add(name)
                    {"joined": joined, "changed": changed, "unchanged": unchanged}[became].append(name)
                state.done += 1
                if progress is not None:
                    progress(state.done, state.total)
                # Launches and pages go between.
                await asyncio.sleep(0)
            self._registry.roster_was_read(course_id, one.platform.id, one.context.context_id, here)
            named |= here
        left = await self._let_go(course_id, read, named)
        state.step = "gradebook"
        return RosterChange(
            joined=tuple(sorted(joined)),
            changed=tuple(sorted(changed)),
            left=tuple(left),
            unchanged=tuple(sorted(unchanged)),
            skipped=skipped,
            gradebook=await self._write_gradebook(course_id, start=bool(state.asked_by)),
        )

    async def _bring_in(
        self, course_id: str, platform: Platform, member: nrps.Member
    ) -> tuple[str, Literal["joined", "changed", "unchanged"]]:
        classroom = self._classroom
        name = classroom.ensure_identified(
            platform.id,
            member.user_id,
            email=member.email,
            login=member.login,
            full_name=member.name,
            given_name=member.given_name,
            family_name=member.family_name,
        )
        role = role_of(member.roles, classroom.settings.sign_in.lti.roles)
        before = self._registry.membership(course_id, name)
        there = before is not None and before.left is None
        right = there and before is not None and (before.source != "roster" or before.role == role)
        if right and before is not None and classroom.arrivals.is_member(course_id, name, before.role):
            return name, "unchanged"
        effective = await classroom.enrol_by_roster(course_id, name, role)
        if not there or before is None:
            return name, "joined"
        return name, "unchanged" if before.role == effective else "changed"

    async def _let_go(self, course_id: str, read: Sequence[_Read], named: set[str]) -> list[str]:
        """Mark those whom an earlier roster of these platforms named and none does any more, or names as inactive."""
        platforms = {one.platform.id for one in read}
        inactive = {
            (one.platform.id, member.user_id) for one in read for member in one.members if member.status != "Active"
        }
        left = []
        for member, identity in self._registry.roster(course_id):
            if identity is None or identity.platform_id not in platforms or member.left is not None:
                continue
            # What an administrator here said counts more than a roster; people whom no roster named are none of its.
            if member.source == "admin" or member.name in named:
                continue
            if member.rostered is not None or (identity.platform_id, identity.sub) in inactive:
                await self._classroom.leave(course_id, member.name)
                left.append(member.name)
        return left

    async def _write_gradebook(self, course_id: str, *, start: bool) -> str:
        try:
            await self._classroom.sync_gradebook(course_id, start=start)
        except IllumiDeskError as error:
            log.warning("%s: the gradebook has not got the roster: %s", course_id, error)
            return error.message
        return ""

    def _sources_to_read(self, course_id: str) -> list[tuple[Platform, Context]]:
        contexts = self._registry.grades.contexts(course_id)
        found = [(platform, context) for platform, context in contexts if context.memberships_url]
        if found:
            return found
        if not contexts:
            raise IllumiDeskError(
                f"{course_id} comes from no LMS, so there is no roster to fetch",
                hint=f"`illumidesk roster import {course_id} FILE` brings people in from a file",
                status=409,
            )
        if all(platform.version == "1.1" for platform, _ in contexts):
            raise IllumiDeskError(
                "LTI 1.1 has no rosters: this course fills in as people open its link in the LMS",
                hint="a file of people can be imported, or the LMS be connected by LTI 1.3",
                status=409,
            )
        raise IllumiDeskError(
            "the LMS offers no roster of this course: it fills in as people open its link there",
            hint="let this tool use Names and Role Provisioning Services in the LMS, and open the link again",
            status=409,
        )

    def _check_believable(self, course_id: str, read: _Read) -> None:
        """A list that a broken LMS may have given must not empty a class.

        Raises:
            IllumiDeskError: for one with nobody in it, or with nobody whom the last one had.
        """
        active = {one.user_id for one in read.active()}
        if not active:
            raise IllumiDeskError(
                f"the roster of {read.platform.name} has nobody in it, so nothing was changed",
                hint="look in the LMS who is in the course, and whether this tool may see them",
                status=409,
            )
        last = {
            identity.sub
            for member, identity in self._registry.roster(course_id)
            if identity is not None
            and identity.platform_id == read.platform.id
            and member.rostered is not None
            and member.left is None
        }
        if last and not last & active:
            raise IllumiDeskError(
                f"the roster of {read.platform.name} has nobody in it who was there before, so nothing was changed",
                hint=f"where that is right, take the people of before out: `illumidesk unenroll {course_id} NAME`",
                status=409,
            )

    def _check_course(self, course_id: str) -> None:
        if self._registry.course(course_id) is None:
            raise unknown_course(course_id)

    # By themselves

    def start(self) -> None:
        """Fetch by time, where the settings say so."""
        if self._classroom.settings.rosters.refresh:
            self._timer = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End it, and what is under way: the next fetch finishes that."""
        tasks = [*([self._timer] if self._timer else []), *self._tasks.values()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, IllumiDeskError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.look()
            except Exception:
                log.exception("rosters are not fetched by time")

    async def look(self) -> None:
        """Fetch each roster that was fetched once and is older than the settings want."""
        clock = asyncio.get_running_loop().time
        old = now() - timedelta(seconds=self._classroom.settings.rosters.refresh)
        for course_id, read in self._registry.rosters():
            if read > old or clock() - self._tried.get(course_id, float("-inf")) < AGAIN:
                continue
            self._tried[course_id] = clock()
            try:
                await self.fetch(course_id)
            except IllumiDeskError as error:
                if self._said.get(course_id) != error.message:
                    log.warning("%s: its roster was not fetched by time: %s", course_id, error)
                self._said[course_id] = error.message
            else:
                self._said.pop(course_id, None)


def _whom(member: nrps.Member) -> str:
    said = member.name or member.email
    return f"{shown(said)} ({shown(member.user_id)})" if said else shown(member.user_id)


def _person_model(member: Membership, identity: Identity | None) -> dict[str, Any]:
    return {
        "name": member.name,
        "full_name": full_name_of(identity),
        "email": identity.email if identity else "",
        "role": member.role,
        "source": member.source,
        "lms_user_id": identity.sub if identity else "",
        "since": iso(member.created),
        "rostered": iso(member.rostered),
        "left": iso(member.left),
    }


def full_name_of(identity: Identity | None) -> str:
    """What the platform calls somebody, in one piece; "" where it does not say."""
    if identity is None:
        return ""
    return identity.full_name or " ".join(filter(None, (identity.given_name, identity.family_name)))
