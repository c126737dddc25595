"""The parts of scripts/vm.py that need neither root nor qemu."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
import vm
from machine import MachineError


@pytest.fixture
def virtual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vm.VirtualMachine:
    monkeypatch.setattr("machine.STATE_DIR", tmp_path)
    machine = vm.VirtualMachine("box")
    machine.directory.mkdir()
    return machine


def test_a_container_is_no_virtual_machine(virtual: vm.VirtualMachine) -> None:
    with pytest.raises(MachineError, match="box is no virtual machine") as refused:
        virtual.run(["true"])
    assert "scripts/vm.py boot box" in refused.value.hint


def test_words_of_a_command_stay_words(virtual: vm.VirtualMachine) -> None:
    (virtual.directory / "vm.json").write_text(json.dumps({"qemu": [], "ssh_port": 8022, "disk": ""}))
    (*_, host, end, line) = virtual._nsenter(["sh", "-c", "echo $HOME; 'a b'"])
    assert (host, end) == ("root@127.0.0.1", "--")
    assert shlex.split(line)[-3:] == ["sh", "-c", "echo $HOME; 'a b'"]


def test_another_process_of_the_same_number_is_not_taken_for_it(virtual: vm.VirtualMachine) -> None:
    assert not virtual.is_up
    (virtual.directory / "qemu.pid").write_text(f"{os.getpid()}\n")
    assert not virtual.is_up
    (virtual.directory / "qemu.pid").write_text("999999999\n")
    assert not virtual.is_up
