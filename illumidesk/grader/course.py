"""The course of this grader, as nbgrader's own configuration files tell it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook
from nbgrader.apps.baseapp import NbGrader
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange.default.exchange import Exchange
from traitlets.config import Application

from illumidesk.grader import hooks

# An Application sets up logging when it is made, which two threads must not do at once.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Course:
    """What nbgrader's files say now.

    Args:
        app: holds the configuration; plugins are made with it as their parent.
        directory: where the course's folders are, and `db_url`.
    """

    app: Any
    directory: Any

    @property
    def course_id(self) -> str:
        """The course's id."""
        return str(self.directory.course_id)

    @property
    def exchange(self) -> Path:
        """The exchange of all courses."""
        return Path(Exchange(coursedir=self.directory, parent=self.app).root)

    def path(self, step: str, student: str, assignment: str) -> Path:
        """The folder of an assignment in a step (`submitted`, `autograded`, …); `.` is nobody's, for `source`."""
        return Path(self.directory.format_path(getattr(self.directory, f"{step}_directory"), student, assignment))

    @property
    def database(self) -> Path | None:
        """The gradebook's file; None where it is no SQLite file."""
        scheme, _, path = str(self.directory.db_url).partition(":///")
        return Path(path.partition("?")[0]) if scheme.startswith("sqlite") and path else None

    @contextmanager
    def gradebook(self) -> Iterator[Any]:
        """The gradebook, closed at the end. Blocks, and is of the thread that opened it."""
        hooks.install()
        book = Gradebook(self.directory.db_url, self.course_id)
        try:
            yield book
        finally:
            book.close()


def read_course() -> Course:
    """The course as a command of nbgrader would find it: the machine's file, the grader's, then the course's own.

    Read anew each time, since teachers change their file while the grader runs.
    """
    with _LOCK:
        app = NbGrader()
        app.load_config_file()
        app.coursedir = CourseDirectory(parent=app)
        # NbGrader.initialize does this, and puts the working folder on sys.path each time it is called
        Application.load_config_file(app, "nbgrader_config.py", path=app.coursedir.root)
        return Course(app, app.coursedir)
