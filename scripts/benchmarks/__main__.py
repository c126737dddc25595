"""Measure what matters to a class, beside a stock JupyterHub: prints a table, writes JSON, a page and a chart.

    scripts/bench                        everything, in a machine of its own; most of an hour
    scripts/bench start bell             these alone
    scripts/bench --quick                everything, with few people: to see that it works, not to compare
    scripts/bench --docs                 page and chart into docs/, too; alone: of what was measured before
    scripts/bench start --machine try    in a machine where install.sh has run

Outcomes are kept in artefacts/bench, one file for each measurement, and the page is made of all that are there. Figures
are of this machine; compare them with figures of the same run only. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from machine import CHECKOUT, Machine

from benchmarks import autograde, bell, grades, hub, launches, paint, proxy, report, start, workspaces
from benchmarks.figures import Figure
from benchmarks.rooms import Rooms
from illumidesk.settings import Settings
from tests.support.classroom import SOURCE, Classroom

FOLDER = CHECKOUT / "artefacts" / "bench"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    starts: int = 20
    bell: tuple[int, ...] = (10, 40, 150)
    launches: int = 200
    idle: tuple[int, ...] = (10, 40, 150, 300)
    idle_seconds: float = 60
    graded: tuple[int, ...] = (5, 20)
    proxy_seconds: int = 10
    grades: tuple[int, ...] = (30, 300)
    paint: int = 3
    workspace_seconds: float = 60


QUICK = Size(2, (3,), 10, (3,), 5, (2,), 5, (10,), 1, 5)

Outcome = tuple[list[Figure], dict[str, Any]]


@dataclass(frozen=True)
class Measurement:
    """One of those that have a name on the command line."""

    run: Callable[[Any, Size], Outcome]
    about: str
    in_rooms: bool = True


def _plain(figures: list[Figure]) -> Outcome:
    return figures, {}


def _each(measure: Callable[[int], Outcome], numbers: tuple[int, ...]) -> Outcome:
    outcomes = {number: measure(number) for number in numbers}
    return [one for figures, _ in outcomes.values() for one in figures], {str(n): d for n, (_, d) in outcomes.items()}


MEASUREMENTS = {
    "start": Measurement(
        lambda rooms, size: _plain(asyncio.run(start.measure(rooms, size.starts))),
        "CPU of a start, memory of a person idle, with a kernel, with pandas",
    ),
    "bell": Measurement(
        lambda rooms, size: asyncio.run(bell.measure(rooms, size.bell)), "a class signs in and starts at once"
    ),
    "launches": Measurement(
        lambda rooms, size: _plain(launches.measure(rooms, size.launches)), "LTI launches a second, both versions"
    ),
    "hub": Measurement(
        lambda rooms, size: _plain(hub.measure(rooms, size.idle, size.idle_seconds)), "the hub under idle people"
    ),
    "autograde": Measurement(
        lambda rooms, size: _each(lambda n: _plain(autograde.measure(rooms, n)), size.graded), "autograde of a class"
    ),
    "proxy": Measurement(
        lambda rooms, size: _plain(proxy.measure(rooms, size.proxy_seconds)), "small answers and files by the proxy"
    ),
    "workspaces": Measurement(
        lambda rooms, size: _plain(
            workspaces.measure(Classroom(rooms.machine, rooms.ours.port), idle=size.workspace_seconds)
        ),
        "memory of each workspace while nobody does anything",
    ),
    "grades": Measurement(
        lambda _, size: _each(grades.measure, size.grades), "a class's grades in one send", in_rooms=False
    ),
    "paint": Measurement(
        lambda _, size: paint.measure(size.paint), "from the click in an LMS to a notebook, in Chromium", in_rooms=False
    ),
}


@contextlib.contextmanager
def both_rooms(name: str, port: int, release: str) -> Iterator[Rooms]:
    """Both classes: in the running machine `name`, which goes on, or in one of our own."""
    if name:
        yield Rooms.of(Machine.attach(name), port)
        return
    with Machine("bench", release) as machine:
        machine.copy_checkout(SOURCE)
        Classroom(machine, port).install()
        yield Rooms.of(machine, port)


def keep(folder: Path, name: str, release: str, began: tuple[float, ...], outcome: Outcome) -> None:
    """Write one outcome's file into the folder."""
    figures, details = outcome
    folder.mkdir(parents=True, exist_ok=True)
    found = {
        "name": name,
        "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
        "release": release,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30)),
        "load": round(began[0], 1),
        "load_after": round(os.getloadavg()[0], 1),
        "figures": [figure.as_dict() for figure in figures],
        "details": details,
    }
    (folder / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    about, _, more = (__doc__ or "").partition("\n")
    listed = "\n".join(f"  {name:<10}{one.about}" for name, one in MEASUREMENTS.items())
    parser = argparse.ArgumentParser(
        "scripts/bench", description=about, epilog=f"{more}\nMeasurements:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="measurements; all, where none is named")
    parser.add_argument("--quick", action="store_true", help="few people, to see that it works")
    parser.add_argument("--docs", action="store_true", help="put page and chart into docs/")
    parser.add_argument("--machine", default="", metavar="NAME", help="a running machine, installed on --port")
    parser.add_argument("--port", type=int, default=8091, help="this and the next three are used (default: 8091)")
    parser.add_argument("--release", default="bookworm", help="Debian release of a machine of its own")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.names) - set(MEASUREMENTS)
    if unknown:
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}; there is {', '.join(MEASUREMENTS)}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for. What fails is said, and the others go on."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    names = arguments.names or ([] if arguments.docs and not arguments.quick else list(MEASUREMENTS))
    size, folder = (QUICK, FOLDER / "quick") if arguments.quick else (Size(), FOLDER)
    percent = Settings().class_limits.memory_percent
    failed = 0
    with contextlib.ExitStack() as stack:
        rooms = None
        for name in names:
            one = MEASUREMENTS[name]
            if one.in_rooms and rooms is None:
                rooms = stack.enter_context(both_rooms(arguments.machine, arguments.port, arguments.release))
            print(f"{name}: {one.about} …", file=sys.stderr, flush=True)
            began = os.getloadavg()
            try:
                outcome = one.run(rooms, size)
            except Exception:
                traceback.print_exc()
                failed += 1
                continue
            keep(folder, name, rooms.machine.release if rooms else arguments.release, began, outcome)
            print(report.table(outcome[0]), flush=True)
    report.write(folder, folder / "report", percent)
    if arguments.docs:
        report.write(folder, CHECKOUT / "docs", percent)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
