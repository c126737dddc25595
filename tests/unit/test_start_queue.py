"""The queue of starts: fair, and one that fails delays nobody."""

from __future__ import annotations

import asyncio

import pytest

from illumidesk.hub.queue import StartQueue


async def test_in_order_of_arrival_and_no_more_at_once_than_allowed() -> None:
    queue = StartQueue(2)
    running: set[str] = set()
    order: list[str] = []
    most = 0

    async def start(name: str) -> None:
        nonlocal most
        async with queue.turn(name):
            running.add(name)
            order.append(name)
            most = max(most, len(running))
            await asyncio.sleep(0.001)
            running.remove(name)

    names = [f"s{n:02}" for n in range(20)]
    tasks = [asyncio.create_task(start(name)) for name in names]
    await asyncio.sleep(0)
    assert queue.before("s00") is None
    assert queue.before("s02") == 0
    assert queue.before("s12") == 10
    await asyncio.gather(*tasks)
    assert order == names
    assert most == 2
    assert queue.before("s19") is None


async def test_a_start_that_fails_or_is_given_up_frees_its_turn() -> None:
    queue = StartQueue(1)
    with pytest.raises(RuntimeError):
        async with queue.turn("broken"):
            raise RuntimeError("boom")
    async with queue.turn("slow"):
        waiting = asyncio.create_task(queue.turn("impatient").__aenter__())
        await asyncio.sleep(0)
        assert queue.before("impatient") == 0
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert queue.before("impatient") is None
    async with asyncio.timeout(1), queue.turn("next"):
        pass
