"""Waiting for the disk, many at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path


class Disk:
    """Flushes a database's write-ahead log in a thread, once for everybody who waits.

    SQLite writes a commit to the log and, with `synchronous=NORMAL`, does not wait until the disk has it. Flushing the
    log afterwards is what it does itself with `synchronous=FULL`, for each commit and while everything else waits
    (https://sqlite.org/pragma.html#pragma_synchronous).

    Args:
        log: the file of the log; where it is not there, all of it is in the database, which SQLite has flushed.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def settled(self) -> None:
        """Return when everything that was committed before this call has reached the disk.

        Raises:
            OSError: where the disk does not take it.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
        # Whoever goes away must not end the flush of the others.
        await asyncio.shield(self._next)

    async def _after(self, running: asyncio.Task[None] | None) -> None:
        # One that has begun may have missed the last commit.
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        await asyncio.to_thread(self._flush)

    def _flush(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._log.open("rb") as log:
            os.fdatasync(log.fileno())
