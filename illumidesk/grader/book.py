"""What the hub asks of a gradebook: assignments, scores, students. Plain functions, which block."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from nbgrader.api import (
    Assignment,
    Grade,
    GradeCell,
    Notebook,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
    new_uuid,
)
from sqlalchemy import func

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.grader import extensions
from illumidesk.grader.course import Course

_STUDENT_FIELDS = ("first_name", "last_name", "email", "lms_user_id")
#: Longest text of a student's, as nbgrader's columns have it.
_MAX_TEXT = 128
#: Most points of an assignment that is imported.
_MAX_POINTS = 1_000_000
#: The notebook of such an assignment.
_IMPORTED = "imported"


@dataclass(frozen=True)
class _Totals:
    """A submission's sums: points, whether cells wait for a person, whether anything was graded at all."""

    score: float = 0.0
    needs_manual: bool = False
    touched: bool = False
    penalty: float = 0.0


def utc(moment: datetime | None) -> str | None:
    """`moment` of the gradebook, which is UTC without saying so, in ISO 8601."""
    return None if moment is None else moment.isoformat() + "Z"


def assignments(course: Course, book: Any) -> dict[str, Any]:
    """All assignments of the gradebook, with how far each is graded.

    Returns:
        `{"assignments": [{"name", "duedate", "max_score", "submissions", "graded", "needs_manual"}]}`, by name.
    """
    listed = []
    for assignment in scores(course, book)["assignments"]:
        rows = assignment["scores"]
        graded = [row for row in rows if row["autograded"]]
        waiting = sum(row["needs_manual_grade"] for row in graded)
        listed.append(
            {
                "name": assignment["assignment"],
                "duedate": assignment["duedate"],
                "max_score": assignment["max_score"],
                "submissions": len(rows),
                "graded": len(graded) - waiting,
                "needs_manual": waiting,
            }
        )
    return {"assignments": listed}


def assignment_scores(course: Course, book: Any, name: str) -> dict[str, Any]:
    """The scores of one assignment.

    Raises:
        IllumiDeskError: 404 where the gradebook has no such assignment.
    """
    found: list[dict[str, Any]] = scores(course, book, names.check_assignment(name))["assignments"]
    if not found:
        raise no_assignment(name)
    return found[0]


def no_assignment(name: str) -> IllumiDeskError:
    """The sentence for an assignment that is not there."""
    return IllumiDeskError(
        f"the gradebook has no assignment {name}", hint="Generate it in the formgrader first", status=404
    )


def scores(course: Course, book: Any, only: str | None = None) -> dict[str, Any]:
    """What everybody has, in every assignment or in one.

    A score is what nbgrader's feedback and export tell: the sum of the cells, extra credit among it, less the late
    penalty and never below 0. Manual scores count before those of the tests, as nbgrader has it. `autograded` follows
    the formgrader: graded, and nothing newer handed in since. Somebody whose work was collected and never graded has a
    row too, with `autograded` false: it bears no score worth telling.

    Args:
        course: gives the folders.
        book: the open gradebook.
        only: an assignment's name.

    Returns:
        `{"assignments": [{"assignment", "duedate", "max_score", "scores": […]}]}`, by name, then by student.
    """
    totals = _totals(book)
    more_time = extensions.load()
    query = book.db.query(Assignment.id, Assignment.name, Assignment.duedate, Assignment.max_score)
    if only is not None:
        query = query.filter(Assignment.name == only)
    found = []
    for id_, name, duedate, max_score in query.order_by(Assignment.name):
        submissions = {
            student: (totals.get(row, _Totals()), timestamp, extension)
            for student, row, timestamp, extension in book.db.query(
                SubmittedAssignment.student_id,
                SubmittedAssignment.id,
                SubmittedAssignment.timestamp,
                SubmittedAssignment.extension,
            ).filter(SubmittedAssignment.assignment_id == id_)
        }
        rows = []
        for student in sorted(submissions.keys() | _collected(course, name)):
            total, timestamp, extension = submissions.get(student, (_Totals(), None, None))
            if extension is None:
                extension = timedelta(seconds=extensions.seconds_of(more_time, student, name))
            autograded = _is_autograded(course, name, student, timestamp, total.touched)
            if not autograded:
                total, timestamp = _Totals(), _handed_in(course, name, student) or timestamp
            rows.append(
                {
                    "student": student,
                    "score": max(0.0, total.score - total.penalty),
                    "max_score": float(max_score),
                    "needs_manual_grade": total.needs_manual,
                    "autograded": autograded,
                    "late_seconds": _late(timestamp, duedate, extension),
                    "penalty": total.penalty,
                    "timestamp": utc(timestamp),
                    # Teachers' comments belong to cells and are read there, in the feedback. What a number in the
                    # LMS does not explain by itself is that points were taken off.
                    "comment": _comment(total.penalty),
                }
            )
        found.append({"assignment": name, "duedate": utc(duedate), "max_score": float(max_score), "scores": rows})
    return {"assignments": found}


def _late(timestamp: datetime | None, duedate: datetime | None, extension: timedelta) -> float:
    if timestamp is None or duedate is None:
        return 0.0
    return max(0.0, (timestamp - duedate - extension).total_seconds())


def _comment(penalty: float) -> str:
    if penalty <= 0:
        return ""
    return f"Handed in late: {round(penalty, 2):g} {'point' if penalty == 1 else 'points'} taken off."


def _totals(book: Any) -> dict[str, _Totals]:
    """The sums of every submission, by its id: two queries for all, since nbgrader's properties ask for each."""
    penalties = dict(
        book.db.query(
            SubmittedNotebook.assignment_id, func.sum(func.coalesce(SubmittedNotebook.late_submission_penalty, 0.0))
        ).group_by(SubmittedNotebook.assignment_id)
    )
    sums = (
        book.db.query(
            SubmittedNotebook.assignment_id,
            func.sum(Grade.score),
            func.max(Grade.needs_manual_grade),
            func.count(Grade.auto_score) + func.count(Grade.manual_score),
        )
        .select_from(SubmittedNotebook)
        .join(Grade, Grade.notebook_id == SubmittedNotebook.id)
        .group_by(SubmittedNotebook.assignment_id)
    )
    return {
        id_: _Totals(float(score or 0.0), bool(needs_manual), touched > 0, float(penalties.get(id_) or 0.0))
        for id_, score, needs_manual, touched in sums
    }


def _is_autograded(course: Course, assignment: str, student: str, timestamp: datetime | None, touched: bool) -> bool:
    """Whether a submission is graded as it was handed in last (NbGraderAPI.get_autograded_students).

    Where nothing is collected (any more, or ever: imported scores), it is where any cell has a score: a row alone may
    be there for other reasons, or left by an autograding that failed.
    """
    graded = course.path("autograded", student, assignment).is_dir()
    if course.path("submitted", student, assignment).is_dir():
        return graded and _handed_in(course, assignment, student) == timestamp
    return touched or graded


def _handed_in(course: Course, assignment: str, student: str) -> datetime | None:
    """When a collected submission was handed in."""
    moment = course.directory.get_existing_timestamp(str(course.path("submitted", student, assignment)))
    return moment if isinstance(moment, datetime) else None


def _collected(course: Course, assignment: str) -> set[str]:
    """Whose submissions are collected (NbGraderAPI.get_submitted_students)."""
    folder = course.directory.submitted_directory
    # A name is matched as it stands, whatever it has of `*` and `[`
    shape = course.directory.format_path(folder, "(?P<student>[^/]+)", re.escape(assignment), escape=True)
    found = set()
    for path in glob.glob(course.directory.format_path(folder, "*", glob.escape(assignment))):  # noqa: PTH207 -- a whole path
        match = re.fullmatch(shape, path)
        if match:
            found.add(match["student"])
    return found


def put_students(book: Any, students: object) -> dict[str, int]:
    """Add students and change what is told of them. Nobody is removed; an empty text keeps what is there.

    Args:
        book: the open gradebook.
        students: `[{"id", "first_name", "last_name", "email", "lms_user_id"}]`, as it was sent.

    Raises:
        IllumiDeskError: where it is something else. Nothing is changed then.
    """
    if not isinstance(students, list):
        raise IllumiDeskError("students must be a list")
    wanted: dict[str, dict[str, str]] = {}
    for student in students:
        if not isinstance(student, dict):
            raise IllumiDeskError("each student must be an object")
        fields = {field: student.get(field) or "" for field in _STUDENT_FIELDS}
        if not all(isinstance(text, str) for text in fields.values()):
            raise IllumiDeskError("what is told of a student must be texts")
        wanted[names.check_account(student.get("id", ""))] = {f: _fit(text) for f, text in fields.items()}
    there = {student.id: student for student in book.db.query(Student)}
    added = changed = 0
    for id_, fields in wanted.items():
        told = {field: text for field, text in fields.items() if text}
        if id_ not in there:
            book.db.add(Student(id=id_, **told))
            added += 1
        elif any(getattr(there[id_], field) != text for field, text in told.items()):
            for field, text in told.items():
                setattr(there[id_], field, text)
            changed += 1
    book.db.commit()
    return {"added": added, "changed": changed}


def import_scores(course: Course, book: Any, rows: object) -> dict[str, int]:
    """Put scores from elsewhere into the gradebook, for assignments that nbgrader did not make.

    Such an assignment has one notebook, `imported`, with one cell that is graded by hand. Doing it again changes the
    scores and adds nothing.

    Args:
        course: gives the folders.
        book: the open gradebook.
        rows: `[{"student", "assignment", "score", "max_score"}]`, as it was sent.

    Returns:
        how many assignments and scores the rows had.

    Raises:
        IllumiDeskError: where a row makes no sense, or an assignment is nbgrader's own. Nothing is changed then.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise IllumiDeskError("rows must be a list of objects")
    points: dict[str, float] = {}
    scores_: dict[tuple[str, str], float] = {}
    for row in rows:
        student = names.check_account(row.get("student", ""))
        assignment = names.check_assignment(row.get("assignment", ""))
        score, max_score = _points(row.get("score"), "score"), _points(row.get("max_score"), "max_score")
        if points.setdefault(assignment, max_score) != max_score:
            raise IllumiDeskError(f"{assignment} has more than one max_score")
        if scores_.setdefault((assignment, student), score) != score:
            raise IllumiDeskError(f"{student} has more than one score for {assignment}")
    cells = {name: _imported_cell(course, book, name, max_score) for name, max_score in points.items()}
    people = {student for _, student in scores_}
    for student in people - {id_ for (id_,) in book.db.query(Student.id)}:
        book.db.add(Student(id=student))
    book.db.flush()
    for name, cell in cells.items():
        wanted = {student: score for (assignment, student), score in scores_.items() if assignment == name}
        grades = _imported_grades(book, cell, wanted.keys())
        for student, score in wanted.items():
            grades[student].manual_score, grades[student].needs_manual_grade = score, False
    # One transaction: all of it, or nothing
    book.db.commit()
    return {"assignments": len(points), "scores": len(scores_)}


def _points(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_POINTS:
        raise IllumiDeskError(f"{what} must be a number from 0 to {_MAX_POINTS}")
    return float(value)


def _imported_cell(course: Course, book: Any, name: str, max_score: float) -> Any:
    """The cell of an imported assignment, made where there is none."""
    assignment = book.db.query(Assignment).filter(Assignment.name == name).one_or_none()
    notebooks = [] if assignment is None else list(assignment.notebooks)
    ours = [notebook.name for notebook in notebooks] in ([], [_IMPORTED])
    if not ours or course.path("source", ".", name).exists():
        raise IllumiDeskError(
            f"{name} is an assignment of nbgrader's own, which grades it",
            hint="import under another name, or change its scores in the formgrader",
            status=409,
        )
    if assignment is None:
        assignment = Assignment(name=name, course_id=book.course_id)
        book.db.add(assignment)
    notebook = notebooks[0] if notebooks else Notebook(name=_IMPORTED, assignment=assignment)
    cells = list(notebook.grade_cells)
    if cells:
        cells[0].max_score = max_score
        return cells[0]
    cell = GradeCell(name="score", notebook=notebook, max_score=max_score, cell_type="markdown")
    book.db.add(cell)
    book.db.flush()
    return cell


def _imported_grades(book: Any, cell: Any, students: Iterable[str]) -> dict[str, Any]:
    """The grades of students in an imported assignment, made where there are none. A few queries for all."""
    assignment, notebook = cell.notebook.assignment, cell.notebook
    query = book.db.query(SubmittedAssignment.student_id, SubmittedAssignment.id)
    submissions = dict(query.filter(SubmittedAssignment.assignment_id == assignment.id).all())
    query = book.db.query(SubmittedNotebook.assignment_id, SubmittedNotebook.id)
    notebooks = dict(query.filter(SubmittedNotebook.notebook_id == notebook.id).all())
    grades = {grade.notebook_id: grade for grade in book.db.query(Grade).filter(Grade.cell_id == cell.id)}
    found = {}
    for student in students:
        # Ids made here, so that the rows need no relationship to be loaded
        submission = submissions.get(student)
        if submission is None:
            submission = new_uuid()
            book.db.add(SubmittedAssignment(id=submission, assignment_id=assignment.id, student_id=student))
        handed_in = notebooks.get(submission)
        if handed_in is None:
            handed_in = new_uuid()
            book.db.add(SubmittedNotebook(id=handed_in, notebook_id=notebook.id, assignment_id=submission))
        grade = grades.get(handed_in)
        if grade is None:
            grade = Grade(cell_id=cell.id, notebook_id=handed_in)
            book.db.add(grade)
        found[student] = grade
    return found


def _fit(text: str) -> str:
    """A name as the gradebook can hold it. Of an LMS's endless one the beginning is better than no roster."""
    # nbgrader's page of a submission (formgrade.tpl) writes names as they are into its HTML.
    return "".join(char for char in text if char.isprintable() and char not in "<>").strip()[:_MAX_TEXT]
