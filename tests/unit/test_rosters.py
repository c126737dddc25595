"""Rosters with a real registry and JupyterHub's tables, from the test LMS over HTTP; the supervisor is a stand-in."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from jupyterhub import orm, roles

from illumidesk.errors import IllumiDeskError
from illumidesk.hub.classroom import Classroom
from illumidesk.hub.gradebooks import Gradebooks, names_of
from illumidesk.lti.launch import Launch
from illumidesk.paths import Paths
from illumidesk.registry import Identity
from illumidesk.registry.models import Context, now
from illumidesk.settings import Settings
from tests.support.lms_services import Services
from tests.support.services_peer import Pair, paired

COURSE = "bio101"


class Supervisor:
    """Counts what it is asked; `refuse` names people whom it refuses, `down` is for all."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, ...]] = Counter()
        self.members: set[str] = set()
        self.refuse: set[str] = set()
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def ensure_course(self, course_id: str) -> None:
        self.calls["course", course_id] += 1

    async def ensure_account(self, name: str, *, restore: bool = False) -> None:
        self.calls["account", name] += 1
        await self.gate.wait()
        if self.down:
            raise IllumiDeskError("the supervisor does not answer", status=503)
        if name in self.refuse:
            raise IllumiDeskError(f"{name} is an account of this machine", status=403)

    async def set_membership(self, course_id: str, name: str, *, member: bool, staff: bool = False) -> None:
        self.calls["member", name] += 1
        (self.members.add if member else self.members.discard)(name)

    async def close(self) -> None:
        pass


class _Users(dict[Any, Any]):
    def __missing__(self, orm_user: Any) -> Any:
        user = SimpleNamespace(orm_user=orm_user, name=orm_user.name, running=False, spawners={})
        return self.setdefault(orm_user.id, user)


@dataclass
class School:
    """A hub's classroom, and the course's platform."""

    classroom: Classroom
    supervisor: Supervisor
    pair: Pair
    platform_id: int
    sub: dict[str, str] = field(default_factory=dict)

    @property
    def lms(self) -> Services:
        return self.pair.lms

    def name(self, *who: str, **more: Any) -> None:
        for one in who:
            member = {"user_id": f"id-{one}", "roles": ["Learner"], "email": f"{one}@example.edu", "name": one.title()}
            self.lms.members.append(member | more)

    def launch(self, who: str, role: Any) -> Launch:
        return Launch(
            self.platform_id,
            "1.3",
            f"id-{who}",
            email=f"{who}@example.edu",
            context_id="2",
            context_label=COURSE,
            role=role,
        )

    def members(self) -> dict[str, str]:
        return dict(self.classroom.registry.members(COURSE))

    def group(self, name: str) -> set[str]:
        group = orm.Group.find(self.classroom.app.db, f"{name}-{COURSE}")
        return {user.name for user in group.users} if group else set()


async def _no_grader(course_id: str) -> Any:
    raise IllumiDeskError("the grader does not start", status=500)


@asynccontextmanager
async def _school(root: Path) -> AsyncIterator[School]:
    paths = Paths(root)
    paths.registry_db.parent.mkdir(parents=True)
    db = orm.new_session_factory("sqlite:///:memory:")()
    for role in roles.get_default_roles():
        roles.create_role(db, role)
    app = SimpleNamespace(db=db, users=_Users(), _service_map={}, tornado_settings={})
    classroom = Classroom(app, paths, Settings())
    supervisor = Supervisor()
    classroom.supervisor = supervisor  # type: ignore[assignment]
    # The services of JupyterHub need its whole application: they are looked at in tests/integration.
    classroom._ensure_hub_course = lambda course_id: None  # type: ignore[method-assign]
    classroom.grader = _no_grader  # type: ignore[method-assign]
    async with paired() as pair:
        pair.lms.members = []
        platform, _ = classroom.registry.add_platform(
            "Canvas",
            "1.3",
            issuer="https://lms.example.edu",
            client_id=pair.platform.client_id,
            auth_url="https://lms.example.edu/auth",
            token_url=pair.platform.token_url,
            jwks_url="https://lms.example.edu/jwks",
            deployments=["1"],
            insecure=True,
        )
        await classroom.services.close()
        classroom.services = pair.tool
        classroom.registry.ensure_context(platform.id, "2", [COURSE])
        classroom.registry.grades.learn(platform.id, "2", COURSE, "", memberships_url=pair.lms.memberships_url)
        try:
            yield School(classroom, supervisor, pair, platform.id)
        finally:
            await classroom.rosters.stop()
            await classroom.gradebooks.stop()
            classroom.registry.close()


@pytest.fixture
async def school() -> AsyncIterator[School]:
    with tempfile.TemporaryDirectory(prefix="idsk-") as folder:  # short: a socket's path has 107 bytes at most
        async with _school(Path(folder)) as school:
            yield school


async def test_whoever_needs_nothing_costs_nothing(school: School) -> None:
    school.name("ana", "ben")
    school.name("tom", roles=["Instructor"])
    seen: list[tuple[int, int]] = []
    change = await school.classroom.rosters.fetch(COURSE, "tom", lambda done, total: seen.append((done, total)))
    assert (change.joined, change.unchanged, change.left) == (("ana", "ben", "tom"), (), ())
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert school.group("nbgrader") == {"ana", "ben"}
    assert school.group("formgrade") == {"tom"}
    before = school.supervisor.calls.copy()
    change = await school.classroom.rosters.fetch(COURSE)
    assert change.unchanged == ("ana", "ben", "tom")
    assert school.supervisor.calls == before


async def test_a_role_of_the_roster_follows_it_and_one_of_a_launch_does_not(school: School) -> None:
    school.name("ana", "ben", "tina", "kept")
    await school.classroom.rosters.fetch(COURSE)
    await school.classroom.launch(school.launch("tina", "ta"))
    await school.classroom.launch(school.launch("ben", "student"))
    await school.classroom.enrol(COURSE, "kept", "ta")
    school.lms.members.clear()
    school.name("ana", "ben", roles=["Instructor"])
    school.name("tina")
    change = await school.classroom.rosters.fetch(COURSE)
    assert (change.changed, change.left) == (("ana",), ())
    # An administrator's word, of somebody who is not on the roster any more.
    assert school.members() == {"ana": "instructor", "ben": "student", "tina": "ta", "kept": "ta"}
    assert school.group("formgrade") == {"ana", "tina", "kept"}


async def test_who_leaves_is_marked_and_comes_back(school: School) -> None:
    school.name("ana", "ben", "cleo")
    await school.classroom.launch(school.launch("looker", "instructor"))
    await school.classroom.arrivals.ensure("looker")
    await school.classroom.rosters.fetch(COURSE)
    school.lms.members = [one for one in school.lms.members if one["user_id"] != "id-ben"]
    school.lms.members[-1]["status"] = "Inactive"
    change = await school.classroom.rosters.fetch(COURSE)
    assert change.left == ("ben", "cleo")
    assert school.members() == {"ana": "student", "looker": "instructor"}
    assert school.supervisor.members == {"ana", "looker"}
    assert school.group("nbgrader") == {"ana"}
    assert [one["name"] for one in school.classroom.rosters.people(COURSE) if one["left"]] == ["ben", "cleo"]
    assert (await school.classroom.rosters.fetch(COURSE)).left == ()
    await school.classroom.launch(school.launch("ben", "student"))
    assert school.members()["ben"] == "student"
    # As before a server starts: a launch does not wait for the host.
    await school.classroom.arrivals.ensure("ben")
    assert "ben" in school.supervisor.members


async def test_one_who_cannot_be_had_stops_nobody(school: School) -> None:
    school.name("ana", "ben", "gone")
    await school.classroom.rosters.fetch(COURSE)
    school.classroom.registry.retire_person("gone")
    school.supervisor.refuse = {"daphne"}
    school.name("daphne", "emil")
    change = await school.classroom.rosters.fetch(COURSE)
    assert change.gradebook == ""
    assert (change.joined, sorted(change.skipped)) == (("emil",), ["Daphne (id-daphne)", "Gone (id-gone)"])
    assert "was removed" in change.skipped["Gone (id-gone)"]
    school.supervisor.refuse = set()
    assert "daphne" not in (await school.classroom.rosters.fetch(COURSE)).skipped
    assert "daphne" in school.supervisor.members


async def test_a_supervisor_that_is_down_ends_it_and_the_next_fetch_finishes(school: School) -> None:
    school.name("ana", "ben")
    school.supervisor.down = True
    with pytest.raises(IllumiDeskError, match="supervisor does not answer"):
        await school.classroom.rosters.fetch(COURSE, "tom")
    state = school.classroom.rosters.state(COURSE)
    assert state
    assert state.model()["problem"] == "the supervisor does not answer"
    school.supervisor.down = False
    change = await school.classroom.rosters.fetch(COURSE, "tom")
    assert change.gradebook == "the grader does not start"
    assert school.supervisor.members == school.group("nbgrader") == {"ana", "ben"}


@pytest.mark.parametrize("trouble", ["refuse", "drop", "html"])
async def test_a_list_that_breaks_off_changes_nothing(school: School, trouble: Any) -> None:
    school.name(*(f"p{number}" for number in range(7)))
    school.lms.fault("members", trouble, status=403, times=9)
    with pytest.raises(IllumiDeskError):
        await school.classroom.rosters.fetch(COURSE, "tom")
    assert school.members() == {}
    assert not school.supervisor.calls


async def test_a_list_that_would_empty_the_class_is_refused(school: School) -> None:
    with pytest.raises(IllumiDeskError, match="has nobody in it"):
        await school.classroom.rosters.fetch(COURSE)
    school.name("ana", "ben")
    await school.classroom.rosters.fetch(COURSE)
    school.lms.members[:] = []
    school.name("xaver", "yara")
    with pytest.raises(IllumiDeskError, match="nobody in it who was there before") as caught:
        await school.classroom.rosters.fetch(COURSE)
    assert "unenroll" in caught.value.hint
    assert school.members() == {"ana": "student", "ben": "student"}
    for name in ("ana", "ben"):
        await school.classroom.withdraw(COURSE, name)
    assert (await school.classroom.rosters.fetch(COURSE)).joined == ("xaver", "yara")


async def test_one_at_a_time_and_launches_go_between(school: School) -> None:
    school.name("ana", "ben")
    await school.classroom.launch(school.launch("tom", "instructor"))
    await school.classroom.arrivals.ensure("tom")
    school.supervisor.gate.clear()
    first = school.classroom.rosters.begin(COURSE, "tom")
    while not school.supervisor.calls["account", "ana"]:
        await asyncio.sleep(0.01)
    assert school.classroom.rosters.begin(COURSE, "root") is first
    # Somebody who is in already waits for nothing.
    await asyncio.wait_for(school.classroom.launch(school.launch("tom", "instructor")), 20)
    assert not first.done()
    school.supervisor.gate.set()
    assert (await school.classroom.rosters.fetch(COURSE)).joined == ("ana", "ben")
    assert sum(one.kind == "members" for one in school.lms.asked) == 1


async def test_courses_without_a_roster(school: School) -> None:
    registry = school.classroom.registry
    registry.ensure_course("alone")
    with pytest.raises(IllumiDeskError, match="comes from no LMS"):
        await school.classroom.rosters.fetch("alone")
    old, _ = registry.add_platform("Old", "1.1", key="key", secret="secret of twelve")
    registry.ensure_context(old.id, "c", ["old"])
    with pytest.raises(IllumiDeskError, match=r"LTI 1\.1 has no rosters"):
        await school.classroom.rosters.fetch("old")
    registry.ensure_context(school.platform_id, "9", ["quiet"])
    with pytest.raises(IllumiDeskError, match="offers no roster"):
        await school.classroom.rosters.fetch("quiet")
    with pytest.raises(IllumiDeskError, match="there is no course"):
        await school.classroom.rosters.fetch("nothing")


async def test_by_time(school: School, caplog: pytest.LogCaptureFixture) -> None:
    """Only what was fetched once, only when it is old, and one that fails says so once."""
    rosters = school.classroom.rosters
    school.name("ana")
    await rosters.look()
    assert school.members() == {}
    await rosters.fetch(COURSE, "tom")
    school.name("ben")
    await rosters.look()
    assert school.members() == {"ana": "student"}

    def make_old() -> None:
        with school.classroom.registry._session() as session:
            context = session.get(Context, (school.platform_id, "2"))
            assert context
            context.rostered = now() - timedelta(days=2)
        rosters._tried.clear()

    make_old()
    await rosters.look()
    assert set(school.members()) == {"ana", "ben"}
    caplog.clear()
    for _ in range(2):
        make_old()
        school.lms.fault("members", "refuse", status=403, words="no")
        await rosters.look()
    assert sum("not fetched by time" in one.message for one in caplog.records) == 1


# The gradebook


async def test_the_grader_is_told_of_students(school: School) -> None:
    told: list[dict[str, Any]] = []

    async def students(request: web.Request) -> web.Response:
        told.append(json.loads(await request.text()))
        return web.json_response({"added": 0, "changed": 0})

    classroom = school.classroom
    del classroom.grader  # the real one, which finds that it runs
    running = False
    classroom.units = SimpleNamespace(is_active=lambda unit: running)  # type: ignore[assignment]
    classroom.gradebooks = Gradebooks(classroom, delay=0.05)
    app = web.Application()
    app.router.add_put(f"/services/{COURSE}/illumidesk/students", students)
    runner = web.AppRunner(app)
    await runner.setup()
    socket = classroom.paths.grader_socket(COURSE)
    socket.parent.mkdir(parents=True)
    await web.UnixSite(runner, str(socket)).start()
    try:
        school.name("ana", given_name="Ana", family_name="Roe")
        school.name("ben")
        school.name("tom", roles=["Instructor"])
        await classroom.rosters.fetch(COURSE)
        assert told == []  # it does not run, and nobody asked
        running = True
        await classroom.rosters.fetch(COURSE, "tom")
        assert told[0]["students"] == [
            {"id": "ana", "first_name": "Ana", "last_name": "Roe", "email": "ana@example.edu", "lms_user_id": "id-ana"},
            {"id": "ben", "first_name": "", "last_name": "Ben", "email": "ben@example.edu", "lms_user_id": "id-ben"},
        ]
        await asyncio.sleep(0.2)
        told.clear()
        for who in ("cleo", "dora", "emil"):
            await classroom.launch(school.launch(who, "student"))
        while not told or len(told[-1]["students"]) < 5:  # one may be told before the next has come
            await asyncio.sleep(0.01)
        assert [one["id"] for one in told[-1]["students"]] == ["ana", "ben", "cleo", "dora", "emil"]
        await runner.cleanup()
        # A grader that is gone stops no launch, and is said where somebody asks.
        assert await classroom.launch(school.launch("finn", "student")) == ("finn", COURSE)
    finally:
        await runner.cleanup()


def test_names_in_the_gradebook() -> None:
    assert names_of(None) == ("", "")
    assert names_of(Identity(given_name="Ana", family_name="", full_name="Ana Roe")) == ("Ana", "")
    assert names_of(Identity(given_name="", family_name="", full_name="Ana María Roe")) == ("", "Ana María Roe")
