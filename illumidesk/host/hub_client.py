"""The hub's management API, spoken by root over the hub's unix socket."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast
from urllib.parse import quote

from illumidesk.errors import IllumiDeskError
from illumidesk.http_unix import request_json
from illumidesk.paths import Paths

RoleInCourse = Literal["student", "ta", "instructor"]

#: Seconds to wait for an answer. Removing a course archives it first, which takes as long as it takes.
TIMEOUT = 120.0
LONG_TIMEOUT = 3600.0


class Grader(TypedDict):
    """The state of a course's grader."""

    active: bool


class Member(TypedDict):
    """Somebody in a course."""

    name: str
    role: RoleInCourse


class Course(TypedDict):
    """A course; `members` and `url` are there where one course was asked for."""

    course_id: str
    title: str
    created: str
    counts: dict[str, int]
    grader: Grader
    members: list[Member]
    url: str


class CourseOfUser(TypedDict):
    """A person's part in a course."""

    course_id: str
    role: RoleInCourse


class Server(TypedDict):
    """The state of a person's server."""

    active: bool
    ready: bool
    started: str | None


class User(TypedDict):
    """A person."""

    name: str
    admin: bool
    has_password: bool
    created: str
    courses: list[CourseOfUser]
    server: Server
    last_activity: str | None


class Platform(TypedDict):
    """A learning management system; `secret` is there only in the answer to the request that made it.

    What belongs to the other version of LTI is "" or [].
    """

    id: int
    name: str
    version: Literal["1.1", "1.3"]
    key: str
    issuer: str
    client_id: str
    auth_url: str
    token_url: str
    token_audience: str
    jwks_url: str
    deployments: list[str]
    created: str
    people: int
    courses: int
    secret: NotRequired[str]


class Invite(TypedDict):
    """An invitation for a platform to register itself."""

    id: int
    name: str
    created: str
    expires: str


class ToolKey(TypedDict):
    """A key pair of this tool."""

    kid: str
    created: str


class Person(TypedDict):
    """Somebody on a roster. What is not known is ""; `rostered` and `left` are times or None."""

    name: str
    full_name: str
    email: str
    role: RoleInCourse
    source: Literal["admin", "launch", "roster"]
    lms_user_id: str
    since: str
    rostered: str | None
    left: str | None


class PackageRequest(TypedDict):
    """A package that an instructor asks for; `answer` and `answered` are None while it waits for an answer."""

    course_id: str
    requirement: str
    package: str
    asked_by: str
    created: str
    answer: Literal["granted", "declined"] | None
    answered: str | None
    reason: str


class Roster(TypedDict):
    """A course's people, and the platforms that they come from."""

    course_id: str
    people: list[Person]
    sources: list[dict[str, Any]]


class RosterFetch(TypedDict):
    """A fetch of a roster; `ended` is None while it is under way, `change` is there where it went well."""

    step: Literal["reading", "people", "gradebook"]
    done: int
    total: int
    ended: str | None
    problem: str
    hint: str
    change: dict[str, Any] | None


class HubClient:
    """Calls the hub.

    Args:
        socket_path: where the hub listens.
        token: what proves that this is root; empty for `answers` alone.
    """

    def __init__(self, socket_path: Path, token: str = "") -> None:
        self._socket = socket_path
        self._token = token

    @classmethod
    def of_this_machine(cls, paths: Paths | None = None) -> HubClient:
        """A client with root's token.

        Raises:
            IllumiDeskError: where this is not root, or where nothing is installed.
        """
        paths = paths or Paths.current()
        try:
            token = paths.cli_token.read_text("ascii").strip()
        except PermissionError:
            raise IllumiDeskError("only root may do this", hint="run it with sudo", status=403) from None
        except FileNotFoundError:
            raise IllumiDeskError(
                "IllumiDesk is not installed on this machine", hint=f"there is no {paths.cli_token}"
            ) from None
        return cls(paths.hub_socket, token)

    def answers(self, *, timeout: float = 5.0) -> bool:
        """Whether the hub answers within `timeout` seconds. Needs no token."""
        try:
            return request_json("GET", self._socket, "/hub/health", timeout=timeout)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def courses(self) -> list[Course]:
        """Every course."""
        return cast(list[Course], self._call("GET", "courses")[1]["courses"])

    def course(self, course_id: str) -> Course:
        """One course, with its members."""
        return cast(Course, self._call("GET", f"courses/{_quoted(course_id)}")[1])

    def create_course(self, course_id: str, title: str | None = None) -> tuple[Course, bool]:
        """Set a course up, again where it is there already. Returns it, and whether it is new."""
        body = {"course_id": course_id} | ({} if title is None else {"title": title})
        status, course = self._call("POST", "courses", body)
        return cast(Course, course), status == 201

    def remove_course(self, course_id: str) -> str:
        """Archive and remove a course. Returns the archive's path."""
        answer = self._call("DELETE", f"courses/{_quoted(course_id)}", timeout=LONG_TIMEOUT)[1]
        return str(answer["archive"])

    def enroll(
        self, course_id: str, name: str, role: RoleInCourse, *, create: bool = False, keep: bool = False
    ) -> bool:
        """Give a person a role in a course. Returns whether the person was new in it.

        With `keep` somebody who has the role already has it from whom they had it.
        """
        body = {"role": role} | ({"create": True} if create else {}) | ({"keep": True} if keep else {})
        answer = self._call("PUT", f"courses/{_quoted(course_id)}/members/{_quoted(name)}", body)[1]
        return bool(answer["created"])

    def unenroll(self, course_id: str, name: str) -> None:
        """Take a person out of a course."""
        self._call("DELETE", f"courses/{_quoted(course_id)}/members/{_quoted(name)}")

    def roster(self, course_id: str) -> Roster:
        """Who is or was in a course, and where that is known from."""
        return cast(Roster, self._call("GET", f"courses/{_quoted(course_id)}/roster")[1])

    def fetch_roster(self, course_id: str) -> RosterFetch:
        """Begin to fetch the roster; `roster_fetch` tells how it goes."""
        return cast(RosterFetch, self._call("POST", f"courses/{_quoted(course_id)}/roster/fetch")[1])

    def roster_fetch(self, course_id: str) -> RosterFetch:
        """How the last fetch of a roster stands."""
        return cast(RosterFetch, self._call("GET", f"courses/{_quoted(course_id)}/roster/fetch")[1])

    def users(self) -> list[User]:
        """Everybody."""
        return cast(list[User], self._call("GET", "users")[1]["users"])

    def user(self, name: str) -> User:
        """One person."""
        return cast(User, self._call("GET", f"users/{_quoted(name)}")[1])

    def add_user(self, name: str, *, admin: bool = False, restore: bool = False) -> tuple[User, bool]:
        """Add a person, or with `restore` bring a retired one back. Returns the person, and whether new.

        Without `admin` somebody who is there already stays what they are.
        """
        body: dict[str, Any] = {"name": name}
        if admin:
            body["admin"] = True
        if restore:
            body["restore"] = True
        status, user = self._call("POST", "users", body)
        return cast(User, user), status == 201

    def set_admin(self, name: str, admin: bool) -> User:
        """Make a person an admin, or no longer one."""
        return cast(User, self._call("PATCH", f"users/{_quoted(name)}", {"admin": admin})[1])

    def forget_password(self, name: str) -> User:
        """Let a person choose a password anew at the next sign-in."""
        return cast(User, self._call("PATCH", f"users/{_quoted(name)}", {"forget_password": True})[1])

    def remove_user(self, name: str) -> None:
        """Retire a person; the home stays."""
        self._call("DELETE", f"users/{_quoted(name)}")

    def stop_user(self, name: str) -> None:
        """Stop a person's server."""
        self._call("POST", f"users/{_quoted(name)}/stop")

    def platforms(self) -> list[Platform]:
        """Every platform."""
        return cast(list[Platform], self._call("GET", "platforms")[1]["platforms"])

    def platform(self, platform_id: int) -> Platform:
        """One platform."""
        return cast(Platform, self._call("GET", f"platforms/{platform_id}")[1])

    def add_platform(self, fields: dict[str, Any]) -> tuple[Platform, bool]:
        """Add a platform, or with `replace` change or bring back one. Returns it, and whether new or back.

        Args:
            fields: `name`, `version`, and for 1.1 `key` and `secret` (both made where absent), for 1.3 `issuer`,
                `client_id`, `auth_url`, `token_url`, `token_audience`, `jwks_url` and `deployments`; `replace`.
        """
        status, platform = self._call("POST", "platforms", fields)
        return cast(Platform, platform), status == 201

    def invite(self, name: str, days: int) -> tuple[Invite, str]:
        """Invite a platform; the invitation and its token."""
        answer = self._call("POST", "invites", {"name": name, "days": days})[1]
        token = str(answer.pop("token"))
        return cast(Invite, answer), token

    def invites(self) -> list[Invite]:
        """The invitations that are still good."""
        return cast(list[Invite], self._call("GET", "invites")[1]["invites"])

    def revoke_invite(self, invite_id: int) -> None:
        """Take an invitation back."""
        self._call("DELETE", f"invites/{invite_id}")

    def tool_keys(self) -> list[ToolKey]:
        """This tool's keys, the one that signs first."""
        return cast(list[ToolKey], self._call("GET", "tool-keys")[1]["keys"])

    def rotate_tool_key(self) -> ToolKey:
        """A new key for this tool."""
        return cast(ToolKey, self._call("POST", "tool-keys")[1])

    def remove_platform(self, platform_id: int) -> None:
        """Believe no launch from a platform any more; its people and courses stay."""
        self._call("DELETE", f"platforms/{platform_id}")

    def grade_assignments(self, course_id: str) -> list[dict[str, Any]]:
        """The gradebook's assignments, and how their grades stand."""
        answer = self._call("GET", f"courses/{_quoted(course_id)}/grades")[1]
        return cast(list[dict[str, Any]], answer["assignments"])

    def grade_preview(self, course_id: str, assignment: str) -> dict[str, Any]:
        """What sending an assignment's grades would do."""
        return self._call("GET", f"courses/{_quoted(course_id)}/grades?assignment={_quoted(assignment)}")[1]

    def send_grades(
        self,
        course_id: str,
        assignment: str,
        *,
        students: list[str] | None = None,
        partial: bool = False,
        again: bool = False,
    ) -> dict[str, Any]:
        """Put grades into the queue; see `illumidesk.hub.grades.Grades.send`."""
        body: dict[str, Any] = {"assignment": assignment, "partial": partial, "again": again}
        if students is not None:
            body["students"] = students
        return self._call("POST", f"courses/{_quoted(course_id)}/grades", body)[1]

    def deliveries(self, course_id: str, assignment: str = "") -> list[dict[str, Any]]:
        """How the course's deliveries stand; of one assignment, where it is given."""
        query = f"?assignment={_quoted(assignment)}" if assignment else ""
        answer = self._call("GET", f"courses/{_quoted(course_id)}/deliveries{query}")[1]
        return cast(list[dict[str, Any]], answer["deliveries"])

    def retry_deliveries(self, course_id: str, assignment: str, students: list[str]) -> int:
        """Try again; how many there are. Nobody named means everybody."""
        body: dict[str, Any] = {"assignment": assignment}
        if students:
            body["students"] = students
        return int(self._call("POST", f"courses/{_quoted(course_id)}/deliveries", body)[1]["count"])

    def columns(self, course_id: str, assignment: str) -> list[dict[str, Any]]:
        """Where an assignment's grades go, and which columns may be chosen, for each platform."""
        answer = self._call("GET", f"courses/{_quoted(course_id)}/column?assignment={_quoted(assignment)}")[1]
        return cast(list[dict[str, Any]], answer["places"])

    def choose_column(self, course_id: str, assignment: str, platform: int, key: str) -> str:
        """Choose an assignment's column; its name."""
        body = {"assignment": assignment, "platform": platform, "key": key}
        return str(self._call("PUT", f"courses/{_quoted(course_id)}/column", body)[1]["column"])

    def grade_book(self, course_id: str) -> dict[str, Any]:
        """Every score of the course."""
        return self._call("GET", f"courses/{_quoted(course_id)}/book")[1]

    def import_grades(self, course_id: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Put scores from elsewhere into the gradebook."""
        return self._call("POST", f"courses/{_quoted(course_id)}/book", {"rows": rows})[1]

    def extensions(self, course_id: str) -> list[dict[str, Any]]:
        """Who has more time, in seconds."""
        answer = self._call("GET", f"courses/{_quoted(course_id)}/extensions")[1]
        return cast(list[dict[str, Any]], answer["extensions"])

    def set_extension(self, course_id: str, student: str, assignment: str, seconds: int) -> None:
        """Give a student more time; 0 seconds take it away."""
        body = {"student": student, "assignment": assignment, "seconds": seconds}
        self._call("PUT", f"courses/{_quoted(course_id)}/extensions", body)

    def package_requests(self) -> list[PackageRequest]:
        """What instructors of all courses ask for and nobody has answered."""
        return cast(list[PackageRequest], self._call("GET", "package-requests")[1]["requests"])

    def course_package_requests(self, course_id: str) -> list[PackageRequest]:
        """What a course's instructors ask and asked for, the newest first."""
        answer = self._call("GET", f"courses/{_quoted(course_id)}/package-requests")[1]
        return cast(list[PackageRequest], answer["requests"])

    def settle_package_requests(
        self, course_id: str, packages: list[str], answer: Literal["granted", "declined"], reason: str = ""
    ) -> list[PackageRequest]:
        """Answer the requests for these packages; those that were answered."""
        body = {"packages": packages, "answer": answer, "reason": reason}
        said = self._call("POST", f"courses/{_quoted(course_id)}/package-requests", body)[1]
        return cast(list[PackageRequest], said["requests"])

    def status(self, *, timeout: float = 10.0) -> dict[str, Any]:
        """The hub's own view of the machine."""
        return self._call("GET", "status", timeout=timeout)[1]

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, timeout: float = TIMEOUT
    ) -> tuple[int, dict[str, Any]]:
        try:
            status, answer = request_json(
                method, self._socket, f"/hub/api/illumidesk/{path}", token=self._token, body=body, timeout=timeout
            )
        except TimeoutError:
            raise IllumiDeskError(
                f"the hub did not answer within {timeout:.0f} seconds",
                hint="sudo journalctl -u illumidesk-hub -n 50",
                status=503,
            ) from None
        except (OSError, http.client.HTTPException):
            raise IllumiDeskError(
                "the hub does not answer", hint="sudo systemctl status illumidesk-hub", status=503
            ) from None
        if 200 <= status < 300 and isinstance(answer, dict):
            return status, answer
        raise _refusal(status, answer if isinstance(answer, dict) else {})


def _refusal(status: int, answer: dict[str, Any]) -> IllumiDeskError:
    message = str(answer.get("message") or "")
    hint = str(answer.get("hint") or "")
    if status in (401, 403) and not hint:
        hint = "the hub may have started before its token was changed: sudo systemctl restart illumidesk-hub"
    if not message:
        message = f"the hub answered {status} {http.client.responses.get(status, '')}".rstrip()
    if not hint and (status >= 500 or not answer):
        hint = "sudo journalctl -u illumidesk-hub -n 50"
    return IllumiDeskError(message, hint=hint, status=status)


def _quoted(name: str) -> str:
    return quote(name, safe="")
