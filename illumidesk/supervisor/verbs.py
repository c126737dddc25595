"""The verbs: what each does, in which order, and what must not happen at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import psutil

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths
from illumidesk.supervisor import files, policy, quoting
from illumidesk.supervisor.accounts import Accounts
from illumidesk.supervisor.courses import Courses
from illumidesk.supervisor.units import Account, Launch, Units, UnitState

log = logging.getLogger("illumidesk.supervisor")

#: Seconds from a unit's end to the removal of its environment.
_GRACE = 5.0

#: What a machine without room says, which is no fault of ours.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

T = TypeVar("T")
Answer = dict[str, Any]


class Supervisor:
    """What the hub can have done, each thing by a verb of `policy.VERBS`.

    Args:
        paths: the layout.
        units: who runs units.
        accounts: where accounts come from.
        owner: the uid that environments must belong to; anything but root's is for tests.
    """

    def __init__(self, paths: Paths, units: Units, accounts: Accounts, *, owner: int = 0) -> None:
        self._paths = paths
        self._units = units
        self._accounts = accounts
        self._courses = Courses(paths, accounts)
        self._owner = owner
        # /etc/passwd takes one writer at a time; files of a starting unit must not wait for it
        self._account_thread = ThreadPoolExecutor(1, thread_name_prefix="accounts")
        self._file_thread = ThreadPoolExecutor(1, thread_name_prefix="files")
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        units.watch(self._on_unit)
        self._remove_stale_environments()

    async def call(self, verb: str, raw: Any) -> Answer:
        """Carry out `verb` with the arguments `raw` (decoded JSON).

        Raises:
            IllumiDeskError: where the policy refuses it, or it cannot be done.
        """
        request = policy.parse(verb, raw)
        what = " ".join(f"{key}={getattr(request, key)}" for key in ("name", "course_id") if hasattr(request, key))
        started = time.monotonic()
        handler: Callable[[Any], Awaitable[Answer]] = getattr(self, verb)
        try:
            answer = await handler(request)
        except IllumiDeskError as error:
            log.warning("%s %s refused: %s", verb, what, error.message)
            raise
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            log.error("%s %s failed: %s", verb, what, error)
            raise IllumiDeskError(
                f"{error.filename or 'the disk'}: {error.strerror}", hint="df -h shows which disk is full", status=500
            ) from None
        if verb not in ("units", "host", "assignments"):
            log.info("%s %s done in %.2f s", verb, what, time.monotonic() - started)
        return answer

    def close(self) -> None:
        """Wait until what was begun on disk is finished."""
        self._account_thread.shutdown()
        self._file_thread.shutdown()

    # People

    async def ensure_account(self, request: policy.EnsureAccount) -> Answer:
        """Make a person's account, or find it made."""
        account, created = await self._on_accounts(
            lambda: self._accounts.ensure_person(request.name, restore=request.restore)
        )
        return {"name": account.name, "uid": account.uid, "home": str(account.home), "created": created}

    async def retire_account(self, request: policy.OfPerson) -> Answer:
        """Stop a person's server and close the account for good."""
        unit = names.server_unit(request.name)
        async with self._alone(unit):
            # First, so that no server can start between
            await self._on_accounts(lambda: self._accounts.retire_person(request.name))
            await self._stop(unit)
            await self._on_files(lambda: files.remove_tree(self._paths.server_socket(request.name).parent))
        return {}

    async def start_server(self, request: policy.StartServer) -> Answer:
        """Start a person's server anew."""
        unit = names.server_unit(request.name)
        socket = self._paths.server_socket(request.name)
        async with self._alone(unit):
            account = await self._on_files(lambda: self._accounts.person(request.name))
            writable = await self._on_files(lambda: self._courses.writable(account))
            launch = dataclasses.replace(
                self._launch(unit, account, request, socket),
                properties=request.properties,
                writable=writable,
                fork_server=request.environment if request.fork_server else "",
            )
            await self._stop(unit)
            await self._on_files(lambda: self._courses.forget_running(account))
            await self._start(launch, self._units.start_server)
        return {"unit": unit, "socket": str(socket), "uid": account.uid}

    async def stop_server(self, request: policy.OfPerson) -> Answer:
        """Stop a person's server."""
        unit = names.server_unit(request.name)
        async with self._alone(unit):
            await self._stop(unit)
        return {}

    # Courses

    async def ensure_course(self, request: policy.OfCourse) -> Answer:
        """Make a course's account, folders and exchange, or find them made."""
        async with self._alone(f"course {request.course_id}"):
            account, created = await self._on_accounts(lambda: self._courses.ensure(request.course_id))
        return {
            "course_id": request.course_id,
            "account": account.name,
            "home": str(account.home),
            "created": created,
        }

    async def remove_course(self, request: policy.OfCourse) -> Answer:
        """Archive a course and remove it."""
        unit = names.grader_unit(request.course_id)
        async with self._alone(f"course {request.course_id}"), self._alone(unit):
            await self._stop(unit)
            # In a thread of its own: a big course takes minutes, and people sign in meanwhile
            archive = await asyncio.to_thread(self._courses.archive, request.course_id)
            await self._on_accounts(lambda: self._courses.remove(request.course_id))
        return {"archive": str(archive)}

    async def set_membership(self, request: policy.SetMembership) -> Answer:
        """Let a person into a course's exchange and shared folder, or out."""
        unit = names.server_unit(request.name)
        async with self._alone(f"course {request.course_id}"), self._alone(unit):
            running = any(state.unit == unit and state.running for state in self._units.snapshot())
            await self._on_accounts(
                lambda: self._courses.set_membership(
                    request.course_id, request.name, member=request.member, running=running, staff=request.staff
                )
            )
        return {}

    async def start_grader(self, request: policy.StartGrader) -> Answer:
        """Start a course's grader anew."""
        unit = names.grader_unit(request.course_id)
        socket = self._paths.grader_socket(request.course_id)
        async with self._alone(unit):
            account = await self._on_files(lambda: self._accounts.grader(request.course_id))
            launch = self._launch(unit, account, request, socket)
            # The unit's file runs what these two say
            command = {
                "ILLUMIDESK_COMMAND": str(launch.command),
                "ILLUMIDESK_ARGUMENTS": quoting.words(launch.arguments),
            }
            launch = dataclasses.replace(launch, variables=request.variables | command)
            await self._stop(unit)
            await self._start(launch, self._units.start_grader)
        return {"unit": unit, "socket": str(socket), "uid": account.uid}

    async def stop_grader(self, request: policy.OfCourse) -> Answer:
        """Stop a course's grader."""
        unit = names.grader_unit(request.course_id)
        async with self._alone(unit):
            await self._stop(unit)
        return {}

    # Looking

    async def assignments(self, request: policy.OfCourse) -> Answer:
        """The names of a course's released assignments."""
        return {"assignments": await self._on_files(lambda: self._courses.released(request.course_id))}

    async def units(self, request: policy.Nothing) -> Answer:
        """Every unit of ours, with what it uses."""
        states = await self._units.measured()
        return {"units": [state.as_dict() for state in sorted(states, key=lambda state: state.unit)]}

    async def host(self, request: policy.Nothing) -> Answer:
        """The machine's own figures: bytes, percent, seconds."""
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        home = self._paths.home if self._paths.home.is_dir() else self._paths.root
        disk = psutil.disk_usage(str(home))
        return {
            "cpu_percent": psutil.cpu_percent(),  # since the call before
            "cores": os.cpu_count() or 1,
            "memory_total": memory.total,
            "memory_available": memory.available,
            "swap_total": swap.total,
            "swap_free": swap.free,
            "disk_total": disk.total,
            "disk_free": disk.free,
            "uptime": time.time() - psutil.boot_time(),
            "load": list(psutil.getloadavg()),
        }

    # Parts

    def _launch(
        self, unit: str, account: Account, request: policy.StartServer | policy.StartGrader, socket: Path
    ) -> Launch:
        return Launch(
            unit=unit,
            account=account,
            command=policy.check_environment_tree(self._paths, request.environment, owner=self._owner),
            arguments=tuple(request.arguments),
            variables=request.variables,
            environment_file=self._environment_file(unit),
            socket_folder=socket.parent,
            limits=request.limits,
        )

    async def _start(self, launch: Launch, start: Callable[[Launch], Awaitable[None]]) -> None:
        await self._on_files(lambda: self._prepare(launch))
        try:
            await start(launch)
        except BaseException:
            launch.environment_file.unlink(missing_ok=True)
            raise

    def _prepare(self, launch: Launch) -> None:
        """What a unit finds when it starts: its environment, and an empty folder for its socket."""
        self._paths.unit_environments.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.open_folder(self._paths.unit_environments) as folder:
            text = quoting.environment_file(launch.variables)
            root = {"uid": os.getuid(), "gid": os.getgid()}
            files.write_file(folder, launch.environment_file.name, text, mode=0o600, replace=True, **root)
        # The account may have left anything in its folder, so it gets a new one
        files.remove_tree(launch.socket_folder)
        if not launch.socket_folder.parent.is_dir():
            launch.socket_folder.parent.mkdir(parents=True)
            launch.socket_folder.parent.chmod(0o711)  # which the umask would make 0700, and nobody would come in
        with (
            files.open_folder(launch.socket_folder.parent) as parent,
            files.ensure_folder(
                parent,
                launch.socket_folder.name,
                mode=0o2750,
                uid=launch.account.uid,
                gid=self._accounts.sockets_gid(),
            ),
        ):
            pass

    async def _stop(self, unit: str) -> None:
        await self._units.stop(unit)
        self._environment_file(unit).unlink(missing_ok=True)

    def _on_unit(self, state: UnitState) -> None:
        log.info("%s is %s (%s)", state.unit, "ready" if state.ready else state.active_state, state.result)
        if not state.running:
            # Not at once: on its way to Restart= a unit passes through `failed`
            asyncio.get_running_loop().call_later(_GRACE, self._remove_environment, state.unit)

    def _remove_environment(self, unit: str) -> None:
        running = any(state.unit == unit and state.running for state in self._units.snapshot())
        # Whoever holds the lock looks after the file, and may have written a new one already
        if not running and unit not in self._locks:
            self._environment_file(unit).unlink(missing_ok=True)

    def _environment_file(self, unit: str) -> Path:
        return self._paths.unit_environments / f"{unit}.env"

    def _remove_stale_environments(self) -> None:
        """Remove the environments of units that ended while no supervisor ran."""
        running = {self._environment_file(state.unit) for state in self._units.snapshot() if state.running}
        with contextlib.suppress(FileNotFoundError):
            for file in list(self._paths.unit_environments.iterdir()):
                if file not in running:
                    file.unlink()

    @contextlib.asynccontextmanager
    async def _alone(self, what: str) -> AsyncIterator[None]:
        """Nobody else is at work on `what` meanwhile."""
        lock = self._locks.setdefault(what, asyncio.Lock())
        async with lock:
            yield

    async def _on_accounts(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._account_thread, function)

    async def _on_files(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._file_thread, function)
