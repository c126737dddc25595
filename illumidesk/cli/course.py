"""`illumidesk course`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from illumidesk.cli.base import Group, confirm_by_typing, json_option, yes_option
from illumidesk.cli.course_env import course_env, drop

if TYPE_CHECKING:
    from illumidesk.host.hub_client import Course


@click.group(cls=Group)
def course() -> None:
    """Courses: create, list, show, remove.

    A course has a shared grader, an exchange for assignments, and members.
    """


@course.command("create")
@click.argument("course_id", metavar="ID")
@click.option("--title", help="What people read; the id where it is absent.")
@click.option(
    "--instructor",
    "instructors",
    multiple=True,
    metavar="NAME",
    help="Enroll an instructor. May be repeated.",
)
@json_option
def create(course_id: str, title: str | None, instructors: tuple[str, ...], as_json: bool) -> None:
    """Set a course up.

    ID: up to 23 lower-case letters, digits, - and _. It may be run again for a course that exists; that mends
    what is missing and loses nothing.
    """
    from illumidesk import names
    from illumidesk.cli.base import clean
    from illumidesk.cli.output import print_json
    from illumidesk.host.hub_client import HubClient

    names.check_course_id(course_id)
    hub = HubClient.of_this_machine()
    for name in instructors:
        hub.user(names.check_account(name))  # before anything is made
    made, new = hub.create_course(course_id, title)
    for name in instructors:
        hub.enroll(course_id, name, "instructor")
    if as_json:
        print_json(hub.course(course_id) if instructors else made)
        return
    click.echo(clean(f"The course {_named(made)} {'is ready' if new else 'was there already'}"))
    if instructors:
        click.echo(f"Instructors: {', '.join(instructors)}")
    else:
        click.echo(f"Next: illumidesk enroll {course_id} NAME --role instructor")


@course.command("list")
@json_option
def list_courses(as_json: bool) -> None:
    """List the courses."""
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host.hub_client import HubClient

    courses = HubClient.of_this_machine().courses()
    if as_json:
        print_json(courses)
    elif not courses:
        click.echo("There are no courses yet. Next: illumidesk course create ID", err=True)
    else:
        print_table(
            ["ID", "Title", "Students", "TAs", "Instructors", "Grader"],
            [
                (
                    one["course_id"],
                    one["title"],
                    one["counts"].get("student", 0),
                    one["counts"].get("ta", 0),
                    one["counts"].get("instructor", 0),
                    "running" if one["grader"]["active"] else "stopped",
                )
                for one in courses
            ],
            right=["Students", "TAs", "Instructors"],
        )


@course.command("show")
@click.argument("course_id", metavar="ID")
@json_option
def show(course_id: str, as_json: bool) -> None:
    """Show a course and its members."""
    from illumidesk import names
    from illumidesk.cli.output import print_json, print_pairs, print_table
    from illumidesk.host.hub_client import HubClient

    one = HubClient.of_this_machine().course(names.check_course_id(course_id))
    if as_json:
        print_json(one)
        return
    print_pairs(
        [
            ("Course", one["course_id"]),
            ("Title", one["title"]),
            ("Created", one["created"]),
            ("Grader", f"{'running' if one['grader']['active'] else 'stopped'}, at {one['url']}"),
            ("Members", len(one["members"])),
        ]
    )
    if one["members"]:
        click.echo()
        order = {"instructor": 0, "ta": 1, "student": 2}
        members = sorted(one["members"], key=lambda member: (order.get(member["role"], 3), member["name"]))
        print_table(["User", "Role"], [(member["name"], member["role"]) for member in members])


@course.command("remove")
@click.argument("course_id", metavar="ID")
@yes_option
@json_option
def remove(course_id: str, yes: bool, as_json: bool) -> None:
    """Archive a course, then remove it.

    The grader's home (gradebook, assignments), the course's exchange (hand-ins, feedback) and shared folder are
    packed into an archive that only root can read, and then removed. So is an environment of the course's own. People
    keep their accounts and homes.
    """
    from illumidesk import names
    from illumidesk.cli.base import clean
    from illumidesk.cli.output import print_json
    from illumidesk.host import course_environments
    from illumidesk.host.hub_client import HubClient
    from illumidesk.paths import Paths

    hub = HubClient.of_this_machine()
    one = hub.course(names.check_course_id(course_id))
    if not yes:
        members = len(one["members"])
        click.echo(clean(f"This removes the course {_named(one)}."), err=True)
        click.echo(f"It has {members} member{'' if members == 1 else 's'}, who lose it at once.", err=True)
        if one["grader"]["active"]:
            click.echo("Its grader is RUNNING and will be stopped; unsaved grading is lost.", err=True)
        folder = Paths.current().archive / "courses"
        click.echo(f"Its gradebook, assignments, hand-ins and feedback go to an archive in {folder}.", err=True)
        confirm_by_typing(course_id, what="remove it")
    archive = hub.remove_course(course_id)
    paths = Paths.current()
    if course_environments.description_of(course_id, paths) is not None:
        drop(course_id, paths)
    if as_json:
        print_json({"course_id": course_id, "archive": archive})
    else:
        kept = f"Its archive is {clean(archive)}" if archive else "It had no files left to keep"
        click.echo(f"The course {course_id} is removed. {kept}")


@course.command("deploy-key")
@click.argument("course_id", metavar="ID")
@click.option("--new", is_flag=True, help="Make another key; the old one is of no use any more.")
@json_option
def deploy_key(course_id: str, new: bool, as_json: bool) -> None:
    """Show the key with which a course reads private git repositories.

    It is made where there is none. What is printed is its public half: enter it where the repository is, as a
    deploy key that may only read. The private half stays in the grader's home. Next: illumidesk course mirror
    """
    from illumidesk import names
    from illumidesk.cli.base import clean
    from illumidesk.cli.output import print_json
    from illumidesk.host.mirrors import Course as CourseHere
    from illumidesk.host.mirrors import deploy_key as key_of

    public = clean(key_of(CourseHere.of_this_machine(names.check_course_id(course_id)), new=new))
    if as_json:
        print_json({"course_id": course_id, "public_key": public})
    else:
        click.echo(public)


@course.command("mirror")
@click.argument("course_id", metavar="ID")
@click.argument("repository", required=False)
@json_option
def mirror(course_id: str, repository: str | None, as_json: bool) -> None:
    """Copy a private git repository into a course's shared folder.

    REPOSITORY: its address, such as git@github.com:OWNER/NAME.git. It is read with the course's deploy key. The
    copy is COURSE/shared/NAME.git, which members may read and git links may name. Without REPOSITORY every copy of
    the course is brought up to date.
    """
    from illumidesk import names
    from illumidesk.cli.base import clean
    from illumidesk.cli.output import print_json
    from illumidesk.host import mirrors
    from illumidesk.host.mirrors import Course as CourseHere

    here = CourseHere.of_this_machine(names.check_course_id(course_id))
    if repository:
        copies = [mirrors.mirror(here, repository)]
    else:
        copies = mirrors.mirrors(here)
        for copy in copies:
            mirrors.update(here, copy)
    if as_json:
        print_json({"course_id": course_id, "copies": [str(copy) for copy in copies]})
    elif not copies:
        click.echo(f"There are no copies yet. Next: illumidesk course mirror {course_id} REPOSITORY", err=True)
    for copy in copies if not as_json else ():
        click.echo(f"Up to date: {clean(str(copy))}")


course.add_command(course_env)


def _named(one: Course) -> str:
    return f"{one['course_id']} ({one['title']})" if one["title"] else one["course_id"]
