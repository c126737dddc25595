"""Spawners that start a person's server as a systemd unit, through the supervisor.

The hub is not root: these classes only ask. What may be asked is the supervisor's policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from jupyterhub.spawner import Spawner, SpawnException
from systemdspawner import SystemdSpawner
from traitlets import default

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import socket_url
from illumidesk.settings import Limits, Settings
from illumidesk.spawners.choice import (
    RoleChoice,
    WorkspaceChoice,
    gallery_variables,
    server_arguments,
    server_variables,
)

#: Seconds that one start may hold its turn.
TURN = 30.0


class CannotStart(SpawnException):  # type: ignore[misc]
    """Why a server does not start. The page on which the person waits shows the message."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message, **details)
        # The page of a start that failed knows this name alone.
        self.jupyterhub_message = message


async def accepts(socket: Path) -> bool:
    """Whether somebody listens on the socket."""
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.close()
    return True


class SupervisedSystemdSpawner(SystemdSpawner):  # type: ignore[misc]
    """SystemdSpawner whose units are started, stopped and watched by the supervisor.

    `unit_extra_properties` works as upstream for the properties that the supervisor's policy allows. A poll reads a
    table that the supervisor's events keep up to date: no process is forked and nothing is asked.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Not upstream's, which forks `systemctl --version` for each spawner.
        Spawner.__init__(self, *args, **kwargs)
        self.unit_name = names.server_unit(self.user.name) if self.user else ""

    @property
    def classroom(self) -> Any:
        """The hub's link to the registry and the supervisor."""
        return self.user.settings["classroom"]

    @property
    def socket(self) -> Path:
        """Where the server listens."""
        path: Path = self.classroom.paths.server_socket(self.user.name)
        return path

    @property
    def url(self) -> str:
        """The server's address for the hub and the proxy."""
        return socket_url(self.socket)

    def load_state(self, state: dict[str, Any]) -> None:
        """After a hub restart: upstream keeps no unix address in its database."""
        super().load_state(state)
        self._set_connect_url()

    def _set_connect_url(self) -> None:
        # JupyterHub 6.1 adds `:80` to a socket's name otherwise, and the proxy then answers 503.
        if self.server:
            self.server.connect_url = self.url

    async def get_url(self) -> str:
        """Where the running server is (asked after a hub restart)."""
        self._set_connect_url()
        return str(self.server.url)

    def get_env(self) -> dict[str, str]:
        """JupyterHub's variables, with the socket as the address."""
        env: dict[str, str] = super().get_env()
        env.pop("JPY_API_TOKEN", None)
        env["JUPYTERHUB_SERVICE_URL"] = f"{self.url}{self.server.base_url}"
        return env

    async def start(self) -> str:
        """Wait for a turn, start the unit and return when the server listens.

        A start that fails is tried once more, behind those who wait by then: what is broken delays nobody.

        Raises:
            CannotStart: with what to tell the person.
        """
        try:
            await self._start_in_turn()
        except CannotStart as error:
            if error.status_code < 500:
                raise  # refused, and would be again
            self.log.warning("%s: trying once more", error.log_message)
            await self._start_in_turn()
        self._set_connect_url()
        return self.url

    async def _start_in_turn(self) -> None:
        async with self.classroom.starts.turn(self.user.name):
            try:
                await self._start_unit()
            except IllumiDeskError as error:
                self.classroom.arrivals.forget(self.user.name)
                raise CannotStart(
                    f"Your server cannot start: {error.message}.",
                    reason="supervisor",
                    log_message=f"{error.message} ({error.hint})",
                    status_code=error.status,
                ) from error
            await self._wait_until_listening()
        # One that is slow goes on without a turn. That it ended is still noticed, and told.
        while not await accepts(self.socket):
            await asyncio.sleep(0.1)
            await self._wait_until_listening()

    async def _start_unit(self) -> None:
        limits = self.limits()
        await self.classroom.arrivals.ensure(self.user.name)
        await self.classroom.supervisor.start_server(
            self.user.name,
            environment=self.environment_name(),
            arguments=self.get_args(),
            variables=self.get_env(),
            memory=limits.memory,
            cpu=limits.cpu,
            tasks=limits.tasks,
            properties=self.unit_extra_properties,
            fork_server=self.classroom.settings.fork_server.enabled,
        )

    async def _wait_until_listening(self) -> None:
        """Return when the server listens, or after `TURN` seconds: one that is slow does not hold up the others.

        Raises:
            CannotStart: where it ended instead.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN):
                while not self.classroom.units.is_ready(self.unit_name) and not await accepts(self.socket):
                    status = await self.poll()
                    if status is not None:
                        raise CannotStart(
                            "Your server stopped while it started. If you installed packages for yourself or changed "
                            "its settings, moving ~/.local or ~/.jupyter away may help.",
                            reason="exited",
                            log_message=f"{self.unit_name} ended with status {status} while it started",
                            status_code=500,
                        )
                    # An environment may be without what tells, so the socket is tried now and then.
                    await self.classroom.units.changed(timeout=0.5)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What the page says meanwhile."""
        told = -1
        while True:
            before = self.classroom.starts.before(self.user.name)
            if before is None:
                yield {"progress": 60, "message": "Your server is starting."}
                return
            if before != told:
                told = before
                yield {
                    "progress": max(5, 50 - 2 * before),
                    "message": f"{before} before you." if before else "You are next.",
                }
            await asyncio.sleep(0.5)

    async def stop(self, now: bool = False) -> None:
        """Stop the unit and wait until it has stopped."""
        await self.classroom.supervisor.stop_server(self.user.name)

    async def poll(self) -> int | None:
        """None while the unit runs, else its exit status."""
        status: int | None = await self.classroom.units.exit_status(self.unit_name)
        return status

    def environment_name(self) -> str:
        """The environment to start from."""
        raise NotImplementedError

    def limits(self) -> Limits:
        """What the unit may use."""
        raise NotImplementedError


class IllumiDeskRoleSystemdSpawner(RoleChoice, SupervisedSystemdSpawner):
    """Picks environment, nbgrader's pages, limits and first page by the person's role in their courses."""

    @property
    def settings_now(self) -> Settings:
        """The settings in force."""
        settings: Settings = self.classroom.settings
        return settings

    @property
    def member_role(self) -> str | None:
        """The most able role that this person has in any course."""
        role: str | None = self.classroom.registry.highest_role(self.user.name)
        return role

    def environment_name(self) -> str:
        """The environment that was chosen."""
        return self.chosen_environment()

    def limits(self) -> Limits:
        """The limits of the role."""
        return self.chosen_limits()

    def get_args(self) -> list[str]:
        """The server's command line, an administrator's `c.Spawner.args` last."""
        settings = self.settings_now
        return [
            *server_arguments(
                self.socket,
                self.chosen_page(),
                idle_server=settings.idle.servers,
                idle_kernel=settings.idle.kernels,
            ),
            *super().get_args(),
        ]

    def get_env(self) -> dict[str, str]:
        """JupyterHub's variables and those of the role; an administrator's `c.Spawner.environment` wins."""
        role = self.chosen_role()
        limits = self.chosen_limits()
        paths = self.classroom.paths
        env = super().get_env()
        ours = server_variables(paths.roles / role, paths.environments / self.environment_name())
        ours |= gallery_variables(self.settings_now.workspaces.gallery)
        env.update({key: value for key, value in ours.items() if key not in self.environment})
        # For people and extensions to see (jupyter-resource-usage reads them); systemd does the limiting.
        if limits.memory:
            env["MEM_LIMIT"] = str(limits.memory)
        if limits.cpu:
            env["CPU_LIMIT"] = json.dumps(limits.cpu)
        return env


class IllumiDeskWorkspaceSystemdSpawner(WorkspaceChoice, IllumiDeskRoleSystemdSpawner):
    """Picks the workspace that opens, and what the course has for itself, beside what the role gives.

    `user_options` may hold `workspace_type` and `course`: from the page that asks, a query, a link or JupyterHub's API.
    """

    #: The environment from which the running server was started; "" where none runs, or an earlier version started it.
    environment_in_use = ""

    @property
    def memberships(self) -> Sequence[tuple[str, Any]]:
        """This person's courses, with what they are in them."""
        memberships: Sequence[tuple[str, Any]] = self.classroom.registry.memberships(self.user.name)
        return memberships

    @property
    def programs(self) -> Path:
        """Where programs of workspaces are."""
        folder: Path = self.classroom.paths.workspaces
        return folder

    @default("options_form")
    def _ask(self) -> Callable[[Any], str]:
        return type(self).choice_page

    @default("apply_user_options")
    def _take_choice(self) -> Callable[[Any, Any], None]:
        return _for_this_start

    async def _start_unit(self) -> None:
        self.environment_in_use = self.environment_name()
        await super()._start_unit()

    def get_state(self) -> dict[str, Any]:
        """What a restarted hub must know of a running server."""
        state: dict[str, Any] = super().get_state()
        if self.environment_in_use:
            state["environment"] = self.environment_in_use
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Know it again."""
        super().load_state(state)
        self.environment_in_use = str(state.get("environment", ""))

    def clear_state(self) -> None:
        """It has stopped."""
        super().clear_state()
        self.environment_in_use = ""


def _for_this_start(spawner: Any, _: Any) -> None:
    """A choice is for one start. JupyterHub would use it again at the next one that says nothing."""
    spawner.orm_spawner.user_options = {}
