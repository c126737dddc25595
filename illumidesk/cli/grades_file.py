"""Files of grades: CSV as spreadsheets read and write it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from typing import Any, TextIO

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.hub.roster_file import safe_cell

_LONG = ("student", "assignment", "score", "max_score")
_ABOUT = ("student", "full_name", "email", "lms_user_id")


def write(book: dict[str, Any], out: TextIO) -> None:
    """Write a gradebook: a line each student, a column each assignment, named `NAME (points)`.

    Args:
        book: as the hub gives it.
        out: a text file.
    """
    assignments = book["assignments"]
    scores = {one["assignment"]: {row["student"]: row for row in one["scores"]} for one in assignments}
    students = sorted({*book["students"], *(student for rows in scores.values() for student in rows)})
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_ABOUT, *(safe_cell(f"{one['assignment']} ({one['max_score']:g})") for one in assignments)])
    for student in students:
        person = book["people"].get(student, {})
        about = [safe_cell(person.get(field, "")) for field in _ABOUT[1:]]
        rows = [scores[one["assignment"]].get(student) for one in assignments]
        writer.writerow([student, *about, *("" if row is None else f"{row['score']:g}" for row in rows)])


def read(file: Iterable[str]) -> list[dict[str, Any]]:
    """The scores in a file: student, assignment, score and max_score each.

    Raises:
        IllumiDeskError: for the first line that is wrong.
    """
    try:
        text = list(file)
        semicolons = bool(text) and text[0].count(";") > text[0].count(",")
        lines = list(csv.reader(text, delimiter=";" if semicolons else ","))
    except (UnicodeDecodeError, csv.Error) as error:
        raise IllumiDeskError(
            f"the file is not CSV text in UTF-8: {error}", hint="save it as CSV (UTF-8) in your spreadsheet"
        ) from None
    head = [cell.strip() for cell in lines[0]] if lines else []
    if "student" not in head:
        raise IllumiDeskError(
            "the file has no column student", hint=f"its first line names the columns: {', '.join(_LONG)}"
        )
    found: list[dict[str, Any]] = []
    for number, cells in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        row = dict(zip(head, (cell.strip() for cell in cells), strict=False))
        try:
            found += _of_line(row, head)
        except IllumiDeskError as error:
            raise IllumiDeskError(f"line {number}: {error.message}", hint=error.hint) from None
    if not found:
        raise IllumiDeskError("the file holds no scores")
    return found


def _of_line(row: dict[str, str], head: list[str]) -> list[dict[str, Any]]:
    student = names.check_account(row["student"])
    if "assignment" in head:
        maximum = _number(row.get("max_score", ""), "max_score")
        cells = [(row.get("assignment", ""), maximum, row.get("score", ""))]
    else:
        cells = [(*_titled(title), row.get(title, "")) for title in head if title not in _ABOUT]
    return [
        {
            "student": student,
            "assignment": names.check_assignment(assignment),
            "score": _number(score, "score"),
            "max_score": maximum,
        }
        for assignment, maximum, score in cells
        if score
    ]


def _titled(title: str) -> tuple[str, float]:
    """`NAME (points)`."""
    name, bracket, rest = title.rpartition(" (")
    if not bracket or not rest.endswith(")"):
        raise IllumiDeskError(f"the column {title!r} does not say its points", hint="name it as in: Exam (20)")
    return name.removeprefix("'"), _number(rest[:-1], f"the points of {name}")


def _number(text: str, what: str) -> float:
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1e6:
        raise IllumiDeskError(f"{text!r} is no number for {what}", hint="write it as 7.5")
    return number
