"""Reading and writing the registry, in words of the field. Each call is one transaction."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlsplit

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, and_, bindparam, create_engine, delete, event, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.registry.disk import Disk
from illumidesk.registry.grades import GradeRecords
from illumidesk.registry.models import (
    ANY_DEPLOYMENT,
    MEMBER_ROLES,
    Context,
    Course,
    Identity,
    Invite,
    LTIVersion,
    MemberRole,
    Membership,
    MemberSource,
    Nonce,
    Person,
    Platform,
    ResourceLink,
    ResultSourcedId,
    ToolKey,
    now,
)
from illumidesk.registry.package_requests import PackageRequests

#: Most nonces kept of one platform: 160 launches a second for ten minutes.
MAX_NONCES = 100_000
#: Seconds between two removals of those that have expired.
NONCE_SWEEP = 30.0
#: Most places kept of one platform's pages.
MAX_ORIGINS = 20
#: How long a key of ours that signs no more is still shown to platforms, which keep key sets for a while.
KEY_OVERLAP = timedelta(days=7)
#: Longest id of a person or course that is taken from a platform. LTI allows 255 characters.
MAX_ID = 1024

#: Longest title of a course, in characters.
MAX_TITLE = 255
#: From the most to the least able: what counts where somebody has several roles.
_RANK: tuple[MemberRole, ...] = ("instructor", "ta", "student")


@dataclass(frozen=True)
class Recognised:
    """A launch of which everything is known, or everything but the person.

    Attributes:
        name: the person's; None where the platform has never said anything of them.
        course_id: the course; None where the launch comes from none.
        link: the link's number.
    """

    name: str | None
    course_id: str | None
    link: int | None


class Registry:
    """People, courses, memberships and platforms.

    Args:
        path: the SQLite file; made (0600) and migrated to the newest tables where needed.

    Every method is quick (one indexed query on a local file) and is called on the hub's event loop, as JupyterHub
    calls its own database. A change has reached the disk when its method returns. What launches change has reached it
    when `settled` returns, since a class that clicks at the same minute would otherwise wait for the disk one by one,
    and everybody else with it.

    No other process may write the file meanwhile: platforms are kept in memory.
    """

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        self.engine = _engine(path, "FULL")
        self._quick = _engine(path, "NORMAL")
        self._disk = Disk(path.with_name(f"{path.name}-wal"))
        #: The transaction of `together`, while one is open.
        self._open: Session | None = None
        self._present: list[Platform] | None = None
        #: How many nonces there are of each platform, and when the expired ones were removed (seconds that only rise).
        self._nonces: Counter[int] = Counter()
        self._swept = float("-inf")
        self.grades = GradeRecords(self._session, self._writing)
        self.package_requests = PackageRequests(self._session, self._writing)
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
        self._quick.dispose()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of the calls within. It has reached the disk when `settled` returns.

        Nothing may be awaited within.
        """
        with Session(self._quick, expire_on_commit=False) as session, session.begin():
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
            self._open = session
            try:
                yield
            finally:
                self._open = None

    async def settled(self) -> None:
        """Return when everything that was changed before has reached the disk."""
        await self._disk.settled()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        if self._open is not None:
            yield self._open
            return
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A transaction that no other writer comes between, from what it reads first to what it writes last."""
        with self._session() as session:
            if self._open is None:
                session.connection().exec_driver_sql("BEGIN IMMEDIATE")
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
        with self.engine.connect() as connection:
            return connection.execute(_PRESENT, {"name": name}).first() is not None

    def standing(self, names: Collection[str]) -> dict[str, dict[str, MemberRole]]:
        """Who of these there is and has not been removed, each with the role in each of their courses, by its id."""
        found: dict[str, dict[str, MemberRole]] = {}
        with self.engine.connect() as connection:
            for name, course_id, role in connection.execute(_STANDING, {"names": list(names)}):
                courses = found.setdefault(name, {})
                if course_id is not None:
                    courses[course_id] = cast(MemberRole, role)
        return found

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
        """Keep a password's hash, or forget it so that the next sign-in sets a new password."""
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

    def set_membership(
        self, course_id: str, name: str, role: MemberRole | None, *, source: MemberSource = "admin"
    ) -> bool:
        """Give the person that role in the course, or none.

        Args:
            course_id: the course.
            name: the person.
            role: what they are in it. A roster (`source`) does not change what anybody else said.
            source: who says so.

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
                membership = Membership(course_id=course_id, name=name, role=role, source=source)
                session.add(membership)
                fresh = True
            else:
                fresh = membership.left is not None
                if source != "roster" or membership.source == "roster" or fresh:
                    membership.role, membership.source = role, source
                membership.left = None
            if source == "roster":
                membership.rostered = now()
            return fresh

    def membership(self, course_id: str, name: str) -> Membership | None:
        """The person's place in the course, also where a roster no longer names them (`left`)."""
        with self._session() as session:
            return session.get(Membership, (course_id, name))

    def leave(self, course_id: str, name: str) -> None:
        """Mark the person as no longer in the course, by its roster; nothing where there is no such member."""
        with self._session() as session:
            membership = session.get(Membership, (course_id, name))
            if membership is not None and membership.left is None:
                membership.left = now()

    def all_members(self, course_id: str) -> list[Membership]:
        """Everybody who is or was in the course, by name; `left` tells who only was."""
        with self._session() as session:
            query = select(Membership).where(Membership.course_id == course_id).order_by(Membership.name)
            return list(session.scalars(query))

    def roster(self, course_id: str) -> list[tuple[Membership, Identity | None]]:
        """Everybody who is or was in the course, by name, with what their platform says of them.

        People whom no platform knows have None.
        """
        query = (
            select(Membership, Identity)
            .join(Identity, Identity.name == Membership.name, isouter=True)
            .where(Membership.course_id == course_id)
            .order_by(Membership.name, Identity.created)
        )
        # A person is of one platform; where there were two, the one that came last counts.
        return list({row[0].name: (row[0], row[1]) for row in self._rows(query)}.values())

    def roster_was_read(self, course_id: str, platform_id: int, context_id: str, names: Iterable[str]) -> None:
        """Remember that the platform's roster of the course has been read, and whom it named."""
        at = now()
        named = set(names)
        with self._writing() as session:
            context = session.get(Context, (platform_id, context_id))
            if context is None or context.course_id != course_id:
                return
            context.rostered = at
            for membership in session.scalars(select(Membership).where(Membership.course_id == course_id)):
                if membership.name in named:
                    membership.rostered = at

    def rosters(self) -> list[tuple[str, datetime]]:
        """The courses whose roster has been read, with the time of the oldest that is to be read again."""
        query = (
            select(Context.course_id, func.min(Context.rostered))
            .join(Platform, Platform.id == Context.platform_id)
            .where(Context.rostered.is_not(None), Context.memberships_url != "", Platform.removed.is_(None))
            .group_by(Context.course_id)
            .order_by(Context.course_id)
        )
        return [(row[0], row[1]) for row in self._rows(query)]

    def members(self, course_id: str) -> list[tuple[str, MemberRole]]:
        """Who is in the course and as what, by name."""
        query = select(Membership.name, Membership.role).where(
            Membership.course_id == course_id, Membership.left.is_(None)
        )
        return [(row[0], cast(MemberRole, row[1])) for row in self._rows(query.order_by(Membership.name))]

    def memberships(self, name: str) -> list[tuple[str, MemberRole]]:
        """The courses of a person and the role in each, by id."""
        with self.engine.connect() as connection:
            rows = connection.execute(_MEMBERSHIPS, {"name": name}).all()
        return [(row[0], cast(MemberRole, row[1])) for row in rows]

    def all_memberships(self) -> list[tuple[str, str, MemberRole]]:
        """Every membership as (course id, name, role)."""
        query = select(Membership.course_id, Membership.name, Membership.role).where(Membership.left.is_(None))
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

    # Platforms

    def platforms(self) -> list[Platform]:
        """Every platform that has not been removed, in the order in which they came."""
        if self._present is None:
            with self._session() as session:
                query = select(Platform).where(Platform.removed.is_(None)).order_by(Platform.id)
                self._present = list(session.scalars(query))
        return list(self._present)

    def platform(self, platform_id: int) -> Platform | None:
        """The platform of that number, unless it has been removed."""
        return next((one for one in self.platforms() if one.id == platform_id), None)

    def platform_by_key(self, key: str) -> Platform | None:
        """The LTI 1.1 consumer with that key, unless it has been removed."""
        found = (one for one in self.platforms() if key and (one.version, one.key) == ("1.1", key))
        return next(found, None)

    def platforms_by_issuer(self, issuer: str, client_id: str | None = None) -> list[Platform]:
        """The LTI 1.3 platforms of that issuer, all of them or the one with that client id.

        One issuer may be several: Canvas's cloud is one issuer for all its schools.
        """
        found = [one for one in self.platforms() if issuer and (one.version, one.issuer) == ("1.3", issuer)]
        return found if client_id is None else [one for one in found if one.client_id == client_id]

    def platform_counts(self) -> dict[int, tuple[int, int]]:
        """How many people and how many courses came from each platform, by its number."""
        people = select(Identity.platform_id, func.count()).group_by(Identity.platform_id)
        courses = select(Context.platform_id, func.count()).group_by(Context.platform_id)
        with self._session() as session:
            of_people: dict[int, int] = {row[0]: row[1] for row in session.execute(people)}
            of_courses: dict[int, int] = {row[0]: row[1] for row in session.execute(courses)}
        return {
            number: (of_people.get(number, 0), of_courses.get(number, 0)) for number in of_people.keys() | of_courses
        }

    def add_platform(
        self,
        name: str,
        version: LTIVersion,
        *,
        key: str = "",
        secret: str = "",
        issuer: str = "",
        client_id: str = "",
        auth_url: str = "",
        token_url: str = "",
        token_audience: str = "",
        jwks_url: str = "",
        deployments: Sequence[str] = (),
        replace: bool = False,
        insecure: bool = False,
        invite_id: int | None = None,
    ) -> tuple[Platform, bool]:
        """Add a platform. LTI 1.1 takes `key` and `secret`, LTI 1.3 the rest (`token_url` and
        `token_audience` may stay empty).

        Args:
            name: what people call it.
            version: of LTI.
            key: consumer key.
            secret: consumer secret, at least 12 characters.
            issuer: the platform's `iss`, letter by letter.
            client_id: what the platform calls this tool.
            auth_url: where its login is answered.
            token_url: where it gives tokens for services.
            token_audience: whom a request for a token is meant for (any absolute URI), where that is not `token_url`.
            jwks_url: where its public keys are.
            deployments: ids of the deployments that may launch; `*` is any.
            replace: change the platform with this key, or this issuer and client id, where it is there; bring it back,
                with its people and courses, where it was removed.
            insecure: take `http:` addresses, for platforms on this machine.
            invite_id: the invitation that this uses up.

        Returns:
            the platform, and whether it was added or brought back.

        Raises:
            IllumiDeskError: where something is missing or wrong, or is there already.
        """
        fields = {
            "key": key,
            "secret": secret,
            "issuer": issuer,
            "client_id": client_id,
            "auth_url": auth_url,
            "token_url": token_url,
            "token_audience": token_audience,
            "jwks_url": jwks_url,
        }
        wanted: dict[str, Any] = _platform_fields(name, version, fields, list(deployments), insecure=insecure)
        same = (
            Platform.key == key if version == "1.1" else (Platform.issuer == issuer) & (Platform.client_id == client_id)
        )
        self._present = None
        with self._writing() as session:
            platform = session.scalar(select(Platform).where(same))
            namesake = session.scalar(
                select(Platform).where(func.lower(Platform.name) == wanted["name"].lower(), Platform.removed.is_(None))
            )
            if namesake is not None and namesake is not platform:
                raise IllumiDeskError(
                    f"there is already a platform {namesake.name}",
                    hint="give this one another name, or remove that one",
                    status=409,
                )
            if platform is None:
                platform = Platform(**wanted)
                session.add(platform)
                session.flush()
                if invite_id is not None:
                    invite = session.get(Invite, invite_id)
                    if invite is None or invite.platform_id is not None:
                        raise unknown_invite(invite_id)
                    invite.platform_id = platform.id
                return platform, True
            if not replace:
                what = f"key {key}" if version == "1.1" else f"issuer {issuer} and client id {client_id}"
                state = "is there already" if platform.enabled else "was removed, and its people are kept"
                raise IllumiDeskError(
                    f"the platform {platform.name} with the {what} {state}",
                    hint="--replace changes it or brings it back, with its people and courses",
                    status=409,
                )
            back = not platform.enabled
            for field, value in wanted.items():
                setattr(platform, field, value)
            platform.removed = None
            return platform, back

    def remove_platform(self, platform_id: int) -> None:
        """Believe no launch from it any more, and forget its secret; its people and courses stay.

        Raises:
            IllumiDeskError: where there is none.
        """
        self._present = None
        with self._writing() as session:
            platform = session.get(Platform, platform_id)
            if platform is None or not platform.enabled:
                raise unknown_platform(platform_id)
            platform.removed = now()
            platform.secret = ""

    def learn_origins(self, platform_id: int, origins: Iterable[str]) -> None:
        """Remember where pages of the platform are, as a verified launch said; at most `MAX_ORIGINS`, the last.

        Args:
            platform_id: the platform's number.
            origins: `https://host[:port]` each.
        """
        known = self.platform(platform_id)
        fresh = [] if known is None else [one for one in sorted(origins) if one not in known.origins]
        if not fresh:
            return
        self._present = None
        with self._session() as session:
            platform = session.get_one(Platform, platform_id)
            platform.origins = [*platform.origins, *fresh][-MAX_ORIGINS:]

    # Invitations for platforms

    def add_invite(self, name: str, lifetime: timedelta) -> tuple[Invite, str]:
        """Make an invitation.

        Args:
            name: what the platform will be called.
            lifetime: until when it is good.

        Returns:
            the invitation and its token, which is kept nowhere.

        Raises:
            IllumiDeskError: where the name cannot be a platform's.
        """
        token = secrets.token_urlsafe(32)
        invite = Invite(digest=_digest(token), name=_platform_name(name), expires=now() + lifetime)
        with self._session() as session:
            session.add(invite)
        return invite, token

    def invite(self, token: str) -> Invite | None:
        """The invitation with that token, while it is good."""
        query = select(Invite).where(
            Invite.digest == _digest(token), Invite.platform_id.is_(None), Invite.expires > now()
        )
        with self._session() as session:
            return session.scalar(query)

    def invites(self) -> list[Invite]:
        """Those that are still good, the oldest first."""
        query = select(Invite).where(Invite.platform_id.is_(None), Invite.expires > now()).order_by(Invite.id)
        with self._session() as session:
            return list(session.scalars(query))

    def revoke_invite(self, invite_id: int) -> None:
        """Take an invitation back.

        Raises:
            IllumiDeskError: where there is none.
        """
        with self._session() as session:
            invite = session.get(Invite, invite_id)
            if invite is None or invite.platform_id is not None:
                raise unknown_invite(invite_id)
            session.delete(invite)

    # Keys of this tool

    def tool_keys(self) -> list[ToolKey]:
        """The key pairs that platforms may still meet, the one that signs first."""
        with self._session() as session:
            keys = list(session.scalars(select(ToolKey).order_by(ToolKey.id.desc())))
            return keys[:1] + [key for newer, key in pairwise(keys) if newer.created > now() - KEY_OVERLAP]

    def add_tool_key(self, kid: str, private: str) -> None:
        """Keep a new key pair, which signs from now on; forget those that nobody needs any more."""
        with self._writing() as session:
            last = session.scalar(select(func.max(ToolKey.id)))
            session.execute(delete(ToolKey).where(ToolKey.created < now() - 10 * KEY_OVERLAP, ToolKey.id != last))
            session.add(ToolKey(kid=kid, private=private))

    # Whom and what a platform means

    def recognised(
        self,
        platform_id: int,
        sub: str,
        *,
        person: Mapping[str, str],
        context_id: str | None = None,
        course: Mapping[str, Any] | None = None,
        role: MemberRole | None = None,
        link_id: str | None = None,
        link: Mapping[str, str] | None = None,
        sourcedid: str = "",
    ) -> Recognised | None:
        """The name and course of a launch that says nothing that is not kept already, unless of somebody new.

        Most launches are such; with one query in place of a dozen they are cheap. Where it answers nothing, the methods
        below look closer, and say what is wrong where something is.

        Args:
            platform_id: the platform's number.
            sub: the platform's id for the person.
            person: what the launch says of them, by `Identity`'s fields; empty is what it does not say, as below.
            context_id: the platform's id for the course; None where the launch comes from none.
            course: what it says of the course, by `Context`'s fields.
            role: as what the person comes.
            link_id: the platform's id for the link.
            link: what it says of the link, by `ResourceLink`'s fields.
            sourcedid: what stands for the person at the link.

        Returns:
            None where something is new besides the person, or the person was removed.
        """
        values = {"platform": platform_id, "sub": sub, "context": context_id or "", "link": link_id or ""}
        with self.engine.connect() as connection:
            row = connection.execute(_RECOGNISED, values).mappings().first()
        if row is None or row[_P.retired] is not None:
            return None
        is_new = row[_I.name] is None
        said: list[tuple[Any, Mapping[str, Any]]] = [] if is_new else [(_I, _one_lines(person, *person))]
        if context_id is not None:
            said.append((_C, _one_lines(course or {}, "label", "title")))
            is_member = row[_M.left] is None and row[_M.source] != "roster" and row[_M.role] == role
            if row[_C.course_id] is None or not (is_member or is_new):
                return None
            if link_id is not None:
                said.append((_L, link or {}))
                if row[_L.course_id] != row[_C.course_id]:
                    return None
                if sourcedid and row[_S.sourcedid] != sourcedid and not is_new:
                    return None
        if any(value and row[of[field]] != value for of, fields in said for field, value in fields.items()):
            return None
        return Recognised(row[_I.name], row[_C.course_id], row[_L.id])

    def is_from_platform(self, name: str) -> bool:
        """Whether the person came from a platform, and so has no password."""
        with self._session() as session:
            return session.scalar(select(Identity.name).where(Identity.name == name).limit(1)) is not None

    def identity(self, platform_id: int, sub: str) -> Identity | None:
        """What is known of that person of the platform."""
        with self._session() as session:
            return session.get(Identity, (platform_id, sub))

    def ensure_identity(
        self,
        platform_id: int,
        sub: str,
        propose: Iterable[str],
        *,
        taken: Callable[[str], bool] = lambda _: False,
        email: str = "",
        full_name: str = "",
        given_name: str = "",
        family_name: str = "",
    ) -> tuple[str, bool]:
        """The person whom the platform means by `sub`; made, under a name that was never anybody's, where it is new.

        Args:
            platform_id: the platform's number.
            sub: the platform's id for the person.
            propose: valid account names, the best first (`names.account_proposals`).
            taken: whether a name is somebody's of whom the registry does not know. It is called within the
                transaction: it must be quick, and must not use the registry.
            email: what the platform says of it now; empty keeps what is known.
            full_name: likewise.
            given_name: likewise.
            family_name: likewise.

        Returns:
            the person's name, and whether the person was made.

        Raises:
            IllumiDeskError: where the person was removed, the id is unusable or the platform is not there.
        """
        told = {"email": email, "full_name": full_name, "given_name": given_name, "family_name": family_name}
        known = {field: _one_line(text) for field, text in told.items()}
        _check_id(sub, "person")
        with self._session() as session:
            identity = session.get(Identity, (platform_id, sub))
            if identity is not None and not _differs(identity, known):
                return _present_name(session, identity), False
        with self._writing() as session:
            identity = session.get(Identity, (platform_id, sub))
            if identity is not None:
                _update(identity, known)
                return _present_name(session, identity), False
            self._check_platform(platform_id)
            name = _free(session, Person.name, [names.check_account(one) for one in propose], names.MAX_ACCOUNT, taken)
            session.add(Person(name=name))
            session.flush()
            session.add(Identity(platform_id=platform_id, sub=sub, name=name, **known))
            return name, True

    def welcome(
        self,
        platform_id: int,
        sub: str,
        propose: Iterable[str],
        *,
        taken: Callable[[str], bool] = lambda _: False,
        person: Mapping[str, str],
        course_id: str,
        role: MemberRole,
        link: int | None = None,
        sourcedid: str = "",
    ) -> str:
        """Make the person whom `recognised` has just said to be new, as a member of the course that it named.

        A class's first launches are such. It is `ensure_identity`, `set_membership` and `GradeRecords.learn` for them,
        without looking for what cannot be there. It has reached the disk when `settled` returns.

        Args:
            platform_id: the platform's number.
            sub: the platform's id for the person.
            propose: as in `ensure_identity`.
            taken: likewise.
            person: what the launch says of them, by `Identity`'s fields.
            course_id: the course.
            role: as what the person comes.
            link: the number of the link that they followed.
            sourcedid: what stands for them at the link.

        Returns:
            the person's name.

        Raises:
            IllumiDeskError: where the id is unusable or the platform is not there.
        """
        _check_id(sub, "person")
        self._check_platform(platform_id)
        with self._quick.begin() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            name = _free(
                connection, Person.name, [names.check_account(one) for one in propose], names.MAX_ACCOUNT, taken
            )
            connection.execute(_ADD_PERSON, {"name": name})
            known = {"platform_id": platform_id, "sub": sub, "name": name, **_one_lines(person, *person)}
            connection.execute(_ADD_IDENTITY, known)
            member = {"course_id": course_id, "name": name, "role": role, "source": "launch"}
            connection.execute(_ADD_MEMBER, member)
            if link is not None and sourcedid:
                connection.execute(_ADD_SOURCEDID, {"link_id": link, "name": name, "sourcedid": sourcedid})
        return name

    def context(self, platform_id: int, context_id: str) -> Context | None:
        """What is known of that course of the platform."""
        with self._session() as session:
            return session.get(Context, (platform_id, context_id))

    def ensure_context(
        self,
        platform_id: int,
        context_id: str,
        propose: Iterable[str],
        *,
        taken: Callable[[str], bool] = lambda _: False,
        label: str = "",
        title: str = "",
    ) -> tuple[str, bool]:
        """The course that the platform means by `context_id`; made in the registry, under a free id, where it is new.

        Args:
            platform_id: the platform's number.
            context_id: the platform's id for the course.
            propose: valid course ids, the best first (`names.course_proposals`).
            taken: whether an id is in use that the registry does not know; as in `ensure_identity`.
            label: what the platform says of it now; empty keeps what is known.
            title: likewise; the title of a course that is made.

        Returns:
            the course's id, and whether it was made. The host knows nothing of it yet.

        Raises:
            IllumiDeskError: where the id is unusable or the platform is not there.
        """
        known = {"label": _one_line(label), "title": _one_line(title)}
        _check_id(context_id, "course")
        with self._session() as session:
            context = session.get(Context, (platform_id, context_id))
            if context is not None and not _differs(context, known):
                return context.course_id, False
        with self._writing() as session:
            context = session.get(Context, (platform_id, context_id))
            if context is not None:
                _update(context, known)
                return context.course_id, False
            self._check_platform(platform_id)
            ids = [names.check_course_id(one) for one in propose]
            course_id = _free(session, Course.course_id, ids, names.MAX_COURSE_ID, taken)
            session.add(Course(course_id=course_id, title=known["title"] or known["label"]))
            session.flush()
            session.add(Context(platform_id=platform_id, context_id=context_id, course_id=course_id, **known))
            return course_id, True

    def use_nonce(self, platform_id: int, value: str, expires: float) -> bool:
        """Take a nonce. Call it once the signature holds, so that nobody else fills the table.

        Args:
            platform_id: the platform's number.
            value: the nonce.
            expires: seconds since 1970, after which a launch with it would be refused as too old.

        Returns:
            whether it had not been used.

        Raises:
            IllumiDeskError: where the platform sends more launches than anybody can mean.
        """
        self._check_platform(platform_id)
        with self._quick.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if time.monotonic() - self._swept > NONCE_SWEEP or self._nonces[platform_id] >= MAX_NONCES:
                connection.execute(delete(Nonce).where(Nonce.expires < time.time()))
                counts = select(Nonce.platform_id, func.count()).group_by(Nonce.platform_id)
                self._nonces = Counter({row[0]: row[1] for row in connection.execute(counts)})
                self._swept = time.monotonic()
            values = {"platform_id": platform_id, "digest": _digest(value), "expires": expires}
            fresh = connection.execute(_TAKE_NONCE, values).rowcount == 1
            if fresh and self._nonces[platform_id] >= MAX_NONCES:
                raise IllumiDeskError(
                    "too many people are signing in at this moment", hint="try again in some minutes", status=503
                )
            connection.commit()
        self._nonces[platform_id] += fresh
        return fresh

    def _check_platform(self, platform_id: int) -> None:
        if self.platform(platform_id) is None:
            raise unknown_platform(platform_id)

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


def unknown_platform(platform: int | str) -> IllumiDeskError:
    """The error for a platform that is not there."""
    return IllumiDeskError(
        f"there is no platform {platform}", hint="`illumidesk lti platform list` shows the platforms", status=404
    )


def unknown_invite(invite_id: int) -> IllumiDeskError:
    """The error for an invitation that is not there, or not any more."""
    return IllumiDeskError(
        f"there is no invitation {invite_id}", hint="`illumidesk lti invites` lists them", status=404
    )


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


def _engine(path: Path, synchronous: str) -> Engine:
    """Connections to the file.

    Args:
        path: the file.
        synchronous: FULL: a commit that was answered survives a power cut. NORMAL: it survives everything else, and a
            power cut once the file of the log has been flushed (`Disk`).
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        # WAL: readers and a killed writer block nobody.
        for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


# Parts of the above

_I, _P, _M = Identity.__table__.c, Person.__table__.c, Membership.__table__.c
_C, _L, _S = Context.__table__.c, ResourceLink.__table__.c, ResultSourcedId.__table__.c
#: All that is known of what a launch may say, in one row. Made once: SQLAlchemy takes longer to make it than to run it.
#: From the platform on, since the person may be the one thing that is not known.
_RECOGNISED = (
    select(
        *(_I.name, _I.email, _I.full_name, _I.given_name, _I.family_name, _P.retired),
        *(_M.role, _M.source, _M.left),
        *(_C.course_id, _C.label, _C.title, _C.line_items_url, _C.ags_scopes, _C.memberships_url),
        *(_L.course_id, _L.title, _L.assignment, _L.line_item, _L.outcome_url, _L.id, _S.sourcedid),
    )
    .select_from(Platform)
    .outerjoin(Identity, and_(_I.platform_id == Platform.id, _I.sub == bindparam("sub")))
    .outerjoin(Person, _P.name == _I.name)
    .outerjoin(Context, and_(_C.platform_id == Platform.id, _C.context_id == bindparam("context")))
    .outerjoin(Membership, and_(_M.course_id == _C.course_id, _M.name == _I.name))
    .outerjoin(
        ResourceLink,
        and_(
            _L.platform_id == _C.platform_id,
            _L.context_id == _C.context_id,
            _L.resource_link_id == bindparam("link"),
        ),
    )
    .outerjoin(ResultSourcedId, and_(_S.link_id == _L.id, _S.name == _I.name))
    .where(Platform.id == bindparam("platform"))
)
_PRESENT = select(_P.name).where(_P.name == bindparam("name"), _P.retired.is_(None))
_STANDING = (
    select(_P.name, _M.course_id, _M.role)
    .select_from(Person)
    .outerjoin(Membership, and_(_M.name == _P.name, _M.left.is_(None)))
    .where(_P.name.in_(bindparam("names", expanding=True)), _P.retired.is_(None))
)
_MEMBERSHIPS = (
    select(_M.course_id, _M.role).where(_M.name == bindparam("name"), _M.left.is_(None)).order_by(_M.course_id)
)
_TAKE_NONCE = insert(Nonce).on_conflict_do_nothing()
_ADD_PERSON, _ADD_IDENTITY, _ADD_MEMBER, _ADD_SOURCEDID = (
    insert(model) for model in (Person, Identity, Membership, ResultSourcedId)
)


def _free(
    session: Session | Connection, column: Any, proposals: list[str], longest: int, taken: Callable[[str], bool]
) -> str:
    """The first of the proposals that is in no row's `column` and not `taken`; else the first with a number behind."""
    if not proposals:
        raise ValueError("no name was proposed")
    for name in proposals:
        if session.scalar(select(column).where(column == name)) is None and not taken(name):
            return name
    stem = names.numbered(proposals[0], 10**6, longest).removesuffix(f"-{10**6}")
    used = set(session.scalars(select(column).where(column.startswith(stem, autoescape=True))))
    for number in range(2, 10**6):
        name = names.numbered(proposals[0], number, longest)
        if name not in used and not taken(name):
            return name
    raise IllumiDeskError(f"there are too many names like {proposals[0]}", status=503)


def _present_name(session: Session, identity: Identity) -> str:
    person = session.get(Person, identity.name)
    if person is None or person.retired is not None:
        raise IllumiDeskError(
            f"the account {identity.name} was removed from this classroom",
            hint=f"ask your teacher; `illumidesk user add --restore {identity.name}` brings it back",
            status=403,
        )
    return identity.name


def _check_id(value: str, what: str) -> None:
    if not value or len(value) > MAX_ID or not value.isprintable():
        raise IllumiDeskError(f"the learning management system sent an unusable id of the {what}")


def _differs(row: Identity | Context, known: dict[str, str]) -> bool:
    return any(value and getattr(row, field) != value for field, value in known.items())


def _update(row: Identity | Context, known: dict[str, str]) -> None:
    for field, value in known.items():
        if value:
            setattr(row, field, value)


def _one_line(text: str) -> str:
    """Free text as one printable line of at most 255 characters."""
    return "".join(char if char.isprintable() else " " for char in text[:1000]).strip()[:255].rstrip()


def _one_lines(said: Mapping[str, Any], *fields: str) -> dict[str, Any]:
    return {field: _one_line(value) if field in fields else value for field, value in said.items()}


_PLATFORM_FIELDS: dict[LTIVersion, tuple[str, ...]] = {
    "1.1": ("key", "secret"),
    "1.3": ("issuer", "client_id", "auth_url", "token_url", "token_audience", "jwks_url"),
}

#: Those that may have 1024 characters.
_LONG = frozenset({"auth_url", "token_url", "token_audience", "jwks_url"})


def _platform_fields(
    name: str, version: LTIVersion, fields: dict[str, str], deployments: list[str], *, insecure: bool
) -> dict[str, Any]:
    """The columns of a platform, checked.

    Raises:
        IllumiDeskError: for the first thing that is missing or wrong.
    """
    name = _platform_name(name)
    if version not in get_args(LTIVersion):
        raise IllumiDeskError(f"{version!r} is not a version of LTI", hint="use 1.1 or 1.3")
    own = _PLATFORM_FIELDS[version]
    for field, value in fields.items():
        if field in own and not value and field not in ("token_url", "token_audience"):
            raise IllumiDeskError(f"LTI {version} needs the platform's {_shown_field(field)}")
        if field not in own and value:
            raise IllumiDeskError(f"LTI {version} has no {_shown_field(field)}")
        plain = value.isprintable() and value == value.strip() if field == "secret" else re.fullmatch(r"[!-~]*", value)
        if not plain or len(value) > (1024 if field in _LONG else 255):
            raise IllumiDeskError(
                f"the {_shown_field(field)} cannot be that",
                hint="it is plain characters without spaces, as the LMS shows it",
            )
        if value and field.endswith("_url"):
            _check_url(_shown_field(field), value, insecure=insecure)
        if field == "token_audience" and value and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:.", value):
            raise IllumiDeskError(
                f"the token audience cannot be {value[:80]!r}", hint="it is an absolute URI, as the LMS shows it"
            )
    if version == "1.1":
        if deployments:
            raise IllumiDeskError("LTI 1.1 has no deployments")
        if len(fields["secret"]) < 12:
            raise IllumiDeskError("the secret is too short", hint="it needs at least 12 characters")
    else:
        _check_deployments(deployments)
    return {"name": name, "version": version, "deployments": deployments, **fields}


def _platform_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > 64 or not name.isprintable() or name.isdigit():
        raise IllumiDeskError(
            f"{name[:80]!r} is not a valid name of a platform", hint="use one line of up to 64 characters, no number"
        )
    return name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check_deployments(deployments: list[str]) -> None:
    if not deployments:
        raise IllumiDeskError(
            "LTI 1.3 needs the ids of the deployments that may launch",
            hint=f"the LMS shows the deployment id; {ANY_DEPLOYMENT} allows any",
        )
    for one in deployments:
        if not isinstance(one, str) or not one or len(one) > 255 or not one.isprintable():
            raise IllumiDeskError("a deployment id is one line of up to 255 characters")


def _check_url(what: str, url: str, *, insecure: bool) -> None:
    try:
        parts = urlsplit(url)
        wrong = not parts.hostname or "@" in parts.netloc or (parts.port == 0)
    except ValueError:
        wrong = True
    else:
        wrong = wrong or parts.scheme not in (("https", "http") if insecure else ("https",))
    if wrong:
        raise IllumiDeskError(f"the {what} cannot be {url[:80]!r}", hint="it is an https:// address")


def _shown_field(field: str) -> str:
    special = {
        "client_id": "client id",
        "auth_url": "authorization URL",
        "jwks_url": "key set URL",
        "token_audience": "token audience",
    }
    return special.get(field, field.replace("_url", " URL"))
