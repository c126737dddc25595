"""Files that list people: `name[,course,role]`, as a spreadsheet saves them."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from illumidesk import names
from illumidesk.errors import IllumiDeskError

if TYPE_CHECKING:
    from illumidesk.host.hub_client import RoleInCourse

_COLUMNS = ("name", "course", "role")
_ROLES = ("student", "ta", "instructor")
Fault = tuple[int, IllumiDeskError]


@dataclass(frozen=True)
class Line:
    """A person, perhaps with a role in a course. The same person may stand in several lines."""

    number: int
    name: str
    course: str | None
    role: RoleInCourse


def read(file: Iterable[str]) -> tuple[list[Line], list[Fault]]:
    """The lines of a file, and what is wrong with the others, by line number.

    Commas or semicolons part the cells. A first line of headings (name, course, role) may give another order.
    Empty lines and lines that start with # do not count.

    Raises:
        IllumiDeskError: where it is not a text file.
    """
    lines: list[Line] = []
    faults: list[Fault] = []
    columns: tuple[str, ...] = _COLUMNS
    seen: dict[tuple[str, str | None], int] = {}
    for count, (number, cells) in enumerate(_rows(file)):
        if count == 0 and "name" in [cell.lower() for cell in cells]:
            columns = tuple(cell.lower() for cell in cells)
            continue
        try:
            line = _line(number, cells, columns)
            first = seen.setdefault((line.name, line.course), number)
            if first != number:
                raise IllumiDeskError(f"{line.name} is in line {first} already", hint="remove one of them")
            lines.append(line)
        except IllumiDeskError as error:
            faults.append((number, error))
    return lines, faults


def read_roster(file: Iterable[str], course: str) -> tuple[list[Line], list[Fault]]:
    """The lines of a file for one course, and what is wrong with the others. The first line names the columns.

    Args:
        file: of text.
        course: the course; a column `course` must not say another one.

    Raises:
        IllumiDeskError: where it is not a text file, or has no column `account`.
    """
    lines: list[Line] = []
    faults: list[Fault] = []
    columns: tuple[str, ...] = ()
    seen: dict[str, int] = {}
    for number, cells in _rows(file):
        if not columns:
            columns = tuple("name" if cell.lower() == "account" else cell.lower() for cell in cells)
            if "name" not in columns:
                raise IllumiDeskError("the file has no column account", hint="its first line names them: account,role")
            continue
        row = dict(zip(columns, cells, strict=False))
        if row.get("left"):
            continue
        try:
            own = row.get("course") or course
            if own != course:
                raise IllumiDeskError(f"it is of the course {own}", hint=f"this is for {course} alone")
            line = _line(number, [row["name"], course, row.get("role", "")], _COLUMNS)
            first = seen.setdefault(line.name, number)
            if first != number:
                raise IllumiDeskError(f"{line.name} is in line {first} already", hint="remove one of them")
            lines.append(line)
        except IllumiDeskError as error:
            faults.append((number, error))
    return lines, faults


def _rows(file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    try:
        text = list(file)
        semicolons = bool(text) and ";" in text[0] and "," not in text[0]
        reader = csv.reader(text, delimiter=";" if semicolons else ",")
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) and not cells[0].startswith("#"):
                yield reader.line_num, cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise IllumiDeskError(
            f"the file is not CSV text in UTF-8: {error}", hint="save it as CSV (UTF-8) in your spreadsheet"
        ) from None


def _line(number: int, cells: list[str], columns: tuple[str, ...]) -> Line:
    if any(cells[len(columns) :]):
        raise IllumiDeskError(f"it has {len(cells)} cells", hint=f"write {','.join(columns)}")
    row = dict(zip(columns, cells, strict=False))
    name = names.check_account(row.get("name", ""))
    course, role = row.get("course", ""), row.get("role", "").lower()
    if role and not course:
        raise IllumiDeskError(f"{name} has the role {role} in no course", hint="write name,course,role")
    if role and role not in _ROLES:
        near = difflib.get_close_matches(role, _ROLES, n=1)
        hint = f"did you mean {near[0]}?" if near else "use student, ta or instructor"
        raise IllumiDeskError(f"there is no role {role}", hint=hint)
    if course:
        names.check_course_id(course)
    return Line(number, name, course or None, cast("RoleInCourse", role or "student"))
