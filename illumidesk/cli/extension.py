"""`illumidesk extension`."""

from __future__ import annotations

import click

from illumidesk.cli.base import Group, clean, json_option

_ASSIGNMENT = click.option(
    "--assignment", default="", metavar="NAME", help="Only for this one; all of them by default."
)


@click.group(cls=Group)
def extension() -> None:
    """More time for one student, which late penalties honour."""


@extension.command("list")
@click.argument("course")
@json_option
def list_extensions(course: str, as_json: bool) -> None:
    """List who has more time in COURSE."""
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host.hub_client import HubClient

    found = HubClient.of_this_machine().extensions(course)
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"Nobody has an extension in {course}.", err=True)
    else:
        print_table(
            ["Student", "Assignment", "More time"],
            [(one["student"], one["assignment"] or "all", _shown(one["seconds"])) for one in found],
        )


@extension.command("set")
@click.argument("course")
@click.argument("student")
@_ASSIGNMENT
@click.option("--days", type=click.FloatRange(0, 366), default=0.0, metavar="N")
@click.option("--hours", type=click.FloatRange(0, 8784), default=0.0, metavar="N")
def set_extension(course: str, student: str, assignment: str, days: float, hours: float) -> None:
    """Give STUDENT more time, counted from the due date. It replaces what was given before."""
    from illumidesk.host.hub_client import HubClient

    seconds = round(days * 86400 + hours * 3600)
    if not seconds:
        raise click.UsageError("Give --days, --hours or both")
    HubClient.of_this_machine().set_extension(course, student, assignment, seconds)
    click.echo(clean(f"{student} has {_shown(seconds)} more for {assignment or f'every assignment of {course}'}."))


@extension.command("remove")
@click.argument("course")
@click.argument("student")
@_ASSIGNMENT
def remove(course: str, student: str, assignment: str) -> None:
    """Take an extension away."""
    from illumidesk.host.hub_client import HubClient

    HubClient.of_this_machine().set_extension(course, student, assignment, 0)
    click.echo(clean(f"{student} has no more time for {assignment or f'every assignment of {course}'}."))


def _shown(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    hours = rest / 3600
    parts = [f"{days} day{'s' if days != 1 else ''}"] if days else []
    return " ".join([*parts, *([f"{hours:g} hour{'s' if hours != 1 else ''}"] if rest else [])])
