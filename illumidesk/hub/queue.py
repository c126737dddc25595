"""Whose server starts next. A class clicks at the same minute, and a start is seconds of processor time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StartQueue:
    """Lets a few servers start at once and the others wait, in order of arrival.

    Started all at once, forty servers on two cores are all late; one after the other, the first are there at once and
    the last is no later.

    Args:
        width: how many start at once.
    """

    def __init__(self, width: int) -> None:
        self._turns = asyncio.Semaphore(width)
        self._waiting: list[str] = []

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn; it ends with the block."""
        self._waiting.append(name)
        try:
            await self._turns.acquire()
        finally:
            self._waiting.remove(name)
        try:
            yield
        finally:
            self._turns.release()

    def before(self, name: str) -> int | None:
        """How many wait before `name`; None where `name` does not wait."""
        return self._waiting.index(name) if name in self._waiting else None
