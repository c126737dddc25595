"""Packages that instructors ask for, for their course's environment. An administrator answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from illumidesk.errors import IllumiDeskError
from illumidesk.registry.models import Course, PackageAnswer, PackageRequest, now
from illumidesk.requirements import package_name

#: Most requests of a course that wait for an answer.
MAX_OPEN = 50
#: Most answered ones that are kept of a course.
MAX_ANSWERED = 100
#: Longest reason, in characters.
MAX_REASON = 300

_Transaction = Callable[[], AbstractContextManager[Session]]


class PackageRequests:
    """Requests for packages. Each call is one transaction.

    Args:
        session: begins a transaction.
        writing: begins one that no other writer comes between.
    """

    def __init__(self, session: _Transaction, writing: _Transaction) -> None:
        self._session = session
        self._writing = writing

    def ask(self, course_id: str, name: str, requirements: Sequence[str]) -> list[PackageRequest]:
        """Keep what somebody asks for. One for a package that is waiting already takes its place.

        Args:
            course_id: the course.
            name: who asks.
            requirements: checked requirement specifiers (`illumidesk.requirements`).

        Returns:
            those that are new or other than before.

        Raises:
            IllumiDeskError: where there is no such course, or too many are waiting.
        """
        changed = []
        with self._writing() as session:
            if session.get(Course, course_id) is None:
                raise IllumiDeskError(f"there is no course {course_id}", status=404)
            waiting = {
                package_name(one.requirement): one
                for one in session.scalars(select(PackageRequest).where(*_open(course_id)))
            }
            for requirement in requirements:
                known = waiting.get(package_name(requirement))
                if known is not None and known.requirement == requirement:
                    continue
                if known is None:
                    known = PackageRequest(course_id=course_id)
                    session.add(known)
                    waiting[package_name(requirement)] = known
                known.requirement, known.asked_by, known.created = requirement, name, now()
                changed.append(known)
            if len(waiting) > MAX_OPEN:
                raise IllumiDeskError(
                    f"{course_id} cannot ask for more than {MAX_OPEN} packages at a time",
                    hint="wait for an answer, or speak with an administrator",
                    status=409,
                )
        return changed

    def take_back(self, course_id: str, package: str) -> bool:
        """Forget an unanswered request for a package; whether there was one."""
        with self._writing() as session:
            for one in session.scalars(select(PackageRequest).where(*_open(course_id))):
                if package_name(one.requirement) == package:
                    session.delete(one)
                    return True
        return False

    def of_course(self, course_id: str) -> list[PackageRequest]:
        """All of a course, the newest first."""
        with self._session() as session:
            query = select(PackageRequest).where(PackageRequest.course_id == course_id)
            return list(session.scalars(query.order_by(PackageRequest.id.desc())))

    def waiting(self) -> list[PackageRequest]:
        """Those of all courses that nobody has answered, by course."""
        with self._session() as session:
            query = select(PackageRequest).where(PackageRequest.answer.is_(None))
            return list(session.scalars(query.order_by(PackageRequest.course_id, PackageRequest.id)))

    def settle(
        self, course_id: str, packages: Sequence[str], answer: PackageAnswer, reason: str = ""
    ) -> list[PackageRequest]:
        """Answer the requests for these packages; nothing where nobody asks for one.

        Args:
            course_id: the course.
            packages: names as PyPI compares them (`illumidesk.requirements.package_name`).
            answer: to all of them.
            reason: for whoever asked, one line.

        Returns:
            those that were answered.

        Raises:
            IllumiDeskError: where the reason cannot be kept.
        """
        if len(reason) > MAX_REASON or not reason.isprintable():
            raise IllumiDeskError(f"a reason is one line of up to {MAX_REASON} characters")
        wanted = set(packages)
        with self._writing() as session:
            found = [
                one
                for one in session.scalars(select(PackageRequest).where(*_open(course_id)))
                if package_name(one.requirement) in wanted
            ]
            for one in found:
                one.answer, one.answered, one.reason = answer, now(), reason
            session.flush()
            old = select(PackageRequest).where(
                PackageRequest.course_id == course_id, PackageRequest.answer.is_not(None)
            )
            for one in session.scalars(old.order_by(PackageRequest.id.desc()).offset(MAX_ANSWERED)):
                session.delete(one)
        return found


def _open(course_id: str) -> tuple[ColumnElement[bool], ...]:
    return PackageRequest.course_id == course_id, PackageRequest.answer.is_(None)
