"""The supervisor's backends for machines without systemd: units as plain processes, every account the one
that runs.

The processes outlive the supervisor, as units do: what runs is noted in the run folder and found again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pwd
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths
from illumidesk.supervisor import files
from illumidesk.supervisor.units import Account, Launch, UnitState, identify


class ProcessUnits:
    """`illumidesk.supervisor.units.Units` with plain processes. Output goes to var/log/illumidesk/UNIT.log.

    Args:
        paths: the layout.
        stop_timeout: seconds from SIGTERM to SIGKILL.
    """

    def __init__(self, paths: Paths, *, stop_timeout: float = 10.0) -> None:
        self._paths = paths
        self._stop_timeout = stop_timeout
        self._notes = paths.run / "process-units"
        self._states: dict[str, UnitState] = {}
        self._processes: dict[str, psutil.Process] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._stopping: set[str] = set()
        self._callbacks: list[Callable[[UnitState], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopt()

    async def start_server(self, launch: Launch) -> None:
        await self._start(launch, umask=0o027)

    async def start_grader(self, launch: Launch) -> None:
        await self._start(launch, umask=0o022)

    async def stop(self, unit: str) -> None:
        process = self._processes.get(unit)
        if process is not None:
            self._stopping.add(unit)
            self._change(unit, active_state="deactivating", sub_state="stop-sigterm")
            ended = self._ended[unit]
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
            try:
                await asyncio.wait_for(ended.wait(), self._stop_timeout)
            except TimeoutError:
                self._kill_session(process.pid)
                await ended.wait()
        if self._states.get(unit) is not None:
            if self._states[unit].active_state == "failed":  # as after ResetFailedUnit
                self._change(unit, active_state="inactive", sub_state="dead", result="success")
            del self._states[unit]

    async def measured(self) -> list[UnitState]:
        return [self._measure(state) for state in self.snapshot()]

    def snapshot(self) -> list[UnitState]:
        return [state for state in self._states.values() if state.active_state != "inactive"]

    def watch(self, callback: Callable[[UnitState], None]) -> None:
        self._callbacks.append(callback)

    async def _start(self, launch: Launch, *, umask: int) -> None:
        account, unit = launch.account, launch.unit
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "LANG": "C.UTF-8",
            "HOME": str(account.home),
            "USER": account.name,
            "LOGNAME": account.name,
            "SHELL": "/bin/bash",
            **launch.variables,
        }
        self._paths.log.mkdir(parents=True, exist_ok=True)
        self._change(unit, active_state="activating", sub_state="start", result="success", exit_status=None)
        try:
            with (self._paths.log / f"{unit}.log").open("ab") as output:
                child = subprocess.Popen(
                    [str(launch.command), *launch.arguments],
                    cwd=account.home,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    umask=umask,
                )
        except OSError as error:
            self._change(unit, active_state="failed", sub_state="failed", result="exit-code", exit_status=203)
            raise IllumiDeskError(f"{unit} could not be started (failed)", hint=f"{error}", status=500) from None
        process = psutil.Process(child.pid)
        self._notes.mkdir(parents=True, exist_ok=True)
        (self._notes / unit).write_text(json.dumps([child.pid, process.create_time()]))
        self._follow(unit, process, child)

    def _adopt(self) -> None:
        """Find what an earlier supervisor started."""
        for note in self._notes.iterdir() if self._notes.is_dir() else ():
            pid, created = json.loads(note.read_text())
            try:
                process = psutil.Process(pid)
                if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                    self._follow(note.name, process, None)
                    continue
            except psutil.NoSuchProcess:
                pass
            note.unlink()

    def _follow(self, unit: str, process: psutil.Process, child: subprocess.Popen[bytes] | None) -> None:
        self._processes[unit] = process
        self._ended[unit] = asyncio.Event()
        self._change(unit, active_state="active", sub_state="running", main_pid=process.pid)
        task = asyncio.get_running_loop().create_task(self._wait(unit, process.pid, child))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, unit: str, pid: int, child: subprocess.Popen[bytes] | None) -> None:
        ended = asyncio.get_running_loop().create_future()
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(fd, lambda: ended.done() or ended.set_result(None))
            try:
                await ended
            finally:
                asyncio.get_running_loop().remove_reader(fd)
                os.close(fd)
        self._kill_session(pid)  # as systemd ends what is left in the unit's cgroup
        code = child.wait() if child is not None else 0  # somebody else's child: its code is not known
        status = code if code >= 0 else 128 - code
        fine = code in (0, -signal.SIGTERM) or unit in self._stopping
        (self._notes / unit).unlink(missing_ok=True)
        del self._processes[unit]
        self._change(
            unit,
            active_state="inactive" if fine else "failed",
            sub_state="dead" if fine else "failed",
            result="success" if fine else "exit-code" if code > 0 else "signal",
            main_pid=0,
            exit_status=status,
        )
        self._stopping.discard(unit)
        self._ended[unit].set()

    def _change(self, unit: str, **changes: object) -> None:
        found = identify(unit)
        assert found is not None
        old = self._states.get(unit) or UnitState(unit, *found)
        state = dataclasses.replace(old, **changes)  # type: ignore[arg-type]
        self._states[unit] = state
        if state.active_state != old.active_state:
            for callback in self._callbacks:
                callback(state)

    def _measure(self, state: UnitState) -> UnitState:
        memory, cpu, tasks = 0, 0.0, 0
        try:
            process = self._processes[state.unit]
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess), each.oneshot():
                    memory += each.memory_info().rss
                    times = each.cpu_times()
                    cpu += times.user + times.system
                    tasks += each.num_threads()
        except (KeyError, psutil.NoSuchProcess):
            return state
        return dataclasses.replace(state, memory=memory, cpu=cpu, tasks=tasks)

    @staticmethod
    def _kill_session(session: int) -> None:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getsid(process.pid) == session:
                    process.kill()


class PrivateAccounts:
    """`illumidesk.supervisor.accounts.Accounts` where each account is the current user with a home in the
    layout.

    Args:
        paths: the layout.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._records = paths.state / "test-accounts"
        self._records.mkdir(parents=True, exist_ok=True)

    def ensure_person(self, name: str, *, restore: bool = False) -> tuple[Account, bool]:
        if self._system_account(names.check_account(name)):
            raise IllumiDeskError(
                f"{name} is an account of this machine that IllumiDesk did not make",
                hint="choose another name",
                status=409,
            )
        record = self._records / name
        if self._is_retired(name) and not restore:
            raise IllumiDeskError(f"the account {name} is retired", status=409)
        created = not record.exists()
        record.write_text("person")
        return self._account(name), created

    def person(self, name: str) -> Account:
        if not (self._records / names.check_account(name)).exists():
            raise IllumiDeskError(f"there is no account {name}", status=404)
        if self._is_retired(name):
            raise IllumiDeskError(f"the account {name} is retired", status=403)
        return self._account(name)

    def retire_person(self, name: str) -> None:
        self.person(name)
        (self._records / name).write_text("retired")

    def ensure_grader(self, course_id: str) -> tuple[Account, bool]:
        record = self._records / names.grader_account(course_id)
        created = not record.exists()
        record.write_text("grader")
        members = self._members(course_id)
        if not members.exists():
            members.write_text("[]")
        return self._account(record.name), created

    def grader(self, course_id: str) -> Account:
        name = names.grader_account(course_id)
        if not (self._records / name).exists():
            raise IllumiDeskError(f"there is no account {name}", status=404)
        return self._account(name)

    def courses(self) -> list[str]:
        return [record.name.removeprefix("grader-") for record in self._records.glob("grader-*")]

    def remove_grader(self, course_id: str) -> None:
        account = self.grader(course_id)
        files.remove_tree(account.home)
        self._members(course_id).unlink()
        (self._records / f"staff-{course_id}").unlink(missing_ok=True)
        (self._records / account.name).unlink()

    def members_gid(self, course_id: str) -> int:
        return os.getgid()

    def set_member(self, course_id: str, name: str, *, member: bool, staff: bool = False) -> None:
        self.grader(course_id)
        if not (self._records / names.check_account(name)).exists():
            if not member:
                return
            raise IllumiDeskError(f"there is no account {name}", status=404)
        found = set(json.loads(self._members(course_id).read_text()))
        found = found | {name} if member else found - {name}
        self._members(course_id).write_text(json.dumps(sorted(found)))
        teaching = set(self.staff(course_id)) - {name} | ({name} if member and staff else set())
        (self._records / f"staff-{course_id}").write_text(json.dumps(sorted(teaching)))

    def is_staff(self, course_id: str, name: str) -> bool:
        return name in self.staff(course_id)

    def staff(self, course_id: str) -> list[str]:
        """For tests: who is in the grader's own group."""
        record = self._records / f"staff-{course_id}"
        found: list[str] = json.loads(record.read_text()) if record.exists() else []
        return found

    def sockets_gid(self) -> int:
        return os.getgid()

    def members(self, course_id: str) -> list[str]:
        """For tests: who is in the group."""
        found: list[str] = json.loads(self._members(course_id).read_text())
        return found

    def _members(self, course_id: str) -> Path:
        return self._records / names.members_group(course_id)

    def _is_retired(self, name: str) -> bool:
        record = self._records / name
        return record.exists() and record.read_text() == "retired"

    def _account(self, name: str) -> Account:
        home = self._paths.home / name
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Account(name, os.getuid(), os.getgid(), home)

    @staticmethod
    def _system_account(name: str) -> bool:
        try:
            return pwd.getpwnam(name).pw_uid < 1000
        except KeyError:
            return False
