"""What a link opens, chosen by a teacher, and the signed answer that puts the link into the platform's course.

LTI Deep Linking 2.0 for LTI 1.3, LTI Content-Item Message 1.0 for LTI 1.1. A choice travels as custom parameters, which
the platform sends back with each launch of the link; a teacher may set the same ones by hand.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from oauthlib.oauth1 import SIGNATURE_TYPE_BODY, Client

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.lti.errors import LMS_ADMIN, TEACHER, LTIError, shown
from illumidesk.lti.keys import Key, sign
from illumidesk.lti.launch import WORKSPACES, DeepLinking, Launch, first_text, one_line
from illumidesk.lti.v11 import Consumer
from illumidesk.lti.v13 import CLAIM, Platform
from illumidesk.workspaces.types import BUILT_IN, WorkspaceType

Kind = Literal["workspace", "assignment", "git", "file"]

#: Claims of the answer (Deep Linking 2.0, section 4.4.2).
DL_CLAIM = "https://purl.imsglobal.org/spec/lti-dl/claim/"
#: The one kind of item that leads back here, by either specification.
LINK_13 = "ltiResourceLink"
LINK_11 = "application/vnd.ims.lti.v1.ltilink"
#: Points of an assignment's column in the platform's gradebook, until its grades say otherwise.
SCORE_MAXIMUM = 100

MAX_TITLE = 255
MAX_URL = 1000


@dataclass(frozen=True)
class Choice:
    """What a link opens. `check` says whether it may; `custom` is how it travels.

    Attributes:
        kind: which of the others count.
        title: what the platform shows; "" for one made of the rest.
        workspace_type: the name of one of `workspaces`.
        assignment: the name of an nbgrader assignment.
        repository: the address of a git repository, for nbgitpuller.
        branch: its branch; "" for its own default.
        path: a file, from the top of the repository or the person's home; may be "" for a repository.
        workspaces: the types of workspaces that may be chosen, by name.
    """

    kind: Kind
    title: str = ""
    workspace_type: str = ""
    assignment: str = ""
    repository: str = ""
    branch: str = ""
    path: str = ""
    workspaces: Mapping[str, WorkspaceType] = field(default_factory=lambda: BUILT_IN, repr=False, compare=False)

    def check(self) -> None:
        """Nothing, where a link may open this.

        Raises:
            IllumiDeskError: with one sentence for the person who typed it.
        """
        if len(self.title) > MAX_TITLE or not self.title.isprintable():
            raise _wrong(f"the title must be one line of at most {MAX_TITLE} characters")
        if self.kind == "workspace":
            if self.workspace_type not in self.workspaces:
                raise _wrong(f"there is no workspace type {shown(self.workspace_type)!r}")
        elif self.kind == "assignment":
            _check_assignment(self.assignment)
        elif self.kind == "git":
            _check_repository(self.repository)
            _check_branch(self.branch)
            _check_path(self.path)
        else:
            if not self.path:
                raise _wrong("the file's name is missing")
            _check_path(self.path)

    def shown_title(self) -> str:
        """What the platform shows of the link."""
        last = self.path.rstrip("/").rpartition("/")[2]
        made = {
            "workspace": self.workspaces[self.workspace_type].title if self.kind == "workspace" else "",
            "assignment": self.assignment,
            "git": last or self.repository.rstrip("/").rpartition("/")[2].removesuffix(".git"),
            "file": last,
        }
        return one_line(self.title, MAX_TITLE) or made[self.kind]

    def custom(self) -> dict[str, str]:
        """The custom parameters that the link's launches bring."""
        match self.kind:
            case "workspace":
                return {"workspace_type": self.workspace_type}
            case "assignment":
                return {"assignment": self.assignment}
            case "git":
                # nbgitpuller names the folder by what follows the last slash.
                query = {"repo": self.repository.rstrip("/")}
                if self.branch:
                    query["branch"] = self.branch
                if self.path:
                    query["subPath"] = self.path
                return {"next": f"/hub/user-redirect/git-pull?{urlencode({**query, 'app': 'lab'}, quote_via=quote)}"}
            case "file":
                return {"next": f"/hub/user-redirect/lab/tree/{quote(self.path)}"}


# Before and after


def check_launch(launch: Launch) -> None:
    """Refuse, before anything is made of it, a launch that asks for what it cannot have.

    Raises:
        LTIError: where somebody who does not teach would choose a link, where the platform wants no link, or where an
            assignment's name is none.
    """
    asked = launch.deep_linking
    if asked is None:
        assignment_of(launch)
        return
    if launch.role != "instructor":
        raise LTIError(
            "only the instructors of a course choose what its links open",
            code="not-instructor",
            hint="ask an instructor of the course; begin in the course and not outside of it",
            who=f"your teacher; where you teach this course, {LMS_ADMIN}, whose tool settings say who is what",
        )
    wanted = {LINK_13} if launch.version == "1.3" else {LINK_11, "*/*"}
    if asked.accepts and not wanted & set(asked.accepts):
        raise LTIError(
            "the learning management system asks for something else than a link to this classroom",
            code="accepts",
            hint="choose this tool where the course adds a link or an external tool",
            who=f"you or {LMS_ADMIN}",
            status=400,
            detail=shown(",".join(asked.accepts)),
        )


def assignment_of(launch: Launch) -> str:
    """The assignment that a link opens (custom parameter `assignment`); "" where it opens something else.

    An address (`next`, `target_link_uri`) counts more, a workspace type less.

    Raises:
        LTIError: where the name is none.
    """
    name = first_text([launch.custom.get("assignment")])
    elsewhere = launch.next_url not in _START_PAGES and not launch.next_url.startswith(WORKSPACES)
    if not name or elsewhere:
        return ""
    try:
        return names.check_assignment(name)
    except IllumiDeskError as error:
        raise LTIError(
            error.message,
            code="assignment",
            hint="look at the link's custom parameters",
            who=TEACHER,
            status=400,
        ) from None


_START_PAGES = frozenset({"", *(f"/hub/user-redirect/{one.path}" for one in BUILT_IN.values())})


# The answer


def reply_13(
    asked: DeepLinking, choice: Choice | None, *, platform: Platform, url: str, key: Key, now: float | None = None
) -> str:
    """The answer to a deep linking request, signed (Deep Linking 2.0, sections 4.4.2 and 4.5.2).

    Args:
        asked: what the platform asked.
        choice: one that was checked; None where the teacher chose nothing.
        platform: who asked.
        url: where the link's launches go to.
        key: the tool's.
        now: seconds since 1970; the clock's by default.

    Returns:
        the value of the form field `JWT`.
    """
    items: list[dict[str, Any]] = []
    if choice is not None:
        item: dict[str, Any] = {
            "type": LINK_13,
            "title": choice.shown_title(),
            "url": url,
            "custom": choice.custom(),
            "window": {"targetName": "_blank"},
        }
        if choice.kind == "assignment" and asked.line_item:
            item["lineItem"] = {
                "scoreMaximum": SCORE_MAXIMUM,
                "label": choice.shown_title(),
                "resourceId": choice.assignment,
            }
        items.append(item)
    claims: dict[str, Any] = {
        "iss": platform.client_id,
        "aud": platform.issuer,
        "nonce": secrets.token_urlsafe(24),
        f"{CLAIM}message_type": "LtiDeepLinkingResponse",
        f"{CLAIM}version": "1.3.0",
        f"{CLAIM}deployment_id": asked.deployment_id,
        f"{DL_CLAIM}content_items": items,
    }
    if asked.data is not None:
        claims[f"{DL_CLAIM}data"] = asked.data
    return sign(claims, key, now=now)


def reply_11(asked: DeepLinking, choice: Choice | None, *, consumer: Consumer, url: str) -> dict[str, str]:
    """The answer to a content-item selection, signed (LTI Content-Item Message 1.0, section 3.2; RFC 5849, 3.4).

    Args:
        asked: what the platform asked.
        choice: one that was checked; None where the teacher chose nothing.
        consumer: who asked.
        url: where the link's launches go to.

    Returns:
        the fields of the form, to be posted to `asked.return_url`.
    """
    items: list[dict[str, Any]] = []
    if choice is not None:
        items.append(
            {
                "@type": "LtiLinkItem",
                "mediaType": LINK_11,
                "title": choice.shown_title(),
                "url": url,
                "custom": choice.custom(),
                "placementAdvice": {"presentationDocumentTarget": "window"},
            }
        )
    fields = {
        "lti_message_type": "ContentItemSelection",
        "lti_version": "LTI-1p0",
        "content_items": json.dumps({"@context": "http://purl.imsglobal.org/ctx/lti/v1/ContentItem", "@graph": items}),
    }
    if asked.data is not None:
        # A browser would send the bare LF of a hidden field as CR LF, and the signature would not hold.
        fields["data"] = re.sub(r"\r\n|\r|\n", "\r\n", asked.data)
    client = Client(
        consumer.key,
        client_secret=consumer.secret,
        callback_uri="about:blank",
        signature_type=SIGNATURE_TYPE_BODY,
    )
    _, _, body = client.sign(
        asked.return_url, "POST", body=fields, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    return dict(parse_qsl(body, keep_blank_values=True))


# What may be chosen


def _wrong(message: str, hint: str = "") -> LTIError:
    return LTIError(message, code="choice", hint=hint, who="you", status=400)


def _check_assignment(name: str) -> None:
    if not name:
        raise _wrong("the assignment's name is missing")
    names.check_assignment(name)
    if re.match(r"\$[A-Za-z]", name):
        # Platforms would put the value of a variable of theirs there.
        raise _wrong("an assignment that a link opens must not begin with $")


def _check_repository(url: str) -> None:
    if not url:
        raise _wrong("the repository's address is missing")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or len(url) > MAX_URL or not url.isprintable() or set(url) & set(' \\<>"'):
        raise _wrong(f"{shown(url)!r} is no address of a git repository", "copy the https:// address for cloning")
    if parts.username is not None or parts.password is not None:
        raise _wrong(
            "the repository's address must hold no name and no password: everybody in the course would see them"
        )
    if parts.query or parts.fragment or re.match(r"/[^/]+/.+/(tree|blob)/", parts.path):
        raise _wrong(f"{shown(url)!r} is a page of a repository and not the address for cloning it")
    if not parts.path.strip("/") or ".." in parts.path.split("/"):
        raise _wrong(f"{shown(url)!r} is no address of a git repository", "copy the https:// address for cloning")


def _check_branch(branch: str) -> None:
    # git-check-ref-format(1), and nothing that git would take for an option.
    if branch and (
        not re.fullmatch(r"\w[\w./#+-]{0,199}", branch) or ".." in branch or "//" in branch or branch[-1] in "./"
    ):
        raise _wrong(f"{shown(branch)!r} is no name of a branch")


def _check_path(path: str) -> None:
    if path.startswith(("/", "~")):
        raise _wrong("the file must be named from the top of the folder, without a slash or ~ in front")
    if ".." in path.split("/") or "\\" in path:
        raise _wrong("the file must lie within the folder: its name must hold no .. and no \\")
    if len(path) > MAX_URL or not path.isprintable():
        raise _wrong("the file's name is none")
