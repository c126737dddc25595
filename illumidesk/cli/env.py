"""`illumidesk env`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from illumidesk.cli.base import Group, building, confirm_by_typing, json_option, yes_option

if TYPE_CHECKING:
    from illumidesk.host.environments import Environment
    from illumidesk.host.users_environments import Found
    from illumidesk.paths import Paths
    from illumidesk.settings import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(cls=Group)
def env() -> None:
    """Environments: the packages that people's servers have.

    Each is described by an environment.yml, as conda has them, in /etc/illumidesk/environments. A build is made
    beside the one in use; servers that run are not touched, and those started from then on have it.
    """


def _build_options(command: _Command) -> _Command:
    for option in (
        click.option("--locked", is_flag=True, help="Exactly the packages of the lock file beside the description."),
        click.option(
            "--channel",
            "channels",
            multiple=True,
            metavar="CHANNEL",
            help="Where conda packages come from: a name, an address or a folder. May be repeated.",
        ),
        click.option(
            "--file",
            "-f",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="The description, an environment.yml.",
        ),
    ):
        command = option(command)
    return command


@env.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the environments, and which role or course has which."""
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host import users_environments
    from illumidesk.paths import Paths

    paths = Paths.current()
    current = _settings(paths)
    found = [users_environments.find(name, paths, current) for name in users_environments.all_names(paths)]
    if as_json:
        print_json([_as_dict(one) for one in found])
    elif not found:
        click.echo("There are no environments yet. Next: illumidesk env create NAME --file environment.yml", err=True)
    else:
        print_table(
            ["Name", "Kind", "Python", "State", "For servers", "Used by"],
            [
                (
                    one.name,
                    one.kind,
                    one.python or None,
                    one.state,
                    "yes" if one.serves else "no",
                    ", ".join([*one.roles, *one.courses]) or None,
                )
                for one in found
            ],
        )


@env.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show an environment and its packages."""
    from illumidesk.cli.output import print_json, print_pairs, print_table
    from illumidesk.host import locks, users_environments
    from illumidesk.host.kernels import offered
    from illumidesk.paths import Paths

    paths = Paths.current()
    one = users_environments.find(name, paths, _settings(paths))
    packages = locks.contents(one.prefix) if one.prefix is not None else []
    kernels = [kernel for kernel in offered(paths) if kernel.environment == name]
    if as_json:
        listed = [{"name": package.name, "version": package.version, "by": package.by} for package in packages]
        shown = [{"name": kernel.name, "title": kernel.shown} for kernel in kernels]
        print_json({**_as_dict(one), "kernels": shown, "packages": listed})
        return
    file = users_environments.description_file(name, paths)
    print_pairs(
        [
            ("Environment", one.name),
            ("Kind", one.kind),
            ("State", one.state),
            ("Folder", one.prefix),
            ("Described by", file if file.exists() else None),
            ("Based on", one.based_on or None),
            ("Lock file", users_environments.lock_file(name, paths) if one.locked else None),
            ("Channels", ", ".join(one.channels) or None),
            ("Python", one.python or None),
            ("For servers", "yes" if one.serves else "no"),
            ("Roles", ", ".join(one.roles) or None),
            ("Courses", ", ".join(one.courses) or None),
            ("Kernels everywhere", ", ".join(kernel.shown for kernel in kernels) or None),
            ("Packages", len(packages)),
        ]
    )
    if packages:
        click.echo()
        print_table(["Package", "Version", "By"], [(found.name, found.version, found.by) for found in packages])


@env.command("create")
@click.argument("name", required=False)
@_build_options
def create(name: str | None, file: Path | None, channels: tuple[str, ...], locked: bool) -> None:
    """Make an environment.

    \b
    illumidesk env create ml --file environment.yml
    illumidesk env create ml --file environment.yml --channel file:///srv/channel

    Without --file its description is /etc/illumidesk/environments/NAME.yml; with it, the file is copied there. It
    may be run again: what is there stays as it is.
    """
    from illumidesk.host import users_environments

    with building() as (paths, progress):
        environment, new = users_environments.create(
            name, paths, progress, file=_absolute(file), channels=_checked(channels), locked=locked
        )
    _built(environment, "is ready" if new else "was there already", paths)


@env.command("update")
@click.argument("name")
@_build_options
def update(name: str, file: Path | None, channels: tuple[str, ...], locked: bool) -> None:
    """Bring the newest packages that the description allows.

    \b
    illumidesk env update default
    illumidesk env update ml --file environment.yml

    Change the description first, in an editor or with --file. Where something cannot be had, everything stays as
    it was.
    """
    from illumidesk.host import users_environments

    with building() as (paths, progress):
        environment, new = users_environments.update(
            name, paths, progress, file=_absolute(file), channels=_checked(channels), locked=locked
        )
    _built(environment, "is up to date, with other packages than before" if new else "was up to date", paths)


@env.command("clone")
@click.argument("name")
@click.argument("new")
def clone(name: str, new: str) -> None:
    """Make an environment NEW with exactly the packages of NAME."""
    from illumidesk.host import users_environments

    with building() as (paths, progress):
        environment, made = users_environments.clone(name, new, paths, progress)
    _built(environment, "is ready" if made else "was there already", paths)


@env.command("remove")
@click.argument("name")
@yes_option
def remove(name: str, yes: bool) -> None:
    """Remove an environment, and its description.

    Not one that a role uses. Servers that run from it go on until they stop. Of one that was registered, the folder
    itself stays.
    """
    from illumidesk.cli.base import require_root
    from illumidesk.host import users_environments
    from illumidesk.paths import Paths

    require_root()
    paths = Paths.current()
    users_environments.check_removable(name, paths)
    if not yes:
        click.echo(f"This removes the environment {name}.", err=True)
        confirm_by_typing(name, what="remove it")
    users_environments.remove(name, paths)
    click.echo(f"The environment {name} is removed.")


@env.command("export")
@click.argument("name")
@click.option("--lock", "as_lock", is_flag=True, help="The lock file: exactly these packages, to build again.")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it there rather than to standard output.",
)
def export(name: str, as_lock: bool, output: Path | None) -> None:
    """Print an environment as an environment.yml with exact versions, for conda anywhere."""
    from illumidesk.host import users_environments
    from illumidesk.paths import Paths

    text = users_environments.export(name, Paths.current(), as_lock=as_lock)
    if output is None:
        click.echo(text, nl=False)
        return
    output.write_text(text, "utf-8")
    click.echo(f"{output} is written")


@env.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, command: tuple[str, ...]) -> None:
    """Run COMMAND with the environment's programs first.

    \b
    illumidesk env run ml python -c 'import torch'
    """
    import os

    from illumidesk.errors import IllumiDeskError
    from illumidesk.host import users_environments
    from illumidesk.paths import Paths

    prefix = users_environments.prefix_of(name, Paths.current())
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
    variables["PATH"] = f"{prefix}/bin:{variables.get('PATH', '/usr/local/bin:/usr/bin:/bin')}"
    if (prefix / "conda-meta").is_dir():
        variables |= {"CONDA_PREFIX": str(prefix), "CONDA_DEFAULT_ENV": name}
    else:
        variables["VIRTUAL_ENV"] = str(prefix)
    try:
        os.execvpe(command[0], list(command), variables)  # noqa: S606 -- what was asked for
    except OSError as error:
        raise IllumiDeskError(f"{command[0]} cannot be run: {error.strerror}") from None


@env.command("register")
@click.argument("name")
@click.argument("folder", metavar="PATH", type=click.Path(path_type=Path))
@click.option(
    "--with-server", is_flag=True, help="Install JupyterLab, nbgrader and what else serving people takes into it."
)
def register(name: str, folder: Path, with_server: bool) -> None:
    """Let NAME mean an environment that is there already, of Miniforge, micromamba or a venv.

    It must belong to root, and nobody else may be able to change it. IllumiDesk does not build or update it.
    """
    from illumidesk.host import users_environments

    with building() as (paths, progress):
        real = users_environments.register(name, folder.absolute(), paths, progress, with_server=with_server)
    click.echo(f"The environment {name} is {real}")
    if not users_environments.find(name, paths, None).serves:
        click.echo("People's servers cannot run from it: it has no jupyterhub-singleuser. See --with-server.", err=True)


@env.command("requests")
@json_option
def requests(as_json: bool) -> None:
    """List the packages that instructors ask for.

    An answer is given with `illumidesk course env COURSE add --requested`, or `decline` in place of `add`.
    """
    from illumidesk.cli.course_env import print_requests
    from illumidesk.cli.output import print_json
    from illumidesk.host.hub_client import HubClient

    waiting = HubClient.of_this_machine().package_requests()
    if as_json:
        print_json(waiting)
    elif not waiting:
        click.echo("Nobody asks for a package.", err=True)
    else:
        print_requests(waiting)
        click.echo(f"\nNext: illumidesk course env {waiting[0]['course_id']} add --requested")


def _built(environment: Environment, how: str, paths: Paths) -> None:
    from illumidesk.host import locks, users_environments
    from illumidesk.names import course_of_environment

    name = environment.name
    packages = locks.contents(paths.environments / name)
    click.echo(f"The environment {name} {how}: {len(packages)} packages, {users_environments.how(environment)}.")
    found = users_environments.find(name, paths, _settings(paths))
    if not found.serves:
        click.echo("People's servers cannot run from it: it has no Python.", err=True)
    elif not found.roles and not course_of_environment(name):
        click.echo(f"Next: illumidesk config set roles.learner.environment {name}")
    for other in users_environments.based_on(name, paths):
        if users_environments.find(other, paths, _settings(paths)).state == "changed":
            click.echo(f"{other} is based on it. Next: illumidesk env update {other}")


def _settings(paths: Paths) -> Settings | None:
    """The settings; nothing where this account may not read them."""
    from illumidesk import settings
    from illumidesk.errors import IllumiDeskError

    try:
        return settings.load(paths.config_file)
    except IllumiDeskError:
        return None


def _as_dict(one: Found) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "state": one.state,
        "folder": str(one.prefix) if one.prefix is not None else None,
        "serves": one.serves,
        "python": one.python,
        "channels": list(one.channels),
        "locked": one.locked,
        "based_on": one.based_on or None,
        "roles": list(one.roles),
        "courses": list(one.courses),
    }


def _absolute(file: Path | None) -> Path | None:
    return file.absolute() if file is not None else None


def _checked(channels: tuple[str, ...]) -> tuple[str, ...]:
    from illumidesk.errors import IllumiDeskError
    from illumidesk.settings import check_channel

    try:
        return tuple(check_channel(str(Path(one).absolute()) if one.startswith(".") else one) for one in channels)
    except ValueError as error:
        raise IllumiDeskError(f"--channel: {error}") from None
