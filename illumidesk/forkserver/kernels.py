"""Kernels forked within a person's unit, from a helper that the person's server leaves behind when it begins.

The helper is a fork of the process that the fork server forked, before it became a server: it has the environment's
modules in memory, no threads and no event loop, and is the person's already. So nobody asks root for a kernel, and a
kernel is in the same sandbox as any other process of the unit. The helper ends with its server.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from illumidesk.forkserver import linux, person, personal
from illumidesk.forkserver.caller import Refused, parse_status
from illumidesk.forkserver.client import pack, unpack
from illumidesk.forkserver.personal import Environment

#: How jupyter_client starts the environment's own Python kernel.
_LAUNCHER = ["-m", "ipykernel_launcher"]
#: What kernels are made of.
_MODULES = ("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "IPython.core.completer")
#: What notebooks commonly begin with, where it is installed. Not matplotlib.pyplot: it takes its place in IPython when
#: it is imported, and is no more than the rest of matplotlib under other names.
_PACKAGES = (
    "numpy",
    "pandas",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.dates",
    "matplotlib.mlab",
    "matplotlib.style",
)
#: What matplotlib reads when it is imported, where it is: below a home, and in the folder of a notebook. Here it was
#: imported without any of it.
_OF_MATPLOTLIB = (".config/matplotlib/matplotlibrc", ".config/matplotlib/stylelib", ".fonts", ".local/share/fonts")
_MATPLOTLIBRC = "matplotlibrc"
#: How matplotlib draws in notebooks. ipykernel sets this variable, for matplotlib to read when it is imported.
_BACKEND = ("MPLBACKEND", "module://matplotlib_inline.backend_inline")
#: Bytes of a request: more than a packet of a unix socket can hold.
_MOST = 1 << 20


@dataclass(frozen=True)
class Helper:
    """The server's end.

    Args:
        pid: the helper's.
        channel: where requests go.
        loaded: with what the modules in memory were loaded.
        inherited: what kernels have of it (`_inherited`).
    """

    pid: int
    channel: socket.socket
    loaded: Environment
    inherited: tuple[object, ...]


#: Of this process; none where the server started the ordinary way.
helper: Helper | None = None


class ForkedKernel:
    """A kernel, as far as jupyter_client uses `subprocess.Popen`.

    Args:
        pid: its process, which leads a session of its own.
        connection: where the helper tells how it ended.
    """

    stdin = stdout = stderr = None

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._connection = connection

    def poll(self) -> int | None:
        """How it ended; None while it runs."""
        if self.returncode is None:
            with contextlib.suppress(BlockingIOError):
                self._learn(socket.MSG_DONTWAIT)
        return self.returncode

    def wait(self) -> int:
        """Wait until it has ended; how."""
        if self.returncode is None:
            self._learn(0)
        assert self.returncode is not None  # noqa: S101 -- just learnt
        return self.returncode

    def _learn(self, flags: int) -> None:
        said = self._connection.recv(32, flags)
        # Without a helper there are no kernels (they look whether their parent is there).
        self.returncode = int(said) if said else -signal.SIGKILL
        self._connection.close()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def leave_helper(loaded: Environment) -> Callable[[], Any] | None:
    """Fork the helper of this process, which is about to become a server.

    Returns:
        None in the server. In a forked kernel, long afterwards, what it has to do.
    """
    global helper
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        helper = Helper(pid, ours, loaded, _inherited())
        return None
    ours.close()
    os.setsid()
    # A kernel that is asked to end ends; the helper goes by its channel.
    with contextlib.suppress(OSError):
        linux.set_name("kernel-helper")
        linux.set_beginning([b"kernel-helper (kernels are forked from it)"], os.environb)
    gc.freeze()
    return _serve(theirs, loaded)


def fork(command: list[str], variables: Mapping[str, str], folder: str) -> ForkedKernel:
    """Have a kernel forked.

    Args:
        command: what would start it.
        variables: its environment.
        folder: where it starts.

    Raises:
        Refused: where a fork would not be what the command starts.
        OSError: where the helper does not answer.
    """
    if helper is None:
        raise Refused("this server started the ordinary way")
    if command[:3] != [sys.executable, *_LAUNCHER]:
        raise Refused("it is not the environment's own Python kernel")
    if _inherited() != helper.inherited:
        raise Refused("this server has changed its umask, nice value or processors")
    person.check_variables(variables, helper.loaded)
    _check_matplotlib(Path(variables.get("HOME", "")), Path(folder))
    launcher = importlib.util.find_spec(_LAUNCHER[1])
    if launcher is None or launcher.origin is None:
        raise Refused("there is no ipykernel")
    arguments = [launcher.origin, *command[3:]]
    # ipykernel looks whether this is its parent still.
    environment = {**variables, "JPY_PARENT_PID": str(helper.pid)}
    message = pack(
        [os.fsencode(word) for word in arguments],
        {os.fsencode(name): os.fsencode(value) for name, value in environment.items()},
        os.fsencode(folder),
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        socket.send_fds(helper.channel, [message], [nothing, 1, 2, theirs.fileno()])
    finally:
        os.close(nothing)
        theirs.close()
    ours.settimeout(10)
    said = ours.recv(32)
    ours.settimeout(None)
    if not said:
        raise OSError("the helper has ended")
    pid = int(said)
    # A server raises how many files it may open (`ServerApp.min_open_files_limit`), for its kernels as well.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
    return ForkedKernel(pid, ours)


def _inherited() -> tuple[object, ...]:
    """What a process has of the one that forked it, and may have changed since: by a person's configuration, say."""
    umask = parse_status(Path("/proc/self/status").read_text("utf-8"))["Umask"]
    return umask, os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)


def _check_matplotlib(home: Path, folder: Path) -> None:
    if "matplotlib" not in sys.modules:
        return
    for own in (*(home / name for name in _OF_MATPLOTLIB), folder / _MATPLOTLIBRC):
        if own.exists():
            raise Refused(f"matplotlib was loaded without {own}")


def _serve(channel: socket.socket, loaded: Environment) -> Callable[[], Any]:
    """Fork kernels until the server has gone. Returns in each kernel alone."""
    kernels: dict[int, tuple[int, int]] = {}  # descriptor of the process → its number, and where to tell its end
    while True:
        ready, _, _ = select.select([channel.fileno(), *kernels], [], [])
        for ended in set(ready) & kernels.keys():
            pid, answer = kernels.pop(ended)
            _tell(answer, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            os.close(answer)
            os.close(ended)
        if channel.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(channel, _MOST, 4)
        if not message:
            os._exit(0)
        *streams, answer = descriptors
        pid = os.fork()
        if pid == 0:
            channel.close()
            os.setsid()
            person.take_over(person.Program(*unpack(message), streams), [])
            # As `python -m` has it: not the folder of the server's program.
            personal.forget_additions(loaded.path[1:], loaded.added)
            return _main
        kernels[os.pidfd_open(pid)] = pid, answer
        _tell(answer, pid)
        for stream in streams:
            os.close(stream)


def _tell(answer: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.write(answer, b"%d" % number)


class _SysWithoutModules:
    """`sys`, as if nothing were loaded."""

    modules: Mapping[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)


def _main() -> None:
    from ipykernel import debugger, ipkernel, kernelapp

    # A kernel lists the files of all modules, for a debugger that is switched off (config/ipython). In a fork it would
    # write into each module for that, and more would be copied than for anything else that it does.
    kernel: Any = ipkernel
    if "_kernel_modules" in kernel.IPythonKernel.__init__.__code__.co_names and not debugger._is_debugpy_available:
        kernel.sys = _SysWithoutModules()
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib:
        matplotlib.rcParams["backend"] = os.environ.setdefault(*_BACKEND)
    kernelapp.launch_new_instance()


def load() -> list[str]:
    """Import what kernels are made of, and the packages that notebooks commonly begin with, where they are installed.

    Returns:
        Packages that are installed and cannot be imported.
    """
    from illumidesk.forkserver import modules

    # As config/ipython/ipython_kernel_config.py has it: ipykernel takes debugpy for missing.
    absent: Any = None
    sys.modules["debugpy"] = absent
    try:
        modules.load(["ipykernel.debugger"])
    finally:
        del sys.modules["debugpy"]
    return modules.load([*_MODULES, *(name for name in _PACKAGES if _installed(name.partition(".")[0]))])


def _installed(name: str) -> bool:
    return any((Path(folder) / name).is_dir() for folder in sys.path)
