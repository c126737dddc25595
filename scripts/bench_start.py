"""What starting people's servers costs, forked and by themselves: on a throwaway machine, through the hub."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import Machine

from tests.support.classroom import SOURCE, Classroom

HUB = "illumidesk-hub.service"
FORK_SERVER = "illumidesk-forkserver@default.service"

#: Prints, for each unit: microseconds of processor time of everything that ran in it, and PSS of what runs, in KiB.
_FIGURES = r"""
for unit in "$@"; do
  path=$(systemctl show -P ControlGroup "$unit")
  root=/sys/fs/cgroup; [ -d $root/unified ] && root=$root/unified
  cpu=$(awk '/^usage_usec/ {print $2}' "$root$path/cpu.stat" 2>/dev/null)
  pss=0
  for pid in $(cat "$root$path/cgroup.procs" 2>/dev/null); do
    pss=$((pss + $(awk '/^Pss:/ {print $2}' /proc/$pid/smaps_rollup)))
  done
  echo "$unit ${cpu:-0} $pss"
done
"""


def start(number: int, name: str, port: int) -> dict[str, Any]:
    """Start that many servers at once, in both ways.

    Args:
        number: of people.
        name: of an installed machine; empty: one is made and thrown away.
        port: the class's.
    """
    with _classroom(name, port) as room:
        people = [f"bench{index}" for index in range(number)]
        for person in people:
            room.cli("user", "add", person, check=False)
        sessions = [room.sign_in(person) for person in people]
        units = [f"jupyter-{person}.service" for person in people]
        result: dict[str, Any] = {"servers": number}
        for way, setting in (("by themselves", "false"), ("forked", "true")):
            room.cli("config", "set", "fork_server.enabled", setting)
            room.cli("config", "reload")
            room.machine.run(["systemctl", "start" if setting == "true" else "stop", FORK_SERVER])
            # Once before it counts: what a first start alone costs is not of interest.
            sessions[0].start_server()
            _stop(sessions[:1])
            before = _figures(room, [HUB, FORK_SERVER])
            began = time.monotonic()
            for session in sessions:
                session.hub_api("POST", f"users/{session.name}/server")
            first = _wait(room, units, sessions, began)
            seconds = time.monotonic() - began
            time.sleep(5)  # what they do at last
            after, of_units = _figures(room, [HUB, FORK_SERVER]), _figures(room, units)
            parent = after[FORK_SERVER][0] - before[FORK_SERVER][0]
            result[way] = {
                "first_s": round(first, 2),
                "all_s": round(seconds, 2),
                "cpu_each_s": round((sum(cpu for cpu, _ in of_units.values()) + max(0, parent)) / number / 1e6, 3),
                "pss_each_mib": round(sum(pss for _, pss in of_units.values()) / number / 1024, 1),
                "pss_parent_mib": round(after[FORK_SERVER][1] / 1024, 1),
                "hub_cpu_each_s": round((after[HUB][0] - before[HUB][0]) / number / 1e6, 3),
            }
            _stop(sessions)
        room.cli("config", "unset", "fork_server.enabled")
        room.cli("config", "reload")
    one, other = result["by themselves"], result["forked"]
    whole = other["pss_each_mib"] + other["pss_parent_mib"] / number
    result["forked / by themselves"] = {
        "all": round(other["all_s"] / one["all_s"], 3),
        "cpu": round(other["cpu_each_s"] / one["cpu_each_s"], 3),
        "pss": round(whole / one["pss_each_mib"], 3),
        "hub_cpu": round(other["hub_cpu_each_s"] / one["hub_cpu_each_s"], 3),
    }
    return result


@contextlib.contextmanager
def _classroom(name: str, port: int) -> Iterator[Classroom]:
    if name:
        yield Classroom(Machine.attach(name), port)
        return
    with Machine("bench-start", "bookworm") as machine:
        machine.copy_checkout(SOURCE, Path(__file__).resolve().parent.parent)
        room = Classroom(machine, port)
        room.install()
        room.wait_for_hub()
        yield room


def _figures(room: Classroom, units: list[str]) -> dict[str, tuple[int, int]]:
    lines = room.machine.run(["sh", "-c", _FIGURES, "sh", *units]).stdout.splitlines()
    return {unit: (int(cpu), int(pss)) for unit, cpu, pss in (line.split() for line in lines)}


def _wait(room: Classroom, units: list[str], sessions: list[Any], began: float) -> float:
    """Wait until all are ready; seconds until the first was.

    systemd is asked, and the hub only at the end: its own time is measured.
    """
    ready, first = 0, 0.0
    while ready < len(units):
        said = room.machine.run(["systemctl", "show", "--property=StatusText", *units]).stdout
        ready = said.count("=Ready")
        if ready and not first:
            first = time.monotonic() - began
        time.sleep(0.3)
    while not all(_ready(session) for session in sessions):
        time.sleep(1)
    return first


def _ready(session: Any) -> bool:
    server = session.hub_api("GET", f"users/{session.name}")["servers"].get("")
    return bool(server and server["ready"])


def _stop(sessions: list[Any]) -> None:
    for session in sessions:
        session.hub_api("DELETE", f"users/{session.name}/server")
    while any(session.hub_api("GET", f"users/{session.name}")["servers"] for session in sessions):
        time.sleep(0.3)
