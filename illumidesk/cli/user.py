"""`illumidesk user`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

import click

from illumidesk.cli.base import Group, clean, complain, confirm_by_typing, for_each, json_option, yes_option
from illumidesk.errors import IllumiDeskError

if TYPE_CHECKING:
    from illumidesk.cli.people_file import Line
    from illumidesk.host.hub_client import HubClient


@click.group(cls=Group)
def user() -> None:
    """People: add, list, show, change, remove, stop.

    A person has an account and a home on this machine.
    """


@user.command("add")
@click.argument("names_given", nargs=-1, metavar="[NAME]...")
@click.option("--admin", is_flag=True, help="Make them admins of the hub.")
@click.option("--restore", is_flag=True, help="Bring retired people back, with their homes.")
@click.option(
    "--from-file",
    "file",
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE.csv",
    help="Lines of name[,course,role]; - reads standard input.",
)
def add(names_given: tuple[str, ...], admin: bool, restore: bool, file: TextIO | None) -> None:
    """Add people, who choose a password when they first sign in.

    NAME: up to 32 lower-case letters, digits, - and _, starting with a letter. A file is checked as a whole
    before anybody is added. It may be run again: who is there stays as they are.

    \b
    name,course,role
    alice,bio101,student
    bob
    """
    from illumidesk import names
    from illumidesk.host.hub_client import HubClient

    if bool(names_given) == bool(file):
        raise click.UsageError("Give names, or --from-file, and not both")
    if file is not None:
        if admin or restore:
            raise click.UsageError("--admin and --restore go with names, not with a file")
        _add_from_file(file)
        return
    for name in names_given:
        names.check_account(name)
    hub = HubClient.of_this_machine()

    def one(name: str) -> str:
        person, new = hub.add_user(name, admin=admin, restore=restore)
        if admin and not person["admin"]:
            hub.set_admin(name, True)
        return f"{name} {'is added' if new else 'was there already'}{', and is an admin' if admin else ''}"

    for_each(names_given, one)


@user.command("list")
@json_option
def list_users(as_json: bool) -> None:
    """List everybody."""
    from illumidesk.cli.output import print_json, print_table, since
    from illumidesk.host.hub_client import HubClient

    users = HubClient.of_this_machine().users()
    if as_json:
        print_json(users)
    elif not users:
        click.echo("There is nobody yet. Next: illumidesk user add NAME", err=True)
    else:
        print_table(
            ["Name", "Admin", "Password", "Courses", "Server", "Last seen"],
            [
                (
                    one["name"],
                    "yes" if one["admin"] else "",
                    "set" if one["has_password"] else "not yet",
                    ", ".join(f"{part['course_id']} ({part['role']})" for part in one["courses"]),
                    "running" if one["server"]["active"] else "",
                    _seen(since(one["last_activity"])),
                )
                for one in users
            ],
        )


@user.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a person."""
    from illumidesk import names
    from illumidesk.cli.output import print_json, print_pairs, since
    from illumidesk.host.hub_client import HubClient

    one = HubClient.of_this_machine().user(names.check_account(name))
    if as_json:
        print_json(one)
        return
    server = one["server"]
    started = since(server["started"])
    running = f"running since {started} ago" if started else "running"
    print_pairs(
        [
            ("Name", one["name"]),
            ("Admin", "yes" if one["admin"] else "no"),
            ("Password", "set" if one["has_password"] else "not yet; chosen at the first sign-in"),
            ("Added", one["created"]),
            ("Server", (running if server["ready"] else "starting") if server["active"] else "stopped"),
            ("Last seen", _seen(since(one["last_activity"]))),
            (
                "Courses",
                ", ".join(f"{part['course_id']} ({part['role']})" for part in one["courses"]) or None,
            ),
        ]
    )


@user.command("admin")
@click.argument("name")
@click.option("--revoke", is_flag=True, help="Make the person an admin no longer.")
def set_admin(name: str, revoke: bool) -> None:
    """Make a person an admin of the hub.

    An admin may open, start and stop everybody's servers and graders, and so read what is in them. It gives no
    rights on the machine itself.
    """
    from illumidesk import names
    from illumidesk.host.hub_client import HubClient

    HubClient.of_this_machine().set_admin(names.check_account(name), not revoke)
    click.echo(f"{name} is {'no longer' if revoke else 'now'} an admin")


@user.command("forget-password")
@click.argument("name")
def forget_password(name: str) -> None:
    """Forget a person's password; the next sign-in sets a new one.

    Until then whoever signs in first under that name sets it, so tell the person at once.
    """
    from illumidesk import names
    from illumidesk.host.hub_client import HubClient

    HubClient.of_this_machine().forget_password(names.check_account(name))
    click.echo(f"{name} chooses a new password at the next sign-in; tell them now")


@user.command("remove")
@click.argument("name")
@yes_option
def remove(name: str, yes: bool) -> None:
    """Retire a person: the server stops, the account is locked, the home stays.

    The name is never given to anybody else. `illumidesk user add --restore NAME` brings the same person back.
    """
    from illumidesk import names
    from illumidesk.host.hub_client import HubClient
    from illumidesk.paths import Paths

    hub = HubClient.of_this_machine()
    one = hub.user(names.check_account(name))
    home = Paths.current().home / one["name"]
    if not yes:
        click.echo(f"This retires {name}: no more sign-in; nobody else ever gets the name.", err=True)
        if one["server"]["active"]:
            click.echo("The server is RUNNING and will be stopped; what is not saved is lost.", err=True)
        if one["courses"]:
            courses = ", ".join(part["course_id"] for part in one["courses"])
            click.echo(clean(f"It takes {name} out of {courses}."), err=True)
        click.echo(f"The home {home} stays.", err=True)
        confirm_by_typing(name, what="go on")
    hub.remove_user(name)
    click.echo(f"{name} is retired. The home is kept in {home}")


@user.command("stop")
@click.argument("names_given", nargs=-1, required=True, metavar="NAME...")
def stop(names_given: tuple[str, ...]) -> None:
    """Stop people's servers. What is saved stays; they may start them again."""
    from illumidesk import names
    from illumidesk.host.hub_client import HubClient

    for name in names_given:
        names.check_account(name)
    hub = HubClient.of_this_machine()

    def one(name: str) -> str:
        hub.stop_user(name)
        return f"The server of {name} is stopped"

    for_each(names_given, one)


def _add_from_file(file: TextIO) -> None:
    from illumidesk.cli.people_file import read
    from illumidesk.host.hub_client import HubClient

    lines, faults = read(file)
    hub: HubClient | None = None
    if lines:
        hub = HubClient.of_this_machine()
        faults += _unknown_courses(lines, hub)
    if faults:
        for number, error in sorted(faults, key=lambda fault: fault[0]):
            complain(f"line {number}: {error.message}", error.hint)
        raise IllumiDeskError(
            f"{file.name}: {len(faults)} of its lines cannot be used; nothing was changed",
            hint="mend the file and run it again",
        )
    if hub is None:
        raise IllumiDeskError(f"{file.name} names nobody", hint="write a line per person: name,course,role")
    _add_lines(hub, lines)


def _unknown_courses(lines: list[Line], hub: HubClient) -> list[tuple[int, IllumiDeskError]]:
    import difflib

    known = [course["course_id"] for course in hub.courses()] if any(line.course for line in lines) else []
    faults = []
    for line in lines:
        if line.course and line.course not in known:
            near = difflib.get_close_matches(line.course, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"sudo illumidesk course create {line.course}"
            faults.append((line.number, IllumiDeskError(f"there is no course {line.course}", hint=hint)))
    return faults


def _add_lines(hub: HubClient, lines: list[Line]) -> None:
    added: dict[str, bool] = {}
    enrolled, failed = 0, []
    for line in lines:
        try:
            if line.name not in added:
                added[line.name] = hub.add_user(line.name)[1]
            if line.course:
                hub.enroll(line.course, line.name, line.role)
                enrolled += 1
        except IllumiDeskError as error:
            failed.append(line.number)
            complain(f"line {line.number}: {error.message}", error.hint)
            if error.status == 503:  # the hub is gone: the rest would only say the same
                failed += [other.number for other in lines if other.number > line.number]
                break
    new = sum(added.values())
    click.echo(f"{new} added, {len(added) - new} there already, {enrolled} enrolled")
    if failed:
        raise IllumiDeskError(
            f"{len(failed)} of {len(lines)} lines were not done: {', '.join(map(str, failed))}",
            hint="the same command may be run again; what is done stays as it is",
        )


def _seen(how_long: str | None) -> str:
    return f"{how_long} ago" if how_long else "never"
