"""A stand-in for the hub's management API: HTTP on a unix socket, everything in memory."""

from __future__ import annotations

import http.server
import json
import re
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote

TOKEN = "token-of-the-tests"
CREATED = "2026-11-24T08:00:00+00:00"


class FakeHub:
    """`people` and `courses` (ID → title, members) are its state; `calls` what it was asked; `healthy` its health."""

    def __init__(self, socket: Path) -> None:
        self.people: dict[str, dict[str, Any]] = {}
        self.courses: dict[str, dict[str, Any]] = {}
        self.platforms: dict[int, dict[str, Any]] = {}
        self.invites: dict[int, dict[str, Any]] = {}
        self.keys: list[dict[str, Any]] = [{"kid": "key-1", "created": CREATED}]
        self.calls: list[tuple[str, str, Any]] = []
        self.broken: dict[str, tuple[int, bytes]] = {}
        self.healthy = True
        self.retired: set[str] = set()
        #: Who has left; and what a roster's fetch is answered, one after the other.
        self.left: set[str] = set()
        self.fetches: list[tuple[int, Any]] = []
        #: What instructors ask for.
        self.requests: list[dict[str, Any]] = []
        self._server = _UnixServer(str(socket), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_person(self, name: str, *, admin: bool = False, active: bool = False) -> None:
        server = {"active": active, "ready": active, "started": CREATED if active else None}
        self.people[name] = {
            "name": name, "admin": admin, "has_password": False, "created": CREATED, "server": server,
            "last_activity": CREATED if active else None,
        }  # fmt: skip

    def add_course(self, course_id: str, title: str = "", *, grader: bool = False, **members: str) -> None:
        self.courses[course_id] = {"title": title, "members": dict(members), "grader": grader}

    def ask(self, course_id: str, package: str) -> None:
        self.requests.append(
            {
                "course_id": course_id, "requirement": package, "package": package, "asked_by": "maria",
                "created": CREATED, "answer": None, "answered": None, "reason": "",
            }
        )  # fmt: skip

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.calls.append((method, path, body))
        for pattern, handle in _ROUTES:
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                result: tuple[int, Any] = handle(self, body or {}, *map(unquote, match.groups()))
                return result
        return _error(404, f"there is nothing at {path}")

    def user(self, name: str) -> dict[str, Any]:
        courses = [
            {"course_id": course_id, "role": course["members"][name]}
            for course_id, course in self.courses.items()
            if name in course["members"]
        ]
        return self.people[name] | {"courses": courses}

    def course(self, course_id: str, *, members: bool = False) -> dict[str, Any]:
        course = self.courses[course_id]
        roles = list(course["members"].values())
        shown = {
            "course_id": course_id,
            "title": course["title"],
            "created": CREATED,
            "counts": {role: roles.count(role) for role in ("student", "ta", "instructor")},
            "grader": {"active": course["grader"]},
        }
        if members:
            shown["url"] = f"/services/{course_id}/"
            shown["members"] = [{"name": name, "role": role} for name, role in course["members"].items()]
        return shown


def _error(status: int, message: str, hint: str = "") -> tuple[int, Any]:
    return status, {"message": message, "hint": hint, "status": status}


def _no_user(name: str) -> tuple[int, Any]:
    return _error(404, f"there is no {name}", f"illumidesk user add {name}")


def _post_course(hub: FakeHub, body: Any) -> tuple[int, Any]:
    new = body["course_id"] not in hub.courses
    if new:
        hub.add_course(body["course_id"], body.get("title", ""))
    return 201 if new else 200, hub.course(body["course_id"])


def _get_course(hub: FakeHub, body: Any, course_id: str) -> tuple[int, Any]:
    if course_id not in hub.courses:
        return _error(404, f"there is no course {course_id}", "illumidesk course list")
    return 200, hub.course(course_id, members=True)


def _delete_course(hub: FakeHub, body: Any, course_id: str) -> tuple[int, Any]:
    del hub.courses[course_id]
    return 200, {"archive": f"/var/backups/illumidesk/courses/{course_id}-20261124T080000Z.tar.gz"}


def _put_member(hub: FakeHub, body: Any, course_id: str, name: str) -> tuple[int, Any]:
    if course_id not in hub.courses:
        return _error(404, f"there is no course {course_id}", f"illumidesk course create {course_id}")
    if name not in hub.people:
        if not body.get("create"):
            return _no_user(name)
        hub.add_person(name)
    members = hub.courses[course_id]["members"]
    new = name not in members
    members[name] = body["role"]
    return 200, {"course_id": course_id, "name": name, "role": body["role"], "created": new}


def _delete_member(hub: FakeHub, body: Any, course_id: str, name: str) -> tuple[int, Any]:
    if hub.courses[course_id]["members"].pop(name, None) is None:
        return _error(404, f"{name} is not in {course_id}")
    return 200, {}


def _post_user(hub: FakeHub, body: Any) -> tuple[int, Any]:
    new = body["name"] not in hub.people
    if new:
        if body["name"] in hub.retired and not body.get("restore"):
            return _error(409, f"{body['name']} was removed", f"`illumidesk user add --restore {body['name']}`")
        hub.add_person(body["name"])
    if "admin" in body:
        hub.people[body["name"]]["admin"] = body["admin"]
    return 201 if new else 200, hub.user(body["name"])


def _one_user(hub: FakeHub, body: Any, name: str) -> tuple[int, Any]:
    return (200, hub.user(name)) if name in hub.people else _no_user(name)


def _patch_user(hub: FakeHub, body: Any, name: str) -> tuple[int, Any]:
    if name not in hub.people:
        return _no_user(name)
    if "admin" in body:
        hub.people[name]["admin"] = body["admin"]
    if body.get("forget_password"):
        hub.people[name]["has_password"] = False
    return 200, hub.user(name)


def _delete_user(hub: FakeHub, body: Any, name: str) -> tuple[int, Any]:
    hub.retired.add(name)
    return (200, {}) if hub.people.pop(name, None) else _no_user(name)


def _stop_user(hub: FakeHub, body: Any, name: str) -> tuple[int, Any]:
    if name not in hub.people:
        return _no_user(name)
    hub.people[name]["server"]["active"] = False
    return 200, {}


def _post_platform(hub: FakeHub, body: Any) -> tuple[int, Any]:
    body = dict(body)
    identity = [body.get("key"), body.get("issuer"), body.get("client_id")]
    same = [
        one["id"]
        for one in hub.platforms.values()
        if identity == [one["key"] or None, one["issuer"] or None, one["client_id"] or None]
    ]
    if same and not body.get("replace"):
        return _error(409, f"the platform {body['name']} is there already", "--replace changes it")
    number = same[0] if same else len(hub.platforms) + 1
    text = ("key", "issuer", "client_id", "auth_url", "token_url", "token_audience", "jwks_url")
    made = {}
    if body["version"] == "1.1":
        body.setdefault("key", f"illumidesk-{number:08}")
        made = {} if body.get("secret") else {"secret": "made-by-the-hub-0123456789"}
    hub.platforms[number] = {
        "id": number, "name": body["name"], "version": body["version"], "created": CREATED, "people": 0, "courses": 0,
        "deployments": body.get("deployments", []), **{field: body.get(field, "") for field in text},
    }  # fmt: skip
    return 200 if same else 201, hub.platforms[number] | made


def _one_platform(hub: FakeHub, body: Any, number: str) -> tuple[int, Any]:
    if int(number) not in hub.platforms:
        return _error(404, f"there is no platform {number}", "illumidesk lti platform list")
    return 200, hub.platforms[int(number)]


def _delete_platform(hub: FakeHub, body: Any, number: str) -> tuple[int, Any]:
    del hub.platforms[int(number)]
    return 200, {}


def _post_invite(hub: FakeHub, body: Any) -> tuple[int, Any]:
    number = len(hub.invites) + 1
    hub.invites[number] = {"id": number, "name": body["name"], "created": CREATED, "expires": CREATED}
    return 201, {**hub.invites[number], "token": "made-by-the-hub-0123456789"}


def _delete_invite(hub: FakeHub, body: Any, number: str) -> tuple[int, Any]:
    if hub.invites.pop(int(number), None) is None:
        return _error(404, f"there is no invitation {number}", "")
    return 200, {}


def _post_key(hub: FakeHub, body: Any) -> tuple[int, Any]:
    hub.keys.insert(0, {"kid": f"key-{len(hub.keys) + 1}", "created": CREATED})
    return 201, hub.keys[0]


def _get_roster(hub: FakeHub, body: Any, course_id: str) -> tuple[int, Any]:
    if course_id not in hub.courses:
        return _error(404, f"there is no course {course_id}", "illumidesk course list")
    people = [
        {
            "name": name, "full_name": f"={name.title()}", "email": f"{name}@example.edu", "role": role,
            "source": "roster", "lms_user_id": f"id-{name}", "since": CREATED, "rostered": CREATED,
            "left": CREATED if name in hub.left else None,
        }
        for name, role in hub.courses[course_id]["members"].items()
    ]  # fmt: skip
    return 200, {"course_id": course_id, "people": people, "sources": []}


def _fetch_roster(hub: FakeHub, body: Any, course_id: str) -> tuple[int, Any]:
    return hub.fetches[0] if len(hub.fetches) == 1 else hub.fetches.pop(0)


def _status(hub: FakeHub, body: Any) -> tuple[int, Any]:
    online = sum(person["server"]["active"] for person in hub.people.values())
    return 200, {
        "version": "0.1.0",
        "hub": {"started": CREATED},
        "units": [],
        "package_requests": sum(one["answer"] is None for one in hub.requests),
        "users_online": online,
        "host": {},
    }


def _course_requests(hub: FakeHub, body: Any, course_id: str) -> tuple[int, Any]:
    if course_id not in hub.courses:
        return _error(404, f"there is no course {course_id}", "illumidesk course list")
    return 200, {"requests": [one for one in hub.requests if one["course_id"] == course_id]}


def _settle_requests(hub: FakeHub, body: Any, course_id: str) -> tuple[int, Any]:
    settled = [
        one
        for one in hub.requests
        if one["course_id"] == course_id and one["answer"] is None and one["package"] in body["packages"]
    ]
    for one in settled:
        one |= {"answer": body["answer"], "answered": CREATED, "reason": body["reason"]}
    return 200, {"requests": settled}


_API = "/hub/api/illumidesk"
_ROUTES = [
    (f"GET {_API}/courses", lambda hub, body: (200, {"courses": [hub.course(one) for one in hub.courses]})),
    (f"POST {_API}/courses", _post_course),
    (f"GET {_API}/courses/([^/]+)", _get_course),
    (f"DELETE {_API}/courses/([^/]+)", _delete_course),
    (f"PUT {_API}/courses/([^/]+)/members/([^/]+)", _put_member),
    (f"DELETE {_API}/courses/([^/]+)/members/([^/]+)", _delete_member),
    (f"GET {_API}/users", lambda hub, body: (200, {"users": [hub.user(name) for name in hub.people]})),
    (f"POST {_API}/users", _post_user),
    (f"GET {_API}/users/([^/]+)", _one_user),
    (f"PATCH {_API}/users/([^/]+)", _patch_user),
    (f"DELETE {_API}/users/([^/]+)", _delete_user),
    (f"POST {_API}/users/([^/]+)/stop", _stop_user),
    (f"GET {_API}/platforms", lambda hub, body: (200, {"platforms": list(hub.platforms.values())})),
    (f"POST {_API}/platforms", _post_platform),
    (f"GET {_API}/platforms/([^/]+)", _one_platform),
    (f"DELETE {_API}/platforms/([^/]+)", _delete_platform),
    (f"GET {_API}/invites", lambda hub, body: (200, {"invites": list(hub.invites.values())})),
    (f"POST {_API}/invites", _post_invite),
    (f"DELETE {_API}/invites/([^/]+)", _delete_invite),
    (f"GET {_API}/tool-keys", lambda hub, body: (200, {"keys": hub.keys})),
    (f"POST {_API}/tool-keys", _post_key),
    (f"GET {_API}/courses/([^/]+)/roster", _get_roster),
    (f"POST {_API}/courses/([^/]+)/roster/fetch", _fetch_roster),
    (f"GET {_API}/courses/([^/]+)/roster/fetch", _fetch_roster),
    (
        f"GET {_API}/package-requests",
        lambda hub, body: (200, {"requests": [one for one in hub.requests if one["answer"] is None]}),
    ),
    (f"GET {_API}/courses/([^/]+)/package-requests", _course_requests),
    (f"POST {_API}/courses/([^/]+)/package-requests", _settle_requests),
    (f"GET {_API}/status", _status),
]


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client may go away
            super().handle_error(request, client_address)


def _handler(hub: FakeHub) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if self.path == "/hub/health":
                status, content = (200 if hub.healthy else 503), b""
            elif self.path in hub.broken:
                status, content = hub.broken[self.path]
            elif self.headers.get("Authorization") != f"token {TOKEN}":
                status, content = 403, json.dumps({"status": 403, "message": "Forbidden"}).encode()
            else:
                status, answer = hub.answer(self.command, self.path, body)
                content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if content:
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    return Handler
