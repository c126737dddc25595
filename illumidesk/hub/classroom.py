"""What the hub does with people and courses: the registry, the host (through the supervisor) and JupyterHub together.

Every operation may run twice: where the hub or the machine dies in the middle, the next run finishes it. The registry
says what should be; `reconcile` brings JupyterHub's groups, roles and services to it at each start of the hub.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
from functools import partial
from typing import Any, cast

from jupyterhub import orm, roles
from jupyterhub.utils import url_path_join, utcnow
from sqlalchemy import inspect, select
from sqlalchemy.exc import SQLAlchemyError

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.grades.deliver import deliver
from illumidesk.grades.sender import Sender
from illumidesk.hub.arrivals import Arrivals
from illumidesk.hub.gradebooks import Gradebooks
from illumidesk.hub.grader_client import GraderClient
from illumidesk.hub.grades import Grades
from illumidesk.hub.queue import StartQueue
from illumidesk.hub.rosters import Rosters
from illumidesk.hub.units import UnitTable
from illumidesk.lti.deep_linking import assignment_of
from illumidesk.lti.jwks import JwksCache
from illumidesk.lti.keys import new_key
from illumidesk.lti.launch import Launch
from illumidesk.lti.services import Services
from illumidesk.paths import Paths, socket_url
from illumidesk.registry import MemberRole, Recognised, Registry, ToolKey
from illumidesk.registry.models import MemberSource
from illumidesk.registry.store import check_title, unknown_course, unknown_person
from illumidesk.settings import Settings
from illumidesk.spawners.choice import server_arguments, server_variables
from illumidesk.spawners.systemd import accepts
from illumidesk.supervisor.client import SupervisorClient, Unit

#: Seconds that a grader may take until it answers.
GRADER_TIMEOUT = 120

log = logging.getLogger("illumidesk.classroom")


class Classroom:
    """The people and courses of this hub.

    Args:
        app: the running JupyterHub.
        paths: the host's layout.
        settings: the settings in force.
    """

    def __init__(self, app: Any, paths: Paths, settings: Settings) -> None:
        self.app = app
        self.paths = paths
        self.settings = settings
        self.registry = Registry(paths.registry_db)
        self.supervisor = SupervisorClient(paths.supervisor_socket)
        self.units = UnitTable(self.supervisor, self._unit_changed)
        # Two per core: while one waits for the disk another computes.
        self.starts = StartQueue(2 * (os.cpu_count() or 1))
        self._course_locks: dict[str, asyncio.Lock] = {}
        self._grader_starts: dict[str, asyncio.Task[None]] = {}
        self._key_lock = asyncio.Lock()
        self.registering = asyncio.Lock()
        self.arrivals = Arrivals(self)
        #: The courses that this hub has set up on the host since it started.
        self._ready_courses: set[str] = set()
        #: JupyterHub's number of each user whom this hub has met: its own look-up takes milliseconds.
        self._user_ids: dict[str, int] = {}
        self._groups: dict[str, Any] = {}
        #: Who is to become a user of JupyterHub, and the task that makes them so.
        self._newcomers: set[str] = set()
        self._introduction: asyncio.Task[None] | None = None
        self.jwks = JwksCache(loopback=settings.sign_in.lti.loopback_platforms)
        self.services = Services(self.tool_keys, loopback=settings.sign_in.lti.loopback_platforms)
        self.sender = Sender(self.registry.grades, partial(deliver, self.services))
        self.grades = Grades(self)
        self.rosters = Rosters(self)
        self.gradebooks = Gradebooks(self)
        #: When each grader last stopped (the loop's time).
        self._grader_stopped: dict[str, float] = {}
        self.started = utcnow(with_tz=False)

    # Life of the hub

    async def start(self) -> None:
        """Follow the units and bring JupyterHub to what the registry says. Called before the hub listens."""
        await self.units.start()
        self.reconcile()
        for course in self.registry.courses():
            if self.units.is_active(names.grader_unit(course.course_id)):
                self._routes()[_spec(course.course_id)] = socket_url(self.paths.grader_socket(course.course_id))
                self.gradebooks.soon(course.course_id)
        self.sender.start()
        self.grades.start()
        self.rosters.start()

    async def stop(self) -> None:
        """Let go of everything; units go on."""
        self.arrivals.stop()
        self.grades.stop()
        await self.rosters.stop()
        await self.gradebooks.stop()
        await self.sender.stop()
        await self.services.close()
        await self.units.stop()
        await self.supervisor.close()
        self.registry.close()

    def reconcile(self) -> None:
        """Make JupyterHub's users, groups, roles and services what the registry says."""
        wanted: dict[str, set[str]] = {}
        people = {person.name for person in self.registry.people()}
        for name in sorted(people):
            self._ensure_hub_user(name)
        for (name,) in self.app.db.query(orm.User.name).filter(orm.User.name.not_in(people)).all():
            # A removal that was cut off. (Whoever JupyterHub alone knows is made a person before this.)
            log.warning("%s is no user of this class: forgotten in JupyterHub too", name)
            self.app.users.delete(self.hub_user(name))
        for course in self.registry.courses():
            wanted[names.members_group(course.course_id)] = set()
            wanted[names.formgrade_group(course.course_id)] = set()
            self._ensure_hub_course(course.course_id)
        for course_id, name, role in self.registry.all_memberships():
            wanted[_hub_group(course_id, role)].add(name)
        for group_name, members in wanted.items():
            group = self._ensure_group(group_name)
            if {user.name for user in group.users} != members:
                group.users = list(self.app.db.query(orm.User).filter(orm.User.name.in_(members)))
        self.app.db.commit()

    # People

    def check_present(self, name: str) -> None:
        """Nothing, where there is such a person.

        Raises:
            IllumiDeskError: where there is none.
        """
        if not self.registry.is_present(name):
            raise unknown_person(name)

    async def ensure_person(self, name: str, *, admin: bool | None = None, restore: bool = False) -> bool:
        """Make the person, with account and hub user.

        Args:
            name: a valid account name.
            admin: whether they administer the hub; None leaves it as it is.
            restore: bring back somebody who was removed.

        Returns:
            whether the person is new.

        Raises:
            IllumiDeskError: where the name cannot be had.
        """
        names.check_account(name)
        person = self.registry.person(name)
        if person is None or restore:
            # The account first: where the machine refuses the name, the registry must not have it.
            await self.supervisor.ensure_account(name, restore=restore)
        created = self.registry.ensure_person(name, restore=restore)
        user = self._ensure_hub_user(name)
        if admin is not None and user.admin != admin:
            self._check_other_admin(name, admin)
            user.admin = admin
            roles.assign_default_roles(self.app.db, entity=user.orm_user)
            self.app.db.commit()
            log.info("%s %s an administrator", name, "is" if admin else "is no longer")
        return created

    async def remove_person(self, name: str) -> None:
        """Stop the server, close the account and forget memberships and password; files are kept, the name too.

        Raises:
            IllumiDeskError: where there is no such person, or it is the only administrator.
        """
        if self.registry.person(name) is None:
            raise unknown_person(name)
        self._check_other_admin(name, admin=False)
        user = self.hub_user(name)
        if user is not None and user.running:
            await self.stop_server(name)
        await self.close_person(name)
        if user is not None:
            await user.delete_spawners()
            self.app.users.delete(user)

    async def close_person(self, name: str) -> None:
        """Close the account on the host and in the registry; JupyterHub's user is the caller's."""
        async with self.arrivals.changing:
            for course_id, _ in self.registry.memberships(name):
                await self.arrivals.expel(course_id, name)
            if self.registry.is_present(name):
                await self._retire_account(name)
            self.arrivals.forget(name)
            self.registry.retire_person(name)
        log.info("%s was removed", name)

    async def _retire_account(self, name: str) -> None:
        try:
            await self.supervisor.retire_account(name)
        except IllumiDeskError as error:
            if error.status != 404:
                raise
            # They launched a moment ago, and were not on the host yet.

    async def stop_server(self, name: str) -> None:
        """Stop the person's server; nothing where none runs."""
        user = self.hub_user(name)
        if user is None:
            raise unknown_person(name)
        if user.running:
            await self.app.proxy.delete_user(user)
            await user.stop()

    def hub_user(self, name: str) -> Any:
        """JupyterHub's user of that name, or None."""
        user = self._met(name)
        if user is None:
            orm_user = orm.User.find(self.app.db, name)
            if orm_user is None:
                self._user_ids.pop(name, None)
                return None
            self._user_ids[name] = orm_user.id
            user = self.app.users[orm_user]
        return user

    def _met(self, name: str) -> Any:
        """Likewise, where this hub has met them: without a look at the database."""
        users = self.app.users
        number = self._user_ids.get(name)
        return users[number] if number in users and users[number].name == name else None

    # Courses

    async def ensure_course(self, course_id: str, title: str = "") -> bool:
        """Set the course up on the host and in the hub.

        Returns:
            whether it is new.

        Raises:
            IllumiDeskError: where the id cannot be had.
        """
        names.check_course_id(course_id)
        check_title(title)
        async with self._course_lock(course_id):
            service = orm.Service.find(self.app.db, course_id)
            if service is not None and service.from_config:
                raise IllumiDeskError(
                    f"{course_id} is the name of a service of this hub", hint="choose another id", status=409
                )
            created = await self._set_up_course(course_id, title)
            for name, role in self.registry.members(course_id):
                # Finishes an enrolment that was interrupted.
                await self._enrol(course_id, name, role)
        if created:
            log.info("course %s was created", course_id)
        return created

    async def _set_up_course(self, course_id: str, title: str) -> bool:
        await self.supervisor.ensure_course(course_id)
        created = self.registry.ensure_course(course_id, title)
        self._ensure_hub_course(course_id)
        self._ready_courses.add(course_id)
        return created

    async def ensure_set_up(self, course_id: str) -> None:
        """Have a course that the registry knows on the host, where this hub has not seen to it yet.

        Raises:
            IllumiDeskError: where the supervisor refuses or does not answer.
        """
        if course_id not in self._ready_courses:
            async with self._course_lock(course_id):
                if self.registry.course(course_id) is not None:
                    await self._set_up_course(course_id, "")

    async def remove_course(self, course_id: str) -> str:
        """Take the course away from hub and host.

        Returns:
            the path of the archive with the grader's home and the exchange; empty where there was nothing to archive.

        Raises:
            IllumiDeskError: where there is no such course.
        """
        names.check_course_id(course_id)
        async with self._course_lock(course_id):
            if self.registry.course(course_id) is None:
                raise unknown_course(course_id)
            await self._drop_route(course_id)
            self._ready_courses.discard(course_id)
            async with self.arrivals.changing:
                self.arrivals.forget_course(course_id)
                try:
                    archive = await self.supervisor.remove_course(course_id)
                except IllumiDeskError as error:
                    if error.status != 404:
                        raise
                    archive = ""  # the host has lost it, and nothing is left to keep
                self._remove_hub_course(course_id)
                self.registry.remove_course(course_id)
        log.info("course %s was removed; its archive is %s", course_id, archive or "nowhere: it had no files")
        return archive

    async def enrol(self, course_id: str, name: str, role: MemberRole, *, keep: bool = False) -> bool:
        """Give the person that role in the course, instead of any other.

        Args:
            course_id: the course.
            name: the person.
            role: what they are in it.
            keep: leave it to whoever said so before, where it is the same role.

        Returns:
            whether the person was not in the course before.

        Raises:
            IllumiDeskError: where the course, the person or the role is unknown.
        """
        async with self._course_lock(course_id):
            self.check_present(name)
            source: MemberSource = "admin"
            known = self.registry.membership(course_id, name)
            if keep and known is not None and known.left is None and known.role == role:
                source = cast(MemberSource, known.source)
            created = self.registry.set_membership(course_id, name, role, source=source)
            await self._enrol(course_id, name, role)
        log.info("%s is %s of %s", name, role, course_id)
        return created

    def may_run(self, course_id: str, name: str) -> bool:
        """Whether the person sends the course's grades, gives extensions and fetches its roster."""
        member = self.registry.membership(course_id, name)
        allowed = {"instructor", "ta"} if self.settings.grades.tas_may_send else {"instructor"}
        return member is not None and member.left is None and member.role in allowed

    async def withdraw(self, course_id: str, name: str) -> None:
        """Take the person out of the course; what they handed in stays."""
        async with self._course_lock(course_id):
            if self.registry.course(course_id) is None:
                raise unknown_course(course_id)
            if self.registry.person(name) is None:
                raise unknown_person(name)
            async with self.arrivals.changing:
                # The registry last: while the person can still get at the course's files, they are shown as a member.
                await self.arrivals.expel(course_id, name)
                self._set_groups(course_id, name, None)
                self.registry.set_membership(course_id, name, None)
        log.info("%s is no longer in %s", name, course_id)

    async def enrol_by_roster(self, course_id: str, name: str, role: MemberRole) -> MemberRole:
        """Bring in somebody whom a roster names.

        Returns:
            their role, which is another one where a launch or an administrator said so.

        Raises:
            IllumiDeskError: where the course or the person is unknown, or the supervisor refuses.
        """
        async with self._course_lock(course_id):
            self.registry.set_membership(course_id, name, role, source="roster")
            member = self.registry.membership(course_id, name)
            effective = role if member is None else cast(MemberRole, member.role)
            if course_id not in self._ready_courses:
                await self._set_up_course(course_id, "")
            await self._enrol(course_id, name, effective)
        return effective

    async def leave(self, course_id: str, name: str) -> None:
        """Take somebody out whom the roster no longer names; who they are and what they made stays."""
        async with self._course_lock(course_id), self.arrivals.changing:
            # The registry last, as in `withdraw`: the next roster finishes what was cut off.
            await self.arrivals.expel(course_id, name)
            self._set_groups(course_id, name, None)
            self.registry.leave(course_id, name)
        log.info("%s has left %s, by its roster", name, course_id)

    async def _enrol(self, course_id: str, name: str, role: MemberRole) -> None:
        await self.arrivals.admit(course_id, name, role)
        self._set_groups(course_id, name, role)
        self.gradebooks.soon(course_id)

    # Launches

    async def launch(self, launch: Launch) -> tuple[str, str | None]:
        """Make what a verified launch says: the person, the course and the role.

        The role in the course becomes the launch's, whatever it was.

        Returns:
            the person's name, and the course's id where the launch comes from one.

        Raises:
            IllumiDeskError: where the person was removed, or the supervisor refuses or does not answer.
        """
        name, course_id = self._recognised(launch) or await self._learn(launch)
        # Before the host hears of it, too: a name that it has is never given to somebody else.
        await self.registry.settled()
        if self._met(name) is None:
            await self._introduce(name)
        if course_id is not None and not self.arrivals.is_member(course_id, name, launch.role):
            if self.units.is_active(names.server_unit(name)):
                # Their server goes on, and shall find the course when they come to it.
                await self.arrivals.ensure(name)
            else:
                self.arrivals.soon(name)
        return name, course_id

    def _recognised(self, launch: Launch) -> tuple[str, str | None] | None:
        """The person and the course of a launch that changes nothing, or brings nothing but a new person."""
        services = launch.services
        known = self.registry.recognised(
            launch.platform_id,
            launch.sub,
            person=_person_of(launch),
            context_id=launch.context_id if launch.role else None,
            course={
                "label": launch.context_label,
                "title": launch.context_title,
                "line_items_url": services.line_items,
                "ags_scopes": sorted(services.ags_scopes),
                "memberships_url": services.memberships,
            },
            role=launch.role,
            link_id=launch.resource_link_id,
            link={
                "title": launch.resource_link_title,
                "assignment": assignment_of(launch),
                "line_item": services.line_item,
                "outcome_url": services.outcome_url,
            },
            sourcedid=services.sourcedid,
        )
        if known is None or (known.course_id is not None and known.course_id not in self._ready_courses):
            return None
        if known.name is None:
            return self._welcome(launch, known)
        return known.name, known.course_id

    def _welcome(self, launch: Launch, known: Recognised) -> tuple[str, str] | None:
        """Keep the new person of a course of which all is known."""
        # Who holds the lock may be removing the course.
        if known.course_id is None or launch.role is None or self._course_lock(known.course_id).locked():
            return None
        name = self.registry.welcome(
            launch.platform_id,
            launch.sub,
            names.account_proposals(
                email=launch.email,
                login=launch.login,
                given=launch.given_name,
                family=launch.family_name,
                sub=launch.sub,
            ),
            taken=_is_account_of_machine,
            person=_person_of(launch),
            course_id=known.course_id,
            role=launch.role,
            link=known.link,
            sourcedid=launch.services.sourcedid,
        )
        self.gradebooks.soon(known.course_id)
        new = "%s comes from platform %d for the first time, as %s of %s"
        log.info(new, name, launch.platform_id, launch.role, known.course_id)
        return name, known.course_id

    async def _learn(self, launch: Launch) -> tuple[str, str | None]:
        """Keep what a launch says."""
        is_course = launch.context_id is not None and launch.role is not None
        with self.registry.together():
            name = self._identified(launch.platform_id, launch.sub, login=launch.login, **_person_of(launch))
            course_id = self._course_of(launch) if is_course else None
        if course_id is None or launch.context_id is None or launch.role is None:
            return name, None
        services = launch.services
        async with self._course_lock(course_id):
            if course_id not in self._ready_courses:
                await self._set_up_course(course_id, "")
            before = self.registry.membership(course_id, name)
            changed = before is None or before.left is not None or before.role != launch.role
            with self.registry.together():
                # A launch says it better than a roster, and no better than an administrator who says the same.
                if changed or (before is not None and before.source == "roster"):
                    self.registry.set_membership(course_id, name, launch.role, source="launch")
                released = self.registry.grades.learn(
                    launch.platform_id,
                    launch.context_id,
                    course_id,
                    name,
                    line_items_url=services.line_items,
                    ags_scopes=services.ags_scopes,
                    memberships_url=services.memberships,
                    resource_link_id=launch.resource_link_id,
                    title=launch.resource_link_title,
                    assignment=assignment_of(launch),
                    line_item=services.line_item,
                    outcome_url=services.outcome_url,
                    sourcedid=services.sourcedid,
                )
            if changed:
                self._set_groups(course_id, name, launch.role)
                self.gradebooks.soon(course_id)
                log.info("%s is %s of %s", name, launch.role, course_id)
        if released:
            self.sender.wake()
        return name, course_id

    def _course_of(self, launch: Launch) -> str:
        course_id, _ = self.registry.ensure_context(
            launch.platform_id,
            launch.context_id or "",
            names.course_proposals(launch.context_label, launch.context_title, launch.context_id or ""),
            taken=self._is_service,
            label=launch.context_label,
            title=launch.context_title,
        )
        return course_id

    def ensure_identified(
        self,
        platform_id: int,
        sub: str,
        *,
        email: str = "",
        login: str = "",
        full_name: str = "",
        given_name: str = "",
        family_name: str = "",
    ) -> str:
        """The account name of somebody of a platform, whom a launch or a roster names; with a hub user.

        Args:
            platform_id: the platform's number.
            sub: the platform's id for the person.
            email: what the platform says of them, "" for nothing.
            login: likewise.
            full_name: likewise.
            given_name: likewise.
            family_name: likewise.

        Raises:
            IllumiDeskError: where the person was removed, or the id is unusable.
        """
        told = {"email": email, "full_name": full_name, "given_name": given_name, "family_name": family_name}
        name = self._identified(platform_id, sub, login=login, **told)
        self._ensure_hub_user(name)
        return name

    def _identified(
        self, platform_id: int, sub: str, *, email: str, login: str, full_name: str, given_name: str, family_name: str
    ) -> str:
        name, new = self.registry.ensure_identity(
            platform_id,
            sub,
            names.account_proposals(email=email, login=login, given=given_name, family=family_name, sub=sub),
            taken=_is_account_of_machine,
            email=email,
            full_name=full_name,
            given_name=given_name,
            family_name=family_name,
        )
        if new:
            log.info("%s comes from platform %d for the first time", name, platform_id)
        return name

    async def sync_gradebook(self, course_id: str, *, start: bool = False) -> None:
        """Tell the course's grader who its students are, where it runs.

        Args:
            course_id: the course.
            start: start it where it does not run.

        Raises:
            IllumiDeskError: where it does not start, or does not take it.
        """
        await self.gradebooks.sync(course_id, start=start)

    async def tool_keys(self) -> list[ToolKey]:
        """The keys of this tool, the one that signs first. The first is made where there is none."""
        async with self._key_lock:
            if not self.registry.tool_keys():
                self.registry.add_tool_key(*await asyncio.to_thread(new_key))
            return self.registry.tool_keys()

    async def rotate_tool_key(self) -> ToolKey:
        """A new key that signs from now on. The one before is shown to platforms for some days more."""
        async with self._key_lock:
            self.registry.add_tool_key(*await asyncio.to_thread(new_key))
            return self.registry.tool_keys()[0]

    def _is_service(self, course_id: str) -> bool:
        """Whether the hub's configuration has a service of that name."""
        service = orm.Service.find(self.app.db, course_id)
        return service is not None and bool(service.from_config)

    # Graders

    def grader_start(self, course_id: str) -> asyncio.Task[None]:
        """The start of the course's grader: the one under way, or a new one.

        Several people who open a grader at once wait for one start. It ends when the grader answers and the proxy
        knows it, or with an IllumiDeskError, and is kept until `forget_grader_start` so that whoever looks next is
        told how it ended.
        """
        task = self._grader_starts.get(course_id)
        if task is None:
            task = asyncio.create_task(self._start_grader(course_id))
            self._grader_starts[course_id] = task
        return task

    def forget_grader_start(self, course_id: str) -> None:
        """The end of the start has been told."""
        self._grader_starts.pop(course_id, None)

    async def grader(self, course_id: str) -> GraderClient:
        """The course's grader to ask, started where it does not run.

        Raises:
            IllumiDeskError: where there is no such course, or its grader does not start.
        """
        if self.registry.course(course_id) is None:
            raise unknown_course(course_id)
        socket = self.paths.grader_socket(course_id)
        if not (self.units.is_active(names.grader_unit(course_id)) and await accepts(socket)):
            start = self.grader_start(course_id)
            try:
                # Whoever goes away must not end the start of the others.
                await asyncio.shield(start)
            finally:
                if start.done():
                    self.forget_grader_start(course_id)
        return GraderClient(course_id, socket)

    def grader_has_run(self, course_id: str, *, since: float | None) -> bool:
        """Whether the grader has run since then (the loop's time), so that its gradebook may have changed.

        None is since ever: what was before this hub began is not known.
        """
        if since is None or self.units.is_active(names.grader_unit(course_id)):
            return True
        return self._grader_stopped.get(course_id, float("-inf")) > since

    async def _start_grader(self, course_id: str) -> None:
        if not self.units.is_active(names.grader_unit(course_id)):
            # What a newer version keeps in the grader's home.
            await self.supervisor.ensure_course(course_id)
            limits = self.settings.limits_of("grader")
            socket = self.paths.grader_socket(course_id)
            # Autograding needs the packages that the course's students have.
            environment = self.settings.environment_of("grader", course_id)
            await self.supervisor.start_grader(
                course_id,
                environment=environment,
                arguments=server_arguments(
                    socket,
                    self.settings.role("grader").default_url,
                    idle_server=self.settings.idle.graders,
                    idle_kernel=self.settings.idle.graders,
                ),
                variables=self._grader_variables(course_id, environment),
                memory=limits.memory,
                cpu=limits.cpu,
                tasks=limits.tasks,
            )
        await self._wait_for_grader(course_id)
        target = socket_url(self.paths.grader_socket(course_id))
        self._routes()[_spec(course_id)] = target
        await self.app.proxy.add_route(_spec(course_id), target, {"extra": True})
        self.gradebooks.soon(course_id)

    def _grader_variables(self, course_id: str, environment: str) -> dict[str, str]:
        hub = self.app.hub
        prefix = _spec(course_id)
        return {
            **server_variables(self.paths.roles / "grader", self.paths.environments / environment),
            "JUPYTERHUB_SERVICE_NAME": course_id,
            "JUPYTERHUB_USER": names.grader_account(course_id),
            # The gradebook is told to nobody else (illumidesk.grader.gradebook).
            "ILLUMIDESK_HUB_UID": str(os.getuid()),
            "JUPYTERHUB_CLIENT_ID": _client_id(course_id),
            "JUPYTERHUB_API_TOKEN": self._fresh_grader_token(course_id),
            "JUPYTERHUB_API_URL": hub.api_url,
            "JUPYTERHUB_BASE_URL": hub.base_url.removesuffix("hub/"),
            "JUPYTERHUB_SERVICE_PREFIX": prefix,
            "JUPYTERHUB_SERVICE_URL": f"{socket_url(self.paths.grader_socket(course_id))}{prefix}",
            "JUPYTERHUB_OAUTH_CALLBACK_URL": url_path_join(prefix, "oauth_callback"),
            "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([f"access:services!service={course_id}"]),
            "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": "[]",
            "JUPYTERHUB_HOST": hub.public_host,
            "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": str(
                int(self.app.tornado_settings.get("cookie_host_prefix_enabled", False))
            ),
        }

    def _fresh_grader_token(self, course_id: str) -> str:
        """A new token for the grader; older ones end."""
        db = self.app.db
        service = orm.Service.find(db, course_id)
        for token in list(service.api_tokens):
            db.delete(token)
        token = service.new_api_token(note="grader")
        client = service.oauth_client
        self.app.oauth_provider.add_client(
            client_id=client.identifier,
            client_secret=token,
            redirect_uri=client.redirect_uri,
            allowed_scopes=client.allowed_scopes,
            description=client.description,
        )
        db.commit()
        return str(token)

    async def _wait_for_grader(self, course_id: str) -> None:
        unit = names.grader_unit(course_id)
        socket = self.paths.grader_socket(course_id)
        try:
            async with asyncio.timeout(GRADER_TIMEOUT):
                while not await accepts(socket):
                    await asyncio.sleep(0.2)
                    status = await self.units.exit_status(unit)
                    if status is not None:
                        raise IllumiDeskError(
                            f"the grader of {course_id} stopped while it started",
                            hint=f"`illumidesk logs course {course_id}` tells why",
                            status=500,
                        )
        except TimeoutError:
            raise IllumiDeskError(
                f"the grader of {course_id} did not start within {GRADER_TIMEOUT} seconds",
                hint=f"try again; `illumidesk logs course {course_id}` tells why",
                status=504,
            ) from None

    # Changes on the host

    async def _unit_changed(self, unit: Unit) -> None:
        if unit["active_state"] not in {"inactive", "failed"}:
            return
        if unit["kind"] == "grader":
            self._grader_stopped[unit["name"]] = asyncio.get_running_loop().time()
            await self._drop_route(unit["name"])
            return
        user = self.hub_user(unit["name"])
        if user is not None and "" in user.spawners and user.spawner.ready:
            # At once, instead of at the spawner's next poll.
            await user.spawner.poll_and_notify()

    async def _drop_route(self, course_id: str) -> None:
        if self._routes().pop(_spec(course_id), None) is not None:
            await self.app.proxy.delete_route(_spec(course_id))

    def _routes(self) -> dict[str, str]:
        # JupyterHub keeps the proxy's table to these, also after a restart of the proxy. The trait is changed in
        # place: assigning it is refused for unix sockets.
        routes: dict[str, str] = self.app.proxy.extra_routes
        return routes

    # JupyterHub's database

    def _ensure_hub_user(self, name: str) -> Any:
        if self.hub_user(name) is None:
            self._add_hub_users({name: []})
        return self.hub_user(name)

    async def _introduce(self, name: str) -> None:
        """Make JupyterHub's user of somebody of the registry, with their groups, in one transaction for all who come at
        the same time. Where the hub is killed before, `reconcile` does it.
        """
        self._newcomers.add(name)
        if self._introduction is None:
            self._introduction = asyncio.create_task(self._introduce_all())
        # Whoever goes away must not end it for the others.
        await asyncio.shield(self._introduction)

    async def _introduce_all(self) -> None:
        # It begins when all have come for whom the disk was flushed together.
        newcomers, self._newcomers, self._introduction = self._newcomers, set(), None
        there = set(self.app.db.scalars(select(orm.User.name).where(orm.User.name.in_(newcomers))))
        standing = self.registry.standing(newcomers - there)
        self._add_hub_users(
            {
                name: [self._ensure_group(_hub_group(course_id, role)) for course_id, role in courses.items()]
                for name, courses in standing.items()
            }
        )

    def _add_hub_users(self, groups: dict[str, list[Any]]) -> None:
        """Add these people with their groups, and all that JupyterHub gives a new user, in one transaction."""
        if not groups:
            return
        db = self.app.db
        role = orm.Role.find(db, "user")
        users = [orm.User(name=name, roles=[role], groups=joined, shared_with_me=[]) for name, joined in groups.items()]
        db.add_all([*users, *(orm.Spawner(name="", display_name="", user=user) for user in users)])
        try:
            db.commit()
        except SQLAlchemyError:
            db.rollback()
            raise
        for user in users:
            self._user_ids[user.name] = user.id
            self.app.users[user]  # which makes JupyterHub hold them, and not look for them again

    def _check_other_admin(self, name: str, admin: bool) -> None:
        admins = {row[0] for row in self.app.db.query(orm.User.name).filter(orm.User.admin.is_(True))}
        if not admin and admins == {name}:
            raise IllumiDeskError(
                f"{name} is the only administrator",
                hint="make somebody else one first: `illumidesk user admin NAME`",
                status=409,
            )

    def _ensure_group(self, name: str) -> Any:
        group = self._groups.get(name)
        if group is None or not inspect(group).persistent:
            group = orm.Group.find(self.app.db, name)
            if group is None:
                group = orm.Group(name=name)
                self.app.db.add(group)
                self.app.db.commit()
            self._groups[name] = group
        return group

    def _set_groups(self, course_id: str, name: str, role: MemberRole | None) -> None:
        user = self.hub_user(name)
        if user is None:
            return
        joined = user.orm_user.groups
        wanted = None if role is None else _hub_group(course_id, role)
        # By the person's groups: a group's people are many.
        groups = {group.name: group for group in joined}
        for group_name in (names.members_group(course_id), names.formgrade_group(course_id)):
            if group_name == wanted and group_name not in groups:
                joined.append(self._ensure_group(group_name))
            elif group_name != wanted and group_name in groups:
                joined.remove(groups[group_name])
        self.app.db.commit()

    def _ensure_hub_course(self, course_id: str) -> None:
        """The groups, the service and the roles of a course, with no more than it needs."""
        db = self.app.db
        members = names.members_group(course_id)
        staff = self._ensure_group(names.formgrade_group(course_id))
        self._ensure_group(members)
        service = orm.Service.find(db, course_id)
        # JupyterHub loads a service of its database without its OAuth client, where a removal was cut off between them.
        if course_id not in self.app._service_map or service is None or service.oauth_client is None:
            self.app.service_from_spec(
                {
                    "name": course_id,
                    "oauth_client_id": _client_id(course_id),
                    "oauth_redirect_uri": url_path_join(_spec(course_id), "oauth_callback"),
                    "oauth_no_confirm": True,
                    "display": False,
                },
                from_config=False,
            )
            db.commit()
        self.app.tornado_settings["oauth_no_confirm_list"].add(_client_id(course_id))
        staff_role = roles.create_role(
            db,
            {
                "name": names.formgrade_group(course_id),
                "description": f"May open the grader of {course_id}",
                "scopes": [f"access:services!service={course_id}"],
            },
        )
        roles.grant_role(db, staff, staff_role)
        grader_role = roles.create_role(
            db,
            {
                "name": f"grader-{course_id}",
                "description": f"What the grader of {course_id} may read in the hub",
                "scopes": [
                    f"read:groups!group={members}",
                    f"read:groups!group={staff.name}",
                    f"read:users:name!group={members}",
                    f"read:services!service={course_id}",
                ],
            },
        )
        roles.grant_role(db, orm.Service.find(db, course_id), grader_role)
        db.commit()

    def _remove_hub_course(self, course_id: str) -> None:
        db = self.app.db
        self.app.tornado_settings["oauth_no_confirm_list"].discard(_client_id(course_id))
        service = orm.Service.find(db, course_id)
        if service is not None:
            if service.oauth_client is not None:
                self.app.oauth_provider.remove_client(_client_id(course_id))
            db.delete(service)
        self.app._service_map.pop(course_id, None)
        for name in (names.formgrade_group(course_id), names.members_group(course_id)):
            group = orm.Group.find(db, name)
            if group is not None:
                db.delete(group)
        for name in (names.formgrade_group(course_id), f"grader-{course_id}"):
            role = orm.Role.find(db, name)
            if role is not None:
                db.delete(role)
        db.commit()

    def _course_lock(self, course_id: str) -> asyncio.Lock:
        return self._course_locks.setdefault(course_id, asyncio.Lock())


def _spec(course_id: str) -> str:
    """The path of a course's grader behind the proxy."""
    return f"/services/{course_id}/"


def _client_id(course_id: str) -> str:
    return f"service-{course_id}"


def _hub_group(course_id: str, role: MemberRole) -> str:
    if role == "student":
        return names.members_group(course_id)
    return names.formgrade_group(course_id)


def _person_of(launch: Launch) -> dict[str, str]:
    """What a launch says of the person, by the registry's fields."""
    return {
        "email": launch.email,
        "full_name": launch.name,
        "given_name": launch.given_name,
        "family_name": launch.family_name,
    }


def _is_account_of_machine(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
