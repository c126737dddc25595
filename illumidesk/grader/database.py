"""How nbgrader's processes of a grader open the gradebook: patiently, and so that readers and a writer get along.

nbgrader opens SQLite as it comes: journal mode `delete`, where a writer locks everybody out, and 5 seconds of patience.
While somebody else wrote for longer, autograding lost submissions. A `?timeout=` in `db_url` would not do:
`nbgrader db upgrade` takes what follows `:///` for a path, and a course's own `db_url` would lose it.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

#: Milliseconds to wait for somebody else's write.
BUSY_TIMEOUT = 120_000


def install() -> None:
    """Have every SQLite database that this process opens from now on opened so. May be called again."""
    if not event.contains(Engine, "connect", _connected):
        event.listen(Engine, "connect", _connected)


def _connected(connection: Any, _record: object) -> None:
    if not isinstance(connection, sqlite3.Connection):
        return
    cursor = connection.cursor()
    try:
        # The file keeps the mode; asking first needs no lock
        if cursor.execute("PRAGMA journal_mode").fetchone() == ("delete",):
            cursor.execute("PRAGMA journal_mode = wal").fetchone()
    except sqlite3.OperationalError:
        # In use in the old mode, read-only, or on a file system that cannot: the long wait helps there too
        pass
    finally:
        # After it: a change of mode that is not to be had now is for the next one who opens the file
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
        cursor.close()
