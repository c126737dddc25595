"""Who is in a course (LTI Names and Role Provisioning Services 2.0)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from illumidesk.lti.errors import shown
from illumidesk.lti.launch import first_text
from illumidesk.lti.services import MAX_ENTRIES, Platform, Purpose, ServiceError, Services, scopes_for

SCOPE = "https://purl.imsglobal.org/spec/lti-nrps/scope/contextmembership.readonly"
MEMBERS_TYPE = "application/vnd.ims.lti-nrps.v2.membershipcontainer+json"

Status = Literal["Active", "Inactive", "Deleted"]

_MEMBERS = Purpose(
    "read who is in the course",
    "the LMS does not list who is in the course",
    "the LMS does not know this course any more",
    "course-gone",
)
#: From the most to the least there.
_STATUS: tuple[Status, ...] = ("Active", "Inactive", "Deleted")


@dataclass(frozen=True)
class Member:
    """Somebody in a course. Text that the platform does not give is "".

    Attributes:
        user_id: the platform's id of the person, `sub` of their launches.
        roles: as sent, short names or URIs, for `launch.role_of`.
        login: what they sign in with, as in `Launch`.
    """

    user_id: str
    roles: tuple[str, ...] = ()
    status: Status = "Active"
    name: str = ""
    given_name: str = ""
    family_name: str = ""
    email: str = ""
    login: str = ""


async def members(services: Services, platform: Platform, url: str, *, offered: Collection[str] = ()) -> list[Member]:
    """Everybody in a course, each once: all pages, or an error (NRPS 2.0, section 2).

    Args:
        services: to ask with.
        platform: whose course it is.
        url: `context_memberships_url`, as the launch brought it.
        offered: the scopes that the platform lets this tool have; nothing where it is not known. Launches do not say.

    Raises:
        ServiceError: where somebody may be missing.
    """
    scopes = scopes_for(offered, SCOPE, does=_MEMBERS.does)
    found: dict[str, Member] = {}
    entries = 0
    async for page in services.pages(platform, url, scopes=scopes, purpose=_MEMBERS, accept=MEMBERS_TYPE):
        listed = page.get("members") if isinstance(page, dict) else None
        if not isinstance(listed, list):
            raise _unusable("it is no list of people", url)
        entries += len(listed)
        if entries > MAX_ENTRIES:
            raise _unusable(f"it lists more than {MAX_ENTRIES} people", url)
        for one in listed:
            member = _member(one)
            if member is None:
                # To leave it out might look as if somebody had left the course.
                raise _unusable("somebody in it has no user_id", url)
            known = found.get(member.user_id)
            found[member.user_id] = member if known is None else _merged(known, member)
    return list(found.values())


def _member(value: Any) -> Member | None:
    if not isinstance(value, dict):
        return None
    user_id = value.get("user_id")
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        user_id = str(user_id)
    if not isinstance(user_id, str) or not user_id.strip():
        return None
    roles = value.get("roles")
    roles = [roles] if isinstance(roles, str) else roles if isinstance(roles, list) else []
    status = value.get("status")
    return Member(
        user_id=user_id,
        roles=tuple(role for role in roles if isinstance(role, str)),
        # Without a status, it is Active (NRPS 2.0, section 2.1).
        status=next(
            (one for one in _STATUS if isinstance(status, str) and one.casefold() == status.casefold()), "Active"
        ),
        name=first_text([value.get("name")]),
        given_name=first_text([value.get("given_name")]),
        family_name=first_text([value.get("family_name")]),
        email=first_text([value.get("email")]),
        # The same order as in launches.
        login=first_text(
            value.get(name) for name in ("ext_user_username", "preferred_username", "lis_person_sourcedid")
        ),
    )


def _merged(one: Member, other: Member) -> Member:
    """One of two entries for the same person: sections and groups of a course make them."""
    texts = {
        name: getattr(one, name) or getattr(other, name)
        for name in ("name", "given_name", "family_name", "email", "login")
    }
    # Of somebody who left one section, only the roles of the others count.
    first, second = sorted((one, other), key=lambda member: _STATUS.index(member.status))
    roles = first.roles if first.status != second.status else tuple(dict.fromkeys(one.roles + other.roles))
    return replace(first, roles=roles, **texts)


def _unusable(why: str, url: str) -> ServiceError:
    return ServiceError(f"the LMS's answer cannot be used: {why}", code="answer", detail=shown(url, 200))
