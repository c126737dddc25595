"""Platforms register themselves: the address of an invitation, and the documents that other ways begin with."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.handlers import BaseHandler

from illumidesk.hub.classroom import Classroom
from illumidesk.hub.launches import LTIHandler, origin_of
from illumidesk.lti import registration
from illumidesk.lti.addresses import Tool
from illumidesk.lti.errors import TOOL_ADMIN, LTIError
from illumidesk.lti.registration import Configuration
from illumidesk.registry import Invite
from illumidesk.registry.models import ANY_DEPLOYMENT


class RegisterHandler(LTIHandler):
    """`/hub/lti13/register?invite=…`: what an LMS's administrator pastes into the LMS.

    The LMS adds where its configuration is. The page shows whom it is of, and one button registers.
    """

    async def get(self) -> None:
        """Show who would be registered."""
        await self.answering(self._ask())

    async def post(self) -> None:
        """Register."""
        await self.answering(self._register())

    async def _read(self) -> tuple[Invite, Configuration, dict[str, str]]:
        fields = self.form()
        invite = self.classroom.registry.invite(fields.get("invite", ""))
        if invite is None:
            raise LTIError(
                "this invitation was used already, taken back, or is too old",
                code="invite",
                hint="`illumidesk lti invite` makes a new one",
                who=TOOL_ADMIN,
            )
        url = fields.get("openid_configuration", "")
        if not url:
            raise LTIError(
                "this address is to be pasted into a learning management system, as a tool's registration URL",
                code="openid-configuration",
                hint="see the documentation of your LMS for dynamic registration",
                status=400,
            )
        if any(one.name.lower() == invite.name.lower() for one in self.classroom.registry.platforms()):
            raise LTIError(
                f"there is already a platform {invite.name} here",
                code="invite-name",
                hint="`illumidesk lti invite` with another name makes another invitation",
                who=TOOL_ADMIN,
                status=409,
            )
        self.framed_by |= {origin_of(url)}
        configuration = await registration.configuration_at(url, loopback=self._loopback)
        if configuration.issuer == "https://canvas.instructure.com":
            # Canvas shows the page on the school's own host, which is not said.
            self.framed_by |= {"https://*.instructure.com", "https://*.canvaslms.com"}
        return invite, configuration, fields

    @property
    def _loopback(self) -> bool:
        return self.classroom.settings.sign_in.lti.loopback_platforms

    async def _ask(self) -> None:
        invite, configuration, fields = await self._read()
        kept = {name: fields.get(name, "") for name in ("invite", "openid_configuration", "registration_token")}
        await self.show(
            "lti_register.html",
            platform=invite.name,
            host=urlsplit(configuration.issuer).netloc,
            product=configuration.product,
            fields=kept,
        )

    async def _register(self) -> None:
        async with self.classroom.registering:
            # One at a time, so that an invitation is good once.
            invite, configuration, fields = await self._read()
            registered = await registration.register(
                Tool(self.own()), configuration, fields.get("registration_token", ""), loopback=self._loopback
            )
            platform, _ = self.classroom.registry.add_platform(
                invite.name,
                "1.3",
                issuer=configuration.issuer,
                client_id=registered.client_id,
                auth_url=configuration.auth_url,
                token_url=configuration.token_url,
                token_audience=configuration.audience,
                jwks_url=configuration.jwks_url,
                deployments=[registered.deployment or ANY_DEPLOYMENT],
                insecure=self._loopback,
                invite_id=invite.id,
            )
        self.log.info("platform %d (%r) registered itself by invitation %d", platform.id, platform.name, invite.id)
        await self.show("lti_registered.html", platform=platform.name, any_deployment=registered.deployment == "")


class _DocumentHandler(BaseHandler):  # type: ignore[misc]
    def tool(self) -> Tool:
        """This installation."""
        classroom: Classroom = self.settings["classroom"]
        return Tool(classroom.settings.public_address() or f"{self.request.protocol}://{self.request.host}")


class CanvasConfigurationHandler(_DocumentHandler):
    """`GET /hub/lti13/config.json`: what a Canvas developer key takes by its URL."""

    def get(self) -> None:
        """The configuration."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(registration.canvas_configuration(self.tool()), indent=2))


class CartridgeHandler(_DocumentHandler):
    """`GET /hub/lti11/config.xml`: the LTI 1.1 configuration for Canvas and Blackboard."""

    def get(self) -> None:
        """The cartridge."""
        self.set_header("Content-Type", "application/xml")
        self.finish(registration.cartridge(self.tool()))


def registration_handlers(shared: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The addresses of registration; `shared` is what all LTI handlers of a hub share."""
    return [
        (r"/lti13/register", RegisterHandler, shared),
        (r"/lti13/config.json", CanvasConfigurationHandler),
        (r"/lti11/config.xml", CartridgeHandler),
    ]
