"""Tables of the registry. A change here needs a migration in `migrations/versions`; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args

from sqlalchemy import DateTime, ForeignKey, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

MemberRole = Literal["student", "ta", "instructor"]
MEMBER_ROLES: tuple[MemberRole, ...] = get_args(MemberRole)


def now() -> datetime:
    """The time in UTC, without a zone, as SQLite keeps it."""
    return datetime.now(UTC).replace(tzinfo=None, microsecond=0)


class Base(DeclarativeBase):
    """Base of all tables; constraints are named so that migrations can change them on SQLite."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Person(Base):
    """Somebody with an account. The name is the hub's, the Linux account's and nobody else's, for ever."""

    __tablename__ = "people"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    created: Mapped[datetime] = mapped_column(DateTime, default=now)
    #: When the person was removed; the row stays so that the name is not given to another.
    retired: Mapped[datetime | None] = mapped_column(DateTime)
    #: bcrypt; nothing until the first sign-in, or where the person signs in otherwise.
    password_hash: Mapped[str | None] = mapped_column(String(100))
    memberships: Mapped[list[Membership]] = relationship(back_populates="person", cascade="all, delete-orphan")


class Course(Base):
    """A course with its grader."""

    __tablename__ = "courses"

    course_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    title: Mapped[str] = mapped_column(String(255), default="")
    created: Mapped[datetime] = mapped_column(DateTime, default=now)
    memberships: Mapped[list[Membership]] = relationship(back_populates="course", cascade="all, delete-orphan")


class Membership(Base):
    """A person's role in a course."""

    __tablename__ = "memberships"

    course_id: Mapped[str] = mapped_column(ForeignKey("courses.course_id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(ForeignKey("people.name", ondelete="CASCADE"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(16))
    created: Mapped[datetime] = mapped_column(DateTime, default=now)
    course: Mapped[Course] = relationship(back_populates="memberships")
    person: Mapped[Person] = relationship(back_populates="memberships")
