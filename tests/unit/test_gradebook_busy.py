"""Autograding while somebody else writes the gradebook for longer than nbgrader waits by itself."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tests.support.gradebooks import GraderHome

#: Seconds for which the writer holds the file: nbgrader's own patience ends at 5.
HELD = 9


def test_no_submission_vanishes_while_somebody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = GraderHome(tmp_path)
    home.enter(monkeypatch)
    home.author("ps1")
    home.nbgrader("release_assignment", "ps1")
    students = ["ana", "ben", "cyd", "dan"]
    for student in students:
        home.hand_in(student, "ps1", "2026-03-01 11:00:00 UTC")
    file = home.course / "gradebook.db"
    held: list[float] = []

    def write() -> None:
        # As soon as the first is being graded
        while not (home.course / "autograded").exists():
            time.sleep(0.01)
        # A writer that knows nothing of us, as a script of a teacher's
        writer = sqlite3.connect(file, isolation_level=None, timeout=60)
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE student SET first_name = 'held'")
        began = time.monotonic()
        time.sleep(HELD)
        writer.execute("COMMIT")
        held.append(time.monotonic() - began)
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    log = home.nbgrader("autograde", "ps1")
    thread.join()
    assert held
    assert held[0] >= HELD
    assert "locked" not in log
    with home.read().gradebook() as gradebook:
        scores = {s.student.id: (s.score, s.needs_manual_grade) for s in gradebook.assignment_submissions("ps1")}
    assert scores == dict.fromkeys(students, (5.0, True))
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_every_way_of_nbgraders_to_the_gradebook_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`db upgrade` takes the address apart, and a course may have one of its own."""
    home = GraderHome(tmp_path)
    home.enter(monkeypatch)
    own = home.course / "own.db"
    file = home.course / "nbgrader_config.py"
    file.write_text(file.read_text() + f"\nc.CourseDirectory.db_url = 'sqlite:///{own}'\n")
    home.nbgrader("db", "student", "add", "ana")
    home.nbgrader("db", "upgrade")
    course = home.read()
    assert course.database == own
    with course.gradebook() as gradebook:
        assert [student.id for student in gradebook.students] == ["ana"]
        assert gradebook.db.connection().exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert gradebook.db.connection().exec_driver_sql("PRAGMA busy_timeout").scalar() > HELD * 1000
    assert not (home.course / "gradebook.db").exists()
