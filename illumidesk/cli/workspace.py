"""`illumidesk workspace`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from illumidesk.cli.base import Group, building, confirm_by_typing, json_option, yes_option

if TYPE_CHECKING:
    from illumidesk.host.programs import Found


@click.group(cls=Group)
def workspace() -> None:
    """Programs to work in: VS Code, Theia and RStudio.

    Installed once for everybody, each runs as the person who opens it, behind that person's own server.
    """


@workspace.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the programs, and which are installed."""
    from illumidesk.cli.output import print_json, print_table, size
    from illumidesk.host import programs
    from illumidesk.paths import Paths

    paths = Paths.current()
    found = [programs.find(name, paths) for name in programs.program_names()]
    if as_json:
        print_json([_as_dict(one) for one in found])
        return
    print_table(
        ["Name", "Program", "State", "Version", "Disk", "Extensions"],
        [
            (
                one.type.name,
                one.type.title,
                one.state,
                one.version or None,
                size(programs.disk(one)),
                one.extensions or None,
            )
            for one in found
        ],
        right=["Disk", "Extensions"],
    )
    for one in found:
        if one.note:
            click.echo(f"{one.type.title}: {one.note}", err=True)


@workspace.command("install")
@click.argument("name")
@click.option(
    "--extensions",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Extensions for everybody, as .vsix files (VS Code and Theia).",
)
@click.option("--package", default="", metavar="FILE|URL", help="RStudio Server's Debian package, of its vendor.")
@click.option("--sha256", default="", metavar="CHECKSUM", help="That package's checksum.")
def install(name: str, extensions: Path | None, package: str, sha256: str) -> None:
    """Install a program for everybody, or bring the version that belongs to this IllumiDesk.

    \b
    illumidesk workspace install vscode
    illumidesk workspace install theia --extensions /srv/extensions
    illumidesk workspace install rstudio --package FILE.deb --sha256 CHECKSUM

    It may be run again. Servers that are started from then on offer it.
    """
    from illumidesk.host import environments, install, programs

    rstudio = programs.check_name(name) == programs.RSTUDIO
    if extensions is not None and rstudio:
        raise click.UsageError("--extensions is for VS Code and Theia")
    if (package or sha256) and not rstudio:
        raise click.UsageError("--package and --sha256 are for RStudio")
    with building() as (paths, progress), environments.lock(paths):
        with progress.step(f"The program {name}"):
            if rstudio:
                local = package if "://" in package or not package else str(Path(package).absolute())
                new = programs.ensure_rstudio(paths, progress, package=local, sha256=sha256)
            else:
                asked = extensions.absolute() if extensions is not None else None
                new = programs.ensure_program(name, paths, progress, extensions=asked)
        install.ensure_pages(paths)
        environments.remove_old_builds(paths)
    found = programs.find(name, paths)
    version = f" {found.version}" if found.version else ""
    click.echo(f"{found.type.title}{version} {'is ready' if new else 'was there already'}: /user-redirect/{name}")


@workspace.command("remove")
@click.argument("name")
@yes_option
def remove(name: str, yes: bool) -> None:
    """Remove a program. People's files and settings stay; who has it open can go on until their server stops."""
    from illumidesk.host import environments, install, programs

    with building() as (paths, progress), environments.lock(paths):
        title = programs.find(name, paths).type.title
        if not yes:
            click.echo(f"This removes {title} for everybody.", err=True)
            confirm_by_typing(name, what="remove it")
        programs.remove(name, paths, progress)
        install.ensure_pages(paths)
    click.echo(f"{title} is removed.")


def _as_dict(one: Found) -> dict[str, Any]:
    from illumidesk.host import programs

    return {
        "name": one.type.name,
        "title": one.type.title,
        "state": one.state,
        "version": one.version or None,
        "folder": str(one.folder) if one.folder is not None else None,
        "disk": programs.disk(one),
        "extensions": one.extensions,
        "path": one.type.path,
        "note": one.note,
    }
