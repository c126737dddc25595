"""`illumidesk config`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from illumidesk.cli.base import Group, json_option


@click.group(cls=Group)
def config() -> None:
    """Settings: show, change, check, apply.

    They are kept in /etc/illumidesk/config.yaml. A change takes effect with `illumidesk config reload`, which
    leaves running servers alone.
    """


@config.command("show")
@click.option("--defaults", is_flag=True, help="The defaults rather than what is in effect.")
@json_option
def show(defaults: bool, as_json: bool) -> None:
    """Print every setting; what differs from the default says so.

    With --json sizes are bytes and times are seconds.
    """
    from illumidesk.cli.output import print_json
    from illumidesk.host import settings_file
    from illumidesk.paths import Paths
    from illumidesk.settings import Settings

    current = Settings() if defaults else settings_file.load(Paths.current().config_file)
    if as_json:
        print_json(current.model_dump(mode="json"))
        return
    for line in _lines(settings_file.plain_values(current), settings_file.plain_values(Settings())):
        click.echo(line)


@config.command("get")
@click.argument("key")
@json_option
def get(key: str, as_json: bool) -> None:
    """Print the value in effect of KEY, such as limits.memory."""
    from illumidesk.cli.output import print_json
    from illumidesk.host import settings_file, yaml_edit
    from illumidesk.paths import Paths

    current = settings_file.load(Paths.current().config_file)
    if as_json:
        print_json(settings_file.typed_value(current, key))
        return
    value = settings_file.plain_value(current, key)
    if isinstance(value, dict):
        for line in _lines(value, value):
            click.echo(line)
    else:
        click.echo(value if isinstance(value, str) else yaml_edit.as_yaml(value))


@config.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("value")
def set_(key: str, value: str) -> None:
    """Set KEY to VALUE in the file; its comments survive.

    \b
    illumidesk config set limits.memory 2G
    illumidesk config set sign_in.local.open_signup true
    illumidesk config set roles.learner.nbgrader '[assignment-list]'
    """
    from illumidesk.host import settings_file
    from illumidesk.paths import Paths

    paths = Paths.current()
    if settings_file.check_key(key).endswith(".environment") and value:
        settings_file.check_environment(key, str(settings_file.parse_value(key, value)), paths)
    written = settings_file.set_value(paths.config_file, key, value)
    click.echo(f"{key} is now {written}. To apply it: illumidesk config reload")


@config.command("unset")
@click.argument("key")
def unset(key: str) -> None:
    """Remove KEY from the file, so that its default applies."""
    from illumidesk.host import settings_file, yaml_edit
    from illumidesk.paths import Paths
    from illumidesk.settings import known_keys

    path = Paths.current().config_file
    had = settings_file.unset_value(path, key)
    default = ""
    if key in known_keys():
        value = settings_file.plain_value(settings_file.load(path), key)
        default = "" if isinstance(value, dict) else f", and is now {yaml_edit.as_yaml(value)}"
    if had:
        click.echo(f"{key} is removed from the file{default}. To apply it: illumidesk config reload")
    else:
        click.echo(f"{key} was not in the file{default}")


@config.command("validate")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def validate(file: Path | None, as_json: bool) -> None:
    """Check FILE, or the settings in use, without changing anything."""
    from illumidesk.cli.output import print_json
    from illumidesk.errors import IllumiDeskError
    from illumidesk.paths import Paths

    path = file or Paths.current().config_file
    try:
        _check(path)
    except IllumiDeskError as error:
        if as_json:
            print_json({"valid": False, **error.as_dict()})
        raise
    if as_json:
        print_json({"valid": True})
    else:
        click.echo(f"{path} is valid")


@config.command("reload")
@click.option("--timeout", default=120, show_default=True, metavar="SECONDS", help="How long to wait for the hub.")
@json_option
def reload(timeout: int, as_json: bool) -> None:
    """Apply the settings, and wait until the hub answers again.

    Running servers and graders go on; new limits hold for servers that start from now on.
    """
    from illumidesk.cli.base import clean, require_root
    from illumidesk.cli.output import print_json
    from illumidesk.cli.units import running, show_units
    from illumidesk.errors import IllumiDeskError
    from illumidesk.host.hub_client import HubClient
    from illumidesk.host.install import apply_settings
    from illumidesk.host.steps import Progress
    from illumidesk.paths import Paths

    require_root()
    paths = Paths.current()
    _check(paths.config_file)
    before = running(show_units())
    started = time.monotonic()
    progress = Progress()
    restarted = apply_settings(paths, progress)
    if not wait_for_hub(HubClient(paths.hub_socket), timeout):
        raise IllumiDeskError(
            f"the settings are applied, and the hub did not answer within {timeout} seconds",
            hint="sudo journalctl -u illumidesk-hub -n 50",
            status=503,
        )
    after = {unit.name: unit.main_pid for unit in running(show_units())}
    gone = [unit.name for unit in before if after.get(unit.name) != unit.main_pid]
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        kept = [unit.name for unit in before if unit.name not in gone]
        outcome = {"restarted": restarted, "seconds": seconds, "went_on": kept, "stopped_meanwhile": gone}
        print_json(outcome | {"notes": progress.notes})
        return
    done = f"Restarted {', '.join(restarted)}" if restarted else "Nothing had to be restarted"
    click.echo(f"The settings are applied. {done}; the hub answers. {_went_on(len(before) - len(gone))}")
    if gone:
        click.echo(f"Stopped or started anew meanwhile: {', '.join(gone)}", err=True)
    for note in progress.notes:
        click.echo(f"Note: {clean(note)}", err=True)


def wait_for_hub(hub: Any, timeout: float) -> bool:
    """Wait until the hub answers, and say on a terminal how long it has been.

    Args:
        hub: something with `answers()`.
        timeout: seconds.

    Returns:
        Whether it answered.
    """
    started = time.monotonic()
    on_terminal = sys.stderr.isatty()
    try:
        while not hub.answers(timeout=2.0):
            passed = time.monotonic() - started
            if passed >= timeout:
                return False
            if on_terminal:
                click.echo(f"\rWaiting for the hub: {passed:.0f} s", nl=False, err=True)
            time.sleep(0.25)
        return True
    finally:
        if on_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)


def _check(path: Path) -> None:
    from illumidesk.host import settings_file
    from illumidesk.paths import Paths

    settings_file.check_environments(settings_file.load(path), Paths.current())


def _went_on(count: int) -> str:
    if count == 0:
        return "No server was running."
    return "The one running server went on." if count == 1 else f"{count} running servers went on."


def _lines(values: dict[str, Any], defaults: dict[str, Any], indent: int = 0) -> list[str]:
    from illumidesk.host.yaml_edit import as_yaml

    lines: list[str] = []
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, dict) and value:
            lines.append(f"{' ' * indent}{key}:")
            lines += _lines(value, default if isinstance(default, dict) else {}, indent + 2)
            continue
        line = f"{' ' * indent}{key}: {as_yaml(value)}"
        if value != default:
            line += f"  # default: {as_yaml(default)}" if default is not None else "  # set here"
        lines.append(line)
    return lines
