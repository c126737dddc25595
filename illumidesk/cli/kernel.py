"""`illumidesk kernel`."""

from __future__ import annotations

import click

from illumidesk.cli.base import Group, json_option

#: Languages whose kernel comes from the distribution, for every environment: the package that brings each.
DISTRIBUTION = {"r": "r-cran-irkernel"}


@click.group(cls=Group)
def kernel() -> None:
    """Kernels: what notebooks run in, in every server.

    Python's come with the environments. R's can be installed for all of them.
    """


@kernel.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the kernels that every server has beside its own."""
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host import apt
    from illumidesk.host.kernels import offered
    from illumidesk.paths import Paths

    rows = [(one.name, one.shown, one.environment) for one in offered(Paths.current())]
    rows += [("ir", "R", "") for package in DISTRIBUTION.values() if apt.is_installed(package)]
    if as_json:
        print_json([{"name": name, "title": title, "environment": where or None} for name, title, where in rows])
    elif not rows:
        click.echo(
            "There is one environment, and servers have its kernels. Next: illumidesk kernel install r", err=True
        )
    else:
        print_table(["Name", "Shown as", "Environment"], [(name, title, where or None) for name, title, where in rows])


@kernel.command("install")
@click.argument("language", type=click.Choice(sorted(DISTRIBUTION)))
def install(language: str) -> None:
    """Install a language and its kernel from the distribution: r.

    Every server, from whichever environment, has it at once. It may be run again.
    """
    from illumidesk.cli.base import building
    from illumidesk.host import apt

    with building() as (_, progress), progress.step(f"{language.upper()} from the distribution"):
        apt.install([DISTRIBUTION[language]], progress)
    click.echo(f"Every server has the kernel {language.upper()}.")


@kernel.command("remove")
@click.argument("language", type=click.Choice(sorted(DISTRIBUTION)))
def remove(language: str) -> None:
    """Remove a kernel that came from the distribution.

    The language itself stays until `sudo apt-get autoremove`.
    """
    from illumidesk.cli.base import building
    from illumidesk.host import apt

    with building() as (_, progress), progress.step(f"Removing the kernel {language.upper()}"):
        apt.remove([DISTRIBUTION[language]], progress)
    click.echo(f"No server has the kernel {language.upper()} any more. The language itself: sudo apt-get autoremove")
