"""`jupyterhub-singleuser` without the half of JupyterHub that only a hub has use for.

Importing `jupyterhub.singleuser` imports the hub's pages, database and migrations, too, and all of SQLAlchemy and
Alembic with them: a fifth of what a server imports, for a class that its log asks after and one that it names in an
`except`. While that import runs, these modules have stand-ins. Whoever needs the real ones later gets them.

A server does not ask the hub for its version before it listens, either: the hub compares the two when it first reaches
the server. In a class that starts at once the hub would have a question of everybody's more, and everybody would wait
for its answer; and where the hub is away, a server could not start again. Nor does a server report activity when it has
just begun, which the hub knows, but for the first time after the time that there is between two reports.

Each extension reads the words of the command line that the server leaves over. There are none, and a parser of all its
options takes longer than anything else that most extensions do. Nor are names of hosts looked up, for which aiohttp
would have two threads: the hub and the programs of workspaces are behind unix sockets.

Upstream, people see the imports in https://github.com/jupyterhub/the-littlest-jupyterhub/issues/841. A JupyterHub that
no longer imports them never meets a stand-in, and one that needs more of them gets the real ones.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import random
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_HealthCheckHandler = type("HealthCheckHandler", (), {})
_SQLAlchemyError = type("SQLAlchemyError", (Exception,), {})
#: Modules of which a server needs no more than these names while `jupyterhub.singleuser` is imported.
_UNUSED: dict[str, dict[str, Any]] = {
    "jupyterhub.handlers.pages": {"HealthCheckHandler": _HealthCheckHandler},
    "jupyterhub.orm": {},
    "jupyterhub.roles": {},
    "sqlalchemy": {},
    "sqlalchemy.exc": {"SQLAlchemyError": _SQLAlchemyError},
}


class StandIn(ModuleType):
    """A module that is imported when somebody asks for what it has, and not before."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or sys.modules.get(self.__name__) is self:
            raise AttributeError(f"{self.__name__} has no {name} yet")
        return getattr(importlib.import_module(self.__name__), name)


def load() -> Callable[[], Any]:
    """Import what a server is; where it begins.

    Returns:
        `jupyterhub.singleuser.main`.
    """
    if "jupyterhub.singleuser" not in sys.modules:
        _load_without_hub()
    from jupyterhub.singleuser import main

    function: Callable[[], Any] = main
    _leave_out(getattr(function, "__self__", None))
    return function


def _leave_out(server: Any) -> None:
    """Have the application's class do without what nobody needs; where upstream has it otherwise, that stays."""
    if hasattr(server, "check_hub_version"):
        server.check_hub_version = _check_nothing
    _wrap(server, "keep_activity_updated", _after_an_interval)
    _wrap(_found("jupyter_server.extension.application", "ExtensionApp"), "parse_command_line", _unless_empty)
    notebooks = _found("jupyter_server.serverapp", "ServerApp")
    if hasattr(notebooks, "no_browser_open_file"):
        # A file with the server's address, to open a browser on this machine.
        notebooks.no_browser_open_file = True
    resolver = _found("aiohttp.resolver", "ThreadedResolver")
    if resolver and _found("aiohttp.connector", "DefaultResolver"):
        sys.modules["aiohttp.connector"].DefaultResolver = resolver  # type: ignore[attr-defined]


def _found(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)


def _wrap(owner: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
    function = getattr(owner, name, None)
    if function is not None and function.__module__ != __name__:
        setattr(owner, name, wrapper(function))


def _after_an_interval(update: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def keep_activity_updated(server: Any) -> None:
        await asyncio.sleep((server.hub_activity_interval or 0) * random.uniform(0.9, 1.1))  # noqa: S311
        await update(server)

    return keep_activity_updated


def _unless_empty(parse: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def parse_command_line(extension: Any, argv: list[str] | None = None) -> None:
        if argv is None or argv:
            parse(extension, argv)

    return parse_command_line


def _load_without_hub() -> None:
    before = set(sys.modules)
    stand_ins = {name: StandIn(name) for name in _UNUSED.keys() - before}
    for name, module in stand_ins.items():
        vars(module).update(_UNUSED[name])
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("jupyterhub.singleuser")
    except (ImportError, AttributeError):
        # It needs more of them than it did. What was imported with stand-ins is imported anew.
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("jupyterhub", "sqlalchemy"):
                del sys.modules[name]
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


async def _check_nothing(_: Any) -> None:
    """In place of `check_hub_version`."""


def main() -> None:
    """Entry point of `illumidesk-singleuser`: what `jupyterhub-singleuser` does."""
    # What is imported is no garbage: looking for some meanwhile would only take time.
    gc.disable()
    begin = load()
    gc.freeze()
    gc.enable()
    sys.exit(begin())


if __name__ == "__main__":
    main()
