"""What everybody who runs units must do: systemd on a host and the plain processes that stand in for it in
tests.

Each check takes a `Rig`. `tests/integration/test_units_contract.py` runs them against plain processes; on a
machine this file runs as root by itself, without pytest, and prints a JSON object of what failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths
from illumidesk.supervisor import quoting
from illumidesk.supervisor.policy import Limits
from illumidesk.supervisor.units import Account, Launch, Units, UnitState


@dataclass
class Rig:
    """Units to check, with what they need.

    Args:
        units: under check.
        account: makes the account of that name.
        folder: where programs may lie that every account can run.
        paths: the layout.
    """

    units: Units
    account: Callable[[str], Account]
    folder: Path
    paths: Paths
    seen: list[UnitState] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.units.watch(self.seen.append)

    def launch(
        self, script: str, *, arguments: tuple[str, ...] = (), variables: dict[str, str] | None = None
    ) -> Launch:
        """A server of a new person that runs the shell script `script`."""
        name = f"contract{next(self._numbers)}"
        account = self.account(name)
        program = self.folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        unit = names.server_unit(name)
        # not where the supervisor keeps them: one that runs meanwhile would remove it
        environment_file = self.folder / f"{unit}.env"
        environment_file.write_text(quoting.environment_file(variables or {}))
        socket_folder = self.paths.server_socket(name).parent
        socket_folder.mkdir(parents=True, exist_ok=True)
        return Launch(
            unit=unit,
            account=account,
            command=program,
            arguments=arguments,
            variables=variables or {},
            environment_file=environment_file,
            socket_folder=socket_folder,
            limits=Limits(),
        )

    def state(self, unit: str) -> UnitState | None:
        return next((state for state in self.units.snapshot() if state.unit == unit), None)

    def history(self, unit: str) -> list[str]:
        return [state.active_state for state in self.seen if state.unit == unit]

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait until `condition()` is true."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)

    async def until_told(self, unit: str, active_state: str) -> UnitState:
        """Wait until a watcher is told that the unit is in that state."""

        def last() -> UnitState | None:
            return next((s for s in reversed(self.seen) if s.unit == unit and s.active_state == active_state), None)

        await self.until(last)
        found = last()
        assert found is not None
        return found


async def a_started_unit_is_active(rig: Rig) -> None:
    launch = rig.launch("exec sleep 60")
    await rig.units.start_server(launch)
    await rig.until_told(launch.unit, "active")
    state = rig.state(launch.unit)
    assert state is not None
    assert state.running
    assert state.kind == "server"
    assert state.name == launch.account.name
    assert state.main_pid > 1
    assert state.exit_status is None
    command = Path(f"/proc/{state.main_pid}/cmdline")
    await rig.until(lambda: command.read_bytes() == b"sleep\x0060\x00")
    await rig.units.stop(launch.unit)


async def a_stopped_unit_is_gone(rig: Rig) -> None:
    launch = rig.launch("exec sleep 60")
    await rig.units.start_server(launch)
    await rig.until_told(launch.unit, "active")
    await rig.units.stop(launch.unit)
    await rig.until_told(launch.unit, "inactive")
    assert rig.state(launch.unit) is None
    assert all(state.unit != launch.unit for state in await rig.units.measured())
    assert rig.history(launch.unit)[-1] == "inactive"
    assert "failed" not in rig.history(launch.unit)


async def stopping_twice_or_nothing_is_fine(rig: Rig) -> None:
    launch = rig.launch("exec sleep 60")
    await rig.units.stop(launch.unit)
    await rig.units.start_server(launch)
    await asyncio.gather(rig.units.stop(launch.unit))
    await rig.units.stop(launch.unit)


async def a_program_that_ends_by_itself_is_told(rig: Rig) -> None:
    launch = rig.launch("sleep 0.3; exit 0")
    await rig.units.start_server(launch)
    state = await rig.until_told(launch.unit, "inactive")
    assert state.result == "success"
    assert state.main_pid == 0


async def an_exit_code_is_told_and_kept(rig: Rig) -> None:
    launch = rig.launch("sleep 0.3; exit 3")
    await rig.units.start_server(launch)
    state = await rig.until_told(launch.unit, "failed")
    assert (state.result, state.exit_status) == ("exit-code", 3)
    kept = rig.state(launch.unit)
    assert kept is not None
    assert (kept.active_state, kept.exit_status, kept.running) == ("failed", 3, False)
    await rig.units.stop(launch.unit)
    assert rig.state(launch.unit) is None


async def a_killed_program_is_told(rig: Rig) -> None:
    launch = rig.launch("exec sleep 60")
    await rig.units.start_server(launch)
    state = await rig.until_told(launch.unit, "active")
    await rig.until(lambda: (found := rig.state(launch.unit)) and found.main_pid)
    state = rig.state(launch.unit) or state
    os.kill(state.main_pid, signal.SIGKILL)
    state = await rig.until_told(launch.unit, "failed")
    assert (state.result, state.exit_status) == ("signal", 128 + signal.SIGKILL)
    await rig.units.stop(launch.unit)


async def a_failed_unit_starts_again(rig: Rig) -> None:
    launch = rig.launch("[ -e ~/again ] && exec sleep 60; : > ~/again; sleep 0.3; exit 5")
    await rig.units.start_server(launch)
    await rig.until_told(launch.unit, "failed")
    await rig.units.stop(launch.unit)
    await rig.units.start_server(launch)
    await rig.until(lambda: (state := rig.state(launch.unit)) and state.active_state == "active")
    state = rig.state(launch.unit)
    assert state is not None
    assert (state.result, state.exit_status) == ("success", None)
    await rig.units.stop(launch.unit)


async def stop_and_start_at_once_works_again_and_again(rig: Rig) -> None:
    launch = rig.launch("exec sleep 60")
    for _ in range(10):
        await rig.units.stop(launch.unit)
        await rig.units.start_server(launch)
    assert rig.history(launch.unit).count("failed") == 0
    await rig.units.stop(launch.unit)


async def a_program_that_cannot_run_is_an_error(rig: Rig) -> None:
    launch = rig.launch("exit 0")
    launch.command.chmod(0o644)
    message = ""
    try:
        await rig.units.start_server(launch)
    except IllumiDeskError as error:
        message = error.message
    assert launch.unit in message
    await rig.units.stop(launch.unit)


async def the_environment_is_exact(rig: Rig) -> None:
    variables = {
        "PLAIN": "value",
        "EMPTY": "",
        "SPACES": "  a  b  ",
        "QUOTES": "a\"b'c`d",
        "DOLLAR": "$HOME ${HOME} $$ %h %%",
        "BACKSLASH": "a\\b\\\\c\\n\\",
        "LINES": "one\ntwo\n\n#three\nFOUR=4\n",
        "TABS": "\ta\t",
        "UNICODE": "Zoë ☃ 教室",
        "JSON": json.dumps({"a": ["b", 'c"d']}),
        "HASH": "#not a comment ; nor this",
    }
    launch = rig.launch("env -0 > ~/environment; pwd > ~/where; exec sleep 60", variables=variables)
    await rig.units.start_server(launch)
    file = launch.account.home / "environment"
    await rig.until(lambda: (launch.account.home / "where").is_file())
    found = dict(entry.split("=", 1) for entry in file.read_text("utf-8").split("\0") if entry)
    assert {name: found.get(name) for name in variables} == variables
    home = str(launch.account.home)
    name = launch.account.name
    assert [found[key] for key in ("HOME", "USER", "LOGNAME", "SHELL")] == [home, name, name, "/bin/bash"]
    assert (launch.account.home / "where").read_text().strip() == home
    await rig.units.stop(launch.unit)


async def arguments_are_exact(rig: Rig) -> None:
    arguments = ("--a=$HOME", "--b=${HOME}", "--c=%h %%", "--d='x' \"y\"", "--e=a\\b", "--f=", "--g=ü ☃", "--h=;|&")
    script = 'printf "%s\\0" "$@" > ~/arguments.new; mv ~/arguments.new ~/arguments'
    launch = rig.launch(script, arguments=arguments)
    await rig.units.start_server(launch)
    file = launch.account.home / "arguments"
    await rig.until(file.is_file)
    assert tuple(file.read_text("utf-8").split("\0")[:-1]) == arguments
    await rig.units.stop(launch.unit)


async def nothing_is_left_of_a_stopped_unit(rig: Rig) -> None:
    script = """
    (trap '' TERM HUP; echo $$ > ~/child; exec sleep 61) &
    wait
    """
    launch = rig.launch(script.replace("$$", "$(exec sh -c 'echo $PPID')"))
    await rig.units.start_server(launch)
    file = launch.account.home / "child"
    await rig.until(lambda: file.is_file() and file.read_text().strip())
    child = int(file.read_text())
    assert Path(f"/proc/{child}").exists()
    await rig.units.stop(launch.unit)
    await rig.until(lambda: not Path(f"/proc/{child}").exists())


async def what_is_used_is_measured(rig: Rig) -> None:
    launch = rig.launch("exec sleep 60")
    await rig.units.start_server(launch)
    state = next(state for state in await rig.units.measured() if state.unit == launch.unit)
    assert state.memory is None or 0 < state.memory < 1 << 30
    assert state.cpu is None or 0 <= state.cpu < 60
    assert state.tasks is None or state.tasks >= 1
    await rig.units.stop(launch.unit)


async def many_start_at_once(rig: Rig) -> None:
    launches = [rig.launch("exec sleep 60") for _ in range(40)]
    await asyncio.gather(*(rig.units.start_server(launch) for launch in launches))
    units = {launch.unit for launch in launches}
    await rig.until(
        lambda: {s.unit for s in rig.units.snapshot() if s.active_state == "active" and s.main_pid} >= units
    )
    await asyncio.gather(*(rig.units.stop(launch.unit) for launch in launches))
    assert not {state.unit for state in rig.units.snapshot()} & units


CHECKS: list[Callable[[Rig], Awaitable[None]]] = [
    a_started_unit_is_active,
    a_stopped_unit_is_gone,
    stopping_twice_or_nothing_is_fine,
    a_program_that_ends_by_itself_is_told,
    an_exit_code_is_told_and_kept,
    a_killed_program_is_told,
    a_failed_unit_starts_again,
    stop_and_start_at_once_works_again_and_again,
    a_program_that_cannot_run_is_an_error,
    the_environment_is_exact,
    arguments_are_exact,
    nothing_is_left_of_a_stopped_unit,
    what_is_used_is_measured,
    many_start_at_once,
]


@contextlib.asynccontextmanager
async def systemd_rig() -> AsyncIterator[Rig]:
    """The real thing, as root on an installed machine; its people are `contract1` and so on."""
    from illumidesk.supervisor.accounts import LinuxAccounts
    from illumidesk.supervisor.systemd import SystemdUnits

    paths = Paths()
    accounts = LinuxAccounts()
    made: dict[str, Account] = {}

    def account(name: str) -> Account:
        if name not in made:
            made[name] = accounts.ensure_person(name)[0]
            for left in ("again", "arguments", "child", "environment", "where"):
                (made[name].home / left).unlink(missing_ok=True)
        return made[name]

    units = await SystemdUnits.connect(paths)
    folder = Path(tempfile.mkdtemp(dir=paths.opt))
    folder.chmod(0o755)
    for state in units.snapshot():
        if state.name.startswith("contract"):
            await units.stop(state.unit)
    try:
        yield Rig(units, account, folder, paths)
    finally:
        shutil.rmtree(folder)
        units.disconnect()


async def _run_all() -> dict[str, str]:
    failures: dict[str, str] = {}
    async with systemd_rig() as rig:
        for check in CHECKS:
            try:
                await asyncio.wait_for(check(rig), 120)  # type: ignore[arg-type]
                failures[check.__name__] = ""
            except BaseException:
                failures[check.__name__] = traceback.format_exc()
    return failures


if __name__ == "__main__":
    os.umask(0o022)
    json.dump(asyncio.run(_run_all()), sys.stdout)
