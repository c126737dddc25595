"""LTI Dynamic Registration 1.0: a platform and this tool tell each other their addresses.

The platform's administrator opens our address with the platform's configuration; we read it, register there, and keep
what it answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from illumidesk.lti.addresses import Tool
from illumidesk.lti.errors import LMS_ADMIN, TOOL_ADMIN, LTIError, shown
from illumidesk.lti.fetch import FetchError, check_url, get_json, post_json
from illumidesk.lti.launch import one_line

TOOL = "https://purl.imsglobal.org/spec/lti-tool-configuration"
PLATFORM = "https://purl.imsglobal.org/spec/lti-platform-configuration"
#: Grades and rosters (Assignment and Grade Services 2.0, Names and Role Provisioning Services 2.0).
SCOPES = (
    "https://purl.imsglobal.org/spec/lti-ags/scope/lineitem",
    "https://purl.imsglobal.org/spec/lti-ags/scope/result.readonly",
    "https://purl.imsglobal.org/spec/lti-ags/scope/score",
    "https://purl.imsglobal.org/spec/lti-nrps/scope/contextmembership.readonly",
)
CLAIMS = ("iss", "sub", "name", "given_name", "family_name", "email")
TITLE = "IllumiDesk"
DESCRIPTION = "Notebooks, assignments and grading in JupyterHub"

#: Clouds that publish their configuration elsewhere than at their issuer.
_CLOUDS = {
    "canvas.instructure.com": (".instructure.com", ".canvaslms.com"),
    "blackboard.com": (".blackboard.com",),
}


@dataclass(frozen=True)
class Configuration:
    """What a platform says of itself (Dynamic Registration 1.0, section 3.3).

    Attributes:
        audience: whom requests for access tokens are meant for; "" where that is `token_url`.
    """

    issuer: str
    auth_url: str
    token_url: str
    jwks_url: str
    registration_url: str
    product: str
    messages: tuple[str, ...]
    scopes: tuple[str, ...]
    audience: str = ""


@dataclass(frozen=True)
class Registered:
    """What a platform answers to a registration (Dynamic Registration 1.0, section 3.6).

    Attributes:
        deployment: the id of the deployment; "" where the platform makes deployments later.
    """

    client_id: str
    deployment: str


async def configuration_at(url: str, *, loopback: bool = False) -> Configuration:
    """The configuration of the platform that `url` is of.

    Args:
        url: `openid_configuration`, as the platform gave it to its administrator's browser.
        loopback: see `fetch.get_json`.

    Raises:
        LTIError: where it cannot be had, lacks something, or is that of another host.
    """
    try:
        answer = await get_json(url, loopback=loopback)
    except FetchError as error:
        raise LTIError(
            "the learning management system's configuration cannot be had",
            code="configuration",
            hint=f"its address is {shown(url, 200)}: {error}",
            status=502,
        ) from None
    if not isinstance(answer, dict):
        raise _unusable("it is no object")
    texts = {}
    for name in ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "registration_endpoint"):
        value = answer.get(name)
        if not isinstance(value, str) or not value or len(value) > 1024 or not re.fullmatch(r"[!-~]+", value):
            raise _unusable(f"it has no {name}")
        if name != "issuer":
            try:
                check_url(value, loopback=loopback)
            except FetchError as error:
                raise _unusable(f"{name}: {error}") from None
        texts[name] = value
    _check_issuer(texts["issuer"], url)
    algorithms = answer.get("id_token_signing_alg_values_supported")
    if isinstance(algorithms, list) and "RS256" not in algorithms:
        raise _unusable("it does not sign with RS256")
    about = answer.get(PLATFORM)
    about = about if isinstance(about, dict) else {}
    messages = about.get("messages_supported")
    scopes = answer.get("scopes_supported")
    return Configuration(
        issuer=texts["issuer"],
        auth_url=texts["authorization_endpoint"],
        token_url=texts["token_endpoint"],
        jwks_url=texts["jwks_uri"],
        registration_url=texts["registration_endpoint"],
        product=one_line(about.get("product_family_code"), 40),
        messages=tuple(
            one["type"]
            for one in (messages if isinstance(messages, list) else [])
            if isinstance(one, dict) and isinstance(one.get("type"), str)
        ),
        scopes=tuple(one for one in (scopes if isinstance(scopes, list) else []) if isinstance(one, str)),
        audience=_audience(answer.get("authorization_server")),
    )


def _audience(value: Any) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,1000}", value):
        raise _unusable("its authorization_server is none")
    return value


def _check_issuer(issuer: str, url: str) -> None:
    """Whoever is asked for an issuer's configuration must be the issuer (Dynamic Registration 1.0, section 3.5.2)."""
    ours, theirs = urlsplit(issuer).hostname or "", urlsplit(url).hostname or ""
    known = any(theirs.endswith(domain) for domain in _CLOUDS.get(ours, ()))
    if not ours or (theirs != ours and not theirs.endswith(f".{ours}") and not known):
        raise _unusable(f"{shown(theirs)} may not speak for the issuer {shown(issuer)}")


def _unusable(why: str) -> LTIError:
    return LTIError(
        f"the learning management system's configuration cannot be used: {why}",
        code="configuration",
        hint="add the platform by hand: `illumidesk lti platform add`",
        who=f"{LMS_ADMIN} and {TOOL_ADMIN}",
    )


def registration_of(tool: Tool, configuration: Configuration) -> dict[str, Any]:
    """What this tool says of itself (Dynamic Registration 1.0, section 3.5.1)."""
    wanted = [scope for scope in SCOPES if not configuration.scopes or scope in configuration.scopes]
    messages: list[dict[str, Any]] = [{"type": "LtiResourceLinkRequest", "target_link_uri": tool.launch13}]
    if not configuration.messages or "LtiDeepLinkingRequest" in configuration.messages:
        deep: dict[str, Any] = {"type": "LtiDeepLinkingRequest", "target_link_uri": tool.launch13, "label": TITLE}
        if configuration.product == "canvas":
            deep["placements"] = ["link_selection", "assignment_selection"]
            messages[0]["placements"] = ["course_navigation"]
            messages[0]["label"] = TITLE
        messages.append(deep)
    configured: dict[str, Any] = {
        "domain": tool.domain,
        "description": DESCRIPTION,
        "target_link_uri": tool.launch13,
        "claims": list(CLAIMS),
        "messages": messages,
    }
    if configuration.product == "canvas":
        configured |= {
            "https://canvas.instructure.com/lti/privacy_level": "public",
            "custom_parameters": {"canvas_user_login_id": "$Canvas.user.loginId"},
        }
    return {
        "application_type": "web",
        "response_types": ["id_token"],
        "grant_types": ["implicit", "client_credentials"],
        "client_name": TITLE,
        "initiate_login_uri": tool.login,
        "redirect_uris": [tool.launch13],
        "jwks_uri": tool.jwks,
        "token_endpoint_auth_method": "private_key_jwt",
        "scope": " ".join(wanted),
        TOOL: configured,
    }


async def register(tool: Tool, configuration: Configuration, token: str, *, loopback: bool = False) -> Registered:
    """Register this tool at a platform.

    Args:
        tool: this installation.
        configuration: the platform's.
        token: `registration_token`, as the platform gave it; "" where it gave none.
        loopback: see `fetch.get_json`.

    Raises:
        LTIError: where the platform refuses or does not answer.
    """
    try:
        answer = await post_json(
            configuration.registration_url, registration_of(tool, configuration), token=token, loopback=loopback
        )
    except FetchError as error:
        raise LTIError(
            "the learning management system did not take the registration",
            code="registration",
            hint=f"begin again there; it said: {shown(error, 200)}",
            status=502,
        ) from None
    client_id = answer.get("client_id") if isinstance(answer, dict) else None
    if isinstance(client_id, int) and not isinstance(client_id, bool):
        client_id = str(client_id)
    if not isinstance(client_id, str) or not re.fullmatch(r"[!-~]{1,255}", client_id):
        raise LTIError("the learning management system answered without a client id", code="registration", status=502)
    configured = answer.get(TOOL)
    deployment = configured.get("deployment_id") if isinstance(configured, Mapping) else None
    if isinstance(deployment, int) and not isinstance(deployment, bool):
        deployment = str(deployment)
    return Registered(client_id, one_line(deployment))


# Documents that other ways of registering begin with


def canvas_configuration(tool: Tool) -> dict[str, Any]:
    """What a Canvas developer key takes by its URL (Canvas: Configuring LTI Advantage Tools)."""
    placements = [
        {"placement": "course_navigation", "message_type": "LtiResourceLinkRequest", "text": TITLE},
        {"placement": "link_selection", "message_type": "LtiDeepLinkingRequest", "text": TITLE},
        {"placement": "assignment_selection", "message_type": "LtiDeepLinkingRequest", "text": TITLE},
    ]
    return {
        "title": TITLE,
        "description": DESCRIPTION,
        "oidc_initiation_url": tool.login,
        "target_link_uri": tool.launch13,
        "public_jwk_url": tool.jwks,
        "scopes": list(SCOPES),
        "custom_fields": {"canvas_user_login_id": "$Canvas.user.loginId"},
        "extensions": [
            {
                "platform": "canvas.instructure.com",
                "domain": tool.domain,
                "privacy_level": "public",
                "settings": {"placements": [{**one, "target_link_uri": tool.launch13} for one in placements]},
            }
        ],
    }


def cartridge(tool: Tool) -> bytes:
    """The LTI 1.1 configuration as XML, for Canvas and Blackboard (IMS Common Cartridge, Basic LTI link 1.0)."""
    from xml.etree import ElementTree

    spaces = {
        "": "http://www.imsglobal.org/xsd/imslticc_v1p0",
        "blti": "http://www.imsglobal.org/xsd/imsbasiclti_v1p0",
        "lticm": "http://www.imsglobal.org/xsd/imslticm_v1p0",
        "lticp": "http://www.imsglobal.org/xsd/imslticp_v1p0",
    }
    for prefix, space in spaces.items():
        ElementTree.register_namespace(prefix, space)
    root = ElementTree.Element(f"{{{spaces['']}}}cartridge_basiclti_link")

    def add(parent: ElementTree.Element, prefix: str, tag: str, text: str = "", **attributes: str) -> Any:
        element = ElementTree.SubElement(parent, f"{{{spaces[prefix]}}}{tag}", attributes)
        element.text = text or None
        return element

    launch = tool.launch11
    add(root, "blti", "title", TITLE)
    add(root, "blti", "description", DESCRIPTION)
    add(root, "blti", "launch_url", launch)
    if launch.startswith("https:"):
        add(root, "blti", "secure_launch_url", launch)
    custom = add(root, "blti", "custom")
    add(custom, "lticm", "property", "$Canvas.user.loginId", name="canvas_user_login_id")
    canvas = add(root, "blti", "extensions", platform="canvas.instructure.com")
    add(canvas, "lticm", "property", "illumidesk", name="tool_id")
    add(canvas, "lticm", "property", "public", name="privacy_level")
    add(canvas, "lticm", "property", tool.domain, name="domain")
    navigation = add(canvas, "lticm", "options", name="course_navigation")
    for name, value in (("url", launch), ("text", TITLE), ("visibility", "public"), ("default", "disabled")):
        add(navigation, "lticm", "property", value, name=name)
    selection = add(canvas, "lticm", "options", name="resource_selection")
    for name, value in (("url", launch), ("text", TITLE), ("message_type", "ContentItemSelectionRequest")):
        add(selection, "lticm", "property", value, name=name)
    document: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return document
