"""More time for single students: a file of the grader's, and what follows from it in the gradebook.

nbgrader keeps an extension in a submission, so it cannot hold one for somebody who has handed in nothing yet, and a
submission made for it would look like graded work of 0 points. The file is the truth. It is applied at once to
submissions that are there, and to later ones when nbgrader makes them.

A student may have extra time for everything and an extension for one assignment. The longer one counts; they do not add
up.
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import secrets
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbgrader.api import Assignment, Student, SubmittedAssignment
from nbgrader.preprocessors import AssignLatePenalties
from sqlalchemy import event

from illumidesk import names
from illumidesk.errors import IllumiDeskError

if TYPE_CHECKING:
    from illumidesk.grader.course import Course

#: Longest extension, in seconds: ten years.
MAX_SECONDS = 10 * 366 * 86400

_LOCK = threading.Lock()

log = logging.getLogger("illumidesk.grader")


@dataclass(frozen=True, order=True)
class Extension:
    """More time for a student.

    Args:
        student: the account's name.
        assignment: whose due date moves; empty for all of the course.
        seconds: by how much, more than 0.
    """

    student: str
    assignment: str
    seconds: int


def store() -> Path:
    """The file, which is the grader account's alone."""
    return Path.home() / ".illumidesk" / "extensions.json"


def load() -> tuple[Extension, ...]:
    """All extensions, in order.

    Raises:
        IllumiDeskError: where the file cannot be read or is not as we write it.
    """
    try:
        rows = json.loads(store().read_text())["extensions"]
        return tuple(sorted(Extension(**row) for row in rows))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.error("%s cannot be read: %s", store(), error)
        raise IllumiDeskError(
            "the file of extensions cannot be read", hint="the grader's log tells which and why", status=500
        ) from None


def seconds_of(extensions: Iterable[Extension], student: str, assignment: str) -> int:
    """By how much a student's due date of an assignment moves: the longer of both kinds, 0 without any."""
    found = (e.seconds for e in extensions if e.student == student and e.assignment in ("", assignment))
    return max(found, default=0)


def listed(extensions: Iterable[Extension]) -> dict[str, Any]:
    """Extensions as the hub is told."""
    return {"extensions": [asdict(extension) for extension in extensions]}


def put(course: Course, book: Any, body: dict[str, Any]) -> dict[str, Any]:
    """Give a student more time, give another amount, or take it away (0 seconds).

    Late penalties of work that is graded already are worked out anew, by the course's own plugin.

    Args:
        course: the course.
        book: its open gradebook.
        body: `{"student", "assignment", "seconds"}`, as it was sent.

    Returns:
        `{"extensions": […], "regrade": [{"student", "assignment"}]}`: in `regrade` is what must be autograded again for
        the penalty to follow, since the plugin failed; usually nothing.

    Raises:
        IllumiDeskError: 404 for a student or an assignment that is not there; 400 for what makes no sense.
    """
    student = names.check_account(body.get("student", ""))
    assignment, seconds = body.get("assignment"), body.get("seconds")
    if assignment != "":
        assignment = names.check_assignment(assignment or "")
    if type(seconds) is not int or not 0 <= seconds <= MAX_SECONDS:
        raise IllumiDeskError("an extension is 0 seconds to ten years long")
    with _LOCK:
        before = load()
        if not any((e.student, e.assignment) == (student, assignment) for e in before):
            _check_there(book, student, assignment)
        after = [e for e in before if (e.student, e.assignment) != (student, assignment)]
        if seconds:
            after.append(Extension(student, assignment, seconds))
        after.sort()
        # A kill between the two is mended by the watch, or by asking again
        _save(after)
        regrade = _apply(course, book, after, student, assignment, taken=not seconds)
    return listed(after) | {"regrade": regrade}


def apply_all(course: Course, book: Any) -> None:
    """Bring all submissions to the file; what it says nothing about stays as somebody else may have set it."""
    with _LOCK:
        extensions = load()
    for student in {extension.student for extension in extensions}:
        _apply(course, book, extensions, student, "", taken=False)
    # nbgrader fails on an extension of an assignment that is never due
    never_due = book.db.query(SubmittedAssignment).join(Assignment).filter(Assignment.duedate.is_(None))
    for submission in never_due.filter(SubmittedAssignment.extension.is_not(None)):
        submission.extension = None
    book.db.commit()


def install() -> None:
    """Have extensions count in submissions that this process makes. May be called again."""
    if not event.contains(SubmittedAssignment, "before_insert", _made):
        event.listen(SubmittedAssignment, "before_insert", _made)
        event.listen(Assignment.duedate, "set", _due_date_set)


def _check_there(book: Any, student: str, assignment: str) -> None:
    if assignment and book.db.query(Assignment).filter(Assignment.name == assignment).count() == 0:
        raise IllumiDeskError(
            f"the gradebook has no assignment {assignment}", hint="Generate it in the formgrader first", status=404
        )
    if book.db.query(Student).filter(Student.id == student).count() == 0:
        try:
            pwd.getpwnam(student)
        except KeyError:
            raise IllumiDeskError(f"there is nobody called {student}", status=404) from None


def _save(extensions: list[Extension]) -> None:
    file = store()
    file.parent.mkdir(mode=0o700, exist_ok=True)
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w") as stream:
            json.dump(listed(extensions), stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _apply(
    course: Course, book: Any, extensions: Iterable[Extension], student: str, assignment: str, *, taken: bool
) -> list[dict[str, str]]:
    """Bring a student's submissions (of one assignment, or all) to the extensions; what must be graded again."""
    query = book.db.query(SubmittedAssignment).filter(SubmittedAssignment.student_id == student)
    if assignment:
        query = query.join(Assignment).filter(Assignment.name == assignment)
    regrade = []
    for submission in query:
        wanted = seconds_of(extensions, student, submission.assignment.name)
        if submission.assignment.duedate is None:
            submission.extension = None
            continue
        if not wanted and not taken:
            continue
        late = submission.total_seconds_late
        submission.extension = timedelta(seconds=wanted) if wanted else None
        if submission.total_seconds_late != late and not _penalise(course, submission):
            regrade.append({"student": student, "assignment": submission.assignment.name})
    book.db.commit()
    return regrade


def _penalise(course: Course, submission: Any) -> bool:
    """Work out the late penalty of a graded submission anew, as AssignLatePenalties does; False where it fails."""
    penalties = {}
    try:
        late = AssignLatePenalties(parent=course.app)
        late.init_plugin()
        for notebook in submission.notebooks:
            if all(grade.auto_score is None and grade.manual_score is None for grade in notebook.grades):
                continue
            penalty = None
            if submission.total_seconds_late > 0:
                penalty = late.plugin_inst.late_submission_penalty(
                    submission.student.id, notebook.score, submission.total_seconds_late
                )
            penalties[notebook] = None if penalty is None else late._check_late_penalty(notebook, penalty)
    except Exception:
        # A teacher's own code
        log.exception("the late penalty of %s could not be worked out", submission)
        return False
    for notebook, penalty in penalties.items():
        notebook.late_submission_penalty = penalty
    return True


def _made(_mapper: object, _connection: object, submission: Any) -> None:
    if submission.assignment is not None and submission.student is not None and submission.extension is None:
        _extend(submission, submission.assignment.duedate)


def _due_date_set(assignment: Any, duedate: Any, _old: object, _initiator: object) -> None:
    for submission in assignment.submissions:
        _extend(submission, duedate)


def _extend(submission: Any, duedate: object) -> None:
    """What the file says, into a submission that is being written."""
    if duedate is None:
        submission.extension = None
        return
    try:
        seconds = seconds_of(load(), submission.student.id, submission.assignment.name)
    except IllumiDeskError:
        return  # logged; nobody's grading stops for it
    if seconds:
        submission.extension = timedelta(seconds=seconds)
