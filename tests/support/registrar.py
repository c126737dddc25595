"""A platform's side of LTI Dynamic Registration, over HTTP: what real ones do differently, and what wrong ones do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from illumidesk.lti.registration import PLATFORM, TOOL

TOKEN = "one-time-token-of-the-platform"


@dataclass
class Registrar:
    """Serves `openid-configuration` and `register`.

    Attributes:
        changes: fields of the configuration to change; None takes one away.
        answer: changes of what a registration is answered with, likewise.
        misbehaviour: what it does instead of answering: `redirect`, `html`, `large`, `hang`, or an HTTP status.
        registered: the registrations that came.
    """

    product: str = "moodle"
    changes: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)
    misbehaviour: str = ""
    registered: list[dict[str, Any]] = field(default_factory=list)
    base: str = ""

    @property
    def url(self) -> str:
        return f"{self.base}/openid-configuration"

    def configuration(self) -> dict[str, Any]:
        values = {
            "issuer": self.base,
            "authorization_endpoint": f"{self.base}/auth",
            "token_endpoint": f"{self.base}/token",
            "jwks_uri": f"{self.base}/jwks",
            "registration_endpoint": f"{self.base}/register",
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "https://purl.imsglobal.org/spec/lti-ags/scope/score"],
            PLATFORM: {
                "product_family_code": self.product,
                "version": "4.5",
                "messages_supported": [{"type": "LtiResourceLinkRequest"}, {"type": "LtiDeepLinkingRequest"}],
            },
            **self.changes,
        }
        return {name: value for name, value in values.items() if value is not None}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Registrar]:
        app = web.Application()
        app.router.add_get("/openid-configuration", self._configuration)
        app.router.add_post("/register", self._register)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        self.base = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _configuration(self, request: web.Request) -> web.StreamResponse:
        match self.misbehaviour:
            case "redirect":
                raise web.HTTPFound("/elsewhere")
            case "html":
                return web.Response(text="<html>Sign in</html>", content_type="text/html")
            case "large":
                return web.Response(body=b'{"x": "' + b"x" * 10_000_000 + b'"}')
            case "hang":
                await asyncio.sleep(3600)
        return web.json_response(self.configuration())

    async def _register(self, request: web.Request) -> web.StreamResponse:
        if self.misbehaviour.isdigit():
            return web.json_response(
                {"error": "invalid_client_metadata", "error_description": "no such redirect"},
                status=int(self.misbehaviour),
            )
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "invalid_token"}, status=401)
        said = await request.json()
        self.registered.append(said)
        values = {
            **said,
            "client_id": f"client-{len(self.registered)}",
            TOOL: {**said[TOOL], "deployment_id": "7"},
            **self.answer,
        }
        return web.json_response({name: value for name, value in values.items() if value is not None}, status=201)
