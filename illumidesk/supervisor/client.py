"""The hub's end of the supervisor's socket."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import aiohttp

from illumidesk.errors import IllumiDeskError

log = logging.getLogger(__name__)

#: Seconds for which a call waits for a supervisor that is being restarted.
PATIENCE = 5.0
#: Seconds without a line, not even a ping, after which the stream of events is taken for dead.
_SILENCE = 60.0


class AccountAnswer(TypedDict):
    """What `ensure_account` made or found."""

    name: str
    uid: int
    home: str
    created: bool


class CourseAnswer(TypedDict):
    """What `ensure_course` made or found."""

    course_id: str
    account: str
    home: str
    created: bool


class UnitAnswer(TypedDict):
    """A unit that was started."""

    unit: str
    socket: str
    uid: int


class Unit(TypedDict):
    """A unit; see `illumidesk.supervisor.units.UnitState`."""

    unit: str
    kind: str
    name: str
    active_state: str
    sub_state: str
    result: str
    main_pid: int
    ready: bool
    exit_status: int | None
    memory: int | None
    cpu: float | None
    tasks: int | None


class Host(TypedDict):
    """The machine's own figures: bytes, percent, seconds."""

    cpu_percent: float
    cores: int
    memory_total: int
    memory_available: int
    swap_total: int
    swap_free: int
    disk_total: int
    disk_free: int
    uptime: float
    load: list[float]


class SupervisorClient:
    """Calls the supervisor. Every method raises IllumiDeskError with the supervisor's own message and hint.

    Args:
        socket: where it listens.
        patience: seconds for which a call waits where nobody listens, as while it is restarted.
    """

    def __init__(self, socket: Path, *, patience: float = PATIENCE) -> None:
        self._socket = socket
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> SupervisorClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the socket."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ensure_account(self, name: str, *, restore: bool = False) -> AccountAnswer:
        """Make a person's account, or find it made. 409 where the name is not to be had."""
        return cast(AccountAnswer, await self._call("ensure_account", name=name, restore=restore))

    async def retire_account(self, name: str) -> None:
        """Stop a person's server and close the account for good; the home is kept."""
        await self._call("retire_account", name=name)

    async def ensure_course(self, course_id: str) -> CourseAnswer:
        """Make a course's account, folders and exchange, or find them made."""
        return cast(CourseAnswer, await self._call("ensure_course", course_id=course_id))

    async def remove_course(self, course_id: str) -> str:
        """Archive a course and remove it; the path of the archive. 404 where there was never such a course."""
        return str((await self._call("remove_course", course_id=course_id))["archive"])

    async def set_membership(self, course_id: str, name: str, *, member: bool, staff: bool = False) -> None:
        """Let a person into a course's exchange and shared folder, or out; holds for a running server at once.

        `staff` write the shared folder, from their next server on.
        """
        await self._call("set_membership", course_id=course_id, name=name, member=member, staff=staff)

    async def assignments(self, course_id: str) -> list[str]:
        """The names of a course's released assignments. 404 where there is no such course."""
        return cast(list[str], (await self._call("assignments", course_id=course_id))["assignments"])

    async def start_server(
        self,
        name: str,
        *,
        environment: str,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        memory: int = 0,
        cpu: float = 0,
        tasks: int = 0,
        properties: Mapping[str, Any] | None = None,
        fork_server: bool = False,
    ) -> UnitAnswer:
        """Start a person's server anew; returns when its program runs.

        Args:
            name: the account.
            environment: the environment's name in /opt/illumidesk/envs.
            arguments: for jupyterhub-singleuser.
            variables: its environment.
            memory: bytes; 0 for no limit, as below.
            cpu: processor cores.
            tasks: processes and threads.
            properties: unit properties that the policy allows.
            fork_server: whether the environment's fork server is asked first.
        """
        answer = await self._call(
            "start_server",
            name=name,
            environment=environment,
            arguments=list(arguments),
            variables=dict(variables or {}),
            limits={"memory": memory, "cpu": cpu, "tasks": tasks},
            properties=dict(properties or {}),
            fork_server=fork_server,
        )
        return cast(UnitAnswer, answer)

    async def start_grader(
        self,
        course_id: str,
        *,
        environment: str,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        memory: int = 0,
        cpu: float = 0,
        tasks: int = 0,
    ) -> UnitAnswer:
        """Start a course's grader anew; see `start_server`."""
        answer = await self._call(
            "start_grader",
            course_id=course_id,
            environment=environment,
            arguments=list(arguments),
            variables=dict(variables or {}),
            limits={"memory": memory, "cpu": cpu, "tasks": tasks},
        )
        return cast(UnitAnswer, answer)

    async def stop_server(self, name: str) -> None:
        """Stop a person's server; returns when it is stopped."""
        await self._call("stop_server", name=name)

    async def stop_grader(self, course_id: str) -> None:
        """Stop a course's grader; returns when it is stopped."""
        await self._call("stop_grader", course_id=course_id)

    async def units(self) -> list[Unit]:
        """Every unit of ours, with what it uses."""
        return cast(list[Unit], (await self._call("units"))["units"])

    async def host(self) -> Host:
        """The machine's own figures."""
        return cast(Host, await self._call("host"))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What happens to units, for ever: `unit` for each that there is, `ready`, then `unit` at each
        change.

        Connects again by itself where the supervisor is restarted, and then begins anew: what was known of a
        unit that does not come before the next `ready` is no longer true. `{"event": "lost"}` says that it
        connects again.
        """
        pause = 0.1
        while True:
            try:
                timeout = aiohttp.ClientTimeout(total=None, sock_read=_SILENCE)
                async with self._open().get("http://supervisor/v1/events", timeout=timeout) as answer:
                    if answer.status != 200:
                        raise aiohttp.ClientError(f"status {answer.status}")
                    pause = 0.1
                    async for line in answer.content:
                        event = json.loads(line)
                        if event["event"] != "ping":
                            yield event
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                log.debug("events: %s", error)
            yield {"event": "lost"}
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)

    async def _call(self, verb: str, **fields: Any) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                async with self._open().post(f"http://supervisor/v1/{verb}", json=fields) as answer:
                    body = await answer.json(content_type=None)
                    status = answer.status
                break
            except aiohttp.ClientConnectorError as error:
                # Nobody took the call, so it may be made again
                if time.monotonic() > deadline:
                    raise _no_answer() from error
                await asyncio.sleep(0.2)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise _no_answer() from error
        if status != 200:
            message, hint = body.get("message", "the supervisor failed"), body.get("hint", "")
            raise IllumiDeskError(message, hint=hint, status=status)
        return cast(dict[str, Any], body)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._socket), limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session


def _no_answer() -> IllumiDeskError:
    return IllumiDeskError(
        "the supervisor does not answer", hint="sudo systemctl status illumidesk-supervisor", status=503
    )
