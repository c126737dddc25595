"""LTI 1.3: sign-in by the platform's OpenID Connect (Security Framework 1.0, section 5.1; LTI 1.3 Core, section 5)."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

import jwt
from jwt.exceptions import InvalidSubjectError

from illumidesk.lti.errors import LMS_ADMIN, TOOL_ADMIN, LTIError, clock_problem, shown
from illumidesk.lti.jwks import ALGORITHMS, JwksCache
from illumidesk.lti.launch import (
    DeepLinking,
    Launch,
    LinkServices,
    first_text,
    is_web_address,
    next_of,
    one_line,
    role_of,
    service_address,
)
from illumidesk.lti.v11 import NonceStore
from illumidesk.registry import MemberRole

CLAIM = "https://purl.imsglobal.org/spec/lti/claim/"
DEEP_LINKING = "https://purl.imsglobal.org/spec/lti-dl/claim/deep_linking_settings"
#: The two messages that are understood.
LAUNCH = "LtiResourceLinkRequest"
SELECTION = "LtiDeepLinkingRequest"

#: Seconds by which the clocks of both sides may differ, and the greatest age of a token.
LEEWAY = 60
MAX_AGE = 3600
#: Longest token, in characters: real ones have less than 10,000.
MAX_TOKEN = 1 << 16


class Platform(Protocol):
    """A platform that speaks LTI 1.3."""

    @property
    def id(self) -> int:
        """The registry's number."""

    @property
    def issuer(self) -> str:
        """Who signs, letter by letter."""

    @property
    def client_id(self) -> str:
        """What it calls this tool."""

    @property
    def auth_url(self) -> str:
        """Where browsers are sent to sign in."""

    @property
    def jwks_url(self) -> str:
        """Where its keys are."""

    def allows_deployment(self, deployment: str) -> bool:
        """Whether that deployment may launch."""


P = TypeVar("P", bound=Platform)


def platform_of_login(parameters: Mapping[str, str], platforms: Callable[[str, str | None], Sequence[P]]) -> P:
    """The platform that wants somebody to sign in (Security Framework 1.0, section 5.1.1.1).

    Args:
        parameters: of the login request, letter by letter.
        platforms: by issuer and, where it is given, client id.

    Raises:
        LTIError: where none is meant, or something that the request must have is missing.
    """
    for name in ("iss", "login_hint", "target_link_uri"):
        if not parameters.get(name):
            raise LTIError(
                f"this is no sign-in of a learning management system: {name} is missing",
                code="login",
                hint="open this page by its link in the course",
                who=f"you; where the course's link leads here, {LMS_ADMIN}",
                status=400,
            )
    issuer, client_id = parameters["iss"], parameters.get("client_id") or None
    found = platforms(issuer, client_id)
    if len(found) == 1:
        return found[0]
    if found:
        raise LTIError(
            f"several platforms here are {shown(issuer)}, and the LMS does not say which is meant (client_id)",
            code="ambiguous-platform",
            hint="the LMS must send client_id with its login request",
            status=400,
        )
    which = f"{shown(issuer)} with client id {shown(client_id)}" if client_id else shown(issuer)
    raise LTIError(
        f"this classroom does not know the learning management system {which}",
        code="unknown-platform",
        hint="issuer and client id must be letter by letter what `illumidesk lti platform list` shows",
        who=f"{LMS_ADMIN} and {TOOL_ADMIN}",
    )


def login_url(parameters: Mapping[str, str], platform: Platform, *, redirect_uri: str, state: str, nonce: str) -> str:
    """Where the browser goes to sign in at the platform (Security Framework 1.0, section 5.1.1.2).

    Args:
        parameters: of the login request.
        platform: whose it is.
        redirect_uri: where the platform posts the launch, as it was registered there.
        state: comes back with the launch.
        nonce: comes back within it.
    """
    query = {
        "scope": "openid",
        "response_type": "id_token",
        "response_mode": "form_post",
        "prompt": "none",
        "client_id": platform.client_id,
        "redirect_uri": redirect_uri,
        "login_hint": parameters["login_hint"],
        "state": state,
        "nonce": nonce,
    }
    if parameters.get("lti_message_hint"):
        query["lti_message_hint"] = parameters["lti_message_hint"]
    parts = urlsplit(platform.auth_url)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(query))))))


async def verify(
    id_token: str,
    *,
    platform: Platform,
    nonce: str,
    jwks: JwksCache,
    nonces: NonceStore,
    roles: Mapping[str, MemberRole],
    own: str,
    now: float | None = None,
) -> Launch:
    """The launch that a token holds (Security Framework 1.0, section 5.1.3; LTI 1.3 Core, section 5.3).

    Args:
        id_token: as posted.
        platform: the one that the login of this browser was for. A token of another is refused.
        nonce: of that login.
        jwks: the platforms' keys.
        nonces: kept once everything else holds.
        roles: see `role_of`.
        own: this host's address.
        now: seconds since 1970; the clock's by default.

    Raises:
        LTIError: where it is not to be believed, or no message that is understood.
    """
    now = time.time() if now is None else now
    claims = await _verified_claims(id_token, platform, jwks)
    expires = _check_times(claims, now)
    if not hmac.compare_digest(_text(claims, "nonce", "nonce").encode("utf-8", "surrogatepass"), nonce.encode()):
        raise LTIError(
            "the launch answers another sign-in than the one of this browser",
            code="nonce",
            hint="go back to the course and click the link again",
            who="you",
        )
    launch = _launch(claims, platform, roles, own)
    if not nonces.use_nonce(platform.id, nonce, expires):
        raise LTIError(
            "this launch has been used already",
            code="replayed",
            hint="go back to the course and click the link again",
            who="you",
        )
    return launch


# Who signed it


async def _verified_claims(id_token: str, platform: Platform, jwks: JwksCache) -> dict[str, Any]:
    if not id_token:
        raise LTIError("the launch has no id_token", code="no-token", status=400)
    if len(id_token) > MAX_TOKEN:
        raise LTIError("the launch is too large", code="too-large", status=413)
    try:
        header = jwt.get_unverified_header(id_token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise LTIError("the launch's id_token is none", code="malformed", status=400) from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ALGORITHMS:
        raise LTIError(f"the launch is signed with {shown(algorithm)}, which is not accepted", code="algorithm")
    if not isinstance(kid, str) or not kid:
        raise LTIError("the launch does not say which key signed it (kid)", code="no-kid")
    key = await jwks.key(platform.jwks_url, kid, algorithm)
    try:
        claims = jwt.decode(
            id_token,
            key.key,
            algorithms=[algorithm],
            audience=platform.client_id,
            issuer=platform.issuer,
            # Times are looked at below, to say by how much the clocks differ.
            options={
                "require": ["iss", "aud", "sub", "exp", "iat", "nonce"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                # Nothing here looks at it, and platforms send numbers.
                "verify_jti": False,
            },
        )
    except jwt.InvalidIssuerError:
        raise LTIError(
            f"the launch is of another issuer than {shown(platform.issuer)}", code="issuer", detail=platform.issuer
        ) from None
    except jwt.InvalidAudienceError:
        raise LTIError("the launch is meant for another tool (aud)", code="audience") from None
    except jwt.MissingRequiredClaimError as error:
        raise LTIError(f"the launch has no {shown(error.claim)}", code=f"missing-{error.claim}") from None
    except InvalidSubjectError:
        raise _no_user() from None
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise LTIError(
            "the launch's signature is wrong",
            code="signature",
            hint="the key set address in the platform's entry here must be the LMS's own",
            who=f"{LMS_ADMIN} and {TOOL_ADMIN}",
            detail=type(error).__name__,
        ) from None
    audience, azp = claims["aud"], claims.get("azp")
    if azp is not None and azp != platform.client_id:
        raise LTIError("the launch is meant for another tool (azp)", code="azp")
    if isinstance(audience, list) and len(audience) > 1 and azp is None:
        raise LTIError("the launch is meant for several tools and does not say for which (azp)", code="azp")
    return claims


def _check_times(claims: Mapping[str, Any], now: float) -> float:
    """When the token ends, in seconds since 1970.

    Raises:
        LTIError: where it has ended, or is not of our time.
    """
    times = {}
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        if value is None and name == "nbf":
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e11:
            raise LTIError(f"the launch's time is none ({name})", code="timestamp", status=400)
        times[name] = float(value)
    if now > times["exp"] + LEEWAY:
        raise clock_problem(now - times["exp"], "launch")
    if times["iat"] > now + LEEWAY or times.get("nbf", 0) > now + LEEWAY:
        raise clock_problem(now - max(times["iat"], times.get("nbf", 0)), "launch")
    if now - times["iat"] > MAX_AGE:
        raise clock_problem(now - times["iat"], "launch")
    # No longer than the token could be believed, whatever it says of itself.
    return min(times["exp"] + LEEWAY, times["iat"] + MAX_AGE)


# What it says


def _launch(claims: Mapping[str, Any], platform: Platform, roles: Mapping[str, MemberRole], own: str) -> Launch:
    version, kind = _claim(claims, "version"), _claim(claims, "message_type")
    if version != "1.3.0":
        raise LTIError(f"the launch is of LTI version {shown(version)} and not 1.3.0", code="version", status=400)
    if kind not in (LAUNCH, SELECTION):
        raise LTIError(
            f"the message is a {shown(kind)!r}, and neither a launch nor a deep linking request",
            code="message-type",
            status=400,
        )
    if not claims["sub"].strip():
        raise _no_user()
    deployment = _text(claims, CLAIM + "deployment_id", "deployment")
    if not platform.allows_deployment(deployment):
        raise LTIError(
            f"this classroom does not know the deployment {shown(deployment)!r} of the learning management system",
            code="deployment",
            hint="`illumidesk lti platform add … --replace --deployment` adds it",
            who=TOOL_ADMIN,
        )
    role_list = _claim(claims, "roles")
    if not isinstance(role_list, list) or not all(isinstance(role, str) for role in role_list):
        raise LTIError("the launch does not list roles", code="roles", status=400)
    selection = _selection(claims, deployment) if kind == SELECTION else None
    link = _mapping(_claim(claims, "resource_link"))
    target = _claim(claims, "target_link_uri")
    if selection is None:
        if not isinstance(link.get("id"), str) or not link["id"].strip():
            raise LTIError("the launch names no link (resource_link)", code="resource-link", status=400)
        if not isinstance(target, str) or not target.strip():
            raise LTIError("the launch has no target_link_uri", code="target", status=400)
    context = _mapping(_claim(claims, "context"))
    context_id = context.get("id")
    if not isinstance(context_id, str | None):
        raise LTIError("the launch's id of the course is none (context)", code="context", status=400)
    context_id = (context_id or "").strip()
    custom = {
        name: value if isinstance(value, str) else str(value)
        for name, value in _mapping(_claim(claims, "custom")).items()
        if isinstance(value, (str, int, float))
    }
    lis, ext = _mapping(_claim(claims, "lis")), _mapping(_claim(claims, "ext"))
    return Launch(
        platform_id=platform.id,
        version="1.3",
        sub=claims["sub"],
        name=first_text([claims.get("name")]),
        given_name=first_text([claims.get("given_name")]),
        family_name=first_text([claims.get("family_name")]),
        email=first_text([claims.get("email")]),
        login=first_text(
            [
                custom.get("canvas_user_login_id"),
                ext.get("user_username"),
                claims.get("preferred_username"),
                custom.get("username"),
                lis.get("person_sourcedid"),
            ]
        ),
        context_id=context_id or None,
        context_label=first_text([context.get("label")]),
        context_title=first_text([context.get("title")]),
        role=role_of(role_list, roles) if context_id else None,
        resource_link_id=None if selection else link["id"],
        resource_link_title=one_line(link.get("title")),
        next_url=next_of(
            given=[custom.get("next", ""), custom.get("custom_next", "")],
            target=target if isinstance(target, str) and selection is None else "",
            workspace_type=custom.get("workspace_type", ""),
            own=own,
        ),
        workspace_type=one_line(custom.get("workspace_type"), 64),
        custom=custom,
        return_url=_return_url(claims),
        deep_linking=selection,
        services=_services(claims),
    )


def _services(claims: Mapping[str, Any]) -> LinkServices:
    """Where grades go (AGS 2.0, section 3.1) and the roster is (NRPS 2.0, section 3.6.1.1)."""
    ags = _mapping(claims.get("https://purl.imsglobal.org/spec/lti-ags/claim/endpoint"))
    nrps = _mapping(claims.get("https://purl.imsglobal.org/spec/lti-nrps/claim/namesroleservice"))
    scopes = ags.get("scope")
    if isinstance(scopes, str):
        scopes = scopes.split()
    return LinkServices(
        line_item=service_address(ags.get("lineitem")),
        line_items=service_address(ags.get("lineitems")),
        ags_scopes=tuple(one for one in scopes if isinstance(one, str))[:20] if isinstance(scopes, list) else (),
        memberships=service_address(nrps.get("context_memberships_url")),
    )


def _selection(claims: Mapping[str, Any], deployment: str) -> DeepLinking:
    """What a deep linking request asks for (Deep Linking 2.0, section 4.4.1)."""
    settings = _mapping(claims.get(DEEP_LINKING))
    return_url, data = settings.get("deep_link_return_url"), settings.get("data")
    if not isinstance(return_url, str) or not is_web_address(return_url):
        raise LTIError(
            "the platform does not say where the link goes to (deep_link_return_url)", code="return-url", status=400
        )
    accepts = settings.get("accept_types")
    return DeepLinking(
        return_url=return_url,
        data=data if isinstance(data, str) else None,
        accepts=tuple(one for one in accepts if isinstance(one, str)) if isinstance(accepts, list) else (),
        multiple=settings.get("accept_multiple") is not False,
        deployment_id=deployment,
        line_item=settings.get("accept_lineitem") is not False,
    )


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    return claims.get(CLAIM + name)


def _mapping(value: Any) -> dict[str, Any]:
    """A claim that is an object; PHP writes an empty one as a list."""
    return value if isinstance(value, dict) else {}


def _text(claims: Mapping[str, Any], name: str, what: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value or len(value) > 255:
        raise LTIError(f"the launch has no {what}", code=f"missing-{what}", status=400)
    return value


def _return_url(claims: Mapping[str, Any]) -> str:
    url = _mapping(_claim(claims, "launch_presentation")).get("return_url")
    return url if isinstance(url, str) else ""


def _no_user() -> LTIError:
    return LTIError(
        "the learning management system does not say who you are (sub)",
        code="missing-sub",
        hint="its settings for this tool must send the user's id",
    )
