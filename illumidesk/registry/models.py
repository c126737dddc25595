"""Tables of the registry. A change here needs a migration in `migrations/versions`; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args

from sqlalchemy import JSON, DateTime, Float, ForeignKey, Index, MetaData, String, Text, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

MemberRole = Literal["student", "ta", "instructor"]
MEMBER_ROLES: tuple[MemberRole, ...] = get_args(MemberRole)

#: Versions of LTI that a platform may speak.
LTIVersion = Literal["1.1", "1.3"]
#: Who said that somebody is in a course: an administrator here, a launch, or the platform's roster.
MemberSource = Literal["admin", "launch", "roster"]
#: How an assignment came to its column: its link says so, its title, a teacher, or the column was made for it.
ColumnSource = Literal["link", "title", "teacher", "made"]
#: A grade's way: it waits for its turn, is under way, has arrived, or cannot be delivered.
DeliveryState = Literal["waiting", "sending", "sent", "failed"]
#: What an administrator says to a request for a package.
PackageAnswer = Literal["granted", "declined"]
#: The deployment that stands for all of them.
ANY_DEPLOYMENT = "*"


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
    #: Argon2id (bcrypt from earlier versions); nothing until the first sign-in, or where the person signs in otherwise.
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
    #: A `MemberSource`. A roster changes no role that a launch or an administrator gave.
    source: Mapped[str] = mapped_column(String(8), default="admin", server_default="admin")
    #: When a roster last named them.
    rostered: Mapped[datetime | None] = mapped_column(DateTime)
    #: When a roster no longer named them. The row stays, so that their work keeps its name; they are no member.
    left: Mapped[datetime | None] = mapped_column(DateTime)
    course: Mapped[Course] = relationship(back_populates="memberships")
    person: Mapped[Person] = relationship(back_populates="memberships")


class Platform(Base):
    """A learning management system that people come from: an LTI 1.1 consumer, or an LTI 1.3 platform.

    LTI 1.1 has `key` and `secret`; LTI 1.3 has `issuer`, `client_id` and what follows. What a version does not have is
    empty. A number is never used again, so that the people of one platform are never another's.
    """

    __tablename__ = "platforms"
    __table_args__ = (
        Index("ix_platforms_key", "key", unique=True, sqlite_where=text("key != ''")),
        Index("ix_platforms_issuer", "issuer", "client_id", unique=True, sqlite_where=text("issuer != ''")),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    #: What the admin calls it; one line, not a number.
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(8))
    key: Mapped[str] = mapped_column(String(255), default="")
    #: In clear, since HMAC needs it; the file is the hub's alone.
    secret: Mapped[str] = mapped_column(String(255), default="")
    issuer: Mapped[str] = mapped_column(String(255), default="")
    client_id: Mapped[str] = mapped_column(String(255), default="")
    auth_url: Mapped[str] = mapped_column(String(1024), default="")
    #: For services such as grades; empty where the admin has not given it.
    token_url: Mapped[str] = mapped_column(String(1024), default="")
    #: Whom a request for a token is meant for, where that is not `token_url`.
    token_audience: Mapped[str] = mapped_column(String(1024), default="", server_default="")
    jwks_url: Mapped[str] = mapped_column(String(1024), default="")
    #: Deployments that may launch; `*` stands for any.
    deployments: Mapped[list[str]] = mapped_column(JSON, default=list)
    #: Where its pages are, as verified launches said: they may frame ours.
    origins: Mapped[list[str]] = mapped_column(JSON, default=list)
    created: Mapped[datetime] = mapped_column(DateTime, default=now)
    #: When it was removed; the row stays so that its people stay its own.
    removed: Mapped[datetime | None] = mapped_column(DateTime)

    @property
    def enabled(self) -> bool:
        """Whether launches from it count."""
        return self.removed is None

    def allows_deployment(self, deployment: str) -> bool:
        """Whether that deployment may launch."""
        return deployment in self.deployments or ANY_DEPLOYMENT in self.deployments


class Identity(Base):
    """Whom a platform means by a `sub`: one person, for ever."""

    __tablename__ = "identities"

    platform_id: Mapped[int] = mapped_column(ForeignKey("platforms.id"), primary_key=True)
    sub: Mapped[str] = mapped_column(String(1024), primary_key=True)
    name: Mapped[str] = mapped_column(ForeignKey("people.name"), index=True)
    #: As last sent; empty where the platform keeps it to itself.
    email: Mapped[str] = mapped_column(String(255), default="")
    full_name: Mapped[str] = mapped_column(String(255), default="")
    given_name: Mapped[str] = mapped_column(String(255), default="", server_default="")
    family_name: Mapped[str] = mapped_column(String(255), default="", server_default="")
    created: Mapped[datetime] = mapped_column(DateTime, default=now)


class Context(Base):
    """Which course a platform means by a context id."""

    __tablename__ = "contexts"

    platform_id: Mapped[int] = mapped_column(ForeignKey("platforms.id"), primary_key=True)
    context_id: Mapped[str] = mapped_column(String(1024), primary_key=True)
    course_id: Mapped[str] = mapped_column(ForeignKey("courses.course_id", ondelete="CASCADE"), index=True)
    #: As last sent.
    label: Mapped[str] = mapped_column(String(255), default="")
    title: Mapped[str] = mapped_column(String(255), default="")
    #: Where its columns (AGS 2.0) and its roster (NRPS 2.0) are, and what may be done there, as last sent.
    line_items_url: Mapped[str] = mapped_column(Text, default="", server_default="")
    ags_scopes: Mapped[list[str]] = mapped_column(JSON, default=list, server_default="[]")
    memberships_url: Mapped[str] = mapped_column(Text, default="", server_default="")
    #: When its roster was last read whole.
    rostered: Mapped[datetime | None] = mapped_column(DateTime)
    created: Mapped[datetime] = mapped_column(DateTime, default=now)


class ResourceLink(Base):
    """A link of a platform's course to this classroom, as its launches describe it."""

    __tablename__ = "links"
    __table_args__ = (UniqueConstraint("platform_id", "context_id", "resource_link_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    platform_id: Mapped[int] = mapped_column(ForeignKey("platforms.id"))
    context_id: Mapped[str] = mapped_column(String(1024))
    resource_link_id: Mapped[str] = mapped_column(String(1024))
    course_id: Mapped[str] = mapped_column(ForeignKey("courses.course_id", ondelete="CASCADE"), index=True)
    title: Mapped[str] = mapped_column(String(255), default="")
    #: The nbgrader assignment that it opens; empty where it names none.
    assignment: Mapped[str] = mapped_column(String(100), default="")
    #: Its column by LTI 1.3 (AGS 2.0), empty where it has none.
    line_item: Mapped[str] = mapped_column(Text, default="")
    #: Where its grades go by LTI 1.1 (Basic Outcomes), empty where it takes none.
    outcome_url: Mapped[str] = mapped_column(Text, default="")
    created: Mapped[datetime] = mapped_column(DateTime, default=now)


class ResultSourcedId(Base):
    """What stands for one student's grade at one link by LTI 1.1, letter by letter as the last launch brought it."""

    __tablename__ = "sourcedids"

    link_id: Mapped[int] = mapped_column(ForeignKey("links.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(ForeignKey("people.name", ondelete="CASCADE"), primary_key=True)
    sourcedid: Mapped[str] = mapped_column(Text)


class Column(Base):
    """Where the grades of an assignment go in a platform's course."""

    __tablename__ = "columns"
    __table_args__ = (UniqueConstraint("platform_id", "context_id", "assignment"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    platform_id: Mapped[int] = mapped_column(ForeignKey("platforms.id"))
    context_id: Mapped[str] = mapped_column(String(1024))
    course_id: Mapped[str] = mapped_column(ForeignKey("courses.course_id", ondelete="CASCADE"), index=True)
    assignment: Mapped[str] = mapped_column(String(100))
    #: What the platform calls it.
    label: Mapped[str] = mapped_column(String(255), default="")
    #: Its address by LTI 1.3; empty for LTI 1.1, whose column is a link.
    line_item: Mapped[str] = mapped_column(Text, default="")
    link_id: Mapped[int | None] = mapped_column(ForeignKey("links.id", ondelete="SET NULL"))
    #: A `ColumnSource`.
    source: Mapped[str] = mapped_column(String(8))
    created: Mapped[datetime] = mapped_column(DateTime, default=now)


class Delivery(Base):
    """One student's grade of one assignment on its way to the platform: what shall be there, and what is.

    `score`, `maximum`, `comment`, `partial` and `changed` are wanted; `sent_…` is what the platform took last.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("column_id", "name"),
        Index("ix_deliveries_state", "state", "due"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    column_id: Mapped[int] = mapped_column(ForeignKey("columns.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(ForeignKey("people.name", ondelete="CASCADE"), index=True)
    score: Mapped[float] = mapped_column(Float)
    maximum: Mapped[float] = mapped_column(Float)
    comment: Mapped[str] = mapped_column(Text, default="")
    #: Whether something is still to be graded by hand.
    partial: Mapped[bool] = mapped_column(default=False)
    #: The time that goes with the score (AGS 2.0, `timestamp`): UTC with microseconds, later than the one before. A
    #: second attempt has the same, so that the platform can tell it from a change.
    changed: Mapped[datetime] = mapped_column(DateTime)
    #: Counts what was wanted, so that the end of an attempt is not taken for the end of a later one.
    revision: Mapped[int] = mapped_column(default=1)
    #: A `DeliveryState`.
    state: Mapped[str] = mapped_column(String(8))
    #: Whether the platform may have taken it already: an attempt was cut off.
    unsure: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)
    #: When the next attempt is due; nothing where it waits for the student to open the link.
    due: Mapped[datetime | None] = mapped_column(DateTime)
    #: Why it has not arrived: a code, and words for a teacher.
    code: Mapped[str] = mapped_column(String(32), default="")
    problem: Mapped[str] = mapped_column(Text, default="")
    hint: Mapped[str] = mapped_column(Text, default="")
    #: Who asked for it; empty for the timer.
    asked_by: Mapped[str] = mapped_column(String(32), default="")
    sent_score: Mapped[float | None] = mapped_column(Float)
    sent_maximum: Mapped[float | None] = mapped_column(Float)
    sent_comment: Mapped[str] = mapped_column(Text, default="")
    sent_partial: Mapped[bool] = mapped_column(default=False)
    sent_at: Mapped[datetime | None] = mapped_column(DateTime)


class PackageRequest(Base):
    """A package that an instructor asks for, for the course's environment."""

    __tablename__ = "package_requests"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    course_id: Mapped[str] = mapped_column(ForeignKey("courses.course_id", ondelete="CASCADE"), index=True)
    #: A requirement specifier (PEP 508).
    requirement: Mapped[str] = mapped_column(String(200))
    asked_by: Mapped[str] = mapped_column(String(32))
    created: Mapped[datetime] = mapped_column(DateTime, default=now)
    #: A `PackageAnswer`; nothing while it waits for one.
    answer: Mapped[str | None] = mapped_column(String(8))
    answered: Mapped[datetime | None] = mapped_column(DateTime)
    #: For whoever asked.
    reason: Mapped[str] = mapped_column(String(300), default="")


class ToolKey(Base):
    """A key pair of this tool. The newest signs; older ones are still shown to platforms."""

    __tablename__ = "tool_keys"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    kid: Mapped[str] = mapped_column(String(64))
    #: PEM (PKCS #8), a secret.
    private: Mapped[str] = mapped_column(Text)
    created: Mapped[datetime] = mapped_column(DateTime, default=now)


class Invite(Base):
    """A one-time invitation for a platform to register itself."""

    __tablename__ = "invites"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = mapped_column(primary_key=True)
    #: SHA-256 of the token, which is kept nowhere.
    digest: Mapped[str] = mapped_column(String(64), unique=True, index=True)
    #: What the platform will be called.
    name: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(DateTime, default=now)
    expires: Mapped[datetime] = mapped_column(DateTime)
    #: The platform that came with it; until then it is good.
    platform_id: Mapped[int | None] = mapped_column(ForeignKey("platforms.id"))


class Nonce(Base):
    """A nonce of a launch that was believed, kept until the launch would be too old anyway."""

    __tablename__ = "nonces"

    platform_id: Mapped[int] = mapped_column(ForeignKey("platforms.id"), primary_key=True)
    #: SHA-256 of it: as long as any other, whatever a platform sends.
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    #: Seconds since 1970.
    expires: Mapped[float] = mapped_column(Float, index=True)
