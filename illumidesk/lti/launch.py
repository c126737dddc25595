"""What a launch says, by either version of LTI: who, on which platform, in which course, as what, and where next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from illumidesk.lti.errors import LMS_ADMIN, LTIError, shown
from illumidesk.registry import MemberRole

#: From the least to the most able.
_RANK: tuple[MemberRole, ...] = ("student", "ta", "instructor")

#: Where the hub has its pages of workspaces.
WORKSPACES = "/hub/workspaces/"
#: Longest name of a workspace type that is looked at.
_MAX_WORKSPACE = 64

MAX_NEXT = 8192


@dataclass(frozen=True)
class DeepLinking:
    """The platform asks what a link shall open (LTI Deep Linking 2.0, or LTI 1.1 content-item selection).

    Attributes:
        return_url: where the answer goes.
        data: what the platform wants back, letter by letter; None where it sent nothing.
        accepts: the types of items that it takes.
        multiple: whether it takes more than one.
        deployment_id: LTI 1.3's, empty for 1.1.
        line_item: whether it takes a column for grades with the link.
    """

    return_url: str
    data: str | None = None
    accepts: tuple[str, ...] = ()
    multiple: bool = False
    deployment_id: str = ""
    line_item: bool = True


@dataclass(frozen=True)
class LinkServices:
    """What the platform offers for grades and rosters with a launch. What it does not offer is "".

    Attributes:
        line_item: the link's own column (AGS 2.0, claim `lineitem`).
        line_items: the course's columns (claim `lineitems`).
        ags_scopes: what may be done with them.
        memberships: the course's roster (NRPS 2.0).
        outcome_url: where LTI 1.1 takes grades (Basic Outcomes).
        sourcedid: what stands for this person's grade there, letter by letter.
    """

    line_item: str = ""
    line_items: str = ""
    ags_scopes: tuple[str, ...] = ()
    memberships: str = ""
    outcome_url: str = ""
    sourcedid: str = ""


@dataclass(frozen=True)
class Launch:
    """A message of a platform that has been verified. Text that the platform did not send is "".

    Attributes:
        platform_id: the registry's number of the platform.
        version: the version of LTI.
        sub: the platform's id for the person.
        context_id: the platform's id for the course; None where the launch comes from no course.
        role: the person's in that course; None without a course.
        resource_link_id: the platform's id for the link; None for deep linking.
        next_url: a path on this host, or "" for the person's own start page.
        custom: custom parameters, as sent.
        return_url: where the platform would have the person back; not checked.
        deep_linking: where the launch asks for a link rather than following one.
        services: for grades and rosters.
    """

    platform_id: int
    version: Literal["1.1", "1.3"]
    sub: str
    name: str = ""
    given_name: str = ""
    family_name: str = ""
    email: str = ""
    login: str = ""
    context_id: str | None = None
    context_label: str = ""
    context_title: str = ""
    role: MemberRole | None = None
    resource_link_id: str | None = None
    resource_link_title: str = ""
    next_url: str = ""
    workspace_type: str = ""
    custom: Mapping[str, str] = field(default_factory=dict)
    return_url: str = ""
    deep_linking: DeepLinking | None = None
    services: LinkServices = LinkServices()


# Roles


@dataclass(frozen=True)
class _Role:
    of_context: bool
    principal: str
    #: Of LTI 1.3's `membership/Instructor#TeachingAssistant` and LTI 1.1's `Instructor/GuestInstructor`.
    sub: str = ""


def _parsed(text: str) -> _Role:
    """A role as LTI 1.3 Core, appendix A, and LTI 1.1.1, appendix A.2, write it, in lower case.

    A short name is the context's.
    """
    text = text.casefold()
    if text.startswith("urn:lti:"):
        kind, _, path = text[len("urn:lti:") :].partition(":")
        principal, _, sub = path.rpartition("ims/lis/")[2].partition("/")
        return _Role(kind == "role", principal, sub)
    if "#" not in text:
        return _Role(True, text)
    place, _, name = text.rpartition("#")
    match = re.search(r"/membership(?:/(\w+))?$", place)
    if match is None:
        return _Role(False, name)
    return _Role(True, match[1], name) if match[1] else _Role(True, name)


def role_of(roles: Iterable[str], table: Mapping[str, MemberRole]) -> MemberRole:
    """What somebody with these roles is in the course.

    The highest role that the context gives counts. A sub-role stands for its principal role, which platforms send
    besides it (LTI 1.3 Core, A.2.3): Canvas's and Blackboard's TA is `Instructor` and `Instructor#TeachingAssistant`.
    Roles of the institution or the system count only where the context gives none.

    Args:
        roles: URIs, URNs or short names, also several in one string with commas between them.
        table: role by short name of principal or sub-role. Upper and lower case are the same.

    Returns:
        `student` where no role is known.
    """
    known = {name.casefold(): role for name, role in table.items()}
    parsed = [_parsed(part.strip()) for text in roles for part in text.split(",") if part.strip()]
    counting = [role for role in parsed if role.of_context] or parsed
    refined = {role.principal for role in counting if role.sub and _sub_role(role, known)}
    found: list[MemberRole] = ["student"]
    for role in counting:
        mapped = _sub_role(role, known)
        if mapped is None and not (not role.sub and role.principal in refined):
            mapped = known.get(role.principal)
        if mapped is not None:
            found.append(mapped)
    return max(found, key=_RANK.index)


def _sub_role(role: _Role, known: Mapping[str, MemberRole]) -> MemberRole | None:
    # `TeachingAssistantSection`, `…Group`, `…Offering` and `…Template` are TAs of a part of the course.
    assistant = known.get("teachingassistant") if role.sub.startswith("teachingassistant") else None
    return known.get(role.sub) or assistant


# Where next


def next_of(*, given: Iterable[str], target: str, workspace_type: str, own: str) -> str:
    """Where the launch leads, as a path of this host.

    Args:
        given: `next`, `custom_next` and the like, the first that is not empty counts.
        target: LTI 1.3's `target_link_uri`, or the address that an LTI 1.1 form came to; one that is an address of
            LTI itself says nothing by its path, but its query may hold `next` or `workspace_type`.
        workspace_type: what the launch asks for by name.
        own: this host's address, `https://HOST[:PORT]`.

    Returns:
        the path with query and fragment exactly as sent, or "" where the launch names nothing.

    Raises:
        LTIError: where it leads to another host.
    """
    for text in given:
        if text.strip():
            return local_path(text, own)
    inside = {}
    if target.strip():
        path = local_path(target, own)
        parts = urlsplit(path)
        if not re.fullmatch(r"(/hub)?(/lti1[13]/\w+|/login|/home|/?)", parts.path):
            return path
        inside = dict(parse_qsl(parts.query))
        for name in ("next", "custom_next"):
            if inside.get(name, "").strip():
                return local_path(inside[name], own)
    return workspace_path(workspace_type or inside.get("workspace_type", ""))


def workspace_path(workspace_type: str) -> str:
    """The page of the hub that starts somebody's server, where it does not run, and leads to that workspace.

    Which types there are is the hub's to say, which knows the settings: an unknown one is Notebook there.

    Args:
        workspace_type: as a platform sent it; "" is none.

    Returns:
        a path of this host; "" where nothing is asked for.
    """
    name = workspace_type.strip()[:_MAX_WORKSPACE]
    return f"{WORKSPACES}{quote(name, safe='')}" if name else ""


def local_path(text: str, own: str) -> str:
    """The path, query and fragment of an address of this host, as sent.

    A relative one is a page of the person's own server: `git-pull?repo=…` is `/hub/user-redirect/git-pull?repo=…`.

    Args:
        text: an absolute address, a path, or a page.
        own: this host's address.

    Raises:
        LTIError: where it is of another host, or nothing that a browser and we are sure to read alike.
    """
    text = text.strip()
    # Browsers take \ for /, and drop tabs and newlines within an address.
    odd = len(text) > MAX_NEXT or "\\" in text or not text.isprintable() or " " in text
    try:
        parts = urlsplit(text)
        there = _host_of(parts)
        user = parts.username
        here = _host_of(urlsplit(own))
    except ValueError:
        raise _off_host(text) from None
    if odd or user is not None:
        raise _off_host(text)
    if parts.scheme or text.startswith("//"):
        if there != here:
            raise _off_host(text)
        text = text[text.index("//") + 2 :][len(parts.netloc) :] or "/"
    if text.startswith("//"):
        raise _off_host(text)
    if text.startswith(("?", "#")):
        text = f"/{text}"
    return text if text.startswith("/") else f"/hub/user-redirect/{text}"


def service_address(value: object) -> str:
    """Where a service of the platform is, letter by letter; "" for what is no address or too long for one."""
    return value if isinstance(value, str) and len(value) <= MAX_NEXT and is_web_address(value) else ""


def is_web_address(text: str) -> bool:
    """Whether a browser can be sent there: an http(s) address of some host."""
    if not text.isprintable():
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname)


_PORTS = {"https": 443, "http": 80}


def _host_of(parts: SplitResult) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, without the ways to write them."""
    return parts.scheme, parts.hostname, _PORTS.get(parts.scheme) if parts.port is None else parts.port


def _off_host(text: str) -> LTIError:
    return LTIError(
        f"the link leads to {shown(text)!r}, which is no page of this classroom",
        code="next",
        hint="the address in the link's settings must be a path or an address of this host",
        who=f"your teacher or {LMS_ADMIN}",
        status=400,
    )


# Text


def one_line(value: object, longest: int = 255) -> str:
    """A platform's free text as one printable line; "" for anything that is no text."""
    if not isinstance(value, str):
        return ""
    return "".join(char if char.isprintable() else " " for char in value[: 4 * longest]).strip()[:longest].rstrip()


def first_text(values: Iterable[object]) -> str:
    """The first that is text and no variable that the platform left as it is (`$Person.sourcedId`)."""
    return next(_texts(values), "")


def _texts(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        text = one_line(value)
        if text and not re.match(r"\$[A-Za-z]", text):
            yield text
