"""A platform's gradebook: columns, scores and results (LTI Assignment and Grade Services 2.0)."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urljoin

from illumidesk.lti.errors import LMS_ADMIN, YOU, shown
from illumidesk.lti.launch import one_line
from illumidesk.lti.services import (
    MAX_ENTRIES,
    Platform,
    Purpose,
    ServiceError,
    Services,
    scopes_for,
    unusable,
    with_query,
)

_SCOPE = "https://purl.imsglobal.org/spec/lti-ags/scope/"
LINE_ITEM_SCOPE = f"{_SCOPE}lineitem"
LINE_ITEM_READ_SCOPE = f"{_SCOPE}lineitem.readonly"
SCORE_SCOPE = f"{_SCOPE}score"
RESULT_SCOPE = f"{_SCOPE}result.readonly"

LINE_ITEM_TYPE = "application/vnd.ims.lis.v2.lineitem+json"
LINE_ITEMS_TYPE = "application/vnd.ims.lis.v2.lineitemcontainer+json"
SCORE_TYPE = "application/vnd.ims.lis.v1.score+json"
RESULTS_TYPE = "application/vnd.ims.lis.v2.resultcontainer+json"

Activity = Literal["Initialized", "Started", "InProgress", "Submitted", "Completed"]
Grading = Literal["FullyGraded", "Pending", "PendingManual", "Failed", "NotReady"]

_COLUMN_GONE = "this column is not there any more in the LMS"
_AGAIN = "open the link in the course again: it brings the addresses of now"
_LIST = Purpose(
    "read the columns of its gradebook",
    "the LMS does not list the columns of its gradebook",
    "the LMS does not know the gradebook of this course any more",
    "course-gone",
)
_SHOW = Purpose(_LIST.does, "the LMS does not show this column of its gradebook", _COLUMN_GONE, "column-gone")
_CREATE = Purpose("make columns in its gradebook", "the LMS does not make this column", _LIST.gone, "course-gone")
_SCORE = Purpose("write grades", "the LMS does not take this grade", _COLUMN_GONE, "column-gone")
_RESULT = Purpose("read grades", "the LMS does not show this grade", _COLUMN_GONE, "column-gone")


@dataclass(frozen=True)
class LineItem:
    """A column of the gradebook. Text that the platform does not give is "".

    Attributes:
        id: its address, letter by letter; "" for one that is to be made.
        label: what people read.
        score_maximum: points; 0 where the platform does not say.
        resource_link_id: the platform's id of the link that it belongs to.
        resource_id: this tool's name for what is graded.
        tag: this tool's, too.
    """

    id: str
    label: str
    score_maximum: float
    resource_link_id: str = ""
    resource_id: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Score:
    """What somebody has got, as it is sent.

    Attributes:
        user_id: the platform's id of the person (`sub`).
        score_given: points of `score_maximum`, possibly more; None says nothing of points.
        score_maximum: points, more than 0.
        timestamp: with a time zone. A platform takes nothing that is not later than what it has; Moodle counts whole
            seconds.
        submitted: when the student handed in, with a time zone; None says nothing of it.
        extra: what one platform alone understands, such as `CANVAS_NO_SUBMISSION`.
    """

    user_id: str
    score_given: float | None
    score_maximum: float
    timestamp: datetime
    activity_progress: Activity = "Completed"
    grading_progress: Grading = "FullyGraded"
    comment: str = ""
    submitted: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


#: Otherwise Canvas takes every score for a new attempt of the student, handed in now.
CANVAS_NO_SUBMISSION: Mapping[str, Any] = {"https://canvas.instructure.com/lti/submission": {"new_submission": False}}


@dataclass(frozen=True)
class Result:
    """What the gradebook holds of somebody. A platform may have brought it to a scale of its own.

    Attributes:
        score: None where there is no grade.
        maximum: of the platform's scale.
    """

    user_id: str
    score: float | None
    maximum: float
    comment: str = ""


async def line_items(
    services: Services,
    platform: Platform,
    url: str,
    *,
    offered: Collection[str] = (),
    resource_link_id: str = "",
    resource_id: str = "",
    tag: str = "",
) -> list[LineItem]:
    """The columns of a course, all pages of them (AGS 2.0, section 3.2.4).

    Args:
        services: to ask with.
        platform: whose they are.
        url: `lineitems`, as the launch brought it.
        offered: `scope` of the same claim; nothing where it is not known.
        resource_link_id: only those of that link. A platform that does not heed it may list others.
        resource_id: only those of that name.
        tag: only those with that tag.

    Raises:
        ServiceError: where they cannot be had.
    """
    scopes = scopes_for(offered, LINE_ITEM_SCOPE, LINE_ITEM_READ_SCOPE, does=_LIST.does)
    filters = {"resource_link_id": resource_link_id, "resource_id": resource_id, "tag": tag}
    found: dict[str, LineItem] = {}
    pages = services.pages(platform, with_query(url, filters), scopes=scopes, purpose=_LIST, accept=LINE_ITEMS_TYPE)
    async for page in pages:
        if not isinstance(page, list) or len(found) + len(page) > MAX_ENTRIES:
            raise ServiceError(
                "the LMS's answer cannot be used: it is no list of columns", code="answer", detail=shown(url, 200)
            )
        for one in page:
            item = _line_item(one, url)
            # Not every platform heeds the filters, and not every one says what an item is of.
            if item is not None and all(
                mine in ("", theirs) or not theirs
                for mine, theirs in (
                    (resource_link_id, item.resource_link_id),
                    (resource_id, item.resource_id),
                    (tag, item.tag),
                )
            ):
                found[item.id] = item
    return list(found.values())


async def line_item(services: Services, platform: Platform, url: str, *, offered: Collection[str] = ()) -> LineItem:
    """One column (AGS 2.0, section 3.2.5).

    Args:
        services: to ask with.
        platform: whose it is.
        url: its address.
        offered: see `line_items`.

    Raises:
        ServiceError: where it cannot be had; `column-gone` where it is not there.
    """
    scopes = scopes_for(offered, LINE_ITEM_SCOPE, LINE_ITEM_READ_SCOPE, does=_SHOW.does)
    answer = await services.request(platform, "GET", url, scopes=scopes, purpose=_SHOW, accept=LINE_ITEM_TYPE)
    value = answer.json()
    # It is where it was asked, whatever it says of itself.
    item = _line_item({**value, "id": url} if isinstance(value, dict) else None, url)
    if item is None:
        raise unusable(answer, "it is no column")
    return item


async def create_line_item(
    services: Services, platform: Platform, url: str, item: LineItem, *, offered: Collection[str] = ()
) -> LineItem:
    """Make a column (AGS 2.0, section 3.2.5).

    Args:
        services: to ask with.
        platform: whose it becomes.
        url: `lineitems`, as the launch brought it.
        item: without an address.
        offered: see `line_items`.

    Returns:
        it with its address.

    Raises:
        ServiceError: where it is not made, or it is not sure that it was (`unsure`).
    """
    scopes = scopes_for(offered, LINE_ITEM_SCOPE, does=_CREATE.does)
    body: dict[str, Any] = {"label": item.label, "scoreMaximum": _plain(item.score_maximum)}
    body |= {
        name: text
        for name, text in (
            ("resourceLinkId", item.resource_link_id),
            ("resourceId", item.resource_id),
            ("tag", item.tag),
        )
        if text
    }
    try:
        answer = await services.request(
            platform, "POST", url, scopes=scopes, purpose=_CREATE, accept=LINE_ITEM_TYPE, kind=LINE_ITEM_TYPE, body=body
        )
    except ServiceError as error:
        whole = float(math.ceil(item.score_maximum))
        if error.code != "refused" or whole == item.score_maximum or "integer" not in error.said:
            raise
        # Open edX has whole points alone. A score says itself of how many it is.
        return await create_line_item(services, platform, url, replace(item, score_maximum=whole), offered=offered)
    value = answer.json(unsure=True)
    made = _line_item(value, url)
    if made is None:
        raise unusable(answer, "it does not say where the new column is", unsure=True)
    return made


async def post_score(
    services: Services, platform: Platform, url: str, score: Score, *, offered: Collection[str] = ()
) -> None:
    """Send a score (AGS 2.0, section 3.4.2).

    Args:
        services: to ask with.
        platform: whose gradebook it is.
        url: the column's address.
        score: what is sent.
        offered: see `line_items`.

    Raises:
        ServiceError: where it is not taken. `older`: the platform has this one or a later one. `user-gone` and
            `column-gone`: there is nobody, or no column, to give it to.
    """
    scopes = scopes_for(offered, SCORE_SCOPE, does=_SCORE.does)
    try:
        await services.request(
            platform,
            "POST",
            service_url(url, "scores"),
            scopes=scopes,
            purpose=_SCORE,
            kind=SCORE_TYPE,
            body=score_body(score),
            wanted=False,
        )
    except ServiceError as error:
        raise await _score_problem(services, platform, url, offered, error) from None


def score_body(score: Score) -> dict[str, Any]:
    """A score as it travels (AGS 2.0, section 3.4.4).

    Raises:
        ServiceError: where it is none.
    """
    if score.score_given is not None and not (0 <= score.score_given < math.inf and 0 < score.score_maximum < math.inf):
        raise ServiceError(
            f"no grade is {score.score_given:g} of {score.score_maximum:g} points",
            code="score",
            hint="points are 0 or more, of more than 0",
            who=YOU,
        )
    body: dict[str, Any] = {
        **score.extra,
        "userId": score.user_id,
        "timestamp": _moment(score.timestamp),
        "activityProgress": score.activity_progress,
        "gradingProgress": score.grading_progress,
    }
    if score.score_given is not None:
        body |= {"scoreGiven": _plain(score.score_given), "scoreMaximum": _plain(score.score_maximum)}
    if score.comment:
        body["comment"] = score.comment
    if score.submitted is not None:
        body["submission"] = {"submittedAt": _moment(score.submitted)}
    return body


def _plain(number: float) -> float:
    """A whole number without a point: some platforms' columns have whole points alone."""
    return int(number) if float(number).is_integer() else number


def _moment(when: datetime) -> str:
    if when.tzinfo is None:
        raise ValueError("a score's time has a zone")
    return when.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def _score_problem(
    services: Services, platform: Platform, url: str, offered: Collection[str], error: ServiceError
) -> ServiceError:
    """What a refused score means: the answers of platforms do not tell people from columns."""
    if error.retry or error.answered not in (400, 403, 404, 409, 410, 422):
        return error
    # Canvas and Open edX say it with 400.
    old = r"timestamp.*(before last updated|later point in time)|exists for the provided timestamp"
    if error.answered == 409 or re.search(old, error.said, re.I):
        return _told_anew(error, "the LMS has this grade already, or a later one", code="older", who=YOU)
    # Moodle says it with 403.
    if re.search(r"(line|grade) ?item|column", error.said, re.I):
        return _told_anew(error, _COLUMN_GONE, code="column-gone", hint=_AGAIN)
    # A 403 that speaks of a user may mean the one of the token. What Moodle calls incorrect is the user.
    people = r"student|learner|participant|enrol|incorrect score received"
    people += "" if error.answered == 403 else r"|user|member"
    if re.search(rf"\b({people})", error.said, re.I):
        return _user_gone(error)
    if error.answered not in (404, 410):
        return error
    try:
        await line_item(services, platform, url, offered=offered)
    except ServiceError as other:
        if other.code == "column-gone":
            return error
        return _told_anew(
            error,
            "the LMS does not know this student or this column any more",
            code="gone",
            hint="where other students' grades arrive, it is the student",
        )
    return _user_gone(error)


def _user_gone(error: ServiceError) -> ServiceError:
    return _told_anew(
        error,
        "the LMS does not know this student any more, or as nobody who is graded"
        f"{f': {error.said}' if error.said else ''}",
        code="user-gone",
        hint="whoever has left the course there gets no grade",
        who=f"{YOU}, where the student is still in the course, and {LMS_ADMIN}",
    )


def _told_anew(error: ServiceError, message: str, *, code: str, hint: str = "", who: str = LMS_ADMIN) -> ServiceError:
    return ServiceError(
        message, code=code, hint=hint, who=who, detail=error.detail, answered=error.answered, said=error.said
    )


async def result_of(
    services: Services, platform: Platform, url: str, user_id: str, *, offered: Collection[str] = ()
) -> Result | None:
    """What the gradebook holds of one person (AGS 2.0, section 3.3).

    Args:
        services: to ask with.
        platform: whose gradebook it is.
        url: the column's address.
        user_id: the platform's id of the person.
        offered: see `line_items`.

    Returns:
        None where it holds nothing of them.

    Raises:
        ServiceError: where that cannot be had.
    """
    scopes = scopes_for(offered, RESULT_SCOPE, does=_RESULT.does)
    asked = with_query(service_url(url, "results"), {"user_id": user_id})
    # Platforms that do not heed `user_id` list everybody.
    async for page in services.pages(platform, asked, scopes=scopes, purpose=_RESULT, accept=RESULTS_TYPE):
        if not isinstance(page, list):
            raise ServiceError(
                "the LMS's answer cannot be used: it is no list of grades", code="answer", detail=shown(asked, 200)
            )
        for one in page:
            if isinstance(one, dict) and _text(one.get("userId")) == user_id:
                maximum = _number(one.get("resultMaximum"))
                return Result(
                    user_id=user_id,
                    score=_number(one.get("resultScore")),
                    maximum=1.0 if maximum is None else maximum,
                    comment=one["comment"] if isinstance(one.get("comment"), str) else "",
                )
    return None


def service_url(url: str, name: str) -> str:
    """The address of a column's scores or results: the name goes before the query, the rest stays as it is.

    Args:
        url: the column's address.
        name: `scores` or `results`.
    """
    end = min((index for index in (url.find("?"), url.find("#")) if index >= 0), default=len(url))
    return f"{url[:end].rstrip('/')}/{name}{url[end:]}"


def _line_item(value: Any, base: str) -> LineItem | None:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str) or not value["id"].strip():
        return None
    address = value["id"].strip()
    return LineItem(
        id=address if re.match(r"https?://", address, re.I) else urljoin(base, address),
        label=one_line(value.get("label")),
        score_maximum=_number(value.get("scoreMaximum")) or 0.0,
        resource_link_id=_text(value.get("resourceLinkId")),
        resource_id=_text(value.get("resourceId")),
        tag=_text(value.get("tag")),
    )


def _text(value: Any) -> str:
    """An id, letter by letter; some platforms send numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    """A number; some platforms send text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
