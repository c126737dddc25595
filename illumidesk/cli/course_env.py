"""`illumidesk course env`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from illumidesk.cli.base import Group, confirm_by_typing, json_option, yes_option

if TYPE_CHECKING:
    from illumidesk.host.environments import Environment
    from illumidesk.host.hub_client import HubClient, PackageRequest
    from illumidesk.paths import Paths


@click.group("env", cls=Group)
@click.argument("course_id", metavar="COURSE")
@click.pass_context
def course_env(ctx: click.Context, course_id: str) -> None:
    """A course's own environment, and what its instructors ask for.

    \b
    illumidesk course env bio101 add pandas 'numpy>=2'
    illumidesk course env bio101 show

    It is a shared environment with packages of the course's own. Its members' servers and its grader have it, and
    it is a kernel in every server.
    """
    ctx.obj = course_id


def _pass_course(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the group's COURSE, checked; not before, so that its --help is there for any."""

    @functools.wraps(command)
    def checked(**options: Any) -> None:
        from illumidesk import names

        command(names.check_course_id(click.get_current_context().obj), **options)

    return checked


@course_env.command("show")
@json_option
@_pass_course
def show(course_id: str, as_json: bool) -> None:
    """Show a course's environment, its packages and what is asked for."""
    from illumidesk import names, settings
    from illumidesk.cli.output import print_json, print_pairs
    from illumidesk.host import course_environments
    from illumidesk.host.hub_client import HubClient
    from illumidesk.paths import Paths

    paths = Paths.current()
    requests = HubClient.of_this_machine(paths).course_package_requests(course_id)
    environment = settings.load(paths.config_file).environment_of("learner", course_id)
    own = course_environments.description_of(course_id, paths)
    if as_json:
        report = {
            "course_id": course_id,
            "environment": environment,
            "own": names.course_environment(course_id) if own is not None else None,
            "based_on": own.based_on or None if own is not None else None,
            "packages": [*own.conda, *own.pip] if own is not None else [],
            "requests": requests,
        }
        print_json(report)
        return
    print_pairs(
        [
            ("Course", course_id),
            ("Environment", environment),
            ("Based on", own.based_on or None if own is not None else None),
            ("Packages of its own", ", ".join([*own.conda, *own.pip]) or None if own is not None else None),
        ]
    )
    waiting = [one for one in requests if one["answer"] is None]
    if waiting:
        click.echo()
        print_requests(waiting)
        click.echo(f"\nNext: illumidesk course env {course_id} add --requested")


@course_env.command("add")
@click.argument("packages", metavar="[PACKAGE]...", nargs=-1)
@click.option("--requested", is_flag=True, help="What the course's instructors ask for.")
@click.option(
    "--based-on", "base", default="", metavar="NAME", help="The shared environment; what its members have so far."
)
@_pass_course
def add(course_id: str, packages: tuple[str, ...], requested: bool, base: str) -> None:
    """Add packages of PyPI to a course's environment.

    It is built beside the one in use, and made where there is none. Where a package cannot be had, everything stays
    as it was. Requests for these packages are granted by it.
    """
    from illumidesk.cli.base import building
    from illumidesk.host import course_environments
    from illumidesk.host.hub_client import HubClient
    from illumidesk.requirements import check_requirements, package_name

    with building() as (paths, progress):
        hub = HubClient.of_this_machine(paths)
        hub.course(course_id)
        wanted = list(packages)
        if requested:
            wanted += _requested(hub, course_id, wanted)
        environment, new = course_environments.add(course_id, wanted, paths, progress, base=base)
        _in_use(course_id, paths)
        granted = [package_name(line) for line in check_requirements(wanted)]
        hub.settle_package_requests(course_id, granted, "granted")
    _tell(course_id, environment, "is ready" if new else "had them already")


@course_env.command("remove")
@click.argument("packages", metavar="PACKAGE...", nargs=-1, required=True)
@_pass_course
def remove(course_id: str, packages: tuple[str, ...]) -> None:
    """Remove packages that were added for a course."""
    from illumidesk.cli.base import building
    from illumidesk.host import course_environments

    with building() as (paths, progress):
        environment, _ = course_environments.remove(course_id, packages, paths, progress)
        _in_use(course_id, paths)
    _tell(course_id, environment, "is ready")


@course_env.command("decline")
@click.argument("packages", metavar="PACKAGE...", nargs=-1, required=True)
@click.option("--reason", default="", metavar="TEXT", help="What the instructors read.")
@_pass_course
def decline(course_id: str, packages: tuple[str, ...], reason: str) -> None:
    """Decline what a course's instructors ask for."""
    from illumidesk.errors import IllumiDeskError
    from illumidesk.host.hub_client import HubClient
    from illumidesk.requirements import check_requirements, package_name

    names = [package_name(one) for one in check_requirements(packages)]
    declined = HubClient.of_this_machine().settle_package_requests(course_id, names, "declined", reason)
    if not declined:
        raise IllumiDeskError(
            f"nobody asks for {', '.join(names)} in {course_id}",
            hint=f"illumidesk course env {course_id} show",
            status=404,
        )
    click.echo(f"Declined: {', '.join(one['requirement'] for one in declined)}")


@course_env.command("reset")
@yes_option
@_pass_course
def reset(course_id: str, yes: bool) -> None:
    """Remove a course's own environment; its members have the shared one again."""
    from illumidesk.cli.base import require_root
    from illumidesk.host import course_environments
    from illumidesk.paths import Paths

    require_root()
    paths = Paths.current()
    course_environments.check_has_one(course_id, paths)
    if not yes:
        click.echo(f"This removes the environment of {course_id} and forgets which packages it had.", err=True)
        confirm_by_typing(course_id, what="remove it")
    drop(course_id, paths)
    click.echo(f"{course_id} has no environment of its own any more. Servers that run go on in it until they stop.")


def drop(course_id: str, paths: Paths) -> None:
    """Out of the settings, out of the hub, and only then off the disk."""
    from illumidesk import names
    from illumidesk.host import course_environments, users_environments

    if course_environments.disuse(course_id, paths):
        _apply(paths)
    users_environments.remove(names.course_environment(course_id), paths)


def print_requests(requests: list[PackageRequest]) -> None:
    """A table of what is asked for."""
    from illumidesk.cli.output import print_table

    print_table(
        ["Course", "Package", "Asked for by", "On"],
        [(one["course_id"], one["requirement"], one["asked_by"], one["created"][:10]) for one in requests],
    )


def _requested(hub: HubClient, course_id: str, named: list[str]) -> list[str]:
    """What is asked for, but for packages that the administrator names in other words."""
    from illumidesk.errors import IllumiDeskError
    from illumidesk.requirements import check_requirements, package_name

    there = {package_name(one) for one in check_requirements(named)} if named else set()
    waiting = [one["requirement"] for one in hub.course_package_requests(course_id) if one["answer"] is None]
    if not waiting and not named:
        raise IllumiDeskError(f"nobody asks for a package in {course_id}", hint="illumidesk env requests", status=404)
    return [line for line in waiting if package_name(line) not in there]


def _in_use(course_id: str, paths: Paths) -> None:
    from illumidesk.host import course_environments

    if course_environments.use(course_id, paths):
        _apply(paths)


def _apply(paths: Paths) -> None:
    from illumidesk.cli.config import wait_for_hub
    from illumidesk.errors import IllumiDeskError
    from illumidesk.host.hub_client import HubClient
    from illumidesk.host.install import apply_settings

    apply_settings(paths)
    if not wait_for_hub(HubClient(paths.hub_socket), 120):
        raise IllumiDeskError(
            "the settings are applied, and the hub did not answer within 120 seconds",
            hint="sudo journalctl -u illumidesk-hub -n 50",
            status=503,
        )


def _tell(course_id: str, environment: Environment, how: str) -> None:
    click.echo(f"The environment {environment.name} {how}. New servers and kernels have it.")
    if _grader_runs(course_id):
        from illumidesk.names import grader_unit

        unit = grader_unit(course_id).removesuffix(".service")
        click.echo(f"The grader that runs goes on as it was. To start it anew: systemctl stop {unit}")


def _grader_runs(course_id: str) -> bool:
    from illumidesk.host.hub_client import HubClient

    grader: Any = HubClient.of_this_machine().course(course_id)["grader"]
    return bool(grader["active"])
