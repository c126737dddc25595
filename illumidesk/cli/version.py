"""`illumidesk version`."""

from __future__ import annotations

import click

from illumidesk import __version__
from illumidesk.cli.base import json_option


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the installed version."""
    if as_json:
        from illumidesk.cli.output import print_json

        print_json({"version": __version__})
    else:
        click.echo(f"IllumiDesk {__version__}")
