"""The registry's part in grades: what launches say of links and columns, and the deliveries. One transaction a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from illumidesk.errors import IllumiDeskError
from illumidesk.registry.models import (
    Column,
    ColumnSource,
    Context,
    Delivery,
    Identity,
    Platform,
    ResourceLink,
    ResultSourcedId,
)

#: Most links that are kept of one course of a platform, the last that were opened first.
MAX_LINKS = 2000
#: Two scores of one student never have the same time, whatever the clock does. Moodle compares whole seconds.
_STEP = timedelta(seconds=1)

#: Why a delivery waits without a time: the student has not opened the link (LTI 1.1).
NOT_OPENED = "not-opened"


@dataclass(frozen=True)
class Wanted:
    """A grade as the gradebook has it.

    Attributes:
        name: the student's account.
        score: points, at least 0.
        maximum: points of the assignment, more than 0.
        comment: for the student.
        partial: whether something is still to be graded by hand.
    """

    name: str
    score: float
    maximum: float
    comment: str = ""
    partial: bool = False


@dataclass(frozen=True)
class Job:
    """A delivery with all that an attempt needs to know."""

    delivery: Delivery
    column: Column
    platform: Platform
    context: Context
    #: The student's id on the platform; empty where there is none.
    sub: str
    #: LTI 1.1: where it goes, and as what.
    outcome_url: str
    sourcedid: str


SessionOf = Callable[[], AbstractContextManager[Session]]


class GradeRecords:
    """Links, columns and deliveries.

    Args:
        reading: a transaction.
        writing: a transaction that no other writer comes between.
    """

    def __init__(self, reading: SessionOf, writing: SessionOf) -> None:
        self._session = reading
        self._writing = writing

    # What launches say

    def learn(
        self,
        platform_id: int,
        context_id: str,
        course_id: str,
        name: str,
        *,
        line_items_url: str = "",
        ags_scopes: Sequence[str] = (),
        memberships_url: str = "",
        resource_link_id: str | None = None,
        title: str = "",
        assignment: str = "",
        line_item: str = "",
        outcome_url: str = "",
        sourcedid: str = "",
    ) -> bool:
        """Remember what a verified launch says of its course's services and of its link. Empty keeps what is known.

        Args:
            platform_id: the platform's number.
            context_id: the platform's id for the course.
            course_id: the course.
            name: who launched.
            line_items_url: the course's columns (AGS).
            ags_scopes: what may be done with them.
            memberships_url: the course's roster (NRPS).
            resource_link_id: the link; None for a launch that follows none.
            title: the link's.
            assignment: what the link opens, where it is an assignment.
            line_item: the link's column (AGS).
            outcome_url: where LTI 1.1 takes grades.
            sourcedid: what stands for this person's there.

        Returns:
            whether a grade that waited for this launch can go now.
        """
        of_context = {
            "line_items_url": line_items_url,
            "ags_scopes": sorted(ags_scopes),
            "memberships_url": memberships_url,
        }
        of_link = {"title": title, "assignment": assignment, "line_item": line_item, "outcome_url": outcome_url}
        of_link = {field: value for field, value in of_link.items() if value}
        of_link["course_id"] = course_id
        with self._session() as session:
            context = session.get(Context, (platform_id, context_id))
            if context is None:
                return False
            fresh = {field: value for field, value in of_context.items() if value and getattr(context, field) != value}
            link = None if resource_link_id is None else _link(session, platform_id, context_id, resource_link_id)
            known = link is not None and all(getattr(link, field) == value for field, value in of_link.items())
            kept = "" if link is None else session.scalar(_sourcedid(link.id, name)) or ""
        if not fresh and (resource_link_id is None or (known and sourcedid in ("", kept))):
            return False
        with self._writing() as session:
            context = session.get(Context, (platform_id, context_id))
            if context is None:
                return False
            for field, value in fresh.items():
                setattr(context, field, value)
            if resource_link_id is None:
                return False
            link = _link(session, platform_id, context_id, resource_link_id)
            if link is None:
                _forget_oldest(session, platform_id, context_id)
                link = ResourceLink(platform_id=platform_id, context_id=context_id, resource_link_id=resource_link_id)
                session.add(link)
            for field, value in of_link.items():
                setattr(link, field, value)
            session.flush()
            if not sourcedid:
                return False
            session.merge(ResultSourcedId(link_id=link.id, name=name, sourcedid=sourcedid))
            return _release(session, link.id, name)

    def contexts(self, course_id: str) -> list[tuple[Platform, Context]]:
        """The courses of present platforms that are this course."""
        query = (
            select(Platform, Context)
            .join(Context, Context.platform_id == Platform.id)
            .where(Context.course_id == course_id, Platform.removed.is_(None))
            .order_by(Platform.id)
        )
        with self._session() as session:
            return [(row[0], row[1]) for row in session.execute(query)]

    def links(self, course_id: str) -> list[ResourceLink]:
        """The course's links, in the order in which they were first opened."""
        query = select(ResourceLink).where(ResourceLink.course_id == course_id).order_by(ResourceLink.id)
        with self._session() as session:
            return list(session.scalars(query))

    def sourcedid_names(self, link_id: int) -> set[str]:
        """Who has opened the link so that a grade can be sent by LTI 1.1."""
        with self._session() as session:
            return set(session.scalars(select(ResultSourcedId.name).where(ResultSourcedId.link_id == link_id)))

    def identities(self, platform_id: int, names: Iterable[str] | None = None) -> dict[str, Identity]:
        """What is known of the platform's people, by account name."""
        query = select(Identity).where(Identity.platform_id == platform_id)
        if names is not None:
            query = query.where(Identity.name.in_(list(names)))
        with self._session() as session:
            return {one.name: one for one in session.scalars(query.order_by(Identity.created))}

    # Columns

    def columns(self, course_id: str) -> list[Column]:
        """Where the course's assignments go, as far as it is known."""
        with self._session() as session:
            return list(session.scalars(select(Column).where(Column.course_id == course_id).order_by(Column.id)))

    def set_column(
        self,
        context: Context,
        assignment: str,
        *,
        source: ColumnSource,
        label: str,
        line_item: str = "",
        link_id: int | None = None,
    ) -> Column:
        """Send the assignment's grades there from now on. What was sent elsewhere is as if it had not been sent.

        Args:
            context: the platform's course.
            assignment: the assignment.
            source: how it came to this.
            label: what the platform calls the column.
            line_item: its address by LTI 1.3.
            link_id: the link by LTI 1.1.
        """
        with self._writing() as session:
            column = session.scalar(
                select(Column).where(
                    Column.platform_id == context.platform_id,
                    Column.context_id == context.context_id,
                    Column.assignment == assignment,
                )
            )
            if column is None:
                column = Column(
                    platform_id=context.platform_id, context_id=context.context_id, assignment=assignment, source=source
                )
                session.add(column)
            elif (column.line_item, column.link_id) != (line_item, link_id):
                session.execute(delete(Delivery).where(Delivery.column_id == column.id))
            column.course_id, column.source, column.label = context.course_id, source, label[:255]
            column.line_item, column.link_id = line_item, link_id
            return column

    def forget_column(self, column_id: int) -> None:
        """Its place is not known any more: it is looked for again when next needed."""
        with self._writing() as session:
            session.execute(delete(Column).where(Column.id == column_id))

    # Deliveries

    def want(self, column_id: int, grades: Iterable[Wanted], *, asked_by: str = "", again: bool = False) -> list[str]:
        """Have these grades delivered. What is there already, or on its way, is left alone.

        Args:
            column_id: where they go.
            grades: what shall be there.
            asked_by: who asks.
            again: send also what was sent and has not changed, as after a loss on the platform.

        Returns:
            the students whose grade will be sent, sorted.
        """
        queued = []
        at = datetime.now(UTC).replace(tzinfo=None)
        with self._writing() as session:
            query = select(Delivery).where(Delivery.column_id == column_id)
            known = {one.name: one for one in session.scalars(query)}
            for grade in grades:
                row = known.get(grade.name)
                if row is None:
                    row = Delivery(column_id=column_id, name=grade.name, state="waiting", revision=0, changed=at)
                    session.add(row)
                elif not again and _is_there(row, grade):
                    # Perhaps another one was to be sent, and this one is back before it was.
                    row.score, row.maximum, row.comment, row.partial = _values(grade)
                    row.state, row.due, row.code, row.problem, row.hint = "sent", None, "", "", ""
                    continue
                elif row.state in ("waiting", "sending") and _values(grade) == _values(row):
                    continue
                row.score, row.maximum, row.comment, row.partial = _values(grade)
                row.revision += 1
                row.changed = max(at, row.changed + _STEP) if row.revision > 1 else at
                if row.state == "sending":
                    row.state, row.unsure = "waiting", True
                elif row.state != "waiting":
                    row.state, row.unsure = "waiting", False
                row.attempts, row.due, row.asked_by = 0, at, asked_by
                row.code = row.problem = row.hint = ""
                queued.append(grade.name)
        return sorted(queued)

    def retry(self, course_id: str, assignment: str = "", names: Iterable[str] | None = None) -> int:
        """Try again, now, what failed or waits for a later time; how many."""
        wanted = [Column.course_id == course_id, *([Column.assignment == assignment] if assignment else [])]
        at = datetime.now(UTC).replace(tzinfo=None)
        with self._writing() as session:
            query = select(Delivery).join(Column).where(*wanted, Delivery.state.in_(("waiting", "failed")))
            if names is not None:
                query = query.where(Delivery.name.in_(list(names)))
            count = 0
            for row in session.scalars(query):
                if row.state == "failed":
                    # A platform that has something newer would refuse the old time again.
                    row.state, row.changed, row.revision = "waiting", max(at, row.changed + _STEP), row.revision + 1
                row.attempts, row.due = 0, at
                row.code = row.problem = row.hint = ""
                count += 1
            return count

    def deliveries(self, course_id: str, assignment: str = "") -> list[tuple[Column, Delivery]]:
        """The course's deliveries by column and student."""
        query = select(Column, Delivery).join(Delivery, Delivery.column_id == Column.id)
        query = query.where(Column.course_id == course_id, *([Column.assignment == assignment] if assignment else []))
        with self._session() as session:
            return [(row[0], row[1]) for row in session.execute(query.order_by(Column.id, Delivery.name))]

    def recover(self) -> int:
        """What was under way when the hub ended may have arrived or not; how many there are. Called before anything
        is sent.
        """
        with self._writing() as session:
            changed = session.execute(
                update(Delivery)
                .where(Delivery.state == "sending")
                .values(state="waiting", unsure=True, due=datetime.now(UTC).replace(tzinfo=None))
            )
            return int(changed.rowcount)  # type: ignore[attr-defined]

    def due(self, limit: int, *, busy: Iterable[int] = (), without: Iterable[int] = ()) -> list[tuple[int, int]]:
        """Deliveries whose time has come, the oldest first, as (their number, platform).

        Args:
            limit: how many at most.
            busy: those under way.
            without: platforms that are left out.
        """
        query = (
            select(Delivery.id, Column.platform_id)
            .join(Column)
            .join(Platform, Platform.id == Column.platform_id)
            .where(
                Delivery.state == "waiting",
                Delivery.due <= datetime.now(UTC).replace(tzinfo=None),
                Delivery.id.not_in(list(busy)),
                Column.platform_id.not_in(list(without)),
                Platform.removed.is_(None),
            )
            .order_by(Delivery.due, Delivery.id)
            .limit(limit)
        )
        with self._session() as session:
            return [(row[0], row[1]) for row in session.execute(query)]

    def next_due(self, *, without: Iterable[int] = ()) -> float | None:
        """Seconds until the next delivery that is not yet due will be; None where none waits for a time.

        Args:
            without: platforms that are left out.
        """
        at = datetime.now(UTC).replace(tzinfo=None)
        query = (
            select(func.min(Delivery.due))
            .join(Column)
            .where(Delivery.state == "waiting", Delivery.due > at, Column.platform_id.not_in(list(without)))
        )
        with self._session() as session:
            first = session.scalar(query)
        return None if first is None else max(0.0, first.replace(tzinfo=UTC).timestamp() - time.time())

    def begin(self, delivery_id: int) -> Job | None:
        """Mark the delivery as under way; None where it is no longer due.

        It is on the disk before anything is sent, so that an attempt that is cut off is known to have been one.
        """
        with self._writing() as session:
            row = session.get(Delivery, delivery_id)
            if row is None or row.state != "waiting" or row.due is None:
                return None
            column = session.get_one(Column, row.column_id)
            platform = session.get_one(Platform, column.platform_id)
            context = session.get(Context, (column.platform_id, column.context_id))
            if context is None:
                return None
            identity = session.scalar(
                select(Identity.sub).where(Identity.platform_id == platform.id, Identity.name == row.name)
            )
            link = None if column.link_id is None else session.get(ResourceLink, column.link_id)
            sourcedid = None if link is None else session.scalar(_sourcedid(link.id, row.name))
            row.state, row.attempts = "sending", row.attempts + 1
            return Job(
                delivery=row,
                column=column,
                platform=platform,
                context=context,
                sub=identity or "",
                outcome_url=link.outcome_url if link is not None else "",
                sourcedid=sourcedid or "",
            )

    def arrived(self, job: Job) -> None:
        """The platform has it. Where a newer score is wanted meanwhile, that is still to be sent."""
        sent = job.delivery
        with self._writing() as session:
            row = session.get(Delivery, sent.id)
            if row is None:
                return
            row.sent_score, row.sent_maximum = sent.score, sent.maximum
            row.sent_comment, row.sent_partial = sent.comment, sent.partial
            row.sent_at = datetime.now(UTC).replace(tzinfo=None)
            if row.revision == sent.revision:
                row.state, row.due = "sent", None
                row.code = row.problem = row.hint = ""
            row.unsure = False

    def held_up(
        self, job: Job, error: IllumiDeskError, *, code: str, unsure: bool, due: datetime | None, failed: bool = False
    ) -> None:
        """The attempt came to nothing.

        Args:
            job: which.
            error: why.
            code: the same in one word.
            unsure: whether the platform may have taken it nevertheless.
            due: when to try again (UTC without a zone); None where something else must happen first.
            failed: whether trying again by itself is of no use.
        """
        with self._writing() as session:
            row = session.get(Delivery, job.delivery.id)
            if row is None:
                return
            row.unsure = row.unsure or unsure
            if row.revision != job.delivery.revision:
                return
            row.state = "failed" if failed else "waiting"
            row.due = None if failed else due
            row.code, row.problem, row.hint = code, error.message, error.hint
            if code == NOT_OPENED and _has_sourcedid(session, job):
                # The student opened the link in this very moment.
                row.due = datetime.now(UTC).replace(tzinfo=None)


def _link(session: Session, platform_id: int, context_id: str, resource_link_id: str) -> ResourceLink | None:
    return session.scalar(
        select(ResourceLink).where(
            ResourceLink.platform_id == platform_id,
            ResourceLink.context_id == context_id,
            ResourceLink.resource_link_id == resource_link_id,
        )
    )


def _sourcedid(link_id: int, name: str) -> Any:
    return select(ResultSourcedId.sourcedid).where(ResultSourcedId.link_id == link_id, ResultSourcedId.name == name)


def _has_sourcedid(session: Session, job: Job) -> bool:
    link_id = job.column.link_id
    return link_id is not None and bool(session.scalar(_sourcedid(link_id, job.delivery.name)))


def _forget_oldest(session: Session, platform_id: int, context_id: str) -> None:
    """Keep the number of links bounded: those that carry grades stay."""
    of_context: list[ColumnElement[bool]] = [
        ResourceLink.platform_id == platform_id,
        ResourceLink.context_id == context_id,
    ]
    count = session.scalar(select(func.count()).select_from(ResourceLink).where(*of_context)) or 0
    if count < MAX_LINKS:
        return
    used = select(Column.link_id).where(Column.link_id.is_not(None))
    oldest = session.scalar(
        select(ResourceLink.id).where(*of_context, ResourceLink.id.not_in(used)).order_by(ResourceLink.id).limit(1)
    )
    session.execute(delete(ResourceLink).where(ResourceLink.id == oldest))


def _release(session: Session, link_id: int, name: str) -> bool:
    """Make what waits for this student to open this link due."""
    rows = session.scalars(
        select(Delivery)
        .join(Column)
        .where(
            Column.link_id == link_id,
            Delivery.name == name,
            Delivery.state.in_(("waiting", "failed")),
            or_(Delivery.due.is_(None), Delivery.state == "failed"),
        )
    ).all()
    for row in rows:
        row.state, row.due = "waiting", datetime.now(UTC).replace(tzinfo=None)
    return bool(rows)


def _values(grade: Delivery | Wanted) -> tuple[float, float, str, bool]:
    return grade.score, grade.maximum, grade.comment, grade.partial


def _is_there(row: Delivery, grade: Wanted) -> bool:
    """Whether the platform has just this, as far as it is known, and nothing else is under way to it."""
    sent = (row.sent_score, row.sent_maximum, row.sent_comment, row.sent_partial)
    return row.sent_at is not None and row.state != "sending" and not row.unsure and sent == _values(grade)
