"""Reading and writing the registry, in words of the field. Each call is one transaction."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.registry.models import MEMBER_ROLES, Course, MemberRole, Membership, Person, now

#: Longest title of a course, in characters.
MAX_TITLE = 255
#: From the most to the least able: what counts where somebody has several roles.
_RANK: tuple[MemberRole, ...] = ("instructor", "ta", "student")


class Registry:
    """People, courses and memberships.

    Args:
        path: the SQLite file; made (0600) and migrated to the newest tables where needed.

    Every method is quick (one indexed query on a local file) and is called on the hub's event loop, as JupyterHub
    calls its own database.
    """

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self.engine = _engine(path)
        self.migrate()

    def migrate(self) -> None:
        """Bring the tables up to date."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Let go of the file."""
        self.engine.dispose()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    # People

    def person(self, name: str) -> Person | None:
        """The person of that name, removed or not."""
        with self._session() as session:
            return session.get(Person, name)

    def people(self) -> list[Person]:
        """Everybody who has not been removed, by name."""
        with self._session() as session:
            return list(session.scalars(select(Person).where(Person.retired.is_(None)).order_by(Person.name)))

    def is_present(self, name: str) -> bool:
        """Whether there is such a person who has not been removed."""
        person = self.person(name)
        return person is not None and person.retired is None

    def ensure_person(self, name: str, *, restore: bool = False) -> bool:
        """Make the person where there is none.

        Args:
            name: a valid account name.
            restore: bring back somebody who was removed.

        Returns:
            whether the person was made or brought back.

        Raises:
            IllumiDeskError: where the name is invalid, or belonged to somebody who was removed.
        """
        names.check_account(name)
        with self._session() as session:
            person = session.get(Person, name)
            if person is None:
                session.add(Person(name=name))
                return True
            if person.retired is None:
                return False
            if not restore:
                raise IllumiDeskError(
                    f"{name} was removed on {person.retired:%Y-%m-%d} and the files of that person are kept",
                    hint=f"`illumidesk user add --restore {name}` brings the same person back; "
                    "somebody else needs another name",
                    status=409,
                )
            person.retired = None
            return True

    def retire_person(self, name: str) -> None:
        """Mark the person as removed, without memberships and password; nothing where there is none."""
        with self._session() as session:
            person = session.get(Person, name)
            if person is not None and person.retired is None:
                person.retired = now()
                person.password_hash = None
                person.memberships.clear()

    def set_password_hash(self, name: str, password_hash: str | None) -> None:
        """Keep a bcrypt hash, or forget it so that the next sign-in sets a new password."""
        with self._session() as session:
            person = session.get(Person, name)
            if person is None or person.retired is not None:
                raise unknown_person(name)
            person.password_hash = password_hash

    # Courses

    def course(self, course_id: str) -> Course | None:
        """The course of that id."""
        with self._session() as session:
            return session.get(Course, course_id)

    def courses(self) -> list[Course]:
        """Every course, by id."""
        with self._session() as session:
            return list(session.scalars(select(Course).order_by(Course.course_id)))

    def ensure_course(self, course_id: str, title: str = "") -> bool:
        """Make the course where there is none; a title that is given replaces the one kept.

        Returns:
            whether the course was made.

        Raises:
            IllumiDeskError: where the id or the title is invalid.
        """
        names.check_course_id(course_id)
        title = check_title(title)
        with self._session() as session:
            course = session.get(Course, course_id)
            if course is None:
                session.add(Course(course_id=course_id, title=title))
                return True
            if title:
                course.title = title
            return False

    def remove_course(self, course_id: str) -> None:
        """Forget the course and who was in it; nothing where there is none."""
        with self._session() as session:
            course = session.get(Course, course_id)
            if course is not None:
                session.delete(course)

    # Memberships

    def set_membership(self, course_id: str, name: str, role: MemberRole | None) -> bool:
        """Give the person that role in the course, or none.

        Returns:
            whether the person was not in the course before.

        Raises:
            IllumiDeskError: where the course, the person or the role is unknown.
        """
        if role is not None and role not in MEMBER_ROLES:
            raise IllumiDeskError(f"{role!r} is not a role", hint=f"use one of {', '.join(MEMBER_ROLES)}")
        with self._session() as session:
            if session.get(Course, course_id) is None:
                raise unknown_course(course_id)
            person = session.get(Person, name)
            if person is None or (person.retired is not None and role is not None):
                raise unknown_person(name)
            membership = session.get(Membership, (course_id, name))
            if role is None:
                if membership is not None:
                    session.delete(membership)
                return False
            if membership is None:
                session.add(Membership(course_id=course_id, name=name, role=role))
                return True
            membership.role = role
            return False

    def members(self, course_id: str) -> list[tuple[str, MemberRole]]:
        """Who is in the course and as what, by name."""
        query = select(Membership.name, Membership.role).where(Membership.course_id == course_id)
        return [(row[0], cast(MemberRole, row[1])) for row in self._rows(query.order_by(Membership.name))]

    def memberships(self, name: str) -> list[tuple[str, MemberRole]]:
        """The courses of a person and the role in each, by id."""
        query = select(Membership.course_id, Membership.role).where(Membership.name == name)
        return [(row[0], cast(MemberRole, row[1])) for row in self._rows(query.order_by(Membership.course_id))]

    def all_memberships(self) -> list[tuple[str, str, MemberRole]]:
        """Every membership as (course id, name, role)."""
        query = select(Membership.course_id, Membership.name, Membership.role)
        return [(row[0], row[1], cast(MemberRole, row[2])) for row in self._rows(query)]

    def counts(self) -> dict[str, Counter[str]]:
        """How many there are of each role, by course."""
        counts: dict[str, Counter[str]] = {}
        for course_id, _, role in self.all_memberships():
            counts.setdefault(course_id, Counter())[role] += 1
        return counts

    def highest_role(self, name: str) -> MemberRole | None:
        """The most able role that the person has in any course."""
        held = {role for _, role in self.memberships(name)}
        return next((role for role in _RANK if role in held), None)

    def _rows(self, query: Any) -> list[Any]:
        with self._session() as session:
            return list(session.execute(query))


def check_title(title: str) -> str:
    """`title` without spaces around it.

    Raises:
        IllumiDeskError: where it is none.
    """
    title = title.strip()
    if len(title) > MAX_TITLE or not title.isprintable():
        raise IllumiDeskError(
            f"a course title is one line of at most {MAX_TITLE} characters", hint="shorten it and leave out line breaks"
        )
    return title


def unknown_course(course_id: str) -> IllumiDeskError:
    """The error for a course that is not there."""
    return IllumiDeskError(
        f"there is no course {course_id}", hint="`illumidesk course list` shows the courses", status=404
    )


def unknown_person(name: str) -> IllumiDeskError:
    """The error for a person who is not there."""
    return IllumiDeskError(f"there is no user {name}", hint=f"`illumidesk user add {name}` adds one", status=404)


def database_problem(error: OperationalError, path: Path) -> IllumiDeskError:
    """The error for a database that cannot be used: full disk, read-only, locked.

    Args:
        error: SQLAlchemy's.
        path: the folder in which the databases are.
    """
    return IllumiDeskError(
        f"the hub cannot use its database: {error.orig}", hint=f"is the disk full? df -h {path}", status=503
    )


def iso(when: datetime | None) -> str | None:
    """A time of the registry or of JupyterHub's database (UTC, without a zone) as ISO 8601 with `Z`."""
    return None if when is None else when.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        # WAL: readers and a killed writer block nobody. FULL: a commit that was answered survives a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine
