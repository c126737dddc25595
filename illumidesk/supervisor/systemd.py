"""Units run by systemd, over D-Bus: jobs awaited, states told by signals, nothing polled and no `systemctl`
forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
from collections.abc import Callable
from typing import Any

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths
from illumidesk.supervisor import sandbox
from illumidesk.supervisor.units import Launch, UnitState, identify

log = logging.getLogger("illumidesk.supervisor")

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER_PATH = "/org/freedesktop/systemd1"
_UNIT_PATH = "/org/freedesktop/systemd1/unit/"
_MANAGER = "org.freedesktop.systemd1.Manager"
_UNIT = "org.freedesktop.systemd1.Unit"
_SERVICE = "org.freedesktop.systemd1.Service"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_PATTERNS = ["jupyter-*.service", "illumidesk-grader@*.service"]
_UNKNOWN = (1 << 64) - 1
_CLD_EXITED = 1
#: Seconds until a job must be done: longer than any timeout of the units themselves.
_JOB_TIMEOUT = 120.0


class _DBusError(Exception):
    """systemd refused a call; `name` is the D-Bus error's."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name.rsplit(".", 1)[-1]


class SystemdUnits:
    """See `units.Units`. Made by `connect`.

    Args:
        bus: a connection to the system bus.
        paths: the layout.
    """

    def __init__(self, bus: MessageBus, paths: Paths) -> None:
        self._bus = bus
        self._paths = paths
        self._states: dict[str, UnitState] = {}
        self._callbacks: list[Callable[[UnitState], None]] = []
        self._reloading = False
        # The jobs of a unit that are done, for whoever waits for one of them; put there from signals
        self._done: dict[str, asyncio.Queue[tuple[str, str]]] = {}

    @classmethod
    async def connect(cls, paths: Paths) -> SystemdUnits:
        """Connect to systemd and learn of every unit of ours; from then on it follows them by signals."""
        bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        units = cls(bus, paths)
        bus.add_message_handler(units._on_message)
        for rule in (
            f"interface='{_MANAGER}',path='{_MANAGER_PATH}'",
            f"interface='{_PROPERTIES}',member='PropertiesChanged',path_namespace='{_UNIT_PATH.rstrip('/')}'",
        ):
            await units._call_bus("AddMatch", "s", f"type='signal',sender='{_SYSTEMD}',{rule}")
        await units._manager("Subscribe")
        await units._learn()
        return units

    async def closed(self) -> None:
        """Return when the connection is lost."""
        await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def disconnect(self) -> None:
        """Close the connection; units go on."""
        self._bus.disconnect()

    async def start_server(self, launch: Launch) -> None:
        """See `Units`."""
        properties = sandbox.server_properties(launch, self._paths)
        if launch.fork_server:
            await self._ensure_listening(launch.fork_server)
        for attempt in range(40):
            try:
                await self._job(
                    launch.unit, "StartTransientUnit", "ssa(sv)a(sa(sv))", launch.unit, "fail", properties, []
                )
                return
            except _DBusError as error:
                # A unit that has just ended stays loaded for a moment
                if error.name != "UnitExists":
                    raise _refused(launch.unit, error) from None
                if attempt == 39:
                    raise _foreign(launch.unit) from None
            await asyncio.sleep(0.05)

    async def _ensure_listening(self, environment: str) -> None:
        """Have systemd listen for an environment's fork server. Without it, the unit starts the ordinary way."""
        try:
            await self._manager("StartUnit", "ss", f"illumidesk-forkserver@{environment}.socket", "replace")
        except _DBusError as error:
            log.warning("the fork server of %s cannot be started: %s", environment, error)

    async def start_grader(self, launch: Launch) -> None:
        """See `Units`."""
        try:
            # runtime: gone with the next boot, as is the unit
            await self._manager(
                "SetUnitProperties", "sba(sv)", launch.unit, True, sandbox.limit_properties(launch.limits)
            )
            await self._job(launch.unit, "StartUnit", "ss", launch.unit, "replace")
        except _DBusError as error:
            raise _refused(launch.unit, error) from None

    async def stop(self, unit: str) -> None:
        """See `Units`."""
        try:
            if await self._is_foreign(unit):
                raise _foreign(unit)
            await self._job(unit, "StopUnit", "ss", unit, "replace")
        except _DBusError as error:
            if error.name != "NoSuchUnit":
                raise _refused(unit, error) from None
        with contextlib.suppress(_DBusError):
            await self._manager("ResetFailedUnit", "s", unit)
        # Its signal may come later than the answer
        self._on_removed(unit)

    async def measured(self) -> list[UnitState]:
        """See `Units`."""
        return list(await asyncio.gather(*(self._measure(state) for state in self.snapshot())))

    def snapshot(self) -> list[UnitState]:
        """See `Units`."""
        # One that is loaded and inactive was only looked at, is about to start, or is about to go
        return [state for state in self._states.values() if state.active_state != "inactive"]

    def watch(self, callback: Callable[[UnitState], None]) -> None:
        """See `Units`."""
        self._callbacks.append(callback)

    # What systemd tells

    def _on_message(self, message: Message) -> bool:
        if message.message_type is not MessageType.SIGNAL:
            return False
        path = message.path or ""
        if message.interface == _PROPERTIES and path.startswith(_UNIT_PATH):
            unit = unescape(path.removeprefix(_UNIT_PATH))
            if identify(unit) is not None:
                self._on_properties(unit, message.body[0], _values(message.body[1]))
        elif message.interface == _MANAGER and path == _MANAGER_PATH:
            match message.member:
                case "JobRemoved":
                    _, job, unit, result = message.body
                    if unit in self._done:
                        self._done[unit].put_nowait((job, result))
                case "UnitRemoved":
                    self._on_removed(message.body[0])
                case "Reloading" if message.body == [True]:
                    # While systemd reads its files anew (at each `apt install` of a service), every unit is told as
                    # inactive for a moment, and active again
                    self._reloading = True
                case "Reloading":
                    self._reloading = False
                    self._relearning = asyncio.ensure_future(self._learn())
        return False

    def _on_properties(self, unit: str, interface: str, values: dict[str, Any]) -> None:
        if self._reloading:
            return
        # systemd sends a service's own properties first, then those that every unit has, so that at a change
        # of ActiveState the rest is already known
        old = self._states.get(unit) or _new_state(unit)
        state = _with_properties(old, values)
        self._states[unit] = state
        if interface == _UNIT or state.ready != old.ready:
            self._tell(old, state)

    def _on_removed(self, unit: str) -> None:
        if self._reloading:
            return
        old = self._states.pop(unit, None)
        if old is not None:
            self._tell(
                old, dataclasses.replace(old, active_state="inactive", sub_state="dead", main_pid=0, ready=False)
            )

    def _tell(self, old: UnitState, state: UnitState) -> None:
        if (state.active_state, state.ready) != (old.active_state, old.ready):
            for callback in self._callbacks:
                callback(state)

    async def _learn(self) -> None:
        """Ask for every unit of ours, at the beginning and where signals may have been missed."""
        listed = (await self._manager("ListUnitsByPatterns", "asas", [], _PATTERNS))[0]
        seen: set[str] = set()
        for unit, _, _, active_state, _, _, path, *_ in listed:
            if identify(unit) is None or active_state == "inactive":
                continue
            seen.add(unit)
            with contextlib.suppress(_DBusError):
                service = await self._get_all(path, _SERVICE)
                general = await self._get_all(path, _UNIT)
                self._on_properties(unit, _SERVICE, service)
                self._on_properties(unit, _UNIT, general)
        for unit in self._states.keys() - seen:
            self._on_removed(unit)

    # Calls

    async def _job(self, unit: str, member: str, signature: str, *body: Any) -> None:
        """Call a method that queues a job, and wait until the job is done."""
        done: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self._done[unit] = done
        try:
            async with asyncio.timeout(_JOB_TIMEOUT):
                (job,) = await self._manager(member, signature, *body)
                result = ""
                while not result:
                    finished, outcome = await done.get()
                    result = outcome if finished == job else ""
        except TimeoutError:
            raise IllumiDeskError(
                f"{unit} took longer than {_JOB_TIMEOUT:.0f} seconds",
                hint=f"systemctl status {unit}",
                status=504,
            ) from None
        finally:
            del self._done[unit]
        if result not in ("done", "skipped"):
            raise IllumiDeskError(
                f"{unit} {'did not stop' if member == 'StopUnit' else 'could not be started'} ({result})",
                hint=f"sudo journalctl -u {unit}",
                status=500,
            )

    async def _manager(self, member: str, signature: str = "", *body: Any) -> list[Any]:
        return await self._call(_SYSTEMD, _MANAGER_PATH, _MANAGER, member, signature, *body)

    async def _call_bus(self, member: str, signature: str, *body: Any) -> list[Any]:
        name = "org.freedesktop.DBus"
        return await self._call(name, "/org/freedesktop/DBus", name, member, signature, *body)

    async def _call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", *body: Any
    ) -> list[Any]:
        reply = await self._bus.call(
            Message(
                destination=destination,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
            )
        )
        if reply.message_type is MessageType.ERROR:
            raise _DBusError(reply.error_name or "", str(reply.body[0]) if reply.body else "")
        return list(reply.body)

    async def _get(self, unit: str, interface: str, name: str) -> Any:
        reply = await self._call(_SYSTEMD, _UNIT_PATH + escape(unit), _PROPERTIES, "Get", "ss", interface, name)
        return reply[0].value

    async def _get_all(self, path: str, interface: str) -> dict[str, Any]:
        reply = await self._call(_SYSTEMD, path, _PROPERTIES, "GetAll", "s", interface)
        return _values(reply[0])

    async def _is_foreign(self, unit: str) -> bool:
        """Whether a unit of a person's name is the machine's own, such as a `jupyter-lab.service` in /etc."""
        if identify(unit) is None:
            return True
        # GetUnit refuses (NoSuchUnit) what is not loaded, where reading a property would load it
        (path,) = await self._manager("GetUnit", "s", unit)
        # in one answer, since one that ends by itself is unloaded between two
        now = await self._get_all(path, _UNIT)
        return unit.startswith("jupyter-") and now["LoadState"] == "loaded" and not now["Transient"]

    async def _measure(self, state: UnitState) -> UnitState:
        try:
            memory, cpu, tasks = await asyncio.gather(
                *(self._get(state.unit, _SERVICE, name) for name in ("MemoryCurrent", "CPUUsageNSec", "TasksCurrent"))
            )
        except _DBusError:
            return state
        return dataclasses.replace(
            state,
            memory=None if memory == _UNKNOWN else memory,
            cpu=None if cpu == _UNKNOWN else cpu / 1e9,
            tasks=None if tasks == _UNKNOWN else tasks,
        )


def escape(unit: str) -> str:
    """A unit's name as the last part of its D-Bus path (sd-bus's `bus_label_escape`)."""
    return "".join(
        c if c.isascii() and (c.isalpha() or (c.isdigit() and i > 0)) else f"_{ord(c):02x}" for i, c in enumerate(unit)
    )


def unescape(label: str) -> str:
    """The name that `escape` made a path of."""
    return re.sub(r"_([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), label)


def _new_state(unit: str) -> UnitState:
    found = identify(unit)
    assert found is not None  # noqa: S101 - callers look first
    return UnitState(unit, *found)


def _with_properties(state: UnitState, values: dict[str, Any]) -> UnitState:
    changes: dict[str, Any] = {}
    for ours, theirs in (
        ("active_state", "ActiveState"),
        ("sub_state", "SubState"),
        ("result", "Result"),
        ("main_pid", "MainPID"),
    ):
        if theirs in values:
            changes[ours] = values[theirs]
    if "StatusText" in values:
        changes["ready"] = values["StatusText"] == names.READY
    if "ExecMainCode" in values and "ExecMainStatus" in values:
        code, status = values["ExecMainCode"], values["ExecMainStatus"]
        # 0: none has ended since the unit was started
        changes["exit_status"] = None if code == 0 else status if code == _CLD_EXITED else 128 + status
    # Newer systemd passes through `failed` on its way to Restart=; for us the unit goes on
    if changes.get("sub_state", "").endswith("-before-auto-restart"):
        changes["active_state"] = "activating"
    # Between the two halves of `systemctl restart` a unit is inactive with a job that will start it: it goes on, too
    job, _ = values.get("Job", (0, ""))
    if job and changes.get("active_state") in ("inactive", "failed"):
        changes["active_state"] = "activating"
    return dataclasses.replace(state, **changes)


def _values(variants: dict[str, Variant]) -> dict[str, Any]:
    return {name: variant.value for name, variant in variants.items()}


def _foreign(unit: str) -> IllumiDeskError:
    return IllumiDeskError(
        f"{unit} is a unit of this machine that IllumiDesk did not make",
        hint=f"systemctl status {unit}",
        status=409,
    )


def _refused(unit: str, error: _DBusError) -> IllumiDeskError:
    # systemd's text names units and properties, never the environment: that goes by file
    return IllumiDeskError(
        f"systemd refused {unit}: {error}", hint="sudo journalctl -u illumidesk-supervisor", status=500
    )
