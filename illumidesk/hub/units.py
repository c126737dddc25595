"""What the hub knows about systemd's units, kept up to date by the supervisor's events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

from illumidesk.errors import IllumiDeskError
from illumidesk.supervisor.client import SupervisorClient, Unit

_ALIVE = frozenset({"active", "activating", "reloading", "refreshing", "deactivating"})

log = logging.getLogger("illumidesk.units")


class UnitTable:
    """The last known state of every unit of a person's server and of a grader.

    Args:
        supervisor: whose events are followed.
        on_change: called with each change that an event brings, once the table has it.
    """

    def __init__(self, supervisor: SupervisorClient, on_change: Callable[[Unit], Awaitable[None]]) -> None:
        self._supervisor = supervisor
        self._on_change = on_change
        self._units: dict[str, Unit] = {}
        self._complete = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reactions: set[asyncio.Task[None]] = set()

    async def start(self, timeout: float = 10) -> None:
        """Follow the events; returns when the first full list is here, or after `timeout` seconds without it."""
        self._task = asyncio.create_task(self._follow())
        try:
            async with asyncio.timeout(timeout):
                await self._complete.wait()
        except TimeoutError:
            log.error("the supervisor did not answer within %d s; going on, and asking again", timeout)

    async def stop(self) -> None:
        """Follow no longer."""
        if self._task is not None:
            self._task.cancel()

    async def exit_status(self, unit: str) -> int | None:
        """None while the unit runs, else its exit status (0 for a unit that is gone).

        A unit that runs by the table costs nothing. One that does not is asked for once, since events may come
        after the answer that started it; where the supervisor is away, what runs is believed to go on.
        """
        known = self._units.get(unit)
        if known is not None and known["active_state"] in _ALIVE:
            return None
        try:
            await self.refresh()
        except IllumiDeskError as error:
            log.warning("cannot tell whether %s runs (%s): taking it to go on", unit, error)
            return None
        known = self._units.get(unit)
        if known is None:
            return 0
        return None if known["active_state"] in _ALIVE else (known["exit_status"] or 0)

    async def refresh(self) -> None:
        """Ask for the full list.

        Raises:
            IllumiDeskError: where the supervisor does not answer.
        """
        listed = await self._supervisor.units()
        self._forget_all_but({unit["unit"] for unit in listed})
        for unit in listed:
            self._learn(unit)

    def is_active(self, unit: str) -> bool:
        """Whether the unit runs, by the table."""
        known = self._units.get(unit)
        return known is not None and known["active_state"] in _ALIVE

    def is_ready(self, unit: str) -> bool:
        """Whether the unit has said that it listens."""
        known = self._units.get(unit)
        return known is not None and known["ready"]

    async def changed(self, timeout: float) -> None:
        """Return when an event has changed any unit, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._changed.wait()

    def all(self) -> list[Unit]:
        """The table."""
        return list(self._units.values())

    async def _follow(self) -> None:
        told: set[str] = set()
        async for event in self._supervisor.events():
            match event["event"]:
                case "lost":
                    told = set()
                case "ready":
                    # What ended while nobody told: of it there is no event.
                    self._forget_all_but(told)
                    self._complete.set()
                case "unit":
                    told.add(event["unit"])
                    self._learn(cast(Unit, event))

    def _forget_all_but(self, names: set[str]) -> None:
        for name in self._units.keys() - names:
            self._learn({**self._units[name], "active_state": "inactive", "main_pid": 0, "ready": False})

    def _learn(self, unit: Unit) -> None:
        before = self._units.get(unit["unit"])
        if unit["active_state"] == "inactive":
            self._units.pop(unit["unit"], None)
        else:
            self._units[unit["unit"]] = unit
        # Whoever waits by now goes on; who comes later waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()
        if before is not None and before["active_state"] != unit["active_state"]:
            self._react(unit)

    def _react(self, unit: Unit) -> None:
        async def react() -> None:
            try:
                await self._on_change(unit)
            except Exception:
                log.exception("reacting to %s becoming %s", unit["unit"], unit["active_state"])

        task: asyncio.Task[Any] = asyncio.create_task(react())
        self._reactions.add(task)
        task.add_done_callback(self._reactions.discard)
