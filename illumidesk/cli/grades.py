"""`illumidesk grades`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from illumidesk.cli.base import Group, clean, complain, json_option

if TYPE_CHECKING:
    from illumidesk.host.hub_client import HubClient

#: Seconds between two looks at the queue, and after which a send waits no longer for what a platform holds up.
LOOK = 0.5
PATIENCE = 300

_WORDS = {
    "new": "to send",
    "changed": "changed",
    "sent": "is there",
    "waiting": "on its way",
    "sending": "on its way",
    "failed": "refused",
    "by-hand": "grade by hand",
    "none": "stays here",
}

students_option = click.option(
    "--student", "students", multiple=True, metavar="NAME", help="Only this student's. May be repeated."
)


@click.group(cls=Group)
def grades() -> None:
    """Grades of a course: look at them, send them to the LMS, read and write files.

    They are in the gradebook of the course's grader, which is started where it does not run.
    """


@grades.command("show")
@click.argument("course")
@click.argument("assignment", required=False)
@json_option
def show(course: str, assignment: str | None, as_json: bool) -> None:
    """Show the assignments, or what would be sent of one."""
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host.hub_client import HubClient

    hub = HubClient.of_this_machine()
    if assignment:
        _show_preview(hub.grade_preview(course, assignment), as_json)
        return
    found = hub.grade_assignments(course)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("There are no assignments in the gradebook yet.", err=True)
    else:
        print_table(
            ["Assignment", "Points", "Handed in", "Graded", "In the LMS", "Waiting", "Refused", "Column"],
            [
                (
                    one["name"],
                    f"{one['max_score']:g}",
                    one["submissions"],
                    one["graded"],
                    one["deliveries"].get("sent", 0),
                    one["deliveries"].get("waiting", 0) + one["deliveries"].get("sending", 0),
                    one["deliveries"].get("failed", 0),
                    ", ".join(one["columns"]) or None,
                )
                for one in found
            ],
            right=["Points", "Handed in", "Graded", "In the LMS", "Waiting", "Refused"],
        )


@grades.command("send")
@click.argument("course")
@click.argument("assignment", required=False)
@students_option
@click.option("--partial", is_flag=True, help="Also grades of which something is still to be graded by hand.")
@click.option("--again", is_flag=True, help="Also grades that are there already and have not changed.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent.")
@click.option("--no-wait", is_flag=True, help="Do not wait until they are there.")
@json_option
def send(
    course: str,
    assignment: str | None,
    students: tuple[str, ...],
    partial: bool,
    again: bool,
    dry_run: bool,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Send grades to the LMS.

    Of ASSIGNMENT, or of every assignment that has grades.
    What is there already and has not changed is not sent again. What the LMS does not take now stays in the queue,
    also when this command ends.
    """
    from illumidesk.cli.output import print_json
    from illumidesk.errors import IllumiDeskError
    from illumidesk.host.hub_client import HubClient

    hub = HubClient.of_this_machine()
    wanted = [assignment] if assignment else [one["name"] for one in hub.grade_assignments(course) if one["graded"]]
    if not wanted:
        raise IllumiDeskError(f"nothing is graded in {course} yet", hint="autograde submissions in the formgrader")
    if dry_run:
        previews = [hub.grade_preview(course, one) for one in wanted]
        if as_json:
            print_json(previews)
            return
        for preview in previews:
            _show_preview(preview, False)
        return
    results, failed = [], []
    for one in wanted:
        try:
            results.append(_send_one(hub, course, one, students, partial, again, wait=not no_wait, quiet=as_json))
        except IllumiDeskError as error:
            if error.status == 503 or len(wanted) == 1:
                raise
            complain(f"{one}: {error.message}", error.hint)
            failed.append(one)
    if as_json:
        print_json(results)
    if failed:
        raise IllumiDeskError(f"{len(failed)} of {len(wanted)} assignments were not sent: {', '.join(failed)}")
    if any(result["refused"] for result in results):
        raise IllumiDeskError(
            "the LMS refused some grades",
            hint=f"`illumidesk grades status {course}` says why; mend it, and `illumidesk grades retry {course}`",
        )


@grades.command("status")
@click.argument("course")
@click.argument("assignment", required=False)
@click.option("--all", "everything", is_flag=True, help="Also those that are there.")
@json_option
def status(course: str, assignment: str | None, everything: bool, as_json: bool) -> None:
    """Show which grades are on their way or were refused, and why."""
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host.hub_client import HubClient

    found = HubClient.of_this_machine().deliveries(course, assignment or "")
    if as_json:
        print_json(found)
        return
    there = sum(one["state"] == "sent" for one in found)
    rows = [
        (one["assignment"], one["student"], _score(one), _WORDS[one["state"]], one["sent_at"], _why(one))
        for one in found
        if everything or one["state"] != "sent"
    ]
    if rows:
        print_table(["Assignment", "Student", "Score", "State", "Sent", "Why"], rows)
    click.echo(f"{there} of {len(found)} grades that were sent are in the LMS.")


@grades.command("retry")
@click.argument("course")
@click.argument("assignment", required=False)
@students_option
def retry(course: str, assignment: str | None, students: tuple[str, ...]) -> None:
    """Try at once what the LMS refused or what waits for a later time."""
    from illumidesk.host.hub_client import HubClient

    count = HubClient.of_this_machine().retry_deliveries(course, assignment or "", list(students))
    click.echo(f"{count} {'grade is' if count == 1 else 'grades are'} tried again.")


@grades.command("match")
@click.argument("course")
@click.argument("assignment")
@click.option("--column", metavar="NAME", help="The LMS's column, by its name or number in the list.")
@click.option("--new", "make", is_flag=True, help="Make a new column.")
@json_option
def match(course: str, assignment: str, column: str | None, make: bool, as_json: bool) -> None:
    """Choose the column of the LMS for an assignment.

    It is remembered. Without an option, list the columns.
    """
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.errors import IllumiDeskError
    from illumidesk.host.hub_client import HubClient

    if column and make:
        raise click.UsageError("Give --column or --new, and not both")
    hub = HubClient.of_this_machine()
    places = hub.columns(course, assignment)
    choices = [(place, one) for place in places for one in place["choices"]]
    if not column and not make:
        if as_json:
            print_json(places)
            return
        for place in places:
            if place["column"]:
                click.echo(clean(f"{assignment} goes to the column {place['column']} of {place['name']}."))
            if place["problem"]:
                complain(place["problem"]["message"], place["problem"]["hint"])
        rows = [
            (number, place["name"], one["label"], one["maximum"] or None)
            for number, (place, one) in enumerate(choices, 1)
            if one["key"] != "new"
        ]
        print_table(["Number", "LMS", "Column", "Points"], rows, right=["Number", "Points"])
        return
    fitting = [
        (place, one)
        for number, (place, one) in enumerate(choices, 1)
        if (one["key"] == "new") == make and (make or column in (str(number), one["label"], one["key"]))
    ]
    if len(fitting) != 1:
        raise IllumiDeskError(
            f"{'several columns are' if fitting else 'there is no column'} {column or 'to be made'}",
            hint=f"`illumidesk grades match {course} {assignment}` lists them with a number",
            status=404,
        )
    place, one = fitting[0]
    label = hub.choose_column(course, assignment, place["platform"], one["key"])
    click.echo(clean(f"The grades of {assignment} go to the column {label} of {place['name']} from now on."))


@grades.command("export")
@click.argument("course")
@click.option("--output", "file", type=click.Path(path_type=Path), metavar="FILE", help="Instead of standard output.")
def export(course: str, file: Path | None) -> None:
    """Write every student's scores as CSV.

    There is a line for each student and a column for each assignment.
    """
    from illumidesk.cli.grades_file import write
    from illumidesk.host.hub_client import HubClient

    book = HubClient.of_this_machine().grade_book(course)
    if file is None:
        write(book, sys.stdout)
        return
    with file.open("w", encoding="utf-8", newline="") as out:
        write(book, out)
    click.echo(f"The grades of {course} are in {file}.")


@grades.command("import")
@click.argument("course")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@click.option("--dry-run", is_flag=True, help="Only check the file.")
def import_(course: str, file: TextIO, dry_run: bool) -> None:
    """Take scores of other work, such as an exam.

    They are then in the gradebook, and may be sent.

    FILE is CSV as `export` writes it, or with the columns student, assignment, score, max_score (- is standard input).
    Assignments that nbgrader made are left alone.
    """
    from illumidesk.cli.grades_file import read
    from illumidesk.host.hub_client import HubClient

    rows = read(file)
    if dry_run:
        click.echo(f"{len(rows)} scores are in the file; nothing was changed.")
        return
    done = HubClient.of_this_machine().import_grades(course, rows)
    click.echo(f"{done['scores']} scores of {done['assignments']} assignments are in the gradebook.")


def _send_one(
    hub: HubClient,
    course: str,
    assignment: str,
    students: tuple[str, ...],
    partial: bool,
    again: bool,
    *,
    wait: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Send one assignment's grades, and watch them arrive."""
    sent = hub.send_grades(course, assignment, students=list(students) or None, partial=partial, again=again)
    queued = set(sent["queued"])
    result: dict[str, Any] = {"assignment": assignment, **sent, "arrived": [], "waiting": [], "refused": {}}
    if not quiet:
        for student, why in sorted(sent["left"].items()):
            if why != "nothing is handed in":
                click.echo(
                    clean(f"{student} {why}" if why.startswith(("is ", "has ", "did ")) else f"{student}: {why}")
                )
    if wait and queued:
        found = _watch(hub, course, assignment, queued, quiet=quiet)
        for one in found:
            if one["state"] == "sent":
                result["arrived"].append(one["student"])
            elif one["state"] == "failed":
                result["refused"][one["student"]] = one["problem"]
            else:
                result["waiting"].append(one["student"])
        if not quiet:
            _say_how(assignment, found)
    elif not quiet:
        text = f"{len(queued)} grades of {assignment} are on their way" if queued else f"{assignment}: nothing to send"
        click.echo(clean(f"{text}."))
    return result


def _watch(hub: HubClient, course: str, assignment: str, queued: set[str], *, quiet: bool) -> list[dict[str, Any]]:
    """Look at the queue until all of these are settled, or the platform keeps them waiting."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    began = time.monotonic()
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task(clean(assignment), total=len(queued))
        while True:
            found = [one for one in hub.deliveries(course, assignment) if one["student"] in queued]
            open_ = [one for one in found if one["state"] in ("waiting", "sending")]
            bar.update(task, completed=len(found) - len(open_))
            held_up = all(one["state"] == "waiting" and one["problem"] for one in open_)
            if not open_ or held_up or time.monotonic() - began > PATIENCE:
                return found
            time.sleep(LOOK)


def _say_how(assignment: str, found: list[dict[str, Any]]) -> None:
    arrived = sum(one["state"] == "sent" for one in found)
    click.echo(clean(f"{assignment}: {arrived} of {len(found)} grades are in the LMS now."))
    for one in found:
        if one["state"] != "sent":
            word = "refused" if one["state"] == "failed" else "waits"
            click.echo(clean(f"  {one['student']} {word}: {_why(one) or 'its turn has not come yet'}"))


def _show_preview(preview: dict[str, Any], as_json: bool) -> None:
    from illumidesk.cli.output import print_json, print_table

    if as_json:
        print_json(preview)
        return
    name = preview["assignment"]
    for place in preview["places"]:
        if place["column"]:
            click.echo(clean(f"{name} goes to the column {place['column']} of {place['name']}."))
        elif place["make"]:
            click.echo(clean(f"A new column {name} would be made in {place['name']}."))
        elif place["problem"]:
            complain(place["problem"]["message"], place["problem"]["hint"])
        else:
            complain(f"it is not clear which column of {place['name']} is for {name}", "illumidesk grades match")
    print_table(
        ["Student", "Score", "Sent as", "In the LMS", "State", "Why"],
        [
            (
                line["student"],
                None if line["score"] is None else f"{line['score']:g}/{line['maximum']:g}",
                line["sent_as"] or None,
                _there(line["delivery"]),
                _WORDS[line["standing"]],
                line["why"] or None,
            )
            for line in preview["lines"]
        ],
    )


def _score(one: dict[str, Any]) -> str:
    return f"{one['score']:g}/{one['maximum']:g}"


def _there(one: dict[str, Any] | None) -> str | None:
    if not one or one["sent_score"] is None:
        return None
    return f"{one['sent_score']:g}/{one['sent_maximum']:g} on {one['sent_at'][:16].replace('T', ' ')}"


def _why(one: dict[str, Any]) -> str | None:
    return "; ".join(filter(None, (one["problem"], one["hint"]))) or None
