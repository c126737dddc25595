"""A course's shared folder, where people look for it: `~/COURSE/shared` leads to `/srv/nbgrader/shared/COURSE`.

The link is made by the person's own server, as the person: nothing that runs as root goes by a home. Who may read
and write the folder is decided by its modes; here is only looked which folders can be entered.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from logging import Logger
from pathlib import Path
from typing import Any

from tornado.ioloop import PeriodicCallback

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths

#: The link's name, and the one that it has where a person has something of that name already.
NAMES = ("shared", "shared-folder")
#: Seconds between two looks, for courses that somebody comes into while their server runs.
_INTERVAL = 60.0


class SharedFolders:
    """The links in one home.

    Args:
        home: the person's home.
        shared: where the courses' folders are.
        log: gets a line where something is in the way, once.
    """

    def __init__(self, home: Path, shared: Path, log: Logger) -> None:
        self._home = home
        self._shared = shared
        self._log = log
        self._told: set[str] = set()

    def refresh(self) -> None:
        """Make the links that are missing and take away those that lead nowhere. May block.

        Nothing is removed or changed but links to a shared folder.
        """
        for course_id in self._courses(self._home):
            if not self._is_open(course_id):
                self._unlink(course_id)
        for course_id in self._courses(self._shared):
            if self._is_open(course_id):
                try:
                    self._link(course_id)
                except OSError as error:
                    self._tell(course_id, f"{error.filename}: {error.strerror}")

    def _link(self, course_id: str) -> None:
        folder, target = self._home / course_id, self._shared / course_id
        links = [folder / name for name in NAMES]
        if any(_leads(link) == str(target) for link in links):
            return
        folder.mkdir(mode=0o755, exist_ok=True)
        for link in links:
            # A link of that name that leads elsewhere is the person's as well
            with contextlib.suppress(FileExistsError):
                link.symlink_to(target)
                if link != links[0]:
                    self._tell(course_id, f"{links[0]} is something of your own and stays; the link is {link}")
                return
        self._tell(course_id, f"{links[0]} and {links[1]} are something of your own and stay")

    def _unlink(self, course_id: str) -> None:
        folder = self._home / course_id
        gone = False
        for name in NAMES:
            if _leads(folder / name) == str(self._shared / course_id):
                with contextlib.suppress(OSError):
                    (folder / name).unlink()
                    gone = True
        if gone:
            with contextlib.suppress(OSError):
                folder.rmdir()  # where nothing but the link was in it

    def _is_open(self, course_id: str) -> bool:
        return os.access(self._shared / course_id, os.R_OK | os.X_OK)

    def _tell(self, course_id: str, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._log.warning("the shared folder of %s is %s: %s", course_id, self._shared / course_id, what)

    @staticmethod
    def _courses(folder: Path) -> list[str]:
        found = []
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(IllumiDeskError, OSError):
                    if entry.is_dir():
                        found.append(names.check_course_id(entry.name))
        return sorted(found)


def _leads(link: Path) -> str:
    """Where a link leads; empty for anything else."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "illumidesk.grader.shared"}]


def _load_jupyter_server_extension(server: Any) -> None:
    folders = SharedFolders(Path.home(), Paths.current().shared, server.log)

    async def refresh() -> None:
        await asyncio.to_thread(folders.refresh)

    # Before the first page shows the files
    folders.refresh()
    callback = PeriodicCallback(refresh, _INTERVAL * 1000)
    callback.start()
    server.web_app.settings["illumidesk_shared_folders"] = callback
