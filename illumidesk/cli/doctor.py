"""`illumidesk doctor`."""

from __future__ import annotations

import click

from illumidesk.cli.base import clean, json_option

_MARKS = {
    "ok": ("ok", "green"),
    "note": ("note", "cyan"),
    "warning": ("WARNING", "yellow"),
    "problem": ("PROBLEM", "red"),
}


@click.command(short_help="Look for what is wrong, and say what to do.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look for what is wrong, and say what to do.

    Services, settings, environments, programs, HTTPS, disk, memory and clock are looked at, and nothing is changed.
    With sudo it sees more. Exit status 3 says that there is a problem; warnings and notes are none.
    """
    from illumidesk.cli.output import print_json
    from illumidesk.host.doctor import examine
    from illumidesk.host.steps import Progress
    from illumidesk.paths import Paths

    findings = []
    for finding in examine(Paths.current(), Progress()):
        findings.append(finding)
        if as_json:
            continue
        mark, colour = _MARKS.get(finding.state, ("?", "white"))
        click.echo(f"{click.style(f'{mark:<8}', fg=colour)}{finding.subject:<13}{clean(finding.said)}")
        if finding.hint:
            click.echo(f"{'':21}{clean(finding.hint)}")
    problems = sum(finding.state == "problem" for finding in findings)
    if as_json:
        print_json({"ok": not problems, "findings": [finding.as_dict() for finding in findings]})
    if problems:
        ctx.exit(3)
