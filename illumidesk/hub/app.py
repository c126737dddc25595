"""The hub's process: JupyterHub with a classroom."""

from __future__ import annotations

import gc
import sys
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub
from sdnotify import SystemdNotifier
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from tornado.ioloop import PeriodicCallback

from illumidesk.errors import IllumiDeskError
from illumidesk.hub.classroom import Classroom
from illumidesk.hub.pages import courses_of, services_of
from illumidesk.hub.workspace_pages import workspaces_of
from illumidesk.paths import Paths
from illumidesk.registry.store import database_problem
from illumidesk.settings import load


class IllumiDeskHub(JupyterHub):  # type: ignore[misc]
    """JupyterHub, knowing its people, courses and units.

    `classroom` is there as soon as anything asks for it (the authenticator does, while the hub starts); the units are
    followed before the hub looks which servers still run.
    """

    name = "illumidesk-hub"

    @cached_property
    def classroom(self) -> Classroom:
        """People, courses and units."""
        paths = Paths.current()
        return Classroom(self, paths, load(paths.config_file))

    def init_db(self) -> None:
        """Have JupyterHub's database not wait for the disk at each commit, on the event loop.

        After a power cut the last of them may be missing. Nothing is lost by it: the units are gone as well, who is a
        user and in which group is the registry's, and people sign in again.
        """
        super().init_db()
        engine = self.db.get_bind()
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _write_ahead)
            self.db.close()
            engine.dispose()

    def init_tornado_settings(self) -> None:
        """Give handlers, spawners and templates the classroom."""
        for name, values_of in (("services", services_of), ("courses", courses_of), ("workspaces", workspaces_of)):
            self.template_vars[name] = partial(values_of, self)
        super().init_tornado_settings()
        self.tornado_settings["classroom"] = self.classroom

    async def init_spawners(self) -> int:
        """Learn which units run, and what the registry says, before JupyterHub asks its spawners."""
        await self.classroom.start()
        count: int = await super().init_spawners()
        return count

    async def start(self) -> None:
        """Listen, and tell systemd."""
        self._proxy_seen = _identity(self.classroom.paths.proxy_api_socket)
        await super().start()
        watch = PeriodicCallback(self.restore_routes, 1000)
        self._periodic_callbacks["restore_routes"] = watch
        watch.start()
        # What is there by now stays. Looking through all of it for garbage holds up everybody for a tenth of a second.
        gc.collect()
        gc.freeze()
        SystemdNotifier().notify("READY=1")

    async def restore_routes(self) -> None:
        """Give a proxy that was restarted its routes at once. JupyterHub looks every five minutes only.

        A new proxy makes its socket anew, so looking costs one `stat`.
        """
        now = _identity(self.classroom.paths.proxy_api_socket)
        if now is None or now == self._proxy_seen:
            return
        try:
            await self.proxy.check_routes(self.users, self._service_map)
        except Exception as error:
            self.log.warning("The proxy does not take its routes yet: %s", error)
            return
        self._proxy_seen = now
        self.log.info("The proxy was restarted and has its routes again")

    async def cleanup(self) -> None:
        """Let go of the supervisor and the registry; units go on."""
        SystemdNotifier().notify("STOPPING=1")
        await super().cleanup()
        await self.classroom.stop()

    async def launch_instance_async(self, argv: Any = None) -> None:
        """As JupyterHub does; what a person can mend is one line in the journal and not a traceback."""
        try:
            await self.initialize(argv)
            await self.start()
        except IllumiDeskError as error:
            self._give_up(error)
        except OperationalError as error:
            self._give_up(database_problem(error, Paths.current().hub_state))
        except Exception:
            self.log.exception("The hub cannot start")
            self.exit(1)

    def _give_up(self, error: IllumiDeskError) -> None:
        self.log.critical("%s", "; ".join(filter(None, (error.message, error.hint))))
        self.exit(1)


def _write_ahead(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _identity(socket: Path) -> tuple[int, int] | None:
    """What tells one socket file from the next at the same place; None where there is none."""
    try:
        found = socket.stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def main() -> None:
    """Entry point of `illumidesk-hub`."""
    argv = sys.argv[1:] or ["--config", str(Paths.current().hub_config)]
    IllumiDeskHub.launch_instance(argv)
