"""Sign-in from learning management systems: JupyterHub's side of LTI 1.1 and 1.3.

The protocol is `illumidesk.lti`'s, the pages are `illumidesk.hub.launches`'s, people, courses and roles are the
classroom's. A launch that is refused leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub.auth import Authenticator

from illumidesk.lti import v11, v13
from illumidesk.lti.deep_linking import check_launch
from illumidesk.lti.launch import Launch


class LTIAuthenticator(Authenticator):  # type: ignore[misc]
    """What both versions share: a verified launch becomes a person of this hub.

    It takes no part in JupyterHub's sign-in page. The launch handlers ask it beside whichever authenticator that page
    has, so several platforms, both versions and local sign-in work at the same time.
    """

    async def verified(self, data: Mapping[str, Any]) -> Launch:
        """The launch in a request.

        Raises:
            LTIError: where it is not to be believed.
        """
        raise NotImplementedError

    async def authenticate(self, handler: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        """The person of the launch, with account, course and role made as it says.

        Args:
            handler: gets the `launch`, and the `course_id` where it comes from a course.
            data: what the handler read of the request, as `verified` takes it.

        Raises:
            LTIError: where the launch is not to be believed.
            IllumiDeskError: where the person may not come in.
        """
        launch = await self.verified(data)
        check_launch(launch)
        name, course_id = await self.parent.classroom.launch(launch)
        handler.launch, handler.course_id = launch, course_id
        return {"name": name}

    def validate_username(self, username: str) -> bool:
        """Names are made by the classroom, which checks them."""
        return True

    def check_allowed(self, username: str, authentication: Any = None) -> bool:
        """Who comes with a verified launch may come in."""
        return True


class LTI11Authenticator(LTIAuthenticator):
    """LTI 1.1: a form signed with the consumer's secret (OAuth 1.0a, HMAC-SHA1)."""

    async def verified(self, data: Mapping[str, Any]) -> Launch:
        """`data` is `form`, the fields; `url`, the address that they came to; `own`, this host's."""
        classroom = self.parent.classroom
        return v11.verify(
            data["form"],
            data["url"],
            consumers=classroom.registry.platform_by_key,
            nonces=classroom.registry,
            roles=classroom.settings.sign_in.lti.roles,
            own=data["own"],
        )


class LTI13Authenticator(LTIAuthenticator):
    """LTI 1.3: an id_token of the platform, in answer to a login request of this browser."""

    async def verified(self, data: Mapping[str, Any]) -> Launch:
        """`data` is `id_token`; `platform` and `nonce` of the login that it answers; `own`, this host's address."""
        classroom = self.parent.classroom
        return await v13.verify(
            data["id_token"],
            platform=data["platform"],
            nonce=data["nonce"],
            jwks=classroom.jwks,
            nonces=classroom.registry,
            roles=classroom.settings.sign_in.lti.roles,
            own=data["own"],
        )
