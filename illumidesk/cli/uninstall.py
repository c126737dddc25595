"""`illumidesk uninstall`."""

from __future__ import annotations

import click

from illumidesk.cli.base import confirm_by_typing, require_root, yes_option


@click.command()
@click.option("--purge", is_flag=True, help="Remove people's homes, courses, archives and settings as well.")
@yes_option
def uninstall(purge: bool, yes: bool) -> None:
    """Remove IllumiDesk from this machine.

    Services, programs and service accounts go. People's homes, courses and settings stay, unless --purge is
    given.
    """
    from illumidesk.host.uninstall import uninstall as remove
    from illumidesk.paths import Paths

    require_root()
    if not yes:
        click.echo("This stops every running server and removes IllumiDesk from this machine.", err=True)
        if purge:
            click.echo("People's homes, courses, submissions and grades are DELETED, without a copy.", err=True)
        else:
            click.echo("People's homes, courses and settings stay.", err=True)
        confirm_by_typing("purge" if purge else "uninstall", what="go on")
    remove(Paths.current(), purge=purge)
