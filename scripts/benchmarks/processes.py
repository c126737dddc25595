"""CPU and memory of units, as the kernel counts them for their processes.

The throwaway machine's control groups count nothing (its controllers are the host's), so both come from /proc, where
the host sees the machine's processes and their units. What a process that has ended used is counted with the parent
that waited for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
#: The unit of systemd itself, with which a unit's own processes are counted when they have ended.
INIT = "init"


@dataclass(frozen=True)
class Usage:
    """What a unit has used (CPU seconds, user and system) and takes up (bytes, proportional set size)."""

    cpu: float = 0.0
    memory: int = 0
    processes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu + other.cpu, self.memory + other.memory, self.processes + other.processes)


def cpu_of(stat: str) -> float:
    """CPU seconds in a line of /proc/PID/stat, with those of children that were waited for (proc(5))."""
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICK


def memory_of(rollup: str) -> int:
    """The proportional set size in /proc/PID/smaps_rollup, in bytes."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def unit_of(cgroups: str, machine: str) -> str:
    """The unit that /proc/PID/cgroup names, where it is one of that machine's; else ""."""
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        parts = path.split("/")
        if controllers in ("", "name=systemd") and f"illumidesk-machine-{machine}" in parts:
            units = [part for part in parts if part.endswith(".service")]
            return units[0] if units else INIT
    return ""


@dataclass(frozen=True)
class Meter:
    """Reads what the units of a machine use.

    Args:
        machine: its name.
    """

    machine: str

    def read(self, *, memory: bool = True) -> dict[str, Usage]:
        """Every unit with processes. Memory is the dearer half; without it, it is 0."""
        found: dict[str, Usage] = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it ended meanwhile
                unit = unit_of((folder / "cgroup").read_text(), self.machine)
                if not unit:
                    continue
                size = memory_of((folder / "smaps_rollup").read_text()) if memory else 0
                usage = Usage(cpu_of((folder / "stat").read_text()), size, 1)
                found[unit] = found.get(unit, Usage()) + usage
        return found

    def cpu(self, units: Iterable[str]) -> float:
        """CPU seconds of these units together."""
        found = self.read(memory=False)
        return sum(found[unit].cpu for unit in units if unit in found)

    def memory(self, units: Iterable[str]) -> list[int]:
        """Bytes of each of these units; of those that do not run there is none."""
        found = self.read()
        return [found[unit].memory for unit in units if unit in found]
