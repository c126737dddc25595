"""A roster as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = ("account", "full_name", "email", "role", "lms_user_id", "left")


def as_csv(people: Iterable[Mapping[str, Any]]) -> str:
    """A roster as CSV that spreadsheets read.

    Args:
        people: as `Rosters.people` gives them.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in people:
        row = {**one, "account": one["name"], "left": one["left"] or ""}
        writer.writerow([safe_cell(str(row[column])) for column in COLUMNS])
    return out.getvalue()


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
