"""The plain processes that stand in for systemd keep the contract that systemd keeps on a machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from illumidesk.paths import Paths
from illumidesk.supervisor.units import Account
from tests.support import units_contract
from tests.support.process_units import ProcessUnits
from tests.support.units_contract import Rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder))

        def account(name: str) -> Account:
            home = paths.home / name
            home.mkdir(parents=True, exist_ok=True)
            return Account(name, os.getuid(), os.getgid(), home)

        programs = Path(folder) / "programs"
        programs.mkdir()
        units = ProcessUnits(paths, stop_timeout=2)
        yield Rig(units, account, programs, paths)
        for state in units.snapshot():
            await units.stop(state.unit)


@pytest.mark.parametrize("check", units_contract.CHECKS, ids=lambda check: check.__name__)
async def test_contract(rig: Rig, check: Callable[[Rig], Awaitable[None]]) -> None:
    await check(rig)


async def test_processes_outlive_their_supervisor(rig: Rig) -> None:
    launch = rig.launch("exec sleep 60")
    await rig.units.start_server(launch)
    next_one = ProcessUnits(rig.paths, stop_timeout=2)
    (state,) = next_one.snapshot()
    assert (state.unit, state.active_state) == (launch.unit, "active")
    assert psutil.pid_exists(state.main_pid)
    await next_one.stop(launch.unit)
    await rig.until_told(launch.unit, "inactive")
    assert next_one.snapshot() == []
