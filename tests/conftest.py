"""Options of the test run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from machine import Machine

    from tests.support.classroom import Classroom
    from tests.support.ways import Way


# How long an example takes is the machine's business.
settings.register_profile("illumidesk", deadline=None)
settings.load_profile("illumidesk")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--release", default="bookworm", help="Debian release of the throwaway machine")
    parser.addoption(
        "--machine",
        default="",
        help="use this machine, already installed, and leave it running (while developing)",
    )
    parser.addoption("--vm", default="", help="the same with a whole virtual machine (scripts/vm.py)")
    parser.addoption("--port", default="8090", help="the class's port on the throwaway machine")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "last: leaves no class behind")
    config.addinivalue_line("markers", "smoke: what is also run on the other supported releases")


@pytest.fixture(scope="session")
def openedx_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with Open edX's LTI consumer."""
    from tests.support.openedx import make_environment

    return make_environment(tmp_path_factory.mktemp("peers") / "venv")


@pytest.fixture(scope="session")
def classroom(pytestconfig: pytest.Config) -> Iterator[Classroom]:
    """A class on a throwaway machine: installed by install.sh from this checkout, with the demo course."""
    from machine import Machine
    from vm import VirtualMachine

    from tests.support.classroom import SOURCE, Classroom

    port = int(pytestconfig.getoption("--port"))
    name, virtual = pytestconfig.getoption("--machine"), pytestconfig.getoption("--vm")
    if name or virtual:
        room = Classroom(VirtualMachine.attach(virtual) if virtual else Machine.attach(name), port)
        ask_nobody(room)
        yield room
        return
    machine = Machine("tests", pytestconfig.getoption("--release"), memory_limits=True)
    machine.up()
    try:
        machine.copy_checkout(SOURCE)
        room = Classroom(machine, port)
        room.install()
        ask_nobody(room)
        yield room
    finally:
        keep_journal(machine)
        machine.down()


@pytest.fixture(scope="module", params=["forked", "ordinary"])
def way(request: pytest.FixtureRequest, classroom: Classroom) -> Iterator[Way]:
    """Servers start this way, and every test that asks for it runs in both. The module's servers are `way.start`'s."""
    from tests.support.ways import Way

    chosen = Way(classroom, request.param)
    chosen.choose()
    yield chosen
    Way(classroom, "forked").choose()


def ask_nobody(room: Classroom) -> None:
    """Start people's servers without a question: some tests install programs, and then everybody would be asked.

    Those that are about the question ask for it.
    """
    room.wait_for_hub()
    room.cli("config", "set", "workspaces.ask", "never")
    room.cli("config", "reload")


def keep_journal(machine: Machine) -> None:
    """Keep what the machine logged, for whoever reads a failed run."""
    from tests.support.classroom import ARTEFACTS

    ARTEFACTS.mkdir(exist_ok=True)
    log = machine.run(["journalctl", "--no-pager", "-o", "short-precise"], check=False).stdout
    (ARTEFACTS / f"journal-{machine.release}.txt").write_text(log)
