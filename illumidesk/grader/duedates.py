"""When assignments are due, for the Assignment List of JupyterLab.

The grader of a course writes `COURSE/duedates.json` into the exchange, and `COURSE/duedates/NAME.json` for a student
with dates of their own, both `{"assignments": {ASSIGNMENT: "2026-12-01T22:00:00Z"}}`. This reads them as the person
whose server it is, so it shows what that person may read.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import pwd
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.grader.exchange import exchange_root, nbgrader_config

#: Largest file, in bytes, and most courses that are looked at.
MAX_FILE = 256 << 10
MAX_COURSES = 2000


def due_dates(root: Path, student: str, course_id: str = "") -> dict[str, dict[str, Any]]:
    """When the assignments of courses are due for a student. May block.

    Args:
        root: the exchange.
        student: the account's name.
        course_id: only this course; all that are readable where empty.

    Returns:
        by course: `assignments`, a time in UTC (ISO 8601, ending in Z) by assignment, and `own`, the names of those
        whose date is the student's own. A course without readable dates is left out.
    """
    found = {}
    try:
        exchange = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        with os.scandir(exchange) as entries:
            listed = [course_id] if course_id else [one.name for one in itertools.islice(entries, MAX_COURSES)]
        for name in sorted(listed):
            with (
                contextlib.suppress(OSError, IllumiDeskError),
                _folder(names.check_course_id(name), exchange) as course,
            ):
                dates, own = _read(course, "duedates.json"), {}
                with contextlib.suppress(OSError), _folder("duedates", course) as people:
                    own = _read(people, f"{student}.json")
                if dates or own:
                    found[name] = {"assignments": dates | own, "own": sorted(own)}
    finally:
        os.close(exchange)
    return found


@contextlib.contextmanager
def _folder(name: str, within: int) -> Iterator[int]:
    """An open folder that is no link. Being let through it is enough: not everybody may list it."""
    folder = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        yield folder
    finally:
        os.close(folder)


def _read(folder: int, name: str) -> dict[str, str]:
    """The dates in a file of an open folder; none where it is absent, a link, too large, or says something else."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except (OSError, ValueError):
        return {}
    with os.fdopen(file, "rb") as opened:
        of_file = os.fstat(file)
        # The exchange's own folder is writable for all, so what is in a course's must be its owner's.
        if not stat.S_ISREG(of_file.st_mode) or of_file.st_uid != os.fstat(folder).st_uid:
            return {}
        try:
            text = opened.read(MAX_FILE + 1)
            listed = json.loads(text)["assignments"] if len(text) <= MAX_FILE else {}
            return {name: utc for name, time in listed.items() if (utc := _utc(time))}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}


def _utc(text: object) -> str:
    """A time as we send it, to the second; "" where `text` is none."""
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
        return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if time and time.tzinfo else ""
    except (ValueError, OverflowError):
        return ""


class DueDatesHandler(APIHandler):
    """`GET illumidesk/duedates[?course=COURSE]`: the dates of the person whose server this is."""

    @web.authenticated
    async def get(self) -> None:
        """`{"courses": {COURSE: {"assignments": {NAME: time}, "own": [NAME]}}}`."""
        course_id = self.get_argument("course", "")
        self.finish({"courses": await asyncio.to_thread(_mine, course_id)})


def _mine(course_id: str) -> dict[str, dict[str, Any]]:
    try:
        root = exchange_root(nbgrader_config())
    except IllumiDeskError:
        return {}
    return due_dates(root, pwd.getpwuid(os.geteuid()).pw_name, course_id) if root else {}


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "illumidesk.grader.duedates"}]


def _load_jupyter_server_extension(server: Any) -> None:
    base = server.web_app.settings["base_url"]
    server.web_app.add_handlers(".*$", [(url_path_join(base, "illumidesk/duedates"), DueDatesHandler)])
