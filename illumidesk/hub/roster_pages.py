"""A course's roster: the page of those who run the course, and the management API."""

from __future__ import annotations

import json

from jupyterhub.utils import url_path_join
from tornado import web

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.hub.api import ManagementHandler
from illumidesk.hub.course_pages import CoursePage
from illumidesk.hub.pages import grader_url
from illumidesk.hub.roster_file import as_csv


class RosterPage(CoursePage):
    """`/hub/courses/COURSE/roster`."""

    @web.authenticated
    async def get(self, course_id: str) -> None:
        """Show who is in the course."""
        course = self.course(course_id)
        fetch = self.classroom.rosters.state(course_id)
        sources = self.classroom.rosters.sources(course_id)
        await self.show(
            "roster.html",
            course=course,
            people=self.classroom.rosters.people(course_id),
            sources=sources,
            may_fetch=any(one["has_roster"] for one in sources),
            only_11=bool(sources) and all(one["version"] == "1.1" for one in sources),
            fetch=fetch.model() if fetch is not None else None,
            grader=grader_url(course_id),
            here=url_path_join(self.hub.base_url, f"courses/{course_id}/roster"),
        )

    @web.authenticated
    async def post(self, course_id: str) -> None:
        """Begin to fetch it from the LMS; the page tells how that goes."""
        course = self.course(course_id)
        try:
            self.classroom.rosters.begin(course_id, self.current_user.name)
        except IllumiDeskError as error:
            await self.explain(error, course)
            return
        self.redirect(url_path_join(self.hub.base_url, f"courses/{course_id}/roster"))


class RosterState(CoursePage):
    """`/hub/courses/COURSE/roster/state`: the page looks here while a roster is fetched."""

    @web.authenticated
    async def get(self, course_id: str) -> None:
        """The last fetch as JSON."""
        self.course(course_id)
        fetch = self.classroom.rosters.state(course_id)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps({"fetch": fetch.model() if fetch is not None else None}))


class RosterFile(CoursePage):
    """`/hub/courses/COURSE/roster.csv`."""

    @web.authenticated
    async def get(self, course_id: str) -> None:
        """The roster as a file."""
        self.course(course_id)
        text = as_csv(self.classroom.rosters.people(course_id))
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        filename = f"{names.check_course_id(course_id)}-roster.csv"
        self.set_header("Content-Disposition", f'attachment; filename="{filename}"')
        # Spreadsheets take text for UTF-8 where it begins so.
        self.finish("\ufeff" + text)


class RosterHandler(ManagementHandler):
    """`courses/ID/roster`."""

    async def get(self, course_id: str) -> None:
        """Who is or was in the course."""
        people = self.classroom.rosters.people(course_id)
        sources = self.classroom.rosters.sources(course_id)
        self.answer({"course_id": course_id, "people": people, "sources": sources})


class RosterFetchHandler(ManagementHandler):
    """`courses/ID/roster/fetch`."""

    async def get(self, course_id: str) -> None:
        """How the last fetch stands."""
        self._answer(course_id, 200)

    async def post(self, course_id: str) -> None:
        """Begin one, or go along with the one under way."""
        self.classroom.rosters.begin(course_id, "root")
        self._answer(course_id, 202)

    def _answer(self, course_id: str, status: int) -> None:
        fetch = self.classroom.rosters.state(course_id)
        if fetch is None:
            raise IllumiDeskError(
                f"the roster of {course_id} has not been fetched since the hub started, or that was cut off",
                hint=f"`illumidesk roster fetch {course_id}` fetches it",
                status=404,
            )
        self.answer(fetch.model(), status)


_COURSE = r"([a-z0-9_-]+)"
roster_page_handlers = [
    (rf"/courses/{_COURSE}/roster", RosterPage),
    (rf"/courses/{_COURSE}/roster/state", RosterState),
    (rf"/courses/{_COURSE}/roster\.csv", RosterFile),
]
roster_api_handlers = [
    (r"/api/illumidesk/courses/([^/]+)/roster", RosterHandler),
    (r"/api/illumidesk/courses/([^/]+)/roster/fetch", RosterFetchHandler),
]
