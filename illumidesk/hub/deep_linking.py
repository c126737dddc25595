"""The page where a teacher chooses what a link of the LMS opens, and the answer that goes back to the LMS.

It works in a frame of the LMS's page, where browsers withhold the hub's cookies: nobody is signed in by it. What was
verified is kept under an unguessable ticket, which the page's form brings back.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from jupyterhub.utils import url_path_join

from illumidesk.errors import IllumiDeskError
from illumidesk.lti.deep_linking import Choice, Kind, reply_11, reply_13
from illumidesk.lti.errors import TOOL_ADMIN, LTIError
from illumidesk.lti.launch import DeepLinking
from illumidesk.spawners.choice import startable
from illumidesk.workspaces.types import WorkspaceType

if TYPE_CHECKING:
    from illumidesk.hub.launches import LTIHandler

#: Seconds that a teacher may take to choose.
PICK_LIFETIME = 3600

_KINDS: Mapping[str, Kind] = {"workspace": "workspace", "assignment": "assignment", "git": "git", "file": "file"}


@dataclass(frozen=True)
class Picking:
    """A verified request for a link: of an instructor, who chooses now."""

    platform_id: int
    course_id: str
    person: str
    asked: DeepLinking


async def ask(handler: LTIHandler, picking: Picking) -> None:
    """Show the page. The ticket in it is good for `PICK_LIFETIME`, or until something is chosen."""
    ticket = secrets.token_urlsafe(32)
    handler.pending.pickings[ticket] = picking
    await _show(handler, ticket, picking, {}, None)


async def answer(handler: LTIHandler, form: Mapping[str, str]) -> None:
    """Take what the page's form says: go back to the LMS with it, or show the page again with what is wrong.

    Raises:
        LTIError: where the ticket is none, or the platform was removed meanwhile.
    """
    ticket = form.get("ticket", "")
    picking = handler.pending.pickings.get(ticket)
    if picking is None:
        raise LTIError(
            "a link was chosen on this page already, or it was opened too long ago",
            code="ticket",
            hint="go back to the course and add the link again",
            who="you",
        )
    choice = None
    if not form.get("cancel"):
        try:
            choice = _choice(form, _workspaces(handler, picking))
            choice.check()
        except IllumiDeskError as problem:
            handler.set_status(problem.status)
            await _show(handler, ticket, picking, form, problem)
            return
    # Before anything is awaited, so that two requests cannot both have it.
    del handler.pending.pickings[ticket]
    fields = await _reply(handler, picking, choice)
    handler.log.info(
        "LTI: %s chose %s for a link of %s", picking.person, choice.kind if choice else "nothing", picking.course_id
    )
    await handler.show("lti_picked.html", url=picking.asked.return_url, fields=fields, chosen=choice is not None)


async def _reply(handler: LTIHandler, picking: Picking, choice: Choice | None) -> dict[str, str]:
    classroom = handler.classroom
    platform = classroom.registry.platform(picking.platform_id)
    if platform is None:
        raise LTIError(
            "this classroom does not know that learning management system any more", code="removed", who=TOOL_ADMIN
        )
    page = "lti13/launch" if platform.version == "1.3" else "lti11/launch"
    url = f"{handler.own()}{url_path_join(handler.hub.base_url, page)}"
    if platform.version == "1.1":
        # Canvas drops custom parameters by LTI 1.1: the address says the same.
        url += f"?{urlencode(choice.custom(), quote_via=quote)}" if choice else ""
        return reply_11(picking.asked, choice, consumer=platform, url=url)
    key = (await classroom.tool_keys())[0]
    return {"JWT": reply_13(picking.asked, choice, platform=platform, url=url, key=key)}


def _workspaces(handler: LTIHandler, picking: Picking) -> dict[str, WorkspaceType]:
    """What the course's people may start."""
    classroom = handler.classroom
    return startable(classroom.settings, classroom.paths.workspaces, picking.course_id)


def _choice(form: Mapping[str, str], workspaces: Mapping[str, WorkspaceType]) -> Choice:
    """What the form says, not yet checked."""

    def typed(name: str) -> str:
        return form.get(name, "").strip()

    kind = _KINDS.get(form.get("kind", ""))
    if kind is None:
        raise LTIError("nothing is chosen yet", code="choice", hint="choose what the link opens", who="you", status=400)
    return Choice(
        kind=kind,
        title=typed("title"),
        workspace_type=typed("workspace_type"),
        assignment=typed("assignment") or typed("released"),
        repository=typed("repository"),
        branch=typed("branch"),
        path=typed("repository_file" if kind == "git" else "file"),
        workspaces=workspaces,
    )


async def _show(
    handler: LTIHandler, ticket: str, picking: Picking, typed: Mapping[str, str], problem: IllumiDeskError | None
) -> None:
    try:
        released = await handler.classroom.supervisor.assignments(picking.course_id)
    except IllumiDeskError as error:
        # A name can still be typed.
        handler.log.warning("the assignments of %s are not known: %s", picking.course_id, error.message)
        released = []
    course = handler.classroom.registry.course(picking.course_id)
    values: dict[str, Any] = {
        "ticket": ticket,
        "course": (course.title if course else "") or picking.course_id,
        "workspaces": {name: one.title for name, one in _workspaces(handler, picking).items()},
        "released": released,
        "typed": typed,
        "problem": problem,
    }
    await handler.show("lti_pick.html", **values)
