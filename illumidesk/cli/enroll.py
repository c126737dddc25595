"""`illumidesk enroll` and `illumidesk unenroll`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from illumidesk.cli.base import for_each

if TYPE_CHECKING:
    from illumidesk.host.hub_client import RoleInCourse

ROLES = ("student", "ta", "instructor")


@click.command()
@click.argument("course")
@click.argument("users", nargs=-1, required=True, metavar="USER...")
@click.option("--role", type=click.Choice(ROLES), default="student", show_default=True, help="The role in the course.")
@click.option("--create", is_flag=True, help="Add people who are not on this machine yet.")
def enroll(course: str, users: tuple[str, ...], role: RoleInCourse, create: bool) -> None:
    """Put people into a course, or give them another role in it.

    A person has one role in a course; TAs and instructors may open its grader. A running server sees the
    change at once.
    """
    from illumidesk import names
    from illumidesk.host.hub_client import HubClient

    names.check_course_id(course)
    for user in users:
        names.check_account(user)
    hub = HubClient.of_this_machine()

    def put(user: str) -> str:
        new = hub.enroll(course, user, role, create=create)
        return f"{user} {'is now' if new else 'was in it already and is'} {_article(role)} of {course}"

    for_each(users, put)


@click.command()
@click.argument("course")
@click.argument("users", nargs=-1, required=True, metavar="USER...")
def unenroll(course: str, users: tuple[str, ...]) -> None:
    """Take people out of a course.

    Their accounts, homes and what they handed in stay.
    """
    from illumidesk import names
    from illumidesk.host.hub_client import HubClient

    names.check_course_id(course)
    for user in users:
        names.check_account(user)
    hub = HubClient.of_this_machine()

    def drop(user: str) -> str:
        hub.unenroll(course, user)
        return f"{user} is no longer in {course}"

    for_each(users, drop)


def _article(role: str) -> str:
    return {"student": "a student", "ta": "a TA", "instructor": "an instructor"}[role]
