"""This tool's services and a test LMS's, joined over HTTP on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from illumidesk.lti.keys import key_set, new_key
from illumidesk.lti.services import Services
from tests.support import lms_services

MEMBERS: list[dict[str, Any]] = [
    {"user_id": "2", "roles": ["Instructor"], "status": "Active", "name": "Zoë Teacher"},
    {"user_id": "3", "roles": ["Learner"], "status": "Active"},
    {"user_id": "4", "roles": ["Learner"], "status": "Inactive", "email": "zoe@example.edu"},
]


@cache
def one_key() -> SimpleNamespace:
    """A key of this tool; to make one takes long."""
    kid, private = new_key()
    return SimpleNamespace(kid=kid, private=private)


@dataclass
class Platform:
    """What the registry knows of the LMS, by both versions of LTI."""

    token_url: str
    id: int = 1
    client_id: str = "client"
    token_audience: str = ""
    key: str = "consumer & key"
    secret: str = "secret +ü"


@dataclass
class Pair:
    lms: lms_services.Services
    tool: Services
    platform: Platform


@asynccontextmanager
async def paired(**options: Any) -> AsyncIterator[Pair]:
    """Both, while the context lasts. Options are those of `illumidesk.lti.services.Services`."""

    async def keys() -> list[SimpleNamespace]:
        return [one_key()]

    lms = lms_services.Services(
        "client", lambda: key_set([one_key()]), key="consumer & key", secret="secret +ü", members=list(MEMBERS)
    )
    app = web.Application(client_max_size=1 << 24)
    lms.add_routes(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    lms.base = "http://{}:{}".format(*runner.addresses[0][:2])
    tool = Services(keys, **{"loopback": True, **options})
    try:
        yield Pair(lms, tool, Platform(lms.token_url))
    finally:
        await tool.close()
        await runner.cleanup()
