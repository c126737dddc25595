"""The bell rings: so many people sign in and start at the same moment, each with a browser of their own."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

import psutil

from benchmarks.figures import OURS, STOCK, Figure
from benchmarks.processes import Meter
from benchmarks.rooms import Room, Rooms
from benchmarks.visitor import Visit, Visitor

#: More stock servers than this are not tried: their memory, in bytes each (what one was measured to need, and a tenth).
STOCK_SERVER = 150 << 20


async def ring(room: Room, names: Sequence[str]) -> list[Visit]:
    """Everybody comes; what they saw. Their servers are stopped afterwards."""

    async def one(name: str) -> Visit:
        async with Visitor(room.url, name) as visitor:
            return await visitor.come()

    visits = await asyncio.gather(*map(one, names))
    await asyncio.to_thread(room.stop_all)
    return list(visits)


async def measure(rooms: Rooms, numbers: Sequence[int]) -> tuple[list[Figure], dict[str, Any]]:
    """Ring for each number of people, in each system; figures, and what people were told."""
    meter = Meter(rooms.machine.name)
    figures, told = [], {}
    for number in numbers:
        fits = psutil.virtual_memory().available > number * STOCK_SERVER
        seen: dict[str, list[Visit]] = {}
        cpu: dict[str, float] = {}
        kinds = (("class", f"{STOCK}, default timeouts"), ("patient", STOCK)) if fits else ()
        for kind, label in kinds:
            await asyncio.to_thread(rooms.stock.use, kind)
            names = rooms.stock.names(number)
            seen[label], cpu[label] = await _counted(meter, rooms.stock, names)
        for system in rooms.ours.systems():
            rooms.ours.use(system)
            names = rooms.ours.names(number, "b" if system == OURS else "fb")
            seen[system], cpu[system] = await _counted(meter, rooms.ours, names)
        figures += _figures(number, seen, cpu)
        told[str(number)] = {
            label: {
                "problems": Counter(visit.problem for visit in visits if visit.problem),
                "most people before somebody": max(map(most_before, visits), default=0),
            }
            for label, visits in seen.items()
        }
    return figures, told


async def _counted(meter: Meter, room: Room, names: Sequence[str]) -> tuple[list[Visit], float]:
    before = meter.cpu(room.services)
    visits = await ring(room, names)
    return visits, meter.cpu(room.services) - before


def most_before(visit: Visit) -> int:
    """The largest N in "N before you." that the person was shown."""
    return max((int(found[1]) for said in visit.told if (found := re.match(r"(\d+) before you", said))), default=0)


def _figures(number: int, seen: dict[str, list[Visit]], cpu: dict[str, float]) -> list[Figure]:
    times = {label: sorted(v.usable for v in visits if v.usable is not None) for label, visits in seen.items()}

    def of(what: Any) -> dict[str, float | None]:
        return {label: round(what(some), 2) if some else None for label, some in times.items()}

    return [
        Figure(
            "people who get a notebook when all come at once", "people", number,
            {label: float(len(some)) for label, some in times.items()}, "all", less=False,
        ),
        Figure("all at once: the first can work after", "s", number, of(min)),
        Figure("all at once: half can work after", "s", number, of(median)),
        Figure("all at once: the last can work after", "s", number, of(max), "0.1x"),
        Figure(
            "all at once: CPU of hub, proxy and supervisor", "s", number,
            {label: round(used, 2) for label, used in cpu.items()},
        ),
    ]  # fmt: skip
