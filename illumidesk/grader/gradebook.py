"""The grader's side of grades: what the hub, and nobody else, may ask of this course's gradebook.

JSON over the grader's own socket, below `illumidesk/`. The kernel says who is at the other end of a connection
(unix(7), SO_PEERCRED), and only the hub's account is answered: no cookie and no token counts, since a teacher's browser
comes through the proxy, and students' code runs as the grader while it is graded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.ioloop import IOLoop

from illumidesk.errors import IllumiDeskError
from illumidesk.grader import book, duedates_export, extensions, hooks
from illumidesk.grader.course import Course, read_course

#: Largest request, in bytes: the roster or the scores of some ten thousand students.
MAX_BODY = 4 << 20

_UCRED = struct.Struct("iII")

log = logging.getLogger("illumidesk.grader")


def peer_uid(connection: socket.socket) -> int | None:
    """The account at the other end of a unix socket; None where it is no unix socket."""
    if connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])


def hub_uid() -> int | None:
    """The hub's account, as the hub said when it had this server started."""
    text = os.environ.get("ILLUMIDESK_HUB_UID", "")
    return int(text) if text.isascii() and text.isdecimal() else None


# Streaming, so that a body is refused before it is read
@web.stream_request_body
class HubHandler(web.RequestHandler):
    """A request of the hub's. Not one of Jupyter's handlers, so it counts as nobody's activity."""

    def prepare(self) -> None:
        """Refuse everybody but the hub, before anything is read."""
        self.body = b""
        wanted = hub_uid()
        connection: Any = self.request.connection
        stream = getattr(connection, "stream", None)
        if wanted is None or stream is None or peer_uid(stream.socket) != wanted:
            log.warning("somebody who is not the hub asked for %s", self.request.path)
            raise web.HTTPError(403)
        connection.set_max_body_size(MAX_BODY)

    def check_xsrf_cookie(self) -> None:
        """No cookie counts here, so none can be misused."""

    def data_received(self, chunk: bytes) -> None:
        """Keep the body, which the connection limits."""
        self.body += chunk

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors as the hub reads them."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, IllumiDeskError):
            self.set_status(error.status)
            self.finish({**error.as_dict(), "status": error.status})
            return
        messages = {403: "only the hub may ask", 404: "there is nothing here", 405: "this cannot be asked so"}
        message = messages.get(status_code, "the grader could not do this")
        hint = "" if status_code < 500 else "the grader's log tells why"
        self.finish({"message": message, "hint": hint, "status": status_code})

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """What people can mend is no crash."""
        if not isinstance(value, IllumiDeskError):
            super().log_exception(typ, value, tb)

    def json(self) -> dict[str, Any]:
        """The body, which must be a JSON object.

        Raises:
            IllumiDeskError: where it is none.
        """
        try:
            body = json.loads(self.body)
        except ValueError:
            raise IllumiDeskError("the request is not JSON") from None
        if not isinstance(body, dict):
            raise IllumiDeskError("the request must be a JSON object")
        return body

    async def work(self, do: Callable[[Course, Any], dict[str, Any]]) -> None:
        """Answer with what `do` makes of the course and its gradebook, in a thread: it blocks."""

        def run() -> dict[str, Any]:
            course = read_course()
            with course.gradebook() as gradebook:
                return do(course, gradebook)

        self.finish(await asyncio.to_thread(run))


class AssignmentsHandler(HubHandler):
    """`GET illumidesk/assignments`."""

    @allow_unauthenticated
    async def get(self) -> None:
        """All assignments and how far they are graded."""
        await self.work(book.assignments)


class AssignmentScoresHandler(HubHandler):
    """`GET illumidesk/assignments/NAME/scores`."""

    @allow_unauthenticated
    async def get(self, name: str) -> None:
        """The scores of one assignment."""
        await self.work(lambda course, gradebook: book.assignment_scores(course, gradebook, name))


class ScoresHandler(HubHandler):
    """`GET` and `POST illumidesk/scores`."""

    @allow_unauthenticated
    async def get(self) -> None:
        """The scores of all assignments."""
        await self.work(book.scores)

    @allow_unauthenticated
    async def post(self) -> None:
        """Scores of assignments that nbgrader did not make."""
        rows = self.json().get("rows")
        await self.work(lambda course, gradebook: book.import_scores(course, gradebook, rows))


class StudentsHandler(HubHandler):
    """`PUT illumidesk/students`."""

    @allow_unauthenticated
    async def put(self) -> None:
        """Add students, and change what is told of them."""
        students = self.json().get("students")
        await self.work(lambda _course, gradebook: book.put_students(gradebook, students))


class ExtensionsHandler(HubHandler):
    """`GET` and `PUT illumidesk/extensions`."""

    @allow_unauthenticated
    async def get(self) -> None:
        """Who has more time."""
        self.finish(extensions.listed(await asyncio.to_thread(extensions.load)))

    @allow_unauthenticated
    async def put(self) -> None:
        """Give somebody more time, or take it away."""
        body = self.json()

        def put(course: Course, gradebook: Any) -> dict[str, Any]:
            answer = extensions.put(course, gradebook, body)
            try:
                duedates_export.export(course, gradebook)
            except OSError:
                # It is granted all the same; the watch tries again
                log.exception("due dates are not told")
            return answer

        await self.work(put)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "illumidesk.grader.gradebook"}]


def _load_jupyter_server_extension(server: Any) -> None:
    # The formgrader works in this process, too
    hooks.install()
    base = url_path_join(server.web_app.settings["base_url"], "illumidesk")
    server.web_app.add_handlers(
        ".*$",
        [
            (url_path_join(base, "assignments"), AssignmentsHandler),
            (url_path_join(base, "assignments/([^/]+)/scores"), AssignmentScoresHandler),
            (url_path_join(base, "scores"), ScoresHandler),
            (url_path_join(base, "students"), StudentsHandler),
            (url_path_join(base, "extensions"), ExtensionsHandler),
        ],
    )
    # Runs for as long as the server does
    IOLoop.current().add_callback(duedates_export.watch)
