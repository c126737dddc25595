"""Make a process that root forked one like the caller, in all that the kernel keeps of a process.

The caller was started by systemd into the person's sandbox. What systemd did to it is read from the kernel and done to
this process; in the end both are compared, field by field. A process that is not like its caller ends.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from illumidesk.forkserver import linux
from illumidesk.forkserver.caller import Caller, Refused, hierarchy, parse_cgroups, parse_status

#: Namespaces to go into, in this order: the view of the files last, since what came before is read in it.
_JOINED = ("cgroup", "ipc", "uts", "net", "mnt")
#: Namespaces in which the caller must be with us already.
_SHARED = ("user", "pid", "pid_for_children", "time", "time_for_children")
#: Names in `/proc/PID/limits` → Python's.
_LIMITS = {
    "Max cpu time": resource.RLIMIT_CPU,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max data size": resource.RLIMIT_DATA,
    "Max stack size": resource.RLIMIT_STACK,
    "Max core file size": resource.RLIMIT_CORE,
    "Max resident set": resource.RLIMIT_RSS,
    "Max processes": resource.RLIMIT_NPROC,
    "Max open files": resource.RLIMIT_NOFILE,
    "Max locked memory": resource.RLIMIT_MEMLOCK,
    "Max address space": resource.RLIMIT_AS,
    "Max file locks": 10,  # RLIMIT_LOCKS, which Linux has given up and still counts
    "Max pending signals": resource.RLIMIT_SIGPENDING,
    "Max msgqueue size": resource.RLIMIT_MSGQUEUE,
    "Max nice priority": resource.RLIMIT_NICE,
    "Max realtime priority": resource.RLIMIT_RTPRIO,
    "Max realtime timeout": resource.RLIMIT_RTTIME,
}
#: Fields of `status` that must be the same in the end; those that a kernel does not have are the same.
_COMPARED = (
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Speculation_Store_Bypass",
    "SpeculationIndirectBranch",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "Cpus_allowed",
    "Mems_allowed",
    "SigBlk",
    "SigIgn",
    "CoreDumping",
    "THP_enabled",
)
#: Files of /proc that must be the same in the end.
_COMPARED_FILES = ("limits", "oom_score_adj", "cgroup", "personality")
_NICE = 16  # in `stat`, after the name


@dataclass(frozen=True)
class Likeness:
    """What is read of the caller while it waits.

    Args:
        caller: who.
        filters: its system call filters, the newest first.
        namespaces: those to go into, open.
        files: what `_COMPARED_FILES` hold; `personality` is read later, by the person.
        priority: its nice value.
        processors: those it may run on.
    """

    caller: Caller
    filters: list[bytes]
    namespaces: list[int]
    files: dict[str, str]
    priority: int
    processors: set[int]


def read(caller: Caller) -> Likeness:
    """Look at the caller.

    Raises:
        Refused: where there is something about it that a forked process could not have.
    """
    status = caller.status
    if status["NoNewPrivs"] != "1" or any(int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")):
        raise Refused("its unit has rights that a forked server could not have")
    stat = caller.read("stat").rpartition(")")[2].split()
    policy, realtime = stat[38], stat[37]
    if (policy, realtime) != ("0", "0"):
        raise Refused("its unit has a scheduling policy of its own")
    return Likeness(
        caller=caller,
        filters=_filters(caller),
        namespaces=_namespaces(caller),
        files={name: caller.read(name) for name in ("limits", "oom_score_adj", "cgroup")},
        priority=int(stat[_NICE]),
        processors=os.sched_getaffinity(caller.pid),
    )


def _filters(caller: Caller) -> list[bytes]:
    if caller.status["Seccomp"] == "0":
        return []
    try:
        linux.stop_process(caller.pid)
        try:
            # The process that is stopped now is the one whose folder we have.
            count = int(parse_status(caller.read("status"))["Seccomp_filters"])
            return linux.filters_of(caller.pid, count)
        finally:
            linux.let_go(caller.pid)
    except (OSError, KeyError) as error:
        raise Refused(f"the kernel does not show its system call filters ({error})") from None


def _namespaces(caller: Caller) -> list[int]:
    def identity(folder: int, name: str) -> tuple[int, int] | None:
        try:
            found = os.stat(f"ns/{name}", dir_fd=folder)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    own = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in _SHARED:
            if identity(own, name) != identity(caller.process, name):
                raise Refused(f"its unit has a {name} namespace of its own")
        return [
            os.open(f"ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=caller.process)
            for name in _JOINED
            if identity(own, name) != identity(caller.process, name)
        ]
    finally:
        os.close(own)


def join(likeness: Likeness) -> None:
    """Go into the caller's control groups and namespaces. The process is root's still."""
    caller = likeness.caller
    own = parse_cgroups(Path("/proc/self/cgroup").read_text("utf-8"))
    for controllers, path in caller.cgroups.items():
        if own.get(controllers) != path:
            hierarchy(controllers).joinpath(path.lstrip("/"), "cgroup.procs").write_text("0")
    Path("/proc/self/oom_score_adj").write_text(likeness.files["oom_score_adj"])
    for namespace in likeness.namespaces:
        linux.setns(namespace)
        os.close(namespace)


def become(likeness: Likeness) -> None:
    """Take the caller's limits and account, and give up every right of root's.

    Raises:
        Refused: where this process is not like the caller in the end.
    """
    status = likeness.caller.status
    os.setsid()
    os.umask(int(status["Umask"], 8))
    os.setpriority(os.PRIO_PROCESS, 0, likeness.priority)
    os.sched_setaffinity(0, likeness.processors)
    for kind, limit in _parse_limits(likeness.files["limits"]).items():
        resource.setrlimit(kind, limit)
    bounding = int(status["CapBnd"], 16)
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if not bounding >> capability & 1:
            linux.drop_from_bounding_set(capability)
    uid, gid = int(status["Uid"].split()[0]), int(status["Gid"].split()[0])
    os.setgroups([int(group) for group in status["Groups"].split()])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    linux.drop_capabilities()
    linux.no_new_privileges()
    linux.set_dumpable()
    linux.join_new_session_keyring()
    for program in reversed(likeness.filters):
        linux.install_filter(program)
    _compare(likeness)


def _parse_limits(text: str) -> dict[int, tuple[int, int]]:
    found = {}
    for line in text.splitlines()[1:]:
        name, soft, hard = line[:26].strip(), line[26:46].strip(), line[47:67].strip()
        if name not in _LIMITS:
            raise Refused(f"the kernel has a limit that is not known here ({name})")
        pair = tuple(resource.RLIM_INFINITY if word == "unlimited" else int(word) for word in (soft, hard))
        found[_LIMITS[name]] = (pair[0], pair[1])
    return found


def _compare(likeness: Likeness) -> None:
    caller = likeness.caller
    own = parse_status(Path("/proc/self/status").read_text("utf-8"))
    differing = [name for name in _COMPARED if own.get(name) != caller.status.get(name)]
    theirs = likeness.files | {"personality": caller.read("personality")}
    differing += [name for name in _COMPARED_FILES if Path("/proc/self", name).read_text("utf-8") != theirs[name]]
    for name in _JOINED:
        if Path("/proc/self/ns", name).readlink() != Path(os.readlink(f"ns/{name}", dir_fd=caller.process)):
            differing.append(f"{name} namespace")
    if _security_label("/proc/self/attr/current") != _security_label("attr/current", caller.process):
        differing.append("security label")
    if differing:
        raise Refused(f"the forked process differs from it in {', '.join(differing)}")


def _security_label(path: str, folder: int | None = None) -> str:
    """What a Linux security module calls a process; empty where none does."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
