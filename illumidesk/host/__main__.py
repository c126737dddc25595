"""`python -I -m illumidesk.host`: what install.sh runs in the hub's environment."""

from __future__ import annotations

import sys
import time

import click

from illumidesk.errors import IllumiDeskError
from illumidesk.host.install import InstallOptions, farewell, install
from illumidesk.host.steps import Progress, open_log
from illumidesk.paths import Paths


@click.command()
@click.option("--admin")
@click.option("--course", "courses", multiple=True)
@click.option("--with", "programs", default="", help="Programs of workspaces, with commas between.")
@click.option("--no-demo", is_flag=True)
@click.option("--http-port", type=int)
@click.option("--refresh", is_flag=True)
@click.option("--began", type=int, hidden=True, help="Microseconds since the epoch at which install.sh began.")
def main(
    admin: str | None,
    courses: tuple[str, ...],
    programs: str,
    no_demo: bool,
    http_port: int | None,
    refresh: bool,
    began: int | None,
) -> None:
    """Install or upgrade everything beyond the hub's own environment."""
    paths = Paths()
    start = began / 1e6 if began is not None else time.time()
    options = InstallOptions(
        admin=admin,
        courses=courses,
        programs=tuple(filter(None, programs.split(","))),
        demo=not no_demo,
        http_port=http_port,
        refresh=refresh,
    )
    with open_log(paths) as log:
        progress = Progress(log)
        try:
            outcome = install(options, paths=paths, progress=progress)
        except IllumiDeskError as error:
            progress.explain(error)
            sys.exit(1)
    click.echo(farewell(outcome, time.time() - start))


if __name__ == "__main__":
    main()
