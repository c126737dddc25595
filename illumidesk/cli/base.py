"""What every command uses: groups that suggest, errors, options, questions."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from illumidesk.errors import IllumiDeskError

if TYPE_CHECKING:
    from illumidesk.host.steps import Progress
    from illumidesk.paths import Paths

#: Characters of an error that are shown: one that quotes what somebody pasted must not fill the screen.
_LONGEST = 2000

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Group(click.Group):
    """A group that lists its commands in the order in which they were added, and names the nearest one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with one sentence where there is no such command."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            did_you_mean = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"There is no command {ctx.command_path} {args[0]}.{did_you_mean}")
        return super().resolve_command(ctx, args)


def json_option(command: _Command) -> _Command:
    """Add `--json`, passed as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def yes_option(command: _Command) -> _Command:
    """Add `--yes`."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)


def complain(message: str, hint: str = "") -> None:
    """Print an error as everything here does: one sentence, and what to do about it, on standard error."""
    click.echo(f"Error: {clean(_shortened(message))}", err=True)
    if hint:
        click.echo(f"Hint: {clean(_shortened(hint))}", err=True)


def clean(text: object) -> str:
    """`text` on one line and without control characters: a course's title comes from elsewhere."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in str(text))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def require_root() -> None:
    """Make sure that root runs this.

    Raises:
        IllumiDeskError: where somebody else does.
    """
    if os.geteuid() != 0:
        raise IllumiDeskError("only root may do this", hint="run it with sudo", status=403)


def confirm_by_typing(expected: str, *, what: str) -> None:
    """Ask the person to type `expected`.

    Raises:
        IllumiDeskError: where the answer is another one, or where nobody can answer.
    """
    click.echo(f"Type {expected} to {what}: ", nl=False, err=True)
    answer = sys.stdin.readline()
    if not answer:
        click.echo(err=True)
        raise IllumiDeskError("nobody is here to confirm; nothing was changed", hint="add --yes")
    if answer.strip() != expected:
        raise IllumiDeskError("not confirmed; nothing was changed", hint=f"the answer must be exactly {expected}")


def for_each(items: Iterable[str], action: Callable[[str], str]) -> None:
    """Do `action` for each item, print the sentence it returns, and go on after one that fails.

    Raises:
        IllumiDeskError: once at the end, where any failed; at once where the hub is down.
    """
    items = list(items)
    failed: list[str] = []
    for item in items:
        try:
            click.echo(clean(action(item)))
        except IllumiDeskError as error:
            if error.status == 503 or len(items) == 1:
                raise
            complain(f"{item}: {error.message}", error.hint)
            failed.append(item)
    if failed:
        raise IllumiDeskError(
            f"{len(failed)} of {len(items)} failed: {', '.join(failed)}",
            hint="the others are done; once this is mended the same command may be run again",
        )


@contextmanager
def building() -> Iterator[tuple[Paths, Progress]]:
    """What a command that builds needs: root, the log, steps on standard error, and a tool's last words on failure."""
    from illumidesk.host.steps import Progress, StepError, open_log
    from illumidesk.paths import Paths

    require_root()
    paths = Paths.current()
    with open_log(paths) as log:
        progress = Progress(log, sys.stderr)
        try:
            yield paths, progress
        except StepError as error:
            for line in error.tail:
                click.echo(f"    {clean(line)}", err=True)
            click.echo(f"The whole log is in {log.name}.", err=True)
            raise
        for note in progress.notes:
            click.echo(f"Note: {clean(note)}", err=True)
