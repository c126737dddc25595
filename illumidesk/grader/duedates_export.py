"""Due dates where students may read them: beside the course's assignments in the exchange.

Students cannot read the gradebook. `COURSE/duedates.json` has the dates of released assignments for everybody who may
enter the course's folder. `COURSE/duedates/NAME.json` has the other dates of somebody with an extension, and an access
list lets only that account read it. Everybody can look at such a file's size and times, though. So each member has one,
all are equally long, and all are written anew when one changes: nobody sees who has more time.
"""

from __future__ import annotations

import asyncio
import grp
import json
import logging
import os
import pwd
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from nbgrader.api import Assignment, SubmittedAssignment

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.grader import extensions
from illumidesk.grader.course import Course, read_course
from illumidesk.supervisor import acl

#: Seconds between two looks at the gradebook's file.
INTERVAL = 3.0
#: Seconds after which a gradebook that is no file is looked into again.
_BLIND_INTERVAL = 300

_COMMON, _OWN = "duedates.json", "duedates"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = 0o4
#: Bytes of which a student's file has a multiple.
_PADDING = 4096
_LOCK = threading.Lock()

log = logging.getLogger("illumidesk.grader")


def export(course: Course, book: Any) -> None:
    """Write the files that differ from the gradebook and the extensions. Does nothing without an exchange."""
    with _LOCK, _course_folder(course) as folder:
        if folder is None:
            return
        dates, own = _dates(book, _released(folder))
        if not _is_so(folder, _COMMON, _text(dates), None):
            _write(folder, _COMMON, _text(dates), None)
        texts = {student: _text(own.get(student, {})) for student in own.keys() | set(_members(folder))}
        length = -(-max(map(len, texts.values()), default=0) // _PADDING) * _PADDING
        wanted = {}
        for student, text in sorted(texts.items()):
            uid = _uid(student)
            if uid is not None:
                wanted[f"{student}.json"] = (text.ljust(length), uid)
        with _own_folder(folder) as fd:
            for name in set(os.listdir(fd)) - wanted.keys():  # noqa: PTH208 -- an open folder
                with suppress(IsADirectoryError):  # not ours, and in nobody's way
                    os.unlink(name, dir_fd=fd)
            if not all(_is_so(fd, name, text, uid) for name, (text, uid) in wanted.items()):
                for name, (text, uid) in wanted.items():
                    _write(fd, name, text, uid)


async def watch() -> None:
    """Bring the files to the gradebook whenever it changes, for as long as the server runs.

    A look is a few stats. Nothing is opened and no gradebook is made.
    """
    course: Course | None = None
    seen: object = None
    while True:
        try:
            if course is None:
                course = await asyncio.to_thread(read_course)
            now = _signature(course)
            if now is not None and now != seen:
                seen = now
                course = await asyncio.to_thread(_follow)
        except IllumiDeskError as error:
            log.error("due dates are not told: %s", error.message)
        except Exception:
            log.exception("due dates are not told")
        await asyncio.sleep(INTERVAL)


def _follow() -> Course:
    course = read_course()
    with course.gradebook() as book:
        extensions.apply_all(course, book)
        export(course, book)
        if course.database is not None:
            # Whoever copies gradebook.db alone, as `nbgrader db upgrade` does, then has all of it
            book.db.connection().exec_driver_sql("PRAGMA wal_checkpoint")
    return course


def _signature(course: Course) -> object:
    """What changes when something that is told may have changed; None where there is no gradebook yet."""
    file = course.database
    if file is None:
        return int(time.monotonic() / _BLIND_INTERVAL)
    if not file.exists():
        return None
    others = (
        file.with_name(file.name + "-wal"),
        extensions.store(),
        Path(course.directory.root) / "nbgrader_config.py",
        course.exchange / course.course_id / "outbound",
    )
    return [_stamp(path) for path in (file, *others)]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _dates(book: Any, released: set[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The due dates of released assignments: everybody's, and by student those that differ."""
    found = book.db.query(Assignment.name, Assignment.duedate).filter(Assignment.duedate.is_not(None))
    dates = {name: duedate for name, duedate in found if name in released}
    told = extensions.load()
    more = {
        (student, name): timedelta(seconds=extensions.seconds_of(told, student, name))
        for student in {extension.student for extension in told}
        for name in dates
    }
    granted = (
        book.db.query(SubmittedAssignment.student_id, Assignment.name, SubmittedAssignment.extension)
        .join(Assignment, Assignment.id == SubmittedAssignment.assignment_id)
        .filter(SubmittedAssignment.extension.is_not(None))
    )
    # What a submission has is what its penalty follows, also where somebody else granted it
    more |= {(student, name): extension for student, name, extension in granted if name in dates}
    own: dict[str, dict[str, str]] = {}
    for (student, name), extension in sorted(more.items()):
        if extension:
            own.setdefault(student, {})[name] = _iso(dates[name] + extension)
    return {name: _iso(duedate) for name, duedate in dates.items()}, own


def _iso(moment: Any) -> str:
    return f"{moment.replace(microsecond=0).isoformat()}Z"


def _released(folder: int) -> set[str]:
    """What students may know the name of."""
    try:
        return set(os.listdir(f"/proc/self/fd/{folder}/outbound"))  # noqa: PTH208 -- below an open folder
    except OSError:
        return set()


def _uid(student: str) -> int | None:
    """The account of a student of the gradebook, which may hold people that this machine does not know."""
    try:
        return pwd.getpwnam(names.check_account(student)).pw_uid
    except (IllumiDeskError, KeyError):
        return None


@contextmanager
def _course_folder(course: Course) -> Iterator[int | None]:
    """The course's folder in the exchange, where it is ours."""
    try:
        fd = os.open(course.exchange / course.course_id, _FOLDER)
    except OSError:
        yield None
        return
    try:
        yield fd if os.fstat(fd).st_uid == os.geteuid() else None
    finally:
        os.close(fd)


@contextmanager
def _own_folder(parent: int) -> Iterator[int]:
    # The group is the course's, from the folder above
    with suppress(FileExistsError):
        os.mkdir(_OWN, 0o711, dir_fd=parent)
    fd = os.open(_OWN, _FOLDER, dir_fd=parent)
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) & 0o777 != 0o711:
            os.fchmod(fd, 0o711)
        yield fd
    finally:
        os.close(fd)


def _text(dates: dict[str, str]) -> str:
    return json.dumps({"assignments": dates}, sort_keys=True)


def _members(folder: int) -> list[str]:
    """The course's members: those of the group that its folder belongs to."""
    try:
        return grp.getgrgid(os.fstat(folder).st_gid).gr_mem
    except KeyError:
        return []


def _write(folder: int, name: str, text: str, reader: int | None) -> None:
    """Put a file in the place of what is there.

    Args:
        folder: the open folder.
        name: the file's name.
        text: what it holds.
        reader: the one account that may read it; None is whoever may enter the folder.
    """
    partial = f".{name}.{secrets.token_hex(4)}"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            if reader is None:
                os.fchmod(fd, 0o644)
            elif not acl.set_entry(fd, reader, _READ):
                # Without access lists the student sees the common date; nobody may see whose differs
                _remove(folder, name)
                _remove(folder, partial)
                return
        os.rename(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _remove(folder, partial)
        raise


def _is_so(folder: int, name: str, text: str, reader: int | None) -> bool:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        mode = 0o644 if reader is None else 0o640
        return (
            stat.S_ISREG(found.st_mode)
            and stat.S_IMODE(found.st_mode) == mode
            and (reader is None or acl.entries(fd) == {reader: _READ})
            and file.read(len(text) * 4 + 1) == text.encode()
        )


def _remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
