"""`illumidesk status`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from illumidesk.cli.base import clean, json_option

if TYPE_CHECKING:
    from illumidesk.cli.units import Unit
    from illumidesk.host.hub_client import Course, User
    from illumidesk.paths import Paths

#: Seconds over which processor use is measured.
_INTERVAL = 0.5


@click.command(short_help="Show services, people online and what they use.")
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show services, people online, memory and processor use by person and course.

    It also says how many more people fit, if they use as much memory as those online. Processor use is in percent
    of one core. It works while the hub is down; with sudo it shows more. Exit status 3 says that a service is down
    or that the hub does not answer.
    """
    from illumidesk.cli.output import print_json

    report = gather()
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report["ok"]:
        ctx.exit(3)


def gather(interval: float = _INTERVAL) -> dict[str, Any]:
    """Everything that `status` shows, as it is printed with `--json`.

    Args:
        interval: seconds over which processor use is measured.
    """
    from dataclasses import asdict

    from illumidesk.cli.room import room
    from illumidesk.cli.units import host_figures, running, show_units
    from illumidesk.paths import Paths

    host_figures()  # starts the measurement
    units = show_units(interval)
    host = host_figures(0 if units else interval)
    hub, courses, users = _ask_hub(Paths.current())
    services = [unit for unit in units if unit.kind == "service"]
    classroom = next((unit for unit in units if unit.kind == "slice"), None)
    people = _people([unit for unit in units if unit.kind == "server"], users)
    notes = [] if units else ["systemd does not answer, so units and what they use are not known"]
    memory, limit = _total("memory", classroom, running(units)), classroom.memory_limit if classroom else None
    left = room(
        [person["memory"] for person in people if person["is_running"] and person["memory"]],
        available=host["memory_available"],
        class_limit=limit,
        class_memory=memory,
    )
    return {
        "ok": bool(hub["answers"]) and bool(services) and all(unit.active_state == "active" for unit in services),
        "hub": hub,
        "services": [unit.as_dict() for unit in services],
        "fork_servers": [unit.as_dict() for unit in units if unit.kind == "fork_server"],
        "host": host,
        "class": {
            "memory": memory,
            "memory_limit": limit,
            "cpu_percent": _total("cpu_percent", classroom, running(units)),
        },
        # Without systemd it is not known what is in use.
        "room": asdict(left) if units else None,
        "workspaces": _workspaces(Paths.current()),
        "people_online": sum(person["is_running"] for person in people),
        "people": people,
        "courses": _courses([unit for unit in units if unit.kind == "grader"], people, courses),
        "notes": notes,
    }


def _workspaces(paths: Paths) -> list[dict[str, Any]]:
    """The programs that people can work in beside notebooks, and why one that was looked for is not there."""
    from illumidesk.host import programs

    found = [programs.find(name, paths) for name in programs.program_names()]
    return [{"name": one.type.name, "state": one.state, "version": one.version, "note": one.note} for one in found]


def _ask_hub(paths: Paths) -> tuple[dict[str, Any], list[Course], list[User]]:
    from illumidesk.errors import IllumiDeskError
    from illumidesk.host.hub_client import HubClient

    hub: dict[str, Any] = {
        "answers": False, "version": None, "started": None, "package_requests": None, "message": "", "hint": "",
    }  # fmt: skip
    if not HubClient(paths.hub_socket).answers():
        message = {"message": "the hub does not answer", "hint": "sudo systemctl status illumidesk-hub"}
        return hub | message, [], []
    hub["answers"] = True
    try:
        client = HubClient.of_this_machine(paths)
        own = client.status()
        hub |= {
            "version": own.get("version"),
            "started": (own.get("hub") or {}).get("started"),
            "package_requests": own.get("package_requests"),
        }
        return hub, client.courses(), client.users()
    except IllumiDeskError as error:
        return hub | error.as_dict(), [], []


def _total(figure: str, whole: Unit | None, parts: list[Unit]) -> Any:
    """A figure of all servers together: systemd's own, or their sum where systemd does not account for it."""
    own = getattr(whole, figure, None)
    return own if own is not None else sum(getattr(part, figure) or 0 for part in parts)


def _people(servers: list[Unit], users: list[User]) -> list[dict[str, Any]]:
    courses = {user["name"]: user["courses"] for user in users}
    rows = [
        unit.as_dict() | {"is_running": unit.is_running, "courses": courses.get(unit.name, [])}
        for unit in servers
        if unit.active_state != "inactive"
    ]
    return sorted(rows, key=lambda row: (-(row["memory"] or 0), row["name"]))


def _courses(graders: list[Unit], people: list[dict[str, Any]], courses: list[Course]) -> list[dict[str, Any]]:
    """Courses with a grader that runs or members online.

    `memory` and `cpu_percent` are the grader's and the members' together. A member of two courses counts in
    both.
    """
    titles = {course["course_id"]: course["title"] for course in courses}
    by_course: dict[str, list[dict[str, Any]]] = {unit.name: [] for unit in graders if unit.active_state != "inactive"}
    for person in people:
        for part in person["courses"]:
            by_course.setdefault(part["course_id"], []).append(person)
    units = {unit.name: unit.as_dict() for unit in graders}
    rows = []
    for course_id, members in sorted(by_course.items()):
        grader = units.get(course_id)
        parts = [*members, *([grader] if grader else [])]
        rows.append(
            {
                "course_id": course_id,
                "title": titles.get(course_id),
                "grader": grader,
                "members_online": len(members),
                "memory": sum(part["memory"] or 0 for part in parts),
                "cpu_percent": round(sum(part["cpu_percent"] or 0 for part in parts), 1),
            }
        )
    return rows


def _print(report: dict[str, Any]) -> None:
    from illumidesk.cli.output import ago, percent, print_table, since, size

    hub = report["hub"]
    if hub["answers"]:
        started = since(hub["started"])
        version = f" {hub['version']}" if hub["version"] else ""
        click.echo(clean(f"IllumiDesk{version}: the hub answers{f', started {started} ago' if started else ''}"))
    else:
        click.echo("IllumiDesk: the hub does NOT answer")
    if hub["message"] and (hub["answers"] or report["services"]):
        click.echo(clean(f"{hub['message']}; {hub['hint']}" if hub["answers"] else f"see {hub['hint']}"))
    if hub["package_requests"]:
        asked = _count(hub["package_requests"], "package is", "packages are")
        click.echo(f"{asked} asked for by instructors: illumidesk env requests")
    for note in report["notes"]:
        click.echo(note)
    if report["services"]:
        click.echo()
        print_table(
            ["Service", "State", "Since", "Memory", "CPU", "Tasks"],
            [
                (
                    row["unit"].removesuffix(".service"),
                    _state(row),
                    ago(row["since"]) if row["active_state"] != "not-found" else None,
                    size(row["memory"]),
                    percent(row["cpu_percent"]),
                    row["tasks"],
                )
                for row in report["services"] + report["fork_servers"]
            ],
            right=["Since", "Memory", "CPU", "Tasks"],
        )
    click.echo()
    _print_host(report["host"], report["class"], report["room"])
    click.echo()
    for row in report["workspaces"]:
        if row["state"] != "absent":
            version = f" {row['version']}" if row["version"] else ""
            outdated = "" if row["state"] == "ready" else f" ({row['state']}: {row['note']})"
            click.echo(clean(f"Workspace {row['name']}{version}{outdated}"))
    click.echo(f"{_count(report['people_online'], 'person', 'people')} online")
    if report["people"]:
        print_table(
            ["Person", "State", "Since", "Memory", "Limit", "CPU", "Courses"],
            [
                (
                    row["name"],
                    _state(row),
                    ago(row["since"]),
                    size(row["memory"]),
                    size(row["memory_limit"]),
                    percent(row["cpu_percent"]),
                    ", ".join(part["course_id"] for part in row["courses"]),
                )
                for row in report["people"]
            ],
            right=["Since", "Memory", "Limit", "CPU"],
        )
    if report["courses"]:
        click.echo()
        print_table(
            ["Course", "Grader", "Grader's memory", "CPU", "Online", "All memory", "All CPU"],
            [
                (
                    row["course_id"],
                    _state(row["grader"]) if row["grader"] else "stopped",
                    size(row["grader"]["memory"]) if row["grader"] else None,
                    percent(row["grader"]["cpu_percent"]) if row["grader"] else None,
                    row["members_online"],
                    size(row["memory"]),
                    percent(row["cpu_percent"]),
                )
                for row in report["courses"]
            ],
            right=["Grader's memory", "CPU", "Online", "All memory", "All CPU"],
        )
    if os.geteuid() != 0:
        click.echo("\nWith sudo: people's courses and the hub's own figures too.")


def _print_host(host: dict[str, Any], classroom: dict[str, Any], left: dict[str, Any] | None) -> None:
    from illumidesk.cli.output import ago, percent, print_pairs, size
    from illumidesk.cli.room import ENOUGH

    used = host["memory_total"] - host["memory_available"]
    swap_used = host["swap_total"] - host["swap_free"]
    load = " ".join(f"{value:.2f}" for value in host["load"])
    pairs: list[tuple[str, object]] = [
        ("Machine", f"up {ago(host['uptime'])}, load {load} on {_count(host['cores'], 'core', 'cores')}"),
        ("CPU", f"{percent(host['cpu_percent'])} of all cores"),
        ("Memory", f"{size(used)} of {size(host['memory_total'])} used"),
        ("Swap", f"{size(swap_used)} of {size(host['swap_total'])} used" if host["swap_total"] else "none"),
        ("Disk", f"{size(host['disk_free'])} of {size(host['disk_total'])} free for homes"),
    ]
    if classroom["memory"] is not None:
        limit = f" of {size(classroom['memory_limit'])}" if classroom["memory_limit"] else ""
        pairs.append(
            (
                "All servers",
                f"{size(classroom['memory'])}{limit} memory, {percent(classroom['cpu_percent']) or '-'} CPU",
            )
        )
    if left is not None:
        people = left["measured"]
        source = f"as the {people} online" if people >= ENOUGH else f"an estimate: {people or 'nobody'} at work"
        pairs.append(
            (
                "Room for",
                f"{_count(left['people'], 'more person', 'more people')} at {size(left['per_person'])} each ({source})",
            )
        )
    print_pairs(pairs)


def _state(row: dict[str, Any]) -> str:
    state: str = row["active_state"]
    if state == "failed" and row["result"] not in ("", "success"):
        return f"failed ({row['result']})"
    return state if row["sub_state"] in ("running", "dead", "") else f"{state} ({row['sub_state']})"


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"
