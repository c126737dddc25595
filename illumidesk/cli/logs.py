"""`illumidesk logs`."""

from __future__ import annotations

import os

import click

from illumidesk.cli.base import json_option

_SERVICES = ("hub", "proxy", "supervisor")


@click.command(short_help="Show logs of services, servers and graders.")
@click.argument("what", required=False, type=click.Choice([*_SERVICES, "user", "course"]))
@click.argument("name", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on printing as lines arrive.")
@click.option("--lines", "-n", type=click.IntRange(min=0), help="How many of the last lines.  [default: 100]")
@click.option("--since", metavar="TIME", help="Lines since then, as journalctl takes it: -1h, today, '10:00'.")
@json_option
def logs(what: str | None, name: str | None, follow: bool, lines: int | None, since: str | None, as_json: bool) -> None:
    """Show what the services, a person's server or a course's grader wrote.

    \b
    illumidesk logs                     hub, proxy and supervisor together
    illumidesk logs hub -f              the hub, as it goes on
    illumidesk logs user alice          alice's server
    illumidesk logs course bio101       the grader of bio101

    It is journalctl underneath, with the right units.
    """
    if what in ("user", "course") and name is None:
        raise click.UsageError(f"Missing the name of the {what}")
    if what not in ("user", "course") and name is not None:
        raise click.UsageError(f"Got an unexpected argument {name}")
    command = ["journalctl", "--no-pager"]
    for unit in units(what, name):
        command += ["--unit", unit]
    if lines is not None or since is None:
        command += ["--lines", str(100 if lines is None else lines)]
    if since is not None:
        command += [f"--since={since}"]
    if follow:
        command += ["--follow"]
    if as_json:
        command += ["--output", "json"]
    execute(command)


def units(what: str | None, name: str | None) -> list[str]:
    """The systemd units that `what` and `name` stand for.

    Raises:
        IllumiDeskError: where the name cannot be one.
    """
    from illumidesk import names

    if what == "user":
        return [names.server_unit(name or "")]
    if what == "course":
        return [names.grader_unit(name or "")]
    return [f"illumidesk-{service}.service" for service in _SERVICES if what in (None, service)]


def execute(command: list[str]) -> None:
    """Become `command`.

    Raises:
        IllumiDeskError: where there is no such program.
    """
    from illumidesk.errors import IllumiDeskError

    try:
        os.execvp(command[0], command)  # noqa: S606
    except FileNotFoundError:
        raise IllumiDeskError(f"{command[0]} is not on this machine", hint="IllumiDesk needs systemd") from None
