"""A course's environment: the page on which its instructors see the packages and ask for more, and the management API.

The hub builds nothing: an administrator grants a request with `illumidesk course env COURSE add --requested`.
"""

from __future__ import annotations

import asyncio
import re
from importlib import metadata
from pathlib import Path
from typing import Any, cast, get_args

from jupyterhub.utils import url_path_join
from packaging.utils import canonicalize_name
from tornado import web

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.hub.api import ManagementHandler
from illumidesk.hub.course_pages import CoursePage
from illumidesk.registry import Course, PackageAnswer, PackageRequest
from illumidesk.registry.store import iso, unknown_course
from illumidesk.requirements import check_requirements, package_name

#: Longest list of packages that somebody may ask for at a time, in characters.
MAX_TEXT = 5000


class EnvironmentPage(CoursePage):
    """`/hub/courses/COURSE/environment`."""

    def course(self, course_id: str) -> Course:
        """The course, where this person is an instructor of it: what a course needs is not for TAs to say."""
        course = super().course(course_id)
        member = self.classroom.registry.membership(course_id, self.current_user.name)
        if not self.current_user.admin and (member is None or member.role != "instructor"):
            raise web.HTTPError(403, f"{self.current_user.name} is no instructor of {course_id}.")
        return course

    @web.authenticated
    async def get(self, course_id: str) -> None:
        """Show the packages, what was asked for, and a form to ask."""
        await self._page(self.course(course_id))

    @web.authenticated
    async def post(self, course_id: str) -> None:
        """Ask for packages, or take a request back."""
        course = self.course(course_id)
        requests = self.classroom.registry.package_requests
        try:
            package = self.get_body_argument("take_back", "")
            if package:
                requests.take_back(course_id, package)
            else:
                wanted = check_requirements(_lines(self.get_body_argument("packages", "")))
                asked = requests.ask(course_id, self.current_user.name, wanted)
                self.log.info(
                    "%s: %s asks for %s", course_id, self.current_user.name, [one.requirement for one in asked]
                )
        except IllumiDeskError as error:
            self.set_status(error.status)
            await self._page(course, problem=error)
            return
        self.redirect(url_path_join(self.hub.base_url, f"courses/{course_id}/environment"), status=303)

    async def _page(self, course: Course, problem: IllumiDeskError | None = None) -> None:
        environment = self.classroom.settings.environment_of("learner", course.course_id)
        prefix = self.classroom.paths.environments / environment
        requests = self.classroom.registry.package_requests.of_course(course.course_id)
        await self.show(
            "environment.html",
            course=course,
            environment=environment,
            own=environment == names.course_environment(course.course_id),
            packages=await asyncio.to_thread(python_packages, prefix),
            waiting=[_shown(one) for one in reversed(requests) if one.answer is None],
            answered=[_shown(one) for one in requests if one.answer is not None],
            typed=self.get_body_argument("packages", "") if problem is not None else "",
            problem=problem,
        )


def python_packages(prefix: Path) -> list[tuple[str, str]]:
    """The Python packages of an environment with their versions, by name. Reads some hundred small files."""
    folders = [str(folder) for folder in prefix.glob("lib/python3*/site-packages")]
    found = {}
    for one in metadata.distributions(path=folders):
        name = one.metadata["Name"]
        if name:  # else the rest of something that was removed
            found[canonicalize_name(name)] = (name, one.version)
    return [found[key] for key in sorted(found)]


def _lines(text: str) -> list[str]:
    """One package a line, or with commas between them; `numpy>=2,<3` is one."""
    if len(text) > MAX_TEXT:
        raise IllumiDeskError("this is too much at a time", hint="name the packages, one a line")
    lines = re.split(r"[\n;]|,(?!\s*[<>=!~])", text.replace("\r", "\n"))
    return [line.strip() for line in lines if line.strip()]


def _shown(one: PackageRequest) -> dict[str, Any]:
    return {
        "course_id": one.course_id,
        "requirement": one.requirement,
        "package": package_name(one.requirement),
        "asked_by": one.asked_by,
        "created": iso(one.created),
        "answer": one.answer,
        "answered": iso(one.answered),
        "reason": one.reason,
    }


class RequestsHandler(ManagementHandler):
    """`package-requests`."""

    async def get(self) -> None:
        """Those of all courses that wait for an answer."""
        self.answer({"requests": [_shown(one) for one in self.classroom.registry.package_requests.waiting()]})


class CourseRequestsHandler(ManagementHandler):
    """`courses/ID/package-requests`."""

    async def get(self, course_id: str) -> None:
        """Those of a course, answered or not, the newest first."""
        if self.classroom.registry.course(course_id) is None:
            raise unknown_course(course_id)
        self.answer(
            {"requests": [_shown(one) for one in self.classroom.registry.package_requests.of_course(course_id)]}
        )

    async def post(self, course_id: str) -> None:
        """Answer the requests for some packages."""
        if self.classroom.registry.course(course_id) is None:
            raise unknown_course(course_id)
        fields = self.body(packages=list, answer=str, reason=str)
        answer = fields.get("answer")
        if answer not in get_args(PackageAnswer):
            raise IllumiDeskError(f"an answer is one of {', '.join(get_args(PackageAnswer))}")
        packages = [package_name(one) for one in check_requirements(map(str, fields.get("packages", [])))]
        requests = self.classroom.registry.package_requests
        settled = requests.settle(course_id, packages, cast(PackageAnswer, answer), fields.get("reason", ""))
        for one in settled:
            self.log.info("%s: %s for %s was %s", course_id, one.requirement, one.asked_by, answer)
        self.answer({"requests": [_shown(one) for one in settled]})


environment_page_handlers = [(r"/courses/([a-z0-9_-]+)/environment", EnvironmentPage)]
environment_api_handlers = [
    (r"/api/illumidesk/package-requests", RequestsHandler),
    (r"/api/illumidesk/courses/([^/]+)/package-requests", CourseRequestsHandler),
]
