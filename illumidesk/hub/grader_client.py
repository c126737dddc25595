"""What the hub asks a course's grader: gradebook, extensions, the list of students.

The grader's server extension (`illumidesk.grader.gradebook`) answers on the grader's own socket, and only the hub: the
kernel says who asks. The gradebook itself is read and written by the grader's account alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from illumidesk.errors import IllumiDeskError

#: Seconds that a grader may take for one answer: a gradebook of 300 students, or one that somebody else is writing.
TIMEOUT = 120
#: Largest answer, in bytes.
MAX_BYTES = 32 << 20


class GraderClient:
    """Asks the grader of one course, which runs.

    Args:
        course_id: the course.
        socket: the grader's.
    """

    def __init__(self, course_id: str, socket: Path) -> None:
        self._course_id = course_id
        self._socket = socket

    async def assignments(self) -> list[dict[str, Any]]:
        """The gradebook's assignments: name, duedate, max_score, submissions, graded, needs_manual."""
        found: list[dict[str, Any]] = (await self._ask("GET", "assignments"))["assignments"]
        return found

    async def scores(self, assignment: str) -> dict[str, Any]:
        """One assignment's scores: max_score, and for each submission student, score and what belongs to it.

        Raises:
            IllumiDeskError: 404 where there is no such assignment.
        """
        return await self._ask("GET", f"assignments/{quote(assignment, safe='')}/scores")

    async def all_scores(self) -> list[dict[str, Any]]:
        """Every assignment's scores."""
        found: list[dict[str, Any]] = (await self._ask("GET", "scores"))["assignments"]
        return found

    async def import_scores(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Put scores from elsewhere into the gradebook: student, assignment, score, max_score each."""
        return await self._ask("POST", "scores", {"rows": rows})

    async def put_students(self, students: list[dict[str, str]]) -> dict[str, Any]:
        """Add students, or change what is known of them: id, first_name, last_name, email, lms_user_id each."""
        return await self._ask("PUT", "students", {"students": students})

    async def extensions(self) -> list[dict[str, Any]]:
        """Extensions in seconds by student and assignment; assignment "" is extra time for all of them."""
        found: list[dict[str, Any]] = (await self._ask("GET", "extensions"))["extensions"]
        return found

    async def set_extension(self, student: str, assignment: str, seconds: int) -> dict[str, Any]:
        """Give a student so many seconds more; 0 takes an extension away."""
        return await self._ask("PUT", "extensions", {"student": student, "assignment": assignment, "seconds": seconds})

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        url = f"http://grader/services/{self._course_id}/illumidesk/{path}"
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(str(self._socket)),
                    timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                    requote_redirect_url=False,
                ) as session,
                session.request(method, url, json=body, allow_redirects=False) as answer,
            ):
                if (answer.content_length or 0) > MAX_BYTES:
                    raise _no_answer(self._course_id, "it says too much")
                said = await answer.json(content_type=None)
                status = answer.status
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _no_answer(self._course_id, type(error).__name__) from None
        if not isinstance(said, dict):
            raise _no_answer(self._course_id, f"status {status}")
        if status != 200:
            message = said.get("message") or f"status {status}"
            raise IllumiDeskError(
                f"the grader of {self._course_id}: {message}",
                hint=str(said.get("hint") or ""),
                status=status if 400 <= status < 600 else 502,
            )
        return said


def _no_answer(course_id: str, why: str) -> IllumiDeskError:
    return IllumiDeskError(
        f"the grader of {course_id} does not answer ({why})",
        hint=f"try again; `illumidesk logs course {course_id}` tells more",
        status=502,
    )
