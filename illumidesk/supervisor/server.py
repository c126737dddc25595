"""The supervisor's door: HTTP and JSON on a unix socket that only root and the hub may use."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import pwd
import signal
import socket
import stat
import struct
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import sdnotify
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths
from illumidesk.supervisor.accounts import LinuxAccounts
from illumidesk.supervisor.policy import MAX_BODY
from illumidesk.supervisor.systemd import SystemdUnits
from illumidesk.supervisor.units import Units, UnitState
from illumidesk.supervisor.verbs import Supervisor

log = logging.getLogger("illumidesk.supervisor")

#: Seconds between two signs of life in the stream of events.
PING_INTERVAL = 20.0
#: Events that a reader may be behind; one that does not read is cut off and comes back for the whole picture.
MAX_BACKLOG = 10_000
_UCRED = struct.Struct("=iII")  # pid, uid, gid


def peer_uid(connection: socket.socket) -> int:
    """The uid of the process at the other end of a unix socket, as the kernel says."""
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid)


class GuardedServer(HTTPServer):
    """An HTTP server that closes what anybody but the allowed uids opens, before it reads a byte."""

    allowed: frozenset[int] = frozenset()

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Take a connection, or close it."""
        uid = peer_uid(stream.socket)
        if uid not in self.allowed:
            log.warning("a process of uid %d was turned away", uid)
            stream.close()
            return
        super().handle_stream(stream, address)


class _Handler(RequestHandler):
    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, IllumiDeskError):
            answer = error.as_dict()
        elif isinstance(error, HTTPError):
            answer = {"message": error.reason or self._reason, "hint": ""}
        else:
            answer = {"message": "the supervisor failed", "hint": "sudo journalctl -u illumidesk-supervisor"}
        self.finish(answer)


class _Verb(_Handler):
    """`POST /v1/VERB`."""

    def initialize(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    async def post(self, verb: str) -> None:
        try:
            raw = json.loads(self.request.body.decode("utf-8"))
        except (ValueError, RecursionError):
            raw = None
        try:
            self.finish(await self.supervisor.call(verb, raw))
        except IllumiDeskError as error:
            self.set_status(error.status)
            self.finish(error.as_dict())


class _Events(_Handler):
    """`GET /v1/events`: everything there is, then every change."""

    def initialize(self, units: Units, streams: set[asyncio.Queue[UnitState | None]]) -> None:
        self.units = units
        self.streams = streams

    async def get(self) -> None:
        self.set_header("Content-Type", "application/x-ndjson")
        self.queue = queue = asyncio.Queue[UnitState | None](MAX_BACKLOG)
        # Nothing is awaited between the two, so no change falls between them
        self.streams.add(queue)
        now = self.units.snapshot()
        try:
            for state in now:
                self._line({"event": "unit", **state.as_dict()})
            self._line({"event": "ready"})
            await self.flush()
            # A reader that fell behind is no longer among the streams; what it has not read does not matter
            while queue in self.streams:
                try:
                    state_or_end = await asyncio.wait_for(queue.get(), PING_INTERVAL)
                except TimeoutError:
                    self._line({"event": "ping"})
                else:
                    if state_or_end is None:
                        break
                    self._line({"event": "unit", **state_or_end.as_dict()})
                await self.flush()
        except StreamClosedError:
            pass
        finally:
            self.streams.discard(queue)

    def on_connection_close(self) -> None:
        self.streams.discard(self.queue)
        if not self.queue.full():
            self.queue.put_nowait(None)

    def _line(self, event: dict[str, Any]) -> None:
        self.write(json.dumps(event) + "\n")


def make_server(supervisor: Supervisor, units: Units, allowed: Collection[int]) -> GuardedServer:
    """The HTTP server, not yet listening.

    Args:
        supervisor: who carries out the verbs.
        units: whose changes are told.
        allowed: the uids that may connect.
    """
    streams: set[asyncio.Queue[UnitState | None]] = set()

    def tell(state: UnitState) -> None:
        for queue in list(streams):
            try:
                queue.put_nowait(state)
            except asyncio.QueueFull:
                streams.discard(queue)

    units.watch(tell)
    application = Application(
        [
            (r"/v1/events", _Events, {"units": units, "streams": streams}),
            (r"/v1/([a-z_]{1,32})", _Verb, {"supervisor": supervisor}),
        ],
        default_handler_class=_NotFound,
        log_function=lambda handler: None,  # the verbs log themselves
    )
    server = GuardedServer(application, max_body_size=MAX_BODY, max_header_size=16 << 10)
    server.allowed = frozenset(allowed)
    return server


class _NotFound(_Handler):
    def prepare(self) -> None:
        raise HTTPError(404, reason="there is no such verb")


def bind(path: Path, gid: int) -> socket.socket:
    """Listen at `path`, a socket that its group `gid` may use too (0660).

    Raises:
        IllumiDeskError: where something else than an old socket stands there.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise IllumiDeskError(f"{path} is in the way and is no socket")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    os.chown(path, -1, gid)
    path.chmod(0o660)
    listener.setblocking(False)
    listener.listen(512)
    return listener


async def serve(server: GuardedServer, listener: socket.socket, lost: asyncio.Future[None] | None = None) -> None:
    """Answer until SIGTERM or SIGINT comes, or `lost` is done. Says to systemd when it is ready."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server.add_socket(listener)
    notifier = sdnotify.SystemdNotifier()
    notifier.notify("READY=1")
    log.info("ready")
    waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(stop.wait())} | ({lost} if lost else set())
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    notifier.notify("STOPPING=1")
    server.stop()
    # Calls that are under way end; streams of events never would
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.close_all_connections(), 2)


def setup_logging() -> None:
    """Plain lines on stderr; below systemd each with its priority, as journald reads it."""
    below_journal = "JOURNAL_STREAM" in os.environ
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter() if below_journal else logging.Formatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _JournalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        # Each line of a traceback by itself, or journald would give the rest the default priority
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


async def _main(paths: Paths) -> int:
    hub = pwd.getpwnam(names.HUB_ACCOUNT)
    units = await SystemdUnits.connect(paths)
    supervisor = Supervisor(paths, units, LinuxAccounts(paths.home))
    server = make_server(supervisor, units, {0, hub.pw_uid})
    listener = bind(paths.supervisor_socket, hub.pw_gid)
    lost = asyncio.ensure_future(units.closed())
    await serve(server, listener, lost)
    supervisor.close()
    if lost.done():
        log.error("the connection to the system bus is lost")
        return 1
    lost.cancel()
    return 0


def main() -> None:
    """Entry point of `illumidesk-supervisor`."""
    parser = argparse.ArgumentParser(prog="illumidesk-supervisor", description="IllumiDesk's root supervisor.")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where the host's layout starts (tests only)")
    options = parser.parse_args()
    setup_logging()
    os.umask(0o077)
    if os.geteuid() != 0:
        sys.exit("illumidesk-supervisor must run as root")
    try:
        sys.exit(asyncio.run(_main(Paths(options.root))))
    except KeyError:
        sys.exit(f"the account {names.HUB_ACCOUNT} is missing; run install.sh again")
    except IllumiDeskError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
