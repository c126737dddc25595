"""Who launches reaches JupyterHub together and the host later; with a real registry and JupyterHub's tables."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jupyterhub import orm
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from illumidesk.hub.arrivals import Arrivals
from tests.unit.test_rosters import COURSE, School, school

__all__ = ["school"]


def hub_users(school: School) -> set[str]:
    return {user.name for user in school.classroom.app.db.query(orm.User)}


async def launch_all(school: School, *who: str) -> list[Any]:
    launches = (school.classroom.launch(school.launch(one, "student")) for one in who)
    return await asyncio.gather(*launches, return_exceptions=True)


async def test_a_crowd_becomes_users_of_jupyterhub_in_few_transactions(school: School) -> None:
    await launch_all(school, "first")
    commits: list[object] = []
    event.listen(school.classroom.app.db, "after_commit", commits.append)
    people = [f"p{number}" for number in range(30)]
    assert await launch_all(school, *people, "p3") == [(name, COURSE) for name in [*people, "p3"]]
    assert hub_users(school) == school.group("nbgrader") == {"first", *people}
    assert len(commits) <= 3
    # Again: nothing is to be written.
    commits.clear()
    await launch_all(school, *people)
    assert not commits


async def test_whom_jupyterhub_missed_it_gets_at_the_next_launch(school: School) -> None:
    """As after a full disk."""
    await launch_all(school, "first")
    db = school.classroom.app.db
    commit = db.commit

    def fail() -> None:
        raise OperationalError("COMMIT", {}, Exception("database or disk is full"))

    db.commit = fail
    answers = await launch_all(school, "ana", "ben")
    assert [type(one) for one in answers] == [OperationalError] * 2
    db.commit = commit
    assert hub_users(school) == {"first"}
    assert await launch_all(school, "ana", "ben") == [("ana", COURSE), ("ben", COURSE)]
    assert school.group("nbgrader") == {"first", "ana", "ben"}


async def test_who_was_removed_meanwhile_does_not_become_a_user(school: School) -> None:
    await launch_all(school, "first")
    settled = school.classroom.registry.settled

    async def removed() -> None:
        await settled()
        await school.classroom.close_person("ana")

    school.classroom.registry.settled = removed  # type: ignore[method-assign]
    await launch_all(school, "ana")
    assert hub_users(school) == {"first"}


@pytest.mark.parametrize("refused", ["", "p1"])
async def test_the_host_hears_of_all_when_it_is_calm(school: School, refused: str) -> None:
    school.classroom.arrivals = Arrivals(school.classroom, calm=0.3)
    school.supervisor.refuse = {refused}
    people = [f"p{number}" for number in range(5)]
    for name in people:
        await launch_all(school, name)
        await asyncio.sleep(0.05)
        assert not school.supervisor.members
    # Whoever's server starts does not wait.
    await school.classroom.arrivals.ensure("p4")
    assert school.supervisor.members == {"p4"}
    while len(school.supervisor.members) < len({*people} - {refused}):
        await asyncio.sleep(0.05)
    assert school.supervisor.calls["account", "p0"] == school.supervisor.calls["account", "p4"] == 1
    assert school.classroom.arrivals.is_member(COURSE, "p0", "student")
