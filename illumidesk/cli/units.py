"""Our systemd units, as systemd and the kernel account for them. Works without the hub and without root."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import psutil

Kind = Literal["service", "fork_server", "server", "grader", "slice"]

#: Everybody's servers together.
USERS_SLICE = "illumidesk-users.slice"
SERVICES = ("illumidesk-proxy.service", "illumidesk-hub.service", "illumidesk-supervisor.service")
_FORK_SERVER = "illumidesk-forkserver@"
_PATTERNS = (*SERVICES, f"{_FORK_SERVER}*.service", USERS_SLICE, "jupyter-*.service", "illumidesk-grader@*.service")
_PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Result,MainPID,NRestarts,StateChangeTimestampMonotonic,"
    "MemoryCurrent,MemoryMax,CPUUsageNSec,TasksCurrent"
)
_NO_NUMBER = 1 << 63  # systemd prints its largest number for "no limit" and "not known"


@dataclass(frozen=True)
class Unit:
    """A unit of ours.

    Args:
        unit: its name in systemd.
        kind: what it is.
        name: the person's, the course's or the environment's; the service's own otherwise.
        active_state: systemd's ActiveState; `not-found` where there is no such unit.
        sub_state: systemd's SubState.
        result: why it ended, in systemd's words.
        main_pid: its first process, 0 where it does not run.
        restarts: how often systemd started it anew.
        since: seconds that it has been in this state.
        memory: bytes in use.
        memory_limit: bytes it may use.
        cpu: seconds of processor time used.
        cpu_percent: processor use now, in percent of one core.
        tasks: processes and threads.
    """

    unit: str
    kind: Kind
    name: str
    active_state: str
    sub_state: str
    result: str
    main_pid: int
    restarts: int
    since: float | None
    memory: int | None
    memory_limit: int | None
    cpu: float | None
    cpu_percent: float | None
    tasks: int | None

    @property
    def is_running(self) -> bool:
        """Whether it runs, or is about to."""
        return self.active_state in ("active", "activating", "reloading")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def show_units(interval: float = 0.0) -> list[Unit]:
    """Every unit of ours that systemd knows; none where systemd does not answer.

    Args:
        interval: seconds over which processor use is measured; 0 leaves it out.
    """
    first = _show()
    if not first or not interval:
        return [_unit(properties, None) for properties in first]
    earlier = {properties["Id"]: _processor_time(properties) for properties in first}
    started = time.monotonic()
    time.sleep(interval)
    second = _show()
    passed = time.monotonic() - started
    units = []
    for properties in second:
        before, now = earlier.get(properties["Id"]), _processor_time(properties)
        known = before is not None and now is not None and now >= before
        units.append(_unit(properties, 100 * (now - before) / passed if known else None))  # type: ignore[operator]
    return units


def running(units: Iterable[Unit]) -> list[Unit]:
    """People's servers and graders that run."""
    return [unit for unit in units if unit.kind in ("server", "grader") and unit.is_running]


def host_figures(interval: float = 0.0) -> dict[str, Any]:
    """The machine's load, memory and disk, with the names the supervisor uses.

    Args:
        interval: seconds since `psutil.cpu_percent` was last called, where the caller has waited; else 0.
    """
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    try:
        disk = psutil.disk_usage("/home")
    except OSError:
        disk = psutil.disk_usage("/")
    return {
        "cpu_percent": psutil.cpu_percent(interval or None),
        "cores": psutil.cpu_count() or 1,
        "memory_total": memory.total,
        "memory_available": memory.available,
        "swap_total": swap.total,
        "swap_free": swap.free,
        "disk_total": disk.total,
        "disk_free": disk.free,
        "uptime": int(time.time() - psutil.boot_time()),
        "load": list(psutil.getloadavg()),
    }


def _show() -> list[dict[str, str]]:
    command = ["systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", "--", *_PATTERNS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_show(done.stdout) if done.returncode == 0 else []


def parse_show(text: str) -> list[dict[str, str]]:
    """What `systemctl show` prints for several units, each with an `Id`."""
    blocks = (dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n"))
    return [block for block in blocks if block.get("Id")]


def _unit(properties: dict[str, str], cpu_percent: float | None) -> Unit:
    kind, name = _kind_and_name(properties["Id"])
    pid = int(properties.get("MainPID") or 0)
    memory, cpu = _number(properties, "MemoryCurrent"), _processor_time(properties)
    if memory is None and pid:
        memory = _in_memory(pid)
    changed = _number(properties, "StateChangeTimestampMonotonic")
    found = properties.get("LoadState") != "not-found"
    return Unit(
        unit=properties["Id"],
        kind=kind,
        name=name,
        active_state=properties.get("ActiveState", "") if found else "not-found",
        sub_state=properties.get("SubState", ""),
        result=properties.get("Result", ""),
        main_pid=pid,
        restarts=int(properties.get("NRestarts") or 0),
        since=round(time.monotonic() - changed / 1e6, 1) if changed else None,
        memory=memory,
        memory_limit=_number(properties, "MemoryMax"),
        cpu=None if cpu is None else round(cpu, 3),
        cpu_percent=None if cpu_percent is None else round(cpu_percent, 1),
        tasks=_number(properties, "TasksCurrent"),
    )


def _kind_and_name(unit: str) -> tuple[Kind, str]:
    stem, _, suffix = unit.rpartition(".")
    if suffix == "slice":
        return "slice", stem
    if stem.startswith("jupyter-"):
        return "server", stem.removeprefix("jupyter-")
    if stem.startswith("illumidesk-grader@"):
        return "grader", stem.removeprefix("illumidesk-grader@")
    if stem.startswith(_FORK_SERVER):
        return "fork_server", stem.removeprefix(_FORK_SERVER)
    return "service", stem.removeprefix("illumidesk-")


def _number(properties: dict[str, str], name: str) -> int | None:
    text = properties.get(name, "")
    number = int(text) if text.isdecimal() else None
    return None if number is None or number >= _NO_NUMBER else number


def _processor_time(properties: dict[str, str]) -> float | None:
    """Seconds; the processes' own where systemd does not account for the unit (no such controller)."""
    nanoseconds = _number(properties, "CPUUsageNSec")
    if nanoseconds is not None:
        return nanoseconds / 1e9
    pid = int(properties.get("MainPID") or 0)
    if not pid:
        return None
    total = 0.0
    for process in _family(pid):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def _in_memory(pid: int) -> int:
    total = 0
    for process in _family(pid):
        try:
            # Forked servers share most of their memory: each counts for its part, where that may be read.
            total += process.memory_full_info().pss
        except psutil.AccessDenied:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def _family(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []
