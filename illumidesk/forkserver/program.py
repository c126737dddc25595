"""`jupyterhub-singleuser` without the half of JupyterHub that only a hub has use for.

Importing `jupyterhub.singleuser` imports the hub's pages, database and migrations, too, and all of SQLAlchemy and
Alembic with them: a fifth of what a server imports, for a class that its log asks after and one that it names in an
`except`. While that import runs, these modules have stand-ins. Whoever needs the real ones later gets them.

A server does not ask the hub for its version before it listens, either: the hub compares the two when it first reaches
the server. In a class that starts at once the hub would have a question of everybody's more, and everybody would wait
for its answer; and where the hub is away, a server could not start again.

Upstream, people see the imports in https://github.com/jupyterhub/the-littlest-jupyterhub/issues/841. A JupyterHub that
no longer imports them never meets a stand-in, and one that needs more of them gets the real ones.
"""

from __future__ import annotations

import gc
import importlib
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
    server: Any = getattr(function, "__self__", None)  # the application's class
    if hasattr(server, "check_hub_version"):
        server.check_hub_version = _check_nothing
    return function


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
