"""System calls that Python does not have. Each raises OSError as Python's own do."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.syscall.restype = ctypes.c_long
_libc.sbrk.restype = ctypes.c_void_p

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_MM = 35
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_MM_MAP = 14
_SECCOMP_MODE_FILTER = 2
_PTRACE_DETACH = 17
_PTRACE_SEIZE, _PTRACE_INTERRUPT, _PTRACE_SECCOMP_GET_FILTER = 0x4206, 0x4207, 0x420C
_WALL = 0x40000000
_KEYCTL_JOIN_SESSION_KEYRING = 1
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_CAPABILITY_VERSION_3 = 0x20080522
#: Bytes of an instruction of a filter (struct sock_filter).
_INSTRUCTION = 8


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


class _Layout(ctypes.Structure):
    """struct prctl_mm_map."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk")),
        *((name, ctypes.c_uint64) for name in ("start_stack", "arg_start", "arg_end", "env_start", "env_end")),
        ("auxv", ctypes.c_void_p),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_int32),
    ]


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _prctl(option: int, *arguments: int) -> int:
    return _checked(_libc.prctl(option, *arguments, *[0] * (4 - len(arguments))))


def setns(namespace: int) -> None:
    """Go into the namespace of a file descriptor of `/proc/PID/ns/…`."""
    _checked(_libc.setns(namespace, 0))


def no_new_privileges() -> None:
    """Nothing that is executed from now on gains rights."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_from_bounding_set(capability: int) -> None:
    """A capability that this process and its children can never have again."""
    _prctl(_PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Have no capability of any kind; what the bounding set allows stays."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, (ctypes.c_uint32 * 6)()))


def set_dumpable() -> None:
    """As after an execve: `/proc/self` is the process's own, and its owner may debug it."""
    _prctl(_PR_SET_DUMPABLE, 1)


def set_name(name: str) -> None:
    """The process's name, as `ps` shows it."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def set_beginning(words: list[bytes], variables: Mapping[bytes, bytes]) -> None:
    """What the process was started with, as `ps` and `/proc/PID/cmdline` and `environ` show it."""
    global _beginning  # the kernel reads it as long as the process lives
    line = b"".join(b"%s\0" % word for word in words)
    text = line + b"".join(b"%s=%s\0" % pair for pair in variables.items())
    fresh = ctypes.create_string_buffer(text, len(text))
    start = ctypes.addressof(fresh)
    middle = start + len(line)
    # The fields behind the name and the state, of which the first is number 4 in proc(5).
    after = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[1:]
    fields = [0, 0, 0, *map(int, after)]
    stat = {number: fields[number - 1] for number in (26, 27, 28, 45, 46, 47)}
    layout = _Layout(
        stat[26], stat[27], stat[45], stat[46], stat[47], _libc.sbrk(0), stat[28], start, middle, middle,
        start + len(text), None, 0, -1,
    )  # fmt: skip
    _prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.addressof(layout), ctypes.sizeof(layout))
    _beginning = fresh


_beginning: Any = None


def join_new_session_keyring() -> None:
    """Have a session keyring that nobody else has. On a kernel without keyrings there is nothing to do."""
    number = _KEYCTL.get(platform.machine())
    if number is None:
        raise OSError(f"the number of keyctl is not known on {platform.machine()}")
    try:
        _checked(_libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def stop_process(pid: int) -> None:
    """Stop a process as its tracer, until `let_go`."""
    _ptrace(_PTRACE_SEIZE, pid)
    _ptrace(_PTRACE_INTERRUPT, pid)
    os.waitpid(pid, _WALL)


def let_go(pid: int) -> None:
    """Let a process go on that `stop_process` stopped."""
    _ptrace(_PTRACE_DETACH, pid)


def filters_of(pid: int, count: int) -> list[bytes]:
    """The system call filters of a stopped process, the newest first: what the kernel runs, as it was installed.

    Args:
        pid: stopped by `stop_process`.
        count: how many it has (`Seccomp_filters` in its status).

    Raises:
        OSError: EACCES where this process has filters itself, as in a container.
    """
    found = []
    for index in range(count):
        length = _ptrace(_PTRACE_SECCOMP_GET_FILTER, pid, index)
        program = ctypes.create_string_buffer(length * _INSTRUCTION)
        _ptrace(_PTRACE_SECCOMP_GET_FILTER, pid, index, ctypes.addressof(program))
        found.append(program.raw)
    return found


def install_filter(program: bytes) -> None:
    """Filter this process's system calls and its children's, for ever."""
    filled = _Program(len(program) // _INSTRUCTION, program)
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filled))


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    return int(_checked(_libc.ptrace(request, pid, address, data)))
