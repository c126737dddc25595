"""Where a student's link in the LMS leads: the assignment is fetched, where it is not there yet, and opened.

It is a page of the person's own server, `GET illumidesk/assignment?course=COURSE&name=ASSIGNMENT`. A page of another
site may lead there, too: more than an assignment fetched that the person may fetch comes of it in no case, and files
that are there are never touched.

nbgrader is imported when somebody comes by such a link: no start waits for it, and most servers never need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import html
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado import web

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.grader.exchange import nbgrader_config

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{message}</p>
<p><a href="{lab}">Go to JupyterLab</a></p>
</main>
</body>
</html>
"""


def ensure_fetched(home: Path, course_id: str, name: str) -> Path:
    """The folder of an assignment in a person's home, fetched by nbgrader where there is none. May block.

    nbgrader copies to a folder beside, which then takes the name: an interrupted fetch leaves no half assignment, and
    what is there already stays.

    Args:
        home: where the server's files begin.
        course_id: the course.
        name: the assignment.

    Raises:
        IllumiDeskError: where it cannot be fetched, with the reason.
    """
    from nbgrader.auth import Authenticator
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.exchange import ExchangeError, ExchangeFactory

    config = nbgrader_config()
    config.CourseDirectory.course_id = names.check_course_id(course_id)
    config.CourseDirectory.assignment_id = names.check_assignment(name)
    fetch = ExchangeFactory(config=config).FetchAssignment(
        coursedir=CourseDirectory(config=config), authenticator=Authenticator(config=config), config=config
    )
    place = Path(course_id, name) if getattr(fetch, "path_includes_course", False) else Path(name)
    wanted: Path = home / fetch.assignment_dir / place
    if not os.path.lexists(wanted):
        try:
            _check_released(fetch, course_id, name)
            _fetch(fetch, place, wanted)
        except (ExchangeError, OSError) as error:
            raise _explained(error, name) from error
    return wanted


def _check_released(fetch: Any, course_id: str, name: str) -> None:
    """Raises:
    IllumiDeskError: where nbgrader's own exchange says that there is nothing to fetch.
    """
    if not getattr(fetch, "root", ""):
        return
    root = Path(fetch.root)
    if not root.is_dir():
        raise IllumiDeskError("the exchange for assignments is missing", hint="tell your teacher", status=503)
    released = root / course_id / "outbound"
    if not os.access(released, os.R_OK | os.X_OK):
        raise IllumiDeskError(
            f"you are not a member of the course {course_id}, or it does not exist here",
            hint="click the link in your course again; where that does not help, ask your teacher",
            status=403,
        )
    if not (released / name).is_dir():
        raise IllumiDeskError(
            f"the assignment {name} is not released yet", hint="ask your teacher when it will be", status=404
        )


def _fetch(fetch: Any, place: Path, wanted: Path) -> None:
    folder = wanted.parent
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder, ignore_cleanup_errors=True) as beside:
            fetch.assignment_dir = beside
            fetch.start()
            # Fails where something with files in it has come to that name meanwhile.
            (Path(beside) / place).rename(wanted)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _explained(error: Exception, name: str) -> IllumiDeskError:
    # shutil reports all failed files at once, in words and without numbers.
    if any(os.strerror(number) in str(error) for number in (errno.ENOSPC, errno.EDQUOT)):
        return IllumiDeskError(
            f"the assignment {name} could not be fetched because the disk is full",
            hint="delete files that you do not need",
            status=507,
        )
    return IllumiDeskError(
        f"the assignment {name} could not be fetched",
        hint="try again in a minute; where that does not help, ask your teacher",
        status=500,
    )


def page_of(folder: Path, home: Path) -> str:
    """The page of JupyterLab, relative to the server's address, that shows a folder: its notebook if it has one."""
    notebooks = [file for file in folder.glob("*.ipynb") if not file.name.startswith(".")]
    shown = notebooks[0] if len(notebooks) == 1 else folder
    try:
        return f"lab/tree/{quote(shown.relative_to(home).as_posix())}"
    except ValueError:  # assignments are kept outside of what the server shows
        return "lab"


class OpenAssignmentHandler(JupyterHandler):
    """`GET illumidesk/assignment?course=COURSE&name=ASSIGNMENT`."""

    def initialize(self, home: Path, one_at_a_time: asyncio.Lock) -> None:
        """Where the server's files begin, and the lock that all requests share."""
        self.home = home
        self.one_at_a_time = one_at_a_time

    @web.authenticated
    async def get(self) -> None:
        """Go to the assignment, or say why not."""
        course_id, name = self.get_argument("course", ""), self.get_argument("name", "")
        try:
            async with self.one_at_a_time:
                folder = await asyncio.to_thread(ensure_fetched, self.home, course_id, name)
        except IllumiDeskError as error:
            self.log.warning("The assignment was not opened: %s", error.message, exc_info=error.__cause__)
            self._explain(error)
            return
        self.redirect(url_path_join(self.base_url, page_of(folder, self.home)))

    def _explain(self, error: IllumiDeskError) -> None:
        sentence = f"{error.message[:1].upper()}{error.message[1:]}{f': {error.hint}' if error.hint else ''}."
        self.set_status(error.status)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.finish(
            _PAGE.format(
                title="The assignment cannot be opened",
                message=html.escape(sentence),
                lab=html.escape(url_path_join(self.base_url, "lab")),
            )
        )


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "illumidesk.grader.open_assignment"}]


def _load_jupyter_server_extension(server: Any) -> None:
    if os.environ.get("JUPYTERHUB_SERVICE_NAME"):
        return  # a course's grader fetches nothing
    base, shared = server.web_app.settings["base_url"], {"home": Path(server.root_dir), "one_at_a_time": asyncio.Lock()}
    server.web_app.add_handlers(".*$", [(url_path_join(base, "illumidesk/assignment"), OpenAssignmentHandler, shared)])
