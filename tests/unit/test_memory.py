"""Compressed swap: where it is set up, and that it can be taken away again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from illumidesk.host import apt
from illumidesk.host.memory import config_file, ensure_ksm, ensure_zram, why_not
from illumidesk.host.steps import Progress, StepError
from illumidesk.paths import Paths

HEAD = "Filename\tType\tSize\tUsed\tPriority\n"
PACKAGE = "systemd-zram-generator"


class Machine(Progress):
    """Notes what is run, and does of it what counts here."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.commands: list[str] = []
        self.installed: set[str] = set()
        self.fails = ""
        self.systemd = "257"

    def run(self, command: Sequence[str | Path], *, what: str = "", check: bool = True, **_: Any) -> str:
        said = " ".join(map(str, command))
        self.commands.append(said)
        if self.fails and self.fails in said and check:
            raise StepError(f"{what} failed (exit status 1)")
        if command[1] == "--version":
            return f"systemd {self.systemd} ({self.systemd}.1)\n+PAM"
        if "install" in command:
            self.installed.add(PACKAGE)
        if "purge" in command:
            self.installed.discard(PACKAGE)
        if said == "systemctl restart dev-zram0.swap":
            (self.root / "proc/swaps").write_text(f"{HEAD}/dev/zram0 partition 100 0 100\n")
        if said.startswith("systemctl stop dev-zram0.swap"):
            (self.root / "proc/swaps").write_text(HEAD)
        return ""


@pytest.fixture
def machine(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(paths.root)
    monkeypatch.setattr(apt, "is_installed", lambda package: package in machine.installed)
    return machine


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    modules = tmp_path / "lib/modules" / os.uname().release
    for folder in (tmp_path / "proc", tmp_path / "run/systemd", modules):
        folder.mkdir(parents=True)
    (tmp_path / "proc/swaps").write_text(HEAD)
    (modules / "modules.dep").write_text("kernel/drivers/block/zram/zram.ko.xz: kernel/mm/zsmalloc.ko.xz\n")
    return Paths(tmp_path)


def test_a_machine_without_swap_gets_it_once_and_gives_it_back(paths: Paths, machine: Machine) -> None:
    assert ensure_zram(True, paths, machine)
    assert machine.installed == {PACKAGE}
    assert "[zram0]" in config_file(paths).read_text()
    machine.commands.clear()
    assert ensure_zram(True, paths, machine)
    assert machine.commands == []
    assert not ensure_zram(False, paths, machine)
    assert not machine.installed
    assert not config_file(paths).exists()
    assert "zram" not in (paths.root / "proc/swaps").read_text()
    machine.commands.clear()
    assert not ensure_zram(False, paths, machine)
    assert machine.commands == []


def test_machines_that_are_left_alone(paths: Paths, machine: Machine) -> None:
    assert why_not(paths) == ""
    (paths.root / "etc/systemd").mkdir(parents=True)
    (paths.root / "etc/systemd/zram-generator.conf").write_text("[zram0]\n")
    assert "configured already" in why_not(paths)
    (paths.root / "run/systemd/container").write_text("lxc")
    assert "container" in why_not(paths)
    (paths.root / "proc/swaps").write_text(f"{HEAD}/dev/sda2 partition 100 0 -2\n")
    assert "/dev/sda2" in why_not(paths)
    assert not ensure_zram(True, paths, machine)
    assert machine.commands == []
    assert machine.notes == []


def test_a_kernel_without_zram(paths: Paths) -> None:
    (paths.root / "lib/modules" / os.uname().release / "modules.dep").unlink()
    assert "no zram" in why_not(paths)


@pytest.mark.parametrize("fails", ["update", "install", "restart"])
def test_what_fails_leaves_nothing_and_is_told(paths: Paths, machine: Machine, fails: str) -> None:
    machine.fails = fails
    assert not ensure_zram(True, paths, machine)
    assert not config_file(paths).exists()
    assert not machine.installed
    assert "machine.zram" in machine.notes[0]
    machine.fails = ""
    assert ensure_zram(True, paths, machine)


def test_ksm_is_for_fork_servers_and_undone(paths: Paths, machine: Machine) -> None:
    ksm = paths.root / "sys/kernel/mm/ksm"
    ksm.mkdir(parents=True)
    (ksm / "run").write_text("0")
    assert not ensure_ksm(False, paths, machine)
    assert machine.commands == []
    assert ensure_ksm(True, paths, machine)
    drop_in = paths.root / "etc/systemd/system/illumidesk-forkserver@.service.d/50-ksm.conf"
    assert "MemoryKSM=yes" in drop_in.read_text()
    rule = paths.root / "etc/tmpfiles.d/illumidesk-ksm.conf"
    assert "w /sys/kernel/mm/ksm/run - - - - 1" in rule.read_text()
    assert machine.commands[-1] == "systemctl try-restart illumidesk-forkserver@*.service"
    number = len(machine.commands)
    assert ensure_ksm(True, paths, machine)
    assert machine.commands[number:] == ["systemctl --version"]
    assert not ensure_ksm(False, paths, machine)
    assert not drop_in.exists()
    assert not rule.exists()
    assert (ksm / "run").read_text() == "2"


def test_ksm_where_it_cannot_be(paths: Paths, machine: Machine) -> None:
    assert not ensure_ksm(True, paths, machine)
    assert "no KSM" in machine.notes[0]
    switch = paths.root / "sys/kernel/mm/ksm/run"
    switch.parent.mkdir(parents=True)
    switch.write_text("0")
    machine.systemd = "252"
    assert not ensure_ksm(True, paths, machine)
    assert "needs systemd 254, and here is 252" in machine.notes[1]
    assert not (paths.root / "etc/tmpfiles.d/illumidesk-ksm.conf").exists()
