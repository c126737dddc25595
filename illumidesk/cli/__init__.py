"""The `illumidesk` command: one module per noun, results as values and printing at the edge.

Only click is imported at the top of these modules, so that `--help` and tab completion are quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from illumidesk import __version__
from illumidesk.cli.base import Group, complain
from illumidesk.cli.config import config
from illumidesk.cli.course import course
from illumidesk.cli.doctor import doctor
from illumidesk.cli.enroll import enroll, unenroll
from illumidesk.cli.env import env
from illumidesk.cli.extension import extension
from illumidesk.cli.grades import grades
from illumidesk.cli.https import https
from illumidesk.cli.kernel import kernel
from illumidesk.cli.logs import logs
from illumidesk.cli.lti import lti
from illumidesk.cli.roster import roster
from illumidesk.cli.status import status
from illumidesk.cli.uninstall import uninstall
from illumidesk.cli.user import user
from illumidesk.cli.version import version
from illumidesk.cli.workspace import workspace
from illumidesk.errors import IllumiDeskError


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Tab completion in bash:
  eval "$(_ILLUMIDESK_COMPLETE=bash_source illumidesk)\"""",
)
@click.version_option(__version__, message="IllumiDesk %(version)s")
def app() -> None:
    """Manage this machine's classroom: people, courses, settings and services."""


for command in (
    status,
    doctor,
    config,
    course,
    user,
    enroll,
    unenroll,
    grades,
    roster,
    extension,
    env,
    kernel,
    workspace,
    lti,
    https,
    logs,
    uninstall,
    version,
):
    app.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 an error, 2 wrong usage, 3 something is down, 130 interrupted.

    Args:
        arguments: the words after `illumidesk`; this process's own where absent.
    """
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """As `main`, but return the exit status."""
    try:
        code = app.main(arguments, prog_name="illumidesk", standalone_mode=False)
    except click.UsageError as error:
        return _usage(error)
    except click.ClickException as error:
        complain(error.format_message())
        return 1
    except IllumiDeskError as error:
        complain(error.message, error.hint)
        return 1
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nInterrupted.", err=True)
        return 130
    except Exception as error:
        if os.environ.get("ILLUMIDESK_DEBUG"):
            raise
        return _unexpected(error)
    return code if isinstance(code, int) else 0


def _usage(error: click.UsageError) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # a group by itself: its help is the answer
        click.echo(error.format_message(), err=True)
        return 2
    path = error.ctx.command_path if error.ctx else "illumidesk"
    message, hint = error.format_message().rstrip("."), ""
    for mark in (" (Did you mean", " Did you mean"):
        if mark in message:
            message, _, near = message.partition(mark)
            hint = f"did you mean {near.strip(' :?)')}? "
    complain(message.rstrip(". "), f"{hint}see `{path} --help`")
    return 2


def _unexpected(error: Exception) -> int:
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        hint = "run it with sudo" if isinstance(error, PermissionError) else ""
        complain(f"{where}{error.strerror}", hint or "ILLUMIDESK_DEBUG=1 shows where it happened")
    else:
        complain(
            f"this is a bug in IllumiDesk: {type(error).__name__}: {error}",
            "run it again with ILLUMIDESK_DEBUG=1 to see where, and report it with what that prints",
        )
    return 1
