"""What a unit of ours is, apart from who runs it: systemd on a host, plain processes in tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.supervisor.policy import Limits, Properties

Kind = Literal["server", "grader"]

#: States in which something of a unit runs, or may.
RUNNING = frozenset({"active", "activating", "deactivating", "reloading", "refreshing"})


@dataclass(frozen=True)
class Account:
    """An account that the supervisor made."""

    name: str
    uid: int
    gid: int
    home: Path


@dataclass(frozen=True)
class UnitState:
    """A unit as it goes over the socket.

    Args:
        unit: the unit's name in systemd.
        kind: whose it is.
        name: the person's account, or the course's id.
        active_state: systemd's: active, activating, deactivating, inactive, failed.
        sub_state: systemd's own finer word.
        result: `success`, or why it failed (`exit-code`, `signal`, `oom-kill`, `timeout`, …).
        main_pid: 0 where none runs.
        ready: whether a server has said that it listens. One that does not say so may listen as well.
        exit_status: of the last main process: its exit code, 128 + signal where one ended it; None while none
            ended.
        memory: bytes in use; None where it is not known.
        cpu: seconds of processor time used; None where it is not known.
        tasks: processes and threads; None where it is not known.
    """

    unit: str
    kind: Kind
    name: str
    active_state: str = "inactive"
    sub_state: str = "dead"
    result: str = "success"
    main_pid: int = 0
    ready: bool = False
    exit_status: int | None = None
    memory: int | None = None
    cpu: float | None = None
    tasks: int | None = None

    @property
    def running(self) -> bool:
        """Whether anything of it may run."""
        return self.active_state in RUNNING

    def as_dict(self) -> dict[str, Any]:
        """The unit as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Launch:
    """Everything needed to start a unit; the policy has seen all of it.

    Args:
        unit: the unit's name.
        account: as whom it runs.
        command: the program.
        arguments: its arguments.
        variables: its environment, beyond what comes from the account. Secret.
        environment_file: the same, as a file that only root can read.
        socket_folder: a folder of the account's where it makes its socket.
        limits: what it may use.
        properties: what an administrator set besides.
        writable: folders outside the home that it may write, as far as their modes let it.
        fork_server: the environment whose fork server to ask first; empty: none.
    """

    unit: str
    account: Account
    command: Path
    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(repr=False)
    environment_file: Path
    socket_folder: Path
    limits: Limits
    properties: Properties = field(default_factory=Properties)
    writable: tuple[Path, ...] = ()
    fork_server: str = ""


class Units(Protocol):
    """Who runs units. No call of it is made twice at a time for one unit."""

    async def start_server(self, launch: Launch) -> None:
        """Start a person's server, which is stopped; returns when its program runs.

        Raises:
            IllumiDeskError: where it does not come to run.
        """

    async def start_grader(self, launch: Launch) -> None:
        """Start a course's grader likewise."""

    async def stop(self, unit: str) -> None:
        """Stop a unit, forget that it failed; returns when nothing of it runs. One that is not there is
        stopped.
        """

    async def measured(self) -> list[UnitState]:
        """Every unit of ours, with what it uses."""

    def snapshot(self) -> list[UnitState]:
        """Every unit of ours as the watchers were last told; what it uses is not filled in."""

    def watch(self, callback: Callable[[UnitState], None]) -> None:
        """Call `callback` at each change of a unit's `active_state` or `ready` from now on."""


def identify(unit: str) -> tuple[Kind, str] | None:
    """Whose unit `unit` is: (`server`, account) or (`grader`, course id); None for one that is not ours."""
    try:
        if unit.startswith("jupyter-"):
            name = unit.removeprefix("jupyter-").removesuffix(".service")
            return ("server", name) if names.server_unit(name) == unit else None
        if unit.startswith("illumidesk-grader@"):
            name = unit.removeprefix("illumidesk-grader@").removesuffix(".service")
            return ("grader", name) if names.grader_unit(name) == unit else None
    except IllumiDeskError:
        pass
    return None
