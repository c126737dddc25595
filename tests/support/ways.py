"""The two ways in which a person's server starts: by itself, or forked by the fork server of its environment."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.support.classroom import Classroom
from tests.support.person import Person

SERVICE = "illumidesk-forkserver@default.service"
SOCKET = "illumidesk-forkserver@default.socket"
FORKED = re.compile(r"Forked by the fork server as process (\d+)\.")
ORDINARY = "Started the ordinary way, not by the fork server: "


def until(done: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def how(classroom: Classroom, name: str, environment: str = "default") -> str:
    """How a person's server that runs was started, by its journal and by what systemd was to run.

    Returns:
        `forked`; `ordinary` where no fork server was asked; why the fork server did not fork it otherwise.
    """
    unit = f"jupyter-{name}.service"
    invocation = classroom.show(unit, "InvocationID")
    journal = ["journalctl", "--no-pager", "-o", "cat", f"_SYSTEMD_INVOCATION_ID={invocation}"]
    said = classroom.machine.run(journal).stdout
    asked = f"/run/illumidesk/forkserver/{environment}.sock" in classroom.show(unit, "ExecStart")
    found = FORKED.search(said)
    if found:
        assert asked
        assert int(found[1]) == classroom.main_pid(unit), said
        return "forked"
    if not asked:
        assert ORDINARY not in said
        return "ordinary"
    reasons = [line for line in said.splitlines() if ORDINARY in line]
    assert reasons, f"{unit} does not say how it was started:\n{said}"
    return reasons[-1].removeprefix(ORDINARY)


@dataclass(frozen=True)
class Way:
    """One of the two.

    Args:
        classroom: where.
        name: which.
        environment: of the people whose servers are started.
    """

    classroom: Classroom
    name: Literal["forked", "ordinary"]
    environment: str = "default"

    @property
    def forked(self) -> bool:
        return self.name == "forked"

    @property
    def _units(self) -> list[str]:
        return [f"illumidesk-forkserver@{self.environment}.{kind}" for kind in ("socket", "service")]

    def choose(self) -> None:
        """Have servers start this way from now on."""
        wanted = "true" if self.forked else "false"
        if self.classroom.cli("config", "get", "fork_server.enabled").stdout.strip() != wanted:
            if self.forked:
                self.classroom.cli("config", "unset", "fork_server.enabled")
            else:
                self.classroom.cli("config", "set", "fork_server.enabled", "false")
            self.classroom.cli("config", "reload")
        if not self.forked:
            # So that nothing could be forked.
            self.classroom.machine.run(["systemctl", "stop", *self._units])

    def check(self, name: str) -> None:
        """That a person's server was started this way."""
        assert how(self.classroom, name, self.environment) == self.name
        if not self.forked:
            assert not any(self.classroom.is_active(unit) for unit in self._units)

    def start(self, name: str) -> Person:
        """Start a person's server, anew where it runs; this way (`choose`)."""
        person = self.classroom.sign_in(name)
        self.classroom.cli("user", "stop", name)
        person.start_server()
        self.check(name)
        return person

    def student(self, name: str) -> Person:
        """The same for a student of the demo course, who is added where they are not there."""
        self.classroom.cli("user", "add", name)
        self.classroom.cli("enroll", "intro101", name, "--role", "student")
        return self.start(name)

    def running(self, name: str) -> Person:
        """A student whose server runs and was started this way: the one that runs, or a new one."""
        unit = f"jupyter-{name}.service"
        if self.classroom.is_active(unit) and how(self.classroom, name, self.environment) == self.name:
            person = self.classroom.sign_in(name)
            person.open_server()
            return person
        self.choose()
        return self.student(name)
