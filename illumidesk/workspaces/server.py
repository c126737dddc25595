"""A Jupyter server extension: programs of workspaces, at `vscode/`, `theia/` and `rstudio/` below a person's server.

jupyter-server-proxy does the proxying; its own extension stays off, and with it `proxy/PORT`, by which a page could
reach whatever listens on this machine. It is imported when somebody opens a program, so that no start waits for it.
"""

from __future__ import annotations

import getpass
import html
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from jupyter_core.paths import jupyter_runtime_dir
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.routing import PathMatches, Router, Rule
from tornado.websocket import WebSocketClosedError

from illumidesk.paths import Paths
from illumidesk.workspaces.commands import COMMANDS, Command, Place
from illumidesk.workspaces.types import BUILT_IN, WorkspaceType, installed

#: Seconds until a program must answer: on a machine where a whole class opens it at once.
READY_TIMEOUT = 120.0
#: Messages that are no longer than this are signs of life: VS Code's protocol has heads of 13 bytes, and
#: an acknowledgement or a keep-alive is nothing but a head; Theia's socket.io answers a ping with one byte.
_NO_WORK = 13

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }}</style>
</head>
<body>
<main>
<h1>{title} cannot be opened</h1>
<p>{said}</p>
<p><a href="{lab}">{offer}</a></p>
</main>
</body>
</html>
"""


class AbsentHandler(JupyterHandler):
    """What is shown where a program is not on this machine."""

    def initialize(self, workspace: WorkspaceType, why: str) -> None:
        """Take over which one, and why it cannot be opened."""
        self._workspace = workspace
        self._why = why

    @web.authenticated
    def get(self) -> None:
        """The page."""
        self.set_status(404)
        rstudio = self._workspace.name == "rstudio"
        self.finish(
            _PAGE.format(
                title=html.escape(self._workspace.title),
                said=html.escape(self._why),
                lab=html.escape(url_path_join(self.base_url, "lab")),
                offer="Open JupyterLab, which runs R where the class has it" if rstudio else "Open JupyterLab",
            )
        )


class ServersHandler(JupyterHandler):
    """What jupyter-server-proxy's part in JupyterLab asks for: the programs that its launcher shows."""

    def initialize(self, workspaces: list[WorkspaceType]) -> None:
        """Take over what is installed."""
        self._workspaces = workspaces

    @web.authenticated
    def get(self) -> None:
        """The list."""
        entries = [
            {
                "name": one.name,
                "launcher_entry": {"enabled": True, "title": one.title, "path_info": one.path, "category": "Other"},
                "new_browser_tab": True,
            }
            for one in self._workspaces
        ]
        self.finish({"server_processes": entries})


class OnDemand(Router):
    """Routes to a program. What does so is made at the first request.

    Args:
        application: the server's.
        workspace: the program.
        place: where it runs.
    """

    def __init__(self, application: Any, workspace: WorkspaceType, place: Place) -> None:
        self._application = application
        self._workspace = workspace
        self._place = place
        self._target: tuple[type, dict[str, Any]] | None = None

    def find_handler(self, request: Any, **parameters: Any) -> Any:
        """As tornado asks for it."""
        if self._target is None:
            try:
                self._target = _proxy(self._workspace, self._place)
            except ImportError as error:
                why = f"The environment of your server lacks {error.name}. Tell whoever runs this machine."
                self._target = AbsentHandler, {"workspace": self._workspace, "why": why}
        handler, arguments = self._target
        if handler is AbsentHandler:
            parameters = {}
        return self._application.get_handler_delegate(request, handler, arguments, **parameters)


def _proxy(workspace: WorkspaceType, place: Place) -> tuple[type, dict[str, Any]]:
    """jupyter-server-proxy's handler for a program, and its arguments."""
    from jupyter_server_proxy.config import ServerProcess

    command: Command | None = None

    def prepared() -> list[str]:
        nonlocal command
        place.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The build itself: the link may lead elsewhere while this runs.
        command = COMMANDS[workspace.name](replace(place, prefix=place.prefix.resolve()))
        return [_literal(word) for word in command.arguments]

    def variables() -> dict[str, str]:
        assert command is not None  # noqa: S101 -- the command is made first
        return {key: _literal(value) for key, value in command.variables.items()}

    process = ServerProcess(
        name=workspace.name,
        command=prepared,
        environment=variables,
        unix_socket=str(place.runtime / f"{workspace.name}.sock"),
        timeout=READY_TIMEOUT,
        rewrite_response=[within_own_path],
        # RStudio's page asks for this all the time.
        exclude_last_activity_patterns=[r".*/events/get_events$"],
    )
    made, arguments = process.make_proxy_handler()

    class Handler(made):  # type: ignore[misc,valid-type]
        async def ensure_process(self) -> None:
            """Start it again where it ended by itself, as VS Code does when nobody has it open."""
            ended = self.state.get("proc")
            if ended is not None and not ended.running and ended.returncode == 0:
                del self.state["proc"]
            try:
                await super().ensure_process()
            except OSError as error:
                raise web.HTTPError(500, f"{workspace.title} cannot be started: {error}") from error

        # Of a websocket's messages those that carry something count as activity. jupyter-server-proxy would count all.

        def on_message(self, message: str | bytes) -> None:
            """Pass on what the page sends."""
            self._count(message)
            with suppress(WebSocketClosedError):  # the program has ended; the page's is about to be closed
                super().on_message(message)

        def write_message(self, message: str | bytes, binary: bool = False) -> None:
            """Pass on what the program sends: the output of a long computation counts, too."""
            self._count(message)
            with suppress(WebSocketClosedError):  # somebody closed the page
                sent = super().write_message(message, binary)
                # Nobody waits for it. If it fails, likewise.
                sent.add_done_callback(lambda done: done.cancelled() or done.exception())

        def _count(self, message: str | bytes) -> None:
            if len(message) > _NO_WORK:
                super()._record_activity()

        def _record_activity(self) -> None:
            if self.request.headers.get("Upgrade", "").lower() != "websocket":
                super()._record_activity()

    return Handler, arguments


def within_own_path(response: Any, request: Any) -> None:
    """Keep what a program sends within its own part of the person's server.

    Cookies for the whole site are narrowed to the program's path (Theia sets one at `/`), and redirects to another
    host or port come back here (RStudio appends its own).
    """
    path = own_path(request.path)
    cookies = response.headers.get_list("Set-Cookie")
    if cookies:
        del response.headers["Set-Cookie"]
        for cookie in cookies:
            kept = [part for part in cookie.split(";") if not part.strip().lower().startswith(("path=", "domain="))]
            response.headers.add("Set-Cookie", ";".join([*kept, f" Path={path}/"]))
    location = response.headers.get("Location")
    if location:
        parts = urlsplit(location)
        if not parts.netloc or parts.hostname == urlsplit(f"//{request.host}").hostname:
            # jupyter-server-proxy puts our path before one that begins with `/`.
            within = parts.path.removeprefix(path) if parts.path.startswith(f"{path}/") else parts.path
            response.headers["Location"] = urlunsplit(("", "", within, parts.query, parts.fragment))


def own_path(path: str) -> str:
    """The path of the program that `path` is in: `/user/NAME/vscode` of `/user/NAME/vscode/static/x.js`."""
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if part in COMMANDS and number >= 1)
    return "/".join(parts[: first + 1])


def _literal(word: str) -> str:
    """A word that jupyter-server-proxy takes as it is: it fills in `{port}` and their like."""
    return word.replace("{", "{{").replace("}", "}}")


def _why_absent(workspace: WorkspaceType) -> str:
    if workspace.name == "rstudio":
        return (
            "RStudio Server is not installed on this machine, whose package indexes do not have it. Whoever runs the "
            "machine can install its vendor's package with “illumidesk workspace install rstudio”."
        )
    return (
        f"{workspace.title} is not installed on this machine. Whoever runs it can do so with "
        f"“illumidesk workspace install {workspace.name}”."
    )


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "illumidesk.workspaces.server"}]


def _load_jupyter_server_extension(server: Any) -> None:
    application = server.web_app
    base = application.settings["base_url"]
    folder = Paths.current().workspaces
    there = []
    for workspace in BUILT_IN.values():
        if not workspace.program:
            continue
        at = url_path_join(base, workspace.name)
        application.add_handlers(".*$", [(f"{at}$", web.RedirectHandler, {"url": f"{at}/", "permanent": False})])
        if not installed(folder, workspace):
            given = {"workspace": workspace, "why": _why_absent(workspace)}
            application.add_handlers(".*$", [(f"{at}/(?:.*)", AbsentHandler, given)])
            continue
        there.append(workspace)
        place = Place(
            prefix=folder / workspace.name,
            home=Path(server.root_dir),
            runtime=Path(jupyter_runtime_dir()) / "workspaces",
            base_url=base,
            account=getpass.getuser(),
        )
        # Not by add_handlers, which jupyter_server lets take handlers alone. The one that comes asks who it is.
        rule = Rule(PathMatches(f"{at}/(.*)"), OnDemand(application, workspace, place))
        application.default_router.rules.insert(-1, rule)
    application.add_handlers(
        ".*$", [(url_path_join(base, "server-proxy/servers-info"), ServersHandler, {"workspaces": there})]
    )
