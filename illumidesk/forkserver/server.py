"""The process that holds an environment's modules, and forks.

It is root, so that it can go into anybody's unit. It runs no code but the environment's, which root alone can change,
and reads nothing that a caller says: that is for the forked process to read, when it is the caller's. Each caller gets
a process of its own at once, so nothing of one caller's is ever in the memory of another's.

systemd opens the socket (`illumidesk-forkserver@.socket`), so callers wait while an environment is loaded, and find the
socket while this process is restarted.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from illumidesk.forkserver import kernels, likeness, modules, person, personal, program
from illumidesk.forkserver.caller import Caller, Refused, identify
from illumidesk.forkserver.client import MAX_MESSAGE, notify, unpack

_ENVIRONMENTS = Path("/opt/illumidesk/envs")
_ROLES = Path("/opt/illumidesk/roles")
_PROGRAM = "bin/illumidesk-singleuser"
_OWN_PROGRAM = "bin/illumidesk-forkserver"
#: The first descriptor that systemd hands over; see sd_listen_fds(3).
_LISTENER = 3
#: Seconds for a caller to say what it runs.
_PATIENCE = 5.0
#: Callers that are dealt with at the same time.
_MOST = 32


def say(text: str, *, warning: bool = False) -> None:
    """A line for the journal."""
    os.write(2, f"<{4 if warning else 6}>{text}\n".encode())


class ForkServer:
    """See the module.

    Args:
        name: the environment's.
        listener: where callers connect.
    """

    def __init__(self, name: str, listener: socket.socket) -> None:
        self._link = _ENVIRONMENTS / name
        self._build = self._link.resolve()
        self._listener = listener
        self._handlers: set[int] = set()
        self._own = dict(os.environ)
        self._environment = personal.Environment({})
        self._places: list[personal.Place] = []

    def load(self) -> None:
        """Import the modules, and set them apart from what the collector of garbage looks at.

        It would write into each of them otherwise, and so copy them into each fork.
        """
        started = time.monotonic()
        gc.disable()
        Path(personal.STAND_INS["HOME"]).mkdir(mode=0o700, exist_ok=True)
        with personal.observed() as self._environment:
            missing = modules.preload(_ROLES) + kernels.load()
        _end_threads()
        self._places = personal.places()
        gc.freeze()
        say(f"{len(sys.modules)} modules of {self._build.name} loaded in {time.monotonic() - started:.1f} s")
        if missing:
            say(f"not among them, since they cannot be imported: {', '.join(missing)}")

    def serve(self) -> Callable[[], Any]:
        """Answer callers, for ever. Returns in each forked process alone, with what it has to do."""
        while True:
            select.select([self._listener], [], [])
            if self._link.resolve() != self._build:
                # The new build's takes over process and socket, and finds the caller waiting there.
                say(f"{self._link.name} is another build now")
                own = str(self._link / _OWN_PROGRAM)
                os.execve(own, [own, self._link.name], self._own)  # noqa: S606
            connection, _ = self._listener.accept()
            try:
                caller = identify(connection)
            except Refused as error:
                say(f"refused: {error}", warning=True)
                refuse(connection, str(error))
                continue
            self._make_room()
            handler = os.fork()
            if handler == 0:
                self._listener.close()
                return self._birth(connection, caller)
            self._handlers.add(handler)
            caller.close()
            connection.close()

    def _make_room(self) -> None:
        for handler in list(self._handlers):
            if os.waitpid(handler, os.WNOHANG)[0]:
                self._handlers.discard(handler)
        while len(self._handlers) >= _MOST:
            self._handlers.discard(os.waitpid(-1, 0)[0])

    def _birth(self, connection: socket.socket, caller: Caller) -> Callable[[], Any]:
        """From here on a process belongs to one caller: first root, then like the caller, then the caller's program.

        Does not return where it cannot be: the caller is told, and starts by itself.

        Returns:
            What the program does.
        """
        try:
            connection.settimeout(_PATIENCE)
            head, streams, _, _ = socket.recv_fds(connection, 8, 3)
            found = likeness.read(caller)
            likeness.join(found)
            parent = os.getpid()
            if os.fork():
                # The forked process is systemd's child then, as every main process of a unit is.
                os._exit(0)
            while os.getppid() == parent:
                time.sleep(0.0002)
            likeness.become(found)
            wanted = _hear(connection, head, streams)
            person.check(wanted, str(self._build / _PROGRAM), self._environment)
            connection.sendall(f"forked {os.getpid()}\n".encode())
            if connection.recv(2) != b"go":
                os._exit(1)
            caller.close()
            connection.close()
            if b"SYSTEMD_EXEC_PID" in wanted.variables:
                wanted.variables[b"SYSTEMD_EXEC_PID"] = b"%d" % os.getpid()
            person.take_over(wanted, self._places)
            return kernels.leave_helper(self._environment) or program.load()
        except (OSError, ValueError, KeyError, Refused) as error:
            refuse(connection, str(error) or type(error).__name__)
            os._exit(1)


def _end_threads() -> None:
    """A fork has no thread but the one that forks, so there should be no other.

    matplotlib has one while it looks for fonts. OpenBLAS ends its own before a fork, and makes new ones where it needs
    them.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(_PATIENCE)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        say("a module has left threads running, which forked servers do not have", warning=True)


def refuse(connection: socket.socket, why: str) -> None:
    """Tell a caller that it has to start by itself."""
    try:
        connection.settimeout(1)
        connection.sendall(f"no {why}\n".encode())
    except OSError:
        pass
    connection.close()


def _hear(connection: socket.socket, head: bytes, streams: list[int]) -> person.Program:
    length = int.from_bytes(head, "big")
    if len(head) != 8 or len(streams) != 3 or length > MAX_MESSAGE:
        raise ValueError("the message is not whole")
    message = bytearray()
    while len(message) < length:
        more = connection.recv(min(length - len(message), 1 << 16))
        if not more:
            raise ValueError("the message is not whole")
        message += more
    return person.Program(*unpack(bytes(message)), streams)


def main() -> None:
    """Entry point of `illumidesk-forkserver NAME`."""
    if os.environ.get("LISTEN_FDS") != "1" or os.geteuid() != 0 or len(sys.argv) != 2:
        sys.exit("systemd starts this: systemctl start illumidesk-forkserver@NAME.socket")
    server = ForkServer(sys.argv[1], socket.socket(fileno=_LISTENER))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    channel = os.environ.get("NOTIFY_SOCKET", "")
    server.load()
    notify("READY=1", address=channel)
    begin = server.serve()
    sys.exit(begin())


if __name__ == "__main__":
    main()
