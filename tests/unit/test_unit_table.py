"""The hub's table of units: what it believes, and what it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.hub.units import UnitTable
from illumidesk.supervisor.client import SupervisorClient, Unit


def unit(name: str, state: str, exit_status: int | None = None) -> Unit:
    return {
        "unit": f"jupyter-{name}.service",
        "kind": "server",
        "name": name,
        "active_state": state,
        "sub_state": "",
        "result": "success",
        "main_pid": 7 if state == "active" else 0,
        "ready": False,
        "exit_status": exit_status,
        "memory": None,
        "cpu": None,
        "tasks": None,
    }


class Supervisor:
    """What the table asks and hears."""

    def __init__(self) -> None:
        self.stream: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.listed: list[Unit] = []
        self.asked = 0
        self.away = False

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            yield await self.stream.get()

    async def units(self) -> list[Unit]:
        self.asked += 1
        if self.away:
            raise IllumiDeskError("the supervisor does not answer", status=503)
        return self.listed

    def tell(self, *events: dict[str, Any]) -> None:
        for event in events:
            self.stream.put_nowait(event)


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


async def started(supervisor: Supervisor, *units: Unit) -> tuple[UnitTable, list[tuple[str, str]]]:
    changes: list[tuple[str, str]] = []

    async def note(changed: Unit) -> None:
        changes.append((changed["name"], changed["active_state"]))

    table = UnitTable(cast(SupervisorClient, supervisor), note)
    supervisor.tell(*({"event": "unit", **each} for each in units), {"event": "ready"})
    await table.start()
    return table, changes


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_runs_is_not_asked_for(supervisor: Supervisor) -> None:
    table, changes = await started(supervisor, unit("ana", "active"))
    for _ in range(100):
        assert await table.exit_status("jupyter-ana.service") is None
    assert supervisor.asked == 0
    assert changes == []


async def test_what_ended_is_asked_for_and_told(supervisor: Supervisor) -> None:
    table, changes = await started(supervisor, unit("ana", "active"))
    supervisor.listed = [unit("ana", "failed", 137)]
    supervisor.tell({"event": "unit", **unit("ana", "failed", 137)})
    await settle()
    assert changes == [("ana", "failed")]
    assert await table.exit_status("jupyter-ana.service") == 137
    supervisor.listed = []
    assert await table.exit_status("jupyter-ana.service") == 0


async def test_an_event_later_than_the_answer_does_not_make_a_new_server_dead(supervisor: Supervisor) -> None:
    table, _ = await started(supervisor)
    supervisor.listed = [unit("ana", "active")]
    assert await table.exit_status("jupyter-ana.service") is None


async def test_one_that_ended_is_told_even_if_a_list_comes_before_its_event(supervisor: Supervisor) -> None:
    """Asking about one person must not swallow the end of another's server."""
    table, changes = await started(supervisor, unit("ana", "active"), unit("ben", "active"))
    supervisor.listed = []
    assert await table.exit_status("jupyter-carl.service") == 0
    supervisor.tell({"event": "unit", **unit("ana", "inactive")})
    await settle()
    assert sorted(changes) == [("ana", "inactive"), ("ben", "inactive")]


async def test_what_ended_while_the_supervisor_was_away(supervisor: Supervisor) -> None:
    table, changes = await started(supervisor, unit("ana", "active"), unit("ben", "active"))
    supervisor.tell({"event": "lost"}, {"event": "unit", **unit("ben", "active")}, {"event": "ready"})
    await settle()
    assert changes == [("ana", "inactive")]
    assert not table.is_active("jupyter-ana.service")
    assert table.is_active("jupyter-ben.service")


async def test_while_the_supervisor_is_away_nobody_is_taken_for_dead(supervisor: Supervisor) -> None:
    table, _ = await started(supervisor)
    supervisor.away = True
    assert await table.exit_status("jupyter-ana.service") is None


async def test_a_failing_reaction_does_not_end_the_following(supervisor: Supervisor) -> None:
    seen: list[str] = []

    async def fail(changed: Unit) -> None:
        seen.append(changed["active_state"])
        raise RuntimeError("boom")

    table = UnitTable(cast(SupervisorClient, supervisor), fail)
    supervisor.tell({"event": "unit", **unit("ana", "active")}, {"event": "ready"})
    await table.start()
    supervisor.tell({"event": "unit", **unit("ana", "deactivating")}, {"event": "unit", **unit("ana", "inactive")})
    await settle()
    assert seen == ["deactivating", "inactive"]
