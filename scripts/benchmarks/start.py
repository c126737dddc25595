"""What one start costs, and what one person takes up: idle, with a kernel, with pandas.

People come one after the other, a few to each system in turn, and stay: what servers share counts, as in a class.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import fmean, median

from benchmarks.figures import FORKED, STOCK, Figure
from benchmarks.processes import INIT, Meter
from benchmarks.rooms import Room, Rooms
from benchmarks.visitor import Visitor

#: Seconds after which a server that was just opened is idle.
SETTLE = 4.0
#: How many come to one system before it is the next one's turn.
TURN = 5
#: How many have a kernel.
KERNELS = 5
#: What they run in it, one after the other.
PANDAS, ALL = "with a kernel and pandas", "with a kernel, NumPy, pandas and matplotlib"
WORK = {"with a kernel": "1", PANDAS: "import pandas", ALL: "import matplotlib.pyplot"}


@dataclass
class Counted:
    """What was counted in one system."""

    visitors: list[Visitor] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    hub: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    kernel: float = 0.0
    memory: dict[str, float] = field(default_factory=dict)


async def measure(rooms: Rooms, people: int) -> list[Figure]:
    """Start `people` servers in each system.

    Args:
        rooms: both classes.
        people: how many in each system.
    """
    meter = Meter(rooms.machine.name)
    rooms.ours.add_packages()
    rooms.stock.set_up(packages=True)
    rooms.stock.use("patient")
    # What a run that was cut off has left would count as started.
    rooms.stock.stop_all()
    rooms.ours.stop_all()
    systems = (STOCK, *rooms.ours.systems())
    counted = {system: Counted() for system in systems}
    room: dict[str, Room] = {system: rooms.stock if system == STOCK else rooms.ours for system in systems}
    names = {system: room[system].names(people + 1, "f" if system == FORKED else "p") for system in systems}
    async with AsyncExitStack() as stack:
        for first in range(0, people + 1, TURN):
            for system, count in counted.items():
                if system != STOCK:
                    rooms.ours.use(system)
                for name in names[system][first : first + TURN]:
                    visitor = await stack.enter_async_context(Visitor(room[system].url, name))
                    await _start(meter, room[system], count, visitor)
                    if system != STOCK:
                        rooms.ours.check(system, name)
        await asyncio.sleep(SETTLE)
        for system, count in counted.items():
            count.memory["services"] = sum(meter.memory(room[system].services)) / (1 << 20)
            count.memory["idle"] = mean_memory(meter, room[system], count.visitors)
        await _with_kernels(meter, counted, room, rooms)
        for count in counted.values():
            for visitor in count.visitors:
                await visitor.stop()
    return figures(counted, people)


async def _start(meter: Meter, room: Room, count: Counted, visitor: Visitor) -> None:
    """Count one start. That of the first person is left out: it reads the files from the disk."""
    await visitor.sign_in()
    hub, rest = [room.hub_unit], set(room.services) - {room.hub_unit}
    await asyncio.sleep(1)
    before = meter.cpu(hub), meter.cpu(rest), meter.cpu([INIT])
    await visitor.start()
    await visitor.open()
    await asyncio.sleep(SETTLE)
    if count.visitors:
        # With systemd, which has what the process used that built the sandbox and asked the fork server, and ended.
        count.server.append(meter.cpu([room.unit(visitor.name)]) + meter.cpu([INIT]) - before[2])
        count.hub.append(meter.cpu(hub) - before[0])
        count.others.append(meter.cpu(rest) - before[1])
    count.visitors.append(visitor)


async def _with_kernels(meter: Meter, counted: dict[str, Counted], room: dict[str, Room], rooms: Rooms) -> None:
    some = [(system, visitor) for system, count in counted.items() for visitor in count.visitors[:KERNELS]]
    units = {
        system: [room[system].unit(visitor.name) for visitor in count.visitors[:KERNELS]]
        for system, count in counted.items()
    }
    for system, count in counted.items():
        count.memory["before kernels"] = fmean(meter.memory(units[system])) / (1 << 20)
        count.kernel = -meter.cpu(units[system]) / len(units[system])
    kernels = []
    for system, visitor in some:
        kernels.append((system, visitor, await visitor.start_kernel()))
        # Until it answers: stock kernels listen on ports that were free a moment ago, and two that begin together may
        # have the same one. Then one of them never comes up.
        await visitor.run(kernels[-1][2], "1")
    for system, visitor in some:
        if system != STOCK:
            rooms.ours.check_kernel(system, visitor.name)
    for what, code in WORK.items():
        for _, visitor, kernel in kernels:
            await visitor.run(kernel, code)
        await asyncio.sleep(SETTLE)
        for system, count in counted.items():
            count.memory[what] = mean_memory(meter, room[system], [visitor for one, visitor in some if one == system])
    for system, count in counted.items():
        count.kernel += meter.cpu(units[system]) / len(units[system])


def mean_memory(meter: Meter, room: Room, visitors: Sequence[Visitor]) -> float:
    """MiB that one of these people's servers takes up."""
    return fmean(meter.memory([room.unit(visitor.name) for visitor in visitors])) / (1 << 20)


def figures(counted: dict[str, Counted], people: int) -> list[Figure]:
    """What was counted, as figures."""

    def values(of: Callable[[Counted], float]) -> dict[str, float | None]:
        return {system: round(of(count), 4) for system, count in counted.items()}

    return [
        Figure(
            "CPU of one start", "s", people, values(lambda count: median(count.server)), "0.45x; 0.05x with fork server"
        ),
        Figure("the hub's CPU for one start", "s", people, values(lambda count: median(count.hub)), "0.5x"),
        Figure("CPU of the other services for one start", "s", people, values(lambda count: median(count.others))),
        Figure("memory of the services", "MiB", people, values(lambda count: count.memory["services"])),
        *(
            Figure(
                f"memory of one person, {what}", "MiB", people if what == "idle" else min(KERNELS, people),
                values(lambda count, what=what: count.memory[what]),
                "0.75x; 0.3x with fork server" if what == "idle" else "",
            )
            for what in ("idle", *WORK)
        ),
        Figure(
            "CPU of one kernel that imports NumPy, pandas and matplotlib", "s", min(KERNELS, people),
            values(lambda count: count.kernel), "0.2x with fork server",
        ),
        Figure(
            "memory of one kernel with NumPy, pandas and matplotlib", "MiB", min(KERNELS, people),
            values(lambda count: count.memory[ALL] - count.memory["before kernels"]), "0.5x with fork server",
        ),
    ]  # fmt: skip
