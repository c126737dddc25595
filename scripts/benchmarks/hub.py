"""What people cost the hub who have a server and do nothing, and what a restart of it costs with them.

Stand-ins (`standin.py`) run instead of servers: units as real ones, answers and reports of activity as real ones, and
hardly any memory, so that three hundred fit. What is measured is the hub and what serves it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.request import urlopen

from benchmarks.figures import OURS, STOCK, Figure, percentile
from benchmarks.processes import Meter
from benchmarks.rooms import Room, Rooms


def measure(rooms: Rooms, numbers: Sequence[int], seconds: float) -> list[Figure]:
    """For each number of people, both classes in turn.

    Args:
        rooms: both classes.
        numbers: of people, rising.
        seconds: how long the hub is looked at while nobody does anything.
    """
    meter = Meter(rooms.machine.name)
    rooms.ours.use(OURS)  # there is no fork server for stand-ins
    rooms.ours.use_standins(True)
    rooms.stock.use("idle")
    rooms_by_label: dict[str, Room] = {STOCK: rooms.stock, OURS: rooms.ours}
    figures: list[Figure] = []
    try:
        for number in numbers:
            found: dict[str, dict[str, float | None]] = {}
            for label, room in rooms_by_label.items():
                for what, value in one(meter, room, number, seconds).items():
                    found.setdefault(what, {})[label] = value
            figures += [Figure(what, unit, number, found[what], target) for what, unit, target in WHAT]
    finally:
        rooms.stock.stop_all()
        rooms.ours.stop_all()
        rooms.ours.use_standins(False)
    return figures


IDLE = "CPU of all services while all are idle"
EACH = "CPU of all services for an idle person"
WAIT = "99 of 100 wait no longer for the hub while all are idle"
RESTART = "CPU of a restart of the hub"
BACK = "a restarted hub answers after"
SPAWN = "CPU of the hub for a start (stand-ins)"
#: What is measured, its unit and its target.
WHAT = (
    (IDLE, "ms a minute", ""),
    (EACH, "ms a minute", "flat"),
    (WAIT, "ms", "200 ms"),
    (RESTART, "s", ""),
    (BACK, "s", ""),
    (SPAWN, "ms", "flat"),
)


def one(meter: Meter, room: Room, number: int, seconds: float) -> dict[str, float | None]:
    """What one class shows with so many people. Servers go on afterwards, for the next number."""
    names = room.names(number, "i")
    missing = [name for name in names if name not in room.running()]
    before = meter.cpu([room.hub_unit])
    room.start_all(missing)
    spawned = meter.cpu([room.hub_unit]) - before
    time.sleep(5)
    used, began = meter.cpu(room.services), time.monotonic()
    time.sleep(seconds)
    used = 60 * (meter.cpu(room.services) - used) / (time.monotonic() - began)
    waits: list[float] = []
    began = time.monotonic()
    while time.monotonic() - began < seconds / 2:
        asked = time.perf_counter()
        with urlopen(f"{room.url}/hub/health", timeout=120) as answer:  # noqa: S310 -- http by construction
            answer.read()
        waits.append(time.perf_counter() - asked)
        time.sleep(0.2)
    back = room.restart_hub()
    restarted = meter.cpu([room.hub_unit])
    if not room.running().issuperset(names):
        raise RuntimeError(f"{room.hub_unit} lost servers in its restart")
    return {
        IDLE: round(1000 * used, 1),
        EACH: round(1000 * used / number, 2),
        WAIT: round(1000 * percentile(waits, 99), 1),
        RESTART: round(restarted, 2),
        BACK: round(back, 2),
        SPAWN: round(1000 * spawned / len(missing), 1) if missing else None,
    }
