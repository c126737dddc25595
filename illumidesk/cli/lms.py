"""What each learning management system calls things, and where it keeps its own addresses. Nothing is fetched here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from illumidesk.lti.addresses import Tool


@dataclass(frozen=True)
class LMS:
    """One kind of LMS.

    Attributes:
        title: its name.
        lti11: pairs of (its word, which of `Tool`'s addresses) for LTI 1.1; key and secret come on top.
        lti13: likewise for LTI 1.3.
        platform: its own addresses for LTI 1.3, with `{url}` and `{client_id}` to fill in.
        cloud: its own addresses where it has one address for all schools, used without `--url`.
    """

    title: str
    lti11: tuple[tuple[str, str], ...]
    lti13: tuple[tuple[str, str], ...]
    platform: Mapping[str, str] = field(default_factory=dict)
    cloud: Mapping[str, str] = field(default_factory=dict)


KINDS: dict[str, LMS] = {
    "canvas": LMS(
        "Canvas",
        (("Config URL (By URL)", "cartridge"), ("Launch URL (Manual Entry)", "launch11")),
        (
            ("JSON URL (Enter URL)", "config"),
            ("Redirect URIs", "launch13"),
            ("Target Link URI", "start"),
            ("OpenID Connect Initiation Url", "login"),
            ("Public JWK URL", "jwks"),
        ),
        {
            "issuer": "https://canvas.instructure.com",
            "auth_url": "{url}/api/lti/authorize_redirect",
            "token_url": "{url}/login/oauth2/token",
            "jwks_url": "{url}/api/lti/security/jwks",
        },
        {
            "issuer": "https://canvas.instructure.com",
            "auth_url": "https://sso.canvaslms.com/api/lti/authorize_redirect",
            "token_url": "https://sso.canvaslms.com/login/oauth2/token",
            "jwks_url": "https://sso.canvaslms.com/api/lti/security/jwks",
        },
    ),
    "moodle": LMS(
        "Moodle",
        (("Tool URL", "launch11"),),
        (
            ("Tool URL", "start"),
            ("Public keyset", "jwks"),
            ("Initiate login URL", "login"),
            ("Redirection URI(s)", "launch13"),
        ),
        {
            "issuer": "{url}",
            "auth_url": "{url}/mod/lti/auth.php",
            "token_url": "{url}/mod/lti/token.php",
            "jwks_url": "{url}/mod/lti/certs.php",
        },
    ),
    "open-edx": LMS(
        "Open edX",
        (("LTI URL", "launch11"),),
        (
            ("Tool Launch URL", "start"),
            ("Tool Initiate Login URL", "login"),
            ("Registered Redirect URIs", "launch13"),
            ("Tool Keyset URL", "jwks"),
        ),
        {"issuer": "{url}", "auth_url": "{url}/api/lti_consumer/v1/launch/"},
    ),
    "blackboard": LMS(
        "Blackboard",
        (("Provider Domain", "domain"), ("Tool Provider URL", "launch11")),
        (
            ("Domain(s)", "domain"),
            ("Login Initiation URL", "login"),
            ("Tool Redirect URL(s)", "launch13"),
            ("Tool JWKS URL", "jwks"),
            ("Target Link URI (of a placement)", "start"),
        ),
        {},
        {
            "issuer": "https://blackboard.com",
            "auth_url": "https://developer.blackboard.com/api/v1/gateway/oidcauth",
            "token_url": "https://developer.blackboard.com/api/v1/gateway/oauth2/jwttoken",
            "jwks_url": "https://developer.blackboard.com/api/v1/management/applications/{client_id}/jwks.json",
        },
    ),
    "brightspace": LMS(
        "Brightspace",
        (("Launch Point", "launch11"),),
        (
            ("Domain", "base"),
            ("Redirect URLs", "launch13"),
            ("OpenID Connect Login URL", "login"),
            ("Target Link URI", "start"),
            ("Keyset URL", "jwks"),
        ),
        {
            "issuer": "{url}",
            "auth_url": "{url}/d2l/lti/authenticate",
            "token_url": "https://auth.brightspace.com/core/connect/token",
            "token_audience": "https://api.brightspace.com/auth/token",
            "jwks_url": "{url}/d2l/.well-known/jwks",
        },
    ),
    "sakai": LMS(
        "Sakai",
        (("Launch URL", "launch11"),),
        (
            ("Launch URL", "start"),
            ("LTI 1.3 Tool Keyset URL", "jwks"),
            ("LTI 1.3 Tool OpenID Connect/Initialization Endpoint", "login"),
            ("LTI 1.3 Tool Redirect Endpoint(s)", "launch13"),
        ),
        {
            "issuer": "{url}",
            "auth_url": "{url}/imsoidc/lti13/oidc_auth",
            "jwks_url": "{url}/imsblis/lti13/keyset",
        },
    ),
}


def own_addresses(kind: str, url: str, client_id: str) -> dict[str, str]:
    """The addresses that an LMS of that kind has at `url` (empty: its cloud's), as far as they are known."""
    lms = KINDS[kind]
    known = lms.platform if url else lms.cloud
    return {key: value.format(url=url.rstrip("/"), client_id=client_id) for key, value in known.items()}


def to_paste(kind: str, version: str, base: str) -> list[tuple[str, str]]:
    """What an admin pastes into an LMS of that kind: pairs of its word and our address."""
    lms, tool = KINDS[kind], Tool(base)
    return [(word, getattr(tool, which)) for word, which in (lms.lti11 if version == "1.1" else lms.lti13)]
