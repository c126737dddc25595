"""The management API, for the command line: `/hub/api/illumidesk/…`.

Only the holder of the scope `custom:illumidesk:manage` may use it, and only the command line's token (root's) has it.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from datetime import timedelta
from typing import Any, cast

from jupyterhub.apihandlers.base import APIHandler
from sqlalchemy.exc import OperationalError
from tornado import web

from illumidesk import __version__, names
from illumidesk.errors import IllumiDeskError
from illumidesk.hub.classroom import Classroom
from illumidesk.registry import MEMBER_ROLES, Course, Invite, LTIVersion, MemberRole, Person, Platform, ToolKey
from illumidesk.registry.store import database_problem, iso, unknown_course, unknown_person, unknown_platform

MANAGE_SCOPE = "custom:illumidesk:manage"


class ManagementHandler(APIHandler):  # type: ignore[misc]
    """Base: who may, JSON in and out, errors as a sentence and a hint."""

    @property
    def classroom(self) -> Classroom:
        """People and courses."""
        classroom: Classroom = self.settings["classroom"]
        return classroom

    _database_error: OperationalError | None = None

    async def get_current_user(self) -> Any:
        """As JupyterHub does, which takes who cannot be looked up for nobody: remember why."""
        try:
            return await super().get_current_user()
        except OperationalError as error:
            self._database_error = error
            raise

    async def prepare(self) -> None:
        """Refuse everybody but the command line."""
        await super().prepare()
        if self._database_error is not None:
            raise self._database_error
        if MANAGE_SCOPE not in self.expanded_scopes:
            raise web.HTTPError(403, "Only root's command line may do this.")

    def body(self, **allowed: type) -> dict[str, Any]:
        """The request's JSON object, with no fields but these and of these types."""
        fields = self.get_json_body() or {}
        if not isinstance(fields, dict):
            raise IllumiDeskError("the request must be a JSON object")
        for key, value in fields.items():
            if key not in allowed or not isinstance(value, allowed[key]):
                raise IllumiDeskError(f"the request has no such field, or of another type: {key}")
        return fields

    def answer(self, value: dict[str, Any], status: int = 200) -> None:
        """Send `value`."""
        self.set_status(status)
        self.finish(json.dumps(value))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Errors for people as they are; the rest as JupyterHub does."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, OperationalError):
            self.db.rollback()
            error = database_problem(error, self.classroom.paths.hub_state)
        if isinstance(error, IllumiDeskError):
            self.set_header("Content-Type", "application/json")
            self.set_status(error.status)
            self.finish(json.dumps({**error.as_dict(), "status": error.status}))
            return
        super().write_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """No traceback for what a person can mend."""
        if isinstance(value, (IllumiDeskError, OperationalError)):
            self.log.warning("%s %s: %s", self.request.method, self.request.path, value)
            return
        super().log_exception(typ, value, tb)

    def course_model(self, course: Course, counts: dict[str, int]) -> dict[str, Any]:
        """A course as the API shows it."""
        unit = names.grader_unit(course.course_id)
        return {
            "course_id": course.course_id,
            "title": course.title,
            "created": iso(course.created),
            "counts": {role: counts.get(role, 0) for role in MEMBER_ROLES},
            "grader": {"active": self.classroom.units.is_active(unit)},
            "url": f"/services/{course.course_id}/",
        }

    def person_model(self, person: Person) -> dict[str, Any]:
        """A person as the API shows it."""
        user = self.classroom.hub_user(person.name)
        spawner = user.spawners.get("") if user is not None else None
        active = bool(spawner is not None and spawner.active)
        return {
            "name": person.name,
            "admin": bool(user is not None and user.admin),
            "has_password": person.password_hash is not None,
            "created": iso(person.created),
            "courses": [
                {"course_id": course_id, "role": role}
                for course_id, role in self.classroom.registry.memberships(person.name)
            ],
            "server": {
                "active": active,
                "ready": bool(spawner is not None and spawner.ready),
                "started": iso(spawner.orm_spawner.started) if active and spawner is not None else None,
            },
            "last_activity": iso(user.last_activity) if user is not None else None,
        }

    def platform_model(self, platform: Platform) -> dict[str, Any]:
        """A platform as the API shows it: without its secret."""
        people, courses = self.classroom.registry.platform_counts().get(platform.id, (0, 0))
        return {
            "id": platform.id,
            "name": platform.name,
            "version": platform.version,
            "key": platform.key,
            "issuer": platform.issuer,
            "client_id": platform.client_id,
            "auth_url": platform.auth_url,
            "token_url": platform.token_url,
            "token_audience": platform.token_audience,
            "jwks_url": platform.jwks_url,
            "deployments": platform.deployments,
            "created": iso(platform.created),
            "people": people,
            "courses": courses,
        }

    def present_platform(self, platform_id: str) -> Platform:
        """The platform of that number.

        Raises:
            IllumiDeskError: where there is none.
        """
        known = platform_id.isascii() and platform_id.isdigit() and len(platform_id) < 10
        platform = self.classroom.registry.platform(int(platform_id)) if known else None
        if platform is None:
            raise unknown_platform(platform_id)
        return platform

    def present(self, name: str) -> Person:
        """The person of that name.

        Raises:
            IllumiDeskError: where there is none.
        """
        person = self.classroom.registry.person(name)
        if person is None or person.retired is not None:
            raise unknown_person(name)
        return person


class CoursesHandler(ManagementHandler):
    """`courses`."""

    async def get(self) -> None:
        """Every course."""
        counts = self.classroom.registry.counts()
        courses = self.classroom.registry.courses()
        self.answer(
            {"courses": [self.course_model(course, counts.get(course.course_id, Counter())) for course in courses]}
        )

    async def post(self) -> None:
        """Make a course, or finish one."""
        fields = self.body(course_id=str, title=str)
        course_id = fields.get("course_id", "")
        created = await self.classroom.ensure_course(course_id, fields.get("title", ""))
        course = self.classroom.registry.course(course_id)
        assert course is not None  # noqa: S101 -- just made
        counts: dict[str, int] = self.classroom.registry.counts().get(course_id, Counter())
        self.answer(self.course_model(course, counts), 201 if created else 200)


class CourseHandler(ManagementHandler):
    """`courses/ID`."""

    async def get(self, course_id: str) -> None:
        """One course and its members."""
        course = self.classroom.registry.course(course_id)
        if course is None:
            raise unknown_course(course_id)
        members = self.classroom.registry.members(course_id)
        counts: dict[str, int] = self.classroom.registry.counts().get(course_id, Counter())
        model = self.course_model(course, counts)
        model["members"] = [{"name": name, "role": role} for name, role in members]
        self.answer(model)

    async def delete(self, course_id: str) -> None:
        """Archive the course and take it away."""
        self.answer({"archive": await self.classroom.remove_course(course_id)})


class MemberHandler(ManagementHandler):
    """`courses/ID/members/NAME`."""

    async def put(self, course_id: str, name: str) -> None:
        """Give somebody a role in the course."""
        fields = self.body(role=str, create=bool, keep=bool)
        role = fields.get("role", "student")
        if role not in MEMBER_ROLES:
            raise IllumiDeskError(f"{role!r} is not a role", hint=f"use one of {', '.join(MEMBER_ROLES)}")
        if self.classroom.registry.course(course_id) is None:
            raise unknown_course(course_id)
        if fields.get("create"):
            await self.classroom.ensure_person(name)
        created = await self.classroom.enrol(course_id, name, cast(MemberRole, role), keep=fields.get("keep", False))
        self.answer({"course_id": course_id, "name": name, "role": role, "created": created})

    async def delete(self, course_id: str, name: str) -> None:
        """Take somebody out of the course."""
        await self.classroom.withdraw(course_id, name)
        self.answer({})


class PeopleHandler(ManagementHandler):
    """`users`."""

    async def get(self) -> None:
        """Everybody."""
        self.answer({"users": [self.person_model(person) for person in self.classroom.registry.people()]})

    async def post(self) -> None:
        """Add somebody, or finish adding."""
        fields = self.body(name=str, admin=bool, restore=bool)
        name = fields.get("name", "")
        created = await self.classroom.ensure_person(
            name, admin=fields.get("admin"), restore=fields.get("restore", False)
        )
        self.answer(self.person_model(self.present(name)), 201 if created else 200)


class PersonHandler(ManagementHandler):
    """`users/NAME`."""

    async def get(self, name: str) -> None:
        """One person."""
        self.answer(self.person_model(self.present(name)))

    async def patch(self, name: str) -> None:
        """Change who is an admin, or forget a password."""
        fields = self.body(admin=bool, forget_password=bool)
        self.present(name)
        await self.classroom.ensure_person(name, admin=fields.get("admin"))
        if fields.get("forget_password"):
            self.classroom.registry.set_password_hash(name, None)
        self.answer(self.person_model(self.present(name)))

    async def delete(self, name: str) -> None:
        """Remove somebody; files are kept."""
        await self.classroom.remove_person(name)
        self.answer({})


class StopHandler(ManagementHandler):
    """`users/NAME/stop`."""

    async def post(self, name: str) -> None:
        """Stop the person's server."""
        self.present(name)
        await self.classroom.stop_server(name)
        self.answer({})


class PlatformsHandler(ManagementHandler):
    """`platforms`."""

    async def get(self) -> None:
        """Every platform."""
        self.answer({"platforms": [self.platform_model(one) for one in self.classroom.registry.platforms()]})

    async def post(self) -> None:
        """Add a platform; with `replace`, change one or bring one back. The answer alone shows a secret made here."""
        text = ("key", "secret", "issuer", "client_id", "auth_url", "token_url", "token_audience", "jwks_url")
        fields = self.body(name=str, version=str, deployments=list, replace=bool, **dict.fromkeys(text, str))
        version = cast(LTIVersion, fields.pop("version", ""))
        made: dict[str, str] = {}
        if version == "1.1":
            fields["key"] = fields.get("key") or f"illumidesk-{secrets.token_hex(4)}"
            if not fields.get("secret"):
                made["secret"] = fields["secret"] = secrets.token_hex(24)
        insecure = self.classroom.settings.sign_in.lti.loopback_platforms
        platform, new = self.classroom.registry.add_platform(
            fields.pop("name", ""), version, insecure=insecure, **fields
        )
        self.log.info("platform %d (%r, LTI %s) was set up", platform.id, platform.name, platform.version)
        self.answer({**self.platform_model(platform), **made}, 201 if new else 200)


class PlatformHandler(ManagementHandler):
    """`platforms/ID`."""

    async def get(self, platform_id: str) -> None:
        """One platform."""
        self.answer(self.platform_model(self.present_platform(platform_id)))

    async def delete(self, platform_id: str) -> None:
        """Believe no launch from it any more; its people and courses stay."""
        platform = self.present_platform(platform_id)
        self.classroom.registry.remove_platform(platform.id)
        self.log.info("platform %d (%r) was removed", platform.id, platform.name)
        self.answer({})


class InvitesHandler(ManagementHandler):
    """`invites`."""

    async def get(self) -> None:
        """Those that are still good."""
        self.answer({"invites": [_invite_model(one) for one in self.classroom.registry.invites()]})

    async def post(self) -> None:
        """Make one. The answer alone shows its token."""
        fields = self.body(name=str, days=int)
        days = fields.get("days", 7)
        if not 1 <= days <= 90:
            raise IllumiDeskError("an invitation is good for 1 to 90 days")
        invite, token = self.classroom.registry.add_invite(fields.get("name", ""), timedelta(days=days))
        self.log.info("invitation %d for %r was made", invite.id, invite.name)
        self.answer({**_invite_model(invite), "token": token}, 201)


class InviteHandler(ManagementHandler):
    """`invites/ID`."""

    async def delete(self, invite_id: str) -> None:
        """Take it back."""
        if not (invite_id.isascii() and invite_id.isdigit() and len(invite_id) < 10):
            raise IllumiDeskError(f"there is no invitation {invite_id}", status=404)
        self.classroom.registry.revoke_invite(int(invite_id))
        self.answer({})


class ToolKeysHandler(ManagementHandler):
    """`tool-keys`."""

    async def get(self) -> None:
        """Ids and times of this tool's keys, the one that signs first."""
        self.answer({"keys": [_key_model(one) for one in await self.classroom.tool_keys()]})

    async def post(self) -> None:
        """A new key, which signs from now on."""
        key = await self.classroom.rotate_tool_key()
        self.log.info("the key %s signs from now on", key.kid)
        self.answer(_key_model(key), 201)


def _invite_model(invite: Invite) -> dict[str, Any]:
    return {"id": invite.id, "name": invite.name, "created": iso(invite.created), "expires": iso(invite.expires)}


def _key_model(key: ToolKey) -> dict[str, Any]:
    return {"kid": key.kid, "created": iso(key.created)}


class StatusHandler(ManagementHandler):
    """`status`."""

    async def get(self) -> None:
        """Units and figures of the host."""
        await self.classroom.units.refresh()
        units = self.classroom.units.all()
        self.answer(
            {
                "version": __version__,
                "hub": {"started": iso(self.classroom.started)},
                "units": units,
                "package_requests": len(self.classroom.registry.package_requests.waiting()),
                "users_online": sum(unit["kind"] == "server" and unit["active_state"] == "active" for unit in units),
                "host": await self.classroom.supervisor.host(),
            }
        )


_NAME = r"([^/]+)"
api_handlers = [
    (r"/api/illumidesk/courses", CoursesHandler),
    (rf"/api/illumidesk/courses/{_NAME}", CourseHandler),
    (rf"/api/illumidesk/courses/{_NAME}/members/{_NAME}", MemberHandler),
    (r"/api/illumidesk/users", PeopleHandler),
    (rf"/api/illumidesk/users/{_NAME}", PersonHandler),
    (rf"/api/illumidesk/users/{_NAME}/stop", StopHandler),
    (r"/api/illumidesk/platforms", PlatformsHandler),
    (rf"/api/illumidesk/platforms/{_NAME}", PlatformHandler),
    (r"/api/illumidesk/invites", InvitesHandler),
    (rf"/api/illumidesk/invites/{_NAME}", InviteHandler),
    (r"/api/illumidesk/tool-keys", ToolKeysHandler),
    (r"/api/illumidesk/status", StatusHandler),
]
