"""Who asks for a fork: by what the kernel tells, and nothing that the caller says."""

from __future__ import annotations

import os
import pwd
import re
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from illumidesk import names
from illumidesk.errors import IllumiDeskError

_UCRED = struct.Struct("=iII")  # pid, uid, gid
_SO_PEERPIDFD = 77  # Linux 6.5
_SLICE = "/illumidesk.slice/illumidesk-users.slice"
_UNIT = re.compile(rf"{re.escape(_SLICE)}/(jupyter-([a-z0-9_-]+)\.service)", re.ASCII)


class Refused(Exception):  # noqa: N818 -- what happens to the caller
    """No fork for this caller, in half a sentence that the person's journal shows."""


@dataclass(frozen=True)
class Caller:
    """The one process of a person's unit that is starting.

    Args:
        pid: its number.
        account: whose it is.
        process: its folder in /proc, open. What is read below it is this process's, or nothing once it has ended.
        status: the fields of its `status`.
        cgroups: its line for each hierarchy: the controllers (empty for version 2), and its path.
    """

    pid: int
    account: pwd.struct_passwd
    process: int
    status: dict[str, str]
    cgroups: dict[str, str]

    def read(self, name: str) -> str:
        """A file of the process in /proc."""
        return read_at(self.process, name)

    def close(self) -> None:
        """Close its folder."""
        os.close(self.process)


def read_at(folder: int, name: str) -> str:
    """A file below an open folder of /proc."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read()


def parse_status(text: str) -> dict[str, str]:
    """The fields of a process's `status`; see proc(5)."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: " ".join(value.split()) for name, value in pairs}


def parse_cgroups(text: str) -> dict[str, str]:
    """The path in each hierarchy by its controllers, of a process's `cgroup`; see cgroups(7)."""
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in text.splitlines())}


def unit_path(cgroups: dict[str, str]) -> str:
    """The path by which systemd knows a process's unit."""
    return cgroups.get("name=systemd") or cgroups.get("", "")


def hierarchy(controllers: str) -> Path:
    """Where a hierarchy is mounted.

    Raises:
        Refused: where it is not.
    """
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        fits = kind == "cgroup2" if not controllers else kind == "cgroup"
        if fits and set(filter(None, controllers.split(","))) <= set(options.split(",")):
            return Path(before.split(" ")[4])
    raise Refused(f"there is no control group hierarchy {controllers or 'of version 2'}")


def identify(connection: socket.socket) -> Caller:
    """The process at the other end.

    It must be the only process of `jupyter-NAME.service`, as the account NAME: a unit has one process when it starts,
    and more or another one when people's programs run in it.

    Raises:
        Refused: where it is anything else.
    """
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        process = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise Refused(f"process {pid} has ended") from None
    try:
        _check_alive(connection)
        return _verified(pid, uid, gid, process)
    except (OSError, ValueError, KeyError) as error:
        os.close(process)
        raise Refused(f"process {pid} cannot be looked at ({error})") from None
    except Refused:
        os.close(process)
        raise


def _check_alive(connection: socket.socket) -> None:
    """That the number was this process's when its folder was opened, where the kernel can say so.

    Where it cannot, the number may have passed on to another process. Whatever that is must still be the only process
    of the unit of the very account that has connected.
    """
    try:
        pidfd = struct.unpack("=i", connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4))[0]
    except OSError:
        return
    ended, _, _ = select.select([pidfd], [], [], 0)
    os.close(pidfd)
    if ended:
        raise Refused("the caller has ended")


def _verified(pid: int, uid: int, gid: int, process: int) -> Caller:
    status = parse_status(read_at(process, "status"))
    cgroups = parse_cgroups(read_at(process, "cgroup"))
    found = _UNIT.fullmatch(unit_path(cgroups))
    if found is None:
        raise Refused(f"process {pid} of uid {uid} is in no person's unit")
    account = pwd.getpwuid(uid)
    try:
        unit = names.server_unit(account.pw_name)
    except IllumiDeskError:
        raise Refused(f"{account.pw_name} is no account of a person") from None
    if unit != found[1]:
        raise Refused(f"process {pid} of {account.pw_name} is in {found[1]}")
    if status["Uid"] != " ".join([str(uid)] * 4) or status["Gid"] != " ".join([str(gid)] * 4):
        raise Refused(f"process {pid} has changed its account")
    controllers = "name=systemd" if "name=systemd" in cgroups else ""
    inside = hierarchy(controllers).joinpath(unit_path(cgroups).lstrip("/"), "cgroup.procs").read_text().split()
    if inside != [str(pid)] or status["Threads"] != "1" or status["TracerPid"] != "0":
        raise Refused(f"{unit} is not starting: it has {len(inside)} processes")
    return Caller(pid, account, process, status, cgroups)
