"""`illumidesk roster`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from illumidesk.cli.base import Group, clean, complain, json_option
from illumidesk.errors import IllumiDeskError

if TYPE_CHECKING:
    from illumidesk.cli.people_file import Line
    from illumidesk.host.hub_client import HubClient, Roster, RosterFetch

#: Seconds between two looks at a fetch.
LOOK = 0.3

_SOURCES = {"roster": "LMS", "launch": "launch", "admin": "administrator"}


@click.group(cls=Group)
def roster() -> None:
    """Who is in a course: look at it, fetch it from the LMS, read and write files."""


@roster.command("show")
@click.argument("course")
@json_option
def show(course: str, as_json: bool) -> None:
    """Show who is or was in a course, and where that is known from."""
    from illumidesk import names
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host.hub_client import HubClient

    found = HubClient.of_this_machine().roster(names.check_course_id(course))
    if as_json:
        print_json(found)
        return
    if not found["people"]:
        click.echo(f"There is nobody in {course} yet. Next: illumidesk roster fetch {course}", err=True)
        return
    print_table(
        ["Account", "Name", "E-mail", "Role", "Known from", "Since", "Left"],
        [
            (
                one["name"],
                one["full_name"],
                one["email"],
                one["role"],
                _SOURCES[one["source"]],
                one["since"][:10],
                (one["left"] or "")[:10],
            )
            for one in found["people"]
        ],
    )


@roster.command("fetch")
@click.argument("course")
@json_option
def fetch(course: str, as_json: bool) -> None:
    """Fetch a course's roster from its LMS, and wait until everybody is in.

    People whom it names get accounts and are in the course before they launch. Those whom an earlier roster
    named and this one does not are marked as left; their files stay.
    """
    from illumidesk import names
    from illumidesk.cli.output import print_json
    from illumidesk.host.hub_client import HubClient

    hub = HubClient.of_this_machine()
    hub.fetch_roster(names.check_course_id(course))
    state = _wait(hub, course)
    if as_json:
        print_json(state)
    change = state["change"]
    if change is None:
        raise IllumiDeskError(state["problem"], hint=state["hint"])
    if as_json:
        return
    click.echo(clean(f"{course}: {change['sentence']}"))
    for word, who in (("joined", change["joined"]), ("another role", change["changed"]), ("left", change["left"])):
        for name in who:
            click.echo(f"  {word}: {name}")
    for who, why in change["skipped"].items():
        complain(f"{who}: {why}")
    if change["gradebook"]:
        complain(f"the gradebook does not know them yet: {change['gradebook']}")


@roster.command("export")
@click.argument("course")
@click.option("--output", "file", type=click.Path(path_type=Path), metavar="FILE", help="Instead of standard output.")
def export(course: str, file: Path | None) -> None:
    """Write a course's roster as CSV.

    account,full_name,email,role,lms_user_id,left. `illumidesk roster import` takes it back.
    """
    from illumidesk import names
    from illumidesk.host.hub_client import HubClient
    from illumidesk.hub.roster_file import as_csv

    text = as_csv(HubClient.of_this_machine().roster(names.check_course_id(course))["people"])
    if file is None:
        click.echo(text, nl=False)
        return
    file.write_text(text, encoding="utf-8")
    click.echo(f"The roster of {course} is in {file}", err=True)


@roster.command("import")
@click.argument("course")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def import_(course: str, file: TextIO, dry_run: bool) -> None:
    """Bring people into a course from a CSV file (- is standard input).

    The first line names the columns: account, and perhaps role; others are not read. Who is not on this machine
    gets an account. Nobody is taken out; lines with something under left are passed over. It may be run again.
    """
    from illumidesk import names
    from illumidesk.cli.people_file import read_roster
    from illumidesk.host.hub_client import HubClient

    lines, faults = read_roster(file, names.check_course_id(course))
    if faults:
        for number, error in sorted(faults, key=lambda fault: fault[0]):
            complain(f"line {number}: {error.message}", error.hint)
        raise IllumiDeskError(
            f"{file.name}: {len(faults)} of its lines cannot be used; nothing was changed",
            hint="mend the file and run it again",
        )
    if not lines:
        raise IllumiDeskError(f"{file.name} names nobody", hint="write a line per person: account,role")
    hub = HubClient.of_this_machine()
    if dry_run:
        _say_what_would_be(hub.roster(course), lines)
    else:
        _import(hub, course, lines)


def _wait(hub: HubClient, course: str) -> RosterFetch:
    """The fetch once it is over, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    words = {"reading": "asking the LMS", "people": "people", "gradebook": "the gradebook"}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("asking the LMS", total=None)
        while True:
            state = hub.roster_fetch(course)
            total = state["total"] or None
            progress.update(task, description=words[state["step"]], completed=state["done"], total=total)
            if state["ended"]:
                return state
            time.sleep(LOOK)


def _say_what_would_be(known: Roster, lines: list[Line]) -> None:
    present = {one["name"]: one["role"] for one in known["people"] if not one["left"]}
    for line in lines:
        role = present.get(line.name)
        if role is None:
            click.echo(f"{line.name} would join as {line.role}")
        elif role != line.role:
            click.echo(f"{line.name} would be {line.role} instead of {role}")
        else:
            click.echo(f"{line.name} is {line.role} already")


def _import(hub: HubClient, course: str, lines: list[Line]) -> None:
    joined, failed = 0, []
    for line in lines:
        try:
            joined += hub.enroll(course, line.name, line.role, create=True, keep=True)
        except IllumiDeskError as error:
            if error.status in (404, 503):  # the course or the hub is gone: the rest would only say the same
                raise
            failed.append(line.number)
            complain(f"line {line.number}: {error.message}", error.hint)
    click.echo(f"{len(lines) - len(failed)} of {len(lines)} are in {course}, {joined} of them new")
    if failed:
        raise IllumiDeskError(
            f"{len(failed)} lines failed: {', '.join(map(str, failed))}",
            hint="the others are done; once this is mended the same command may be run again",
        )
