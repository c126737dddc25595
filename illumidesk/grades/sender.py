"""The queue of grades: each delivery is sent until the platform has it, or says that it never will.

What is wanted and what was sent is in the registry, so that nothing is lost with the hub. An attempt is marked there
before it begins. One that was cut off may have arrived: the next attempt then asks the platform first.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import OperationalError

from illumidesk.errors import IllumiDeskError
from illumidesk.lti.services import ServiceError
from illumidesk.registry.grades import GradeRecords, Job

#: Attempts at a time for one platform.
CONCURRENT = 4
#: Seconds between the first attempts of one grade, doubled up to the greatest.
PAUSE, MAX_PAUSE = 15, 3600
#: Seconds that a platform is left alone after a failure that is its own, doubled up to the greatest.
REST, MAX_REST = 5, 600
#: Failures in a row after which a platform is left alone whatever they were.
MANY = 3
#: Seconds that what is under way may take when the hub stops.
GRACE = 5
#: Seconds until the database is tried again.
NO_ROOM = 15

#: What concerns the platform and not the one student.
_OF_PLATFORM = frozenset({"timeout", "unreachable", "certificate", "rate-limit", "closed"})
#: What an administrator must mend. Everything waits for it, and the platform is asked now and then.
_TO_MEND = frozenset({"token", "token-url", "unauthorized"})

log = logging.getLogger("illumidesk.grades")


class Sender:
    """Sends what is due, for each platform at most `CONCURRENT` at a time.

    Args:
        records: the registry's deliveries.
        deliver: makes one attempt; returns when the platform has the grade, else raises an IllumiDeskError.
    """

    def __init__(self, records: GradeRecords, deliver: Callable[[Job], Awaitable[None]]) -> None:
        self._records = records
        self._deliver = deliver
        self._wake = asyncio.Event()
        self._busy: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: By platform: until when it is left alone (the loop's time), and failures in a row.
        self._rest: dict[int, float] = {}
        self._failures: Counter[int] = Counter()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with what was under way when the last hub ended."""
        unsure = self._records.recover()
        if unsure:
            log.warning("%d grades were under way when the hub ended: the platforms are asked for them first", unsure)
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Begin nothing more. What is under way gets `GRACE` seconds, and is asked for at the next start."""
        if self._loop is not None:
            self._loop.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE)
        for task in self._tasks:
            task.cancel()

    def wake(self) -> None:
        """Something new is due."""
        self._wake.set()

    def wake_platform(self, platform_id: int) -> None:
        """Try the platform again at once: somebody asked for it."""
        self._rest.pop(platform_id, None)
        self._wake.set()

    def resting(self, platform_id: int) -> float:
        """Seconds for which the platform is still left alone."""
        return max(0.0, self._rest.get(platform_id, 0) - asyncio.get_running_loop().time())

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = self._begin_due()
            except OperationalError as error:
                log.error("the deliveries of grades cannot be read (%s); trying again", error.orig)
                pause = NO_ROOM
            except Exception:
                log.exception("the queue of grades")
                pause = NO_ROOM
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _begin_due(self) -> float | None:
        """Begin what is due; seconds until something may be due again, None for when somebody wakes the queue."""
        now = asyncio.get_running_loop().time()
        resting = {platform for platform, until in self._rest.items() if until > now}
        while True:
            running = Counter(self._busy.values())
            full = {platform for platform, count in running.items() if count >= CONCURRENT}
            begun = 0
            for delivery, platform in self._records.due(CONCURRENT, busy=self._busy, without=resting | full):
                if running[platform] < CONCURRENT:
                    running[platform] += 1
                    begun += 1
                    self._begin(delivery, platform)
            if not begun:
                break
        waits = [self._rest[platform] - now for platform in resting]
        following = self._records.next_due(without=resting)
        if following:
            waits.append(following)
        return min(waits, default=None)

    def _begin(self, delivery: int, platform: int) -> None:
        self._busy[delivery] = platform
        task = asyncio.create_task(self._attempt(delivery, platform))
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._busy.pop(delivery, None)
            if not task.cancelled() and task.exception() is not None:
                log.error("sending grade %d", delivery, exc_info=task.exception())
            self._wake.set()

        task.add_done_callback(done)

    async def _attempt(self, delivery: int, platform: int) -> None:
        job = await _written(lambda: self._records.begin(delivery))
        if job is None:
            return
        try:
            await self._deliver(job)
        except IllumiDeskError as error:
            await _written(self._held_up(job, error))
        except Exception:
            log.exception("sending grade %d of %s", delivery, job.delivery.name)
            problem = IllumiDeskError("this classroom made a mistake while it sent the grade", hint="see the log")
            due = _in(MAX_PAUSE)
            await _written(lambda: self._records.held_up(job, problem, code="internal", unsure=True, due=due))
        else:
            self._failures.pop(platform, None)
            await _written(lambda: self._records.arrived(job))
            log.info("%s: the platform has the grade of %s", job.column.assignment, job.delivery.name)

    def _held_up(self, job: Job, error: IllumiDeskError) -> Callable[[], None]:
        """What is to be written of a failure."""
        code = getattr(error, "code", "refused")
        unsure = isinstance(error, ServiceError) and error.unsure
        due, failed = None, True
        if isinstance(error, ServiceError) and (error.retry or error.code in _TO_MEND):
            failed = False
            due = self._again(job, error)
        elif isinstance(error, WaitError):
            failed = False
        log.warning(
            "%s: the grade of %s %s: %s: %s",
            job.column.assignment,
            job.delivery.name,
            "cannot be delivered" if failed else "waits",
            code,
            error.message,
        )
        return lambda: self._records.held_up(job, error, code=code, unsure=unsure, due=due, failed=failed)

    def _again(self, job: Job, error: ServiceError) -> datetime:
        """When to try again; the platform rests where the failure is its own."""
        platform = job.platform.id
        self._failures[platform] += 1
        pause = min(PAUSE * 2 ** min(job.delivery.attempts - 1, 20), MAX_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311
        of_platform = error.code in _OF_PLATFORM | _TO_MEND
        if of_platform or self._failures[platform] >= MANY:
            rest = min(REST * 2 ** min(self._failures[platform] - 1, 20), MAX_REST)
            rest = rest if error.after is None else error.after
            self._rest[platform] = asyncio.get_running_loop().time() + rest
            if of_platform:
                pause = rest
        return _in(pause if error.after is None else max(error.after, 0.1))


class WaitError(IllumiDeskError):
    """The grade cannot be sent before something else has happened; `code` says what."""

    def __init__(self, message: str, *, code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


async def _written(write: Callable[[], Any]) -> Any:
    """Write to the registry, again and again where the disk is full: how an attempt ended must not be lost."""
    while True:
        try:
            return write()
        except OperationalError as error:
            log.error("the registry cannot be written (%s); trying again", error.orig)
            await asyncio.sleep(NO_ROOM)


def _in(seconds: float) -> datetime:
    return datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=seconds)
