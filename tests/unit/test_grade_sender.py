"""The queue: everything arrives once, whoever fails; a platform in trouble is left in peace."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from illumidesk.grades import sender as module
from illumidesk.grades.sender import CONCURRENT, Sender, WaitError
from illumidesk.lti.services import ServiceError
from illumidesk.registry import Registry
from illumidesk.registry.grades import NOT_OPENED, GradeRecords, Job, Wanted


class Book:
    """A platform's book, what it does instead of taking a grade, and how often it was asked."""

    def __init__(self) -> None:
        self.scores: dict[tuple[int, str], float] = {}
        self.asked: Counter[str] = Counter()
        self.trouble: dict[str, Exception] = {}
        self.once: dict[str, Exception] = {}
        self.now = 0
        self.most = 0
        self.gate: asyncio.Event | None = None

    async def deliver(self, job: Job) -> None:
        name = job.delivery.name
        self.asked[name] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await asyncio.sleep(0)
            problem = self.once.pop(name, None) or self.trouble.get(name)
            if problem is not None:
                raise problem
            self.scores[job.platform.id, name] = job.delivery.score
        finally:
            self.now -= 1


class School:
    """A registry with platforms of a course and some students each."""

    def __init__(self, path: Path) -> None:
        self.registry = Registry(path)
        self.records: GradeRecords = self.registry.grades
        self.columns: list[int] = []
        self.book = Book()

    def add_platform(self, students: int) -> list[str]:
        number = len(self.columns) + 1
        platform, _ = self.registry.add_platform(
            f"LMS {number}", "1.1", key=f"key-{number}", secret="a-secret-of-some-length"
        )
        names = []
        for student in range(students):
            name, _ = self.registry.ensure_identity(platform.id, str(student), [f"p{number}s{student}"])
            names.append(name)
        self.registry.ensure_context(platform.id, "c", [f"course-{number}"])
        context = self.registry.context(platform.id, "c")
        assert context is not None
        self.columns.append(self.records.set_column(context, "ps1", source="made", label="ps1").id)
        return names

    def want(self, names: list[str], column: int = 0, score: float = 1) -> None:
        self.records.want(self.columns[column], [Wanted(name, score, 10) for name in names])

    def states(self) -> Counter[str]:
        courses = [f"course-{number + 1}" for number in range(len(self.columns))]
        return Counter(row.state for course in courses for _, row in self.records.deliveries(course))

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[Sender]:
        sender = Sender(self.records, self.book.deliver)
        sender.start()
        try:
            yield sender
        finally:
            await sender.stop()

    async def until(self, done: Callable[[], bool], seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while not done():
                await asyncio.sleep(0.01)


@pytest.fixture
def school(tmp_path: Path) -> School:
    return School(tmp_path / "registry.sqlite")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.1)
    monkeypatch.setattr(module, "REST", 0.1)
    monkeypatch.setattr(module, "NO_ROOM", 0.1)
    monkeypatch.setattr(module, "GRACE", 0.2)


def busy(**more: Any) -> ServiceError:
    return ServiceError("the LMS wants to be asked less often", code="rate-limit", retry=True, **more)


async def test_everything_arrives_once_a_few_at_a_time(school: School) -> None:
    names = school.add_platform(30)
    school.want(names)
    async with school.sending():
        await school.until(lambda: school.states() == {"sent": 30})
    assert set(school.book.asked.values()) == {1}
    assert 1 < school.book.most <= CONCURRENT


async def test_what_comes_while_it_waits_is_sent(school: School) -> None:
    names = school.add_platform(2)
    async with school.sending() as sender:
        await asyncio.sleep(0.05)
        school.want(names)
        sender.wake()
        await school.until(lambda: school.states() == {"sent": 2})
        school.want(names[:1], score=2)
        sender.wake()
        await school.until(lambda: school.book.scores[1, names[0]] == 2)
    assert school.book.asked[names[0]] == 2
    assert school.book.asked[names[1]] == 1


async def test_one_failure_stops_nobody_else_and_is_tried_again(school: School) -> None:
    names = school.add_platform(12)
    school.book.trouble[names[3]] = ServiceError("this student is not there any more", code="user-gone")
    school.book.once[names[5]] = ServiceError("trouble", code="platform", retry=True, unsure=True)
    school.book.once[names[7]] = ValueError("a mistake of ours")
    school.want(names)
    async with school.sending():
        await school.until(lambda: school.states()["sent"] == 10)
    rows = {row.name: row for _, row in school.records.deliveries("course-1")}
    assert rows[names[3]].state == "failed"
    assert rows[names[3]].problem == "this student is not there any more"
    assert (rows[names[7]].state, rows[names[7]].code, rows[names[7]].unsure) == ("waiting", "internal", True)
    assert school.book.asked[names[3]] == 1
    assert school.book.asked[names[5]] == 2


async def test_a_platform_that_asks_for_peace_gets_it_and_others_go_on(school: School) -> None:
    one, two = school.add_platform(10), school.add_platform(10)
    for name in one:
        school.book.trouble[name] = busy(after=60)
    school.want(one, 0)
    school.want(two, 1)
    async with school.sending() as sender:
        await school.until(lambda: school.states() == {"sent": 10, "waiting": 10})
        asked = sum(school.book.asked[name] for name in one)
        assert asked <= CONCURRENT
        assert 50 < sender.resting(1) <= 60
        assert sender.resting(2) == 0
        await asyncio.sleep(0.3)
        assert sum(school.book.asked[name] for name in one) == asked
        # Somebody presses the button: at once, whatever it asked for.
        school.book.trouble.clear()
        school.records.retry("course-1")
        sender.wake_platform(1)
        await school.until(lambda: school.states() == {"sent": 20})


async def test_a_dead_platform_is_tried_less_and_less_and_loses_nothing(school: School) -> None:
    names = school.add_platform(20)
    for name in names:
        school.book.trouble[name] = ServiceError("cannot be reached", code="unreachable", retry=True)
    school.want(names)
    async with school.sending():
        await asyncio.sleep(1.5)
        assert sum(school.book.asked.values()) < 40
        assert school.states() == {"waiting": 20}
        school.book.trouble.clear()
        await school.until(lambda: school.states() == {"sent": 20})


async def test_what_an_administrator_must_mend_is_waited_for(school: School) -> None:
    names = school.add_platform(3)
    for name in names:
        school.book.once[name] = ServiceError("no access token", code="token")
    school.want(names)
    async with school.sending():
        await school.until(lambda: school.states() == {"sent": 3})


async def test_who_has_not_opened_the_link_waits_without_being_tried(school: School) -> None:
    names = school.add_platform(1)
    school.book.trouble[names[0]] = WaitError("not opened", code=NOT_OPENED)
    school.want(names)
    async with school.sending():
        await school.until(lambda: school.book.asked[names[0]] == 1)
        await asyncio.sleep(0.4)
    assert school.book.asked[names[0]] == 1
    ((_, row),) = school.records.deliveries("course-1")
    assert (row.state, row.due, row.code) == ("waiting", None, NOT_OPENED)


async def test_what_is_under_way_when_it_stops_is_asked_for_at_the_next_start(school: School) -> None:
    names = school.add_platform(CONCURRENT + 3)
    school.book.gate = asyncio.Event()
    school.want(names)
    async with school.sending():
        await school.until(lambda: sum(school.book.asked.values()) == CONCURRENT)
    assert school.states() == {"sending": CONCURRENT, "waiting": 3}
    school.book.gate = None
    async with school.sending():
        assert sum(row.unsure for _, row in school.records.deliveries("course-1")) == CONCURRENT
        await school.until(lambda: school.states() == {"sent": CONCURRENT + 3})


async def test_a_full_disk_loses_nothing(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    names = school.add_platform(6)
    school.want(names)
    full = OperationalError("UPDATE", {}, Exception("database or disk is full"))

    def refuses(method: Callable[..., Any], times: int) -> Callable[..., Any]:
        left = [times]

        def call(*arguments: Any, **more: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise full
            return method(*arguments, **more)

        return call

    for name in ("due", "begin", "arrived"):
        monkeypatch.setattr(school.records, name, refuses(getattr(school.records, name), 2))
    async with school.sending():
        await school.until(lambda: school.states() == {"sent": 6})
    assert set(school.book.asked.values()) == {1}


async def test_nothing_is_done_while_nothing_is_due(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    school.add_platform(1)
    looked = Counter[str]()
    due = school.records.due

    def counted(*arguments: Any, **more: Any) -> Any:
        looked["due"] += 1
        return due(*arguments, **more)

    monkeypatch.setattr(school.records, "due", counted)
    async with school.sending():
        await asyncio.sleep(0.5)
    assert looked["due"] <= 1
