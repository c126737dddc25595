"""Launches that software of others signs: Open edX's own LTI consumer (`lti-consumer-xblock`)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization

from illumidesk.lti import keys, v11, v13
from illumidesk.lti.errors import LTIError
from illumidesk.lti.jwks import JwksCache
from illumidesk.registry import Platform, Registry
from illumidesk.settings import LTI_ROLES
from tests.support.openedx import Peer

OWN = "https://hub.example.edu"
URL_11, URL_13 = f"{OWN}/hub/lti11/launch", f"{OWN}/hub/lti13/launch"
ISSUER = "https://lms.example.org"
KEY, SECRET = "key", "a secret & more +%"
NEXT = "git-pull?repo=https%3A%2F%2Fx.example%2Fa.git&branch=main&urlpath=lab%2Ftree%2Fü%20b"
CONTEXT = {"context_id": "course-v1:DemoX+CS101+2026", "context_title": "Einführung & more", "context_label": "DemoX"}
KID, PRIVATE = keys.new_key()
OURS = SimpleNamespace(kid=KID, private=PRIVATE)


@pytest.fixture(scope="module")
def openedx(openedx_python: Path) -> Iterator[Peer]:
    peer = Peer(openedx_python, "openedx_peer.py")
    yield peer
    peer.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "registry.sqlite")
    yield registry
    registry.close()


# LTI 1.1


def _take_11(registry: Registry, form: dict[str, str], url: str = URL_11) -> Any:
    return v11.verify(form, url, consumers=registry.platform_by_key, nonces=registry, roles=LTI_ROLES, own=OWN)


@pytest.mark.parametrize(("roles", "role"), [("Instructor", "instructor"), ("Student", "student"), ("", "student")])
@pytest.mark.parametrize("query", ["", "?custom_a=1%202&next=%2Fhub%2Fuser-redirect%2Flab"])
def test_open_edx_launches_by_lti_11(openedx: Peer, registry: Registry, roles: str, role: str, query: str) -> None:
    registry.add_platform("Open edX", "1.1", key=KEY, secret=SECRET)
    form = openedx.ask(
        "launch_11",
        url=URL_11 + query,
        key=KEY,
        secret=SECRET,
        user={
            "user_id": "35",
            "roles": roles,
            "result_sourcedid": "course-v1%3ADemoX%2BCS101:lms.example.org-abc:35",
            "person_sourcedid": "zoe",
            "person_contact_email_primary": "zoe+x@example.edu",
            "person_name_full": "Zoë Ü",
        },
        context=CONTEXT,
        link="lms.example.org-abc def+%",
        custom={} if query else {"custom_next": NEXT, "custom_ü": "50% & more = a+b\nline 2"},
    )
    launch = _take_11(registry, form, URL_11 + query)
    assert (launch.sub, launch.role, launch.email, launch.name) == ("35", role, "zoe+x@example.edu", "Zoë Ü")
    assert (launch.context_id, launch.context_title, launch.login) == (
        CONTEXT["context_id"],
        CONTEXT["context_title"],
        "zoe",
    )
    assert launch.resource_link_id == "lms.example.org-abc def+%"
    assert launch.next_url == ("/hub/user-redirect/lab" if query else f"/hub/user-redirect/{NEXT}")
    with pytest.raises(LTIError, match="used already"):
        _take_11(registry, form, URL_11 + query)
    with pytest.raises(LTIError, match="signature"):
        _take_11(registry, {**form, "roles": "Administrator"}, URL_11 + query)


# LTI 1.3


@pytest.fixture
def platform(openedx: Peer, registry: Registry) -> tuple[Platform, JwksCache]:
    """The peer as a platform of the registry, with a key of its own, and its keys as it publishes them."""
    _, pem = keys.new_key()
    public = serialization.load_pem_private_key(PRIVATE.encode(), None).public_key()
    published = openedx.ask(
        "platform_13",
        name="edx",
        iss=ISSUER,
        lti_oidc_url=f"{OWN}/hub/lti13/login",
        lti_launch_url=URL_13,
        client_id="client",
        deployment_id="1",
        rsa_key=pem,
        rsa_key_id="kid-of-edx",
        redirect_uris=[URL_13],
        tool_key=public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode(),
        deep_linking_return_url="https://lms.example.org/deep?x=1",
    )

    async def get(url: str) -> Any:
        assert url == f"{ISSUER}/jwks"
        return published

    added, _ = registry.add_platform(
        "Open edX",
        "1.3",
        issuer=ISSUER,
        client_id="client",
        auth_url=f"{ISSUER}/auth",
        jwks_url=f"{ISSUER}/jwks",
        deployments=["1"],
    )
    return added, JwksCache(get=get)


async def _launch_13(
    openedx: Peer, registry: Registry, jwks: JwksCache, *, context: Any, custom: Any, user: Any, **data: Any
) -> Any:
    """The whole way: login request, authorization, launch."""
    login = openedx.ask(
        "login_13", name="edx", user_id="7", user_role=user["role"], config_id="c", resource_link_id="block", **data
    )
    assert login.startswith(f"{OWN}/hub/lti13/login?")
    parameters = dict(parse_qsl(urlsplit(login).query))
    platform = v13.platform_of_login(parameters, registry.platforms_by_issuer)
    asked = v13.login_url(parameters, platform, redirect_uri=URL_13, state="the-state", nonce=f"nonce-{user}")
    form = openedx.ask(
        "launch_13",
        name="edx",
        query=dict(parse_qsl(urlsplit(asked).query)),
        user=user,
        context=context,
        link={"resource_link_id": "block-v1:DemoX+a@b", "title": "Übung"},
        custom=custom,
    )
    assert form["state"] == "the-state"
    return await v13.verify(
        form["id_token"],
        platform=platform,
        nonce=f"nonce-{user}",
        jwks=jwks,
        nonces=registry,
        roles=LTI_ROLES,
        own=OWN,
    )


@pytest.mark.parametrize(
    ("peers", "role"),
    [
        ("instructor", "instructor"),
        ("staff", "instructor"),
        ("Community TA", "ta"),
        ("student", "student"),
        ("guest", "student"),
        (None, "student"),
    ],
)
async def test_open_edx_launches_by_lti_13(
    openedx: Peer, registry: Registry, platform: tuple[Platform, JwksCache], peers: str | None, role: str
) -> None:
    user = {
        "user_id": "0f9c-7",
        "role": peers,
        "full_name": "Zoë Ü",
        "email_address": "zoe+x@example.edu",
        "preferred_username": "zoe",
    }
    launch = await _launch_13(
        openedx, registry, platform[1], context=CONTEXT, custom={"custom_next": NEXT, "b": "50% & ü"}, user=user
    )
    assert launch.platform_id == platform[0].id
    assert (launch.sub, launch.role, launch.email, launch.name) == ("0f9c-7", role, "zoe+x@example.edu", "Zoë Ü")
    assert (launch.context_id, launch.context_label, launch.login) == (CONTEXT["context_id"], "DemoX", "zoe")
    assert launch.resource_link_id == "block-v1:DemoX+a@b"
    assert launch.next_url == f"/hub/user-redirect/{NEXT}"
    assert launch.custom["b"] == "50% & ü"
    assert launch.return_url == "https://lms.example.org/return"


async def test_open_edx_launches_with_nothing_about_the_person(
    openedx: Peer, registry: Registry, platform: tuple[Platform, JwksCache]
) -> None:
    launch = await _launch_13(
        openedx, registry, platform[1], context=None, custom={}, user={"user_id": "anon", "role": "student"}
    )
    assert (launch.sub, launch.email, launch.name, launch.context_id, launch.role) == ("anon", "", "", None, None)


async def test_open_edx_asks_for_a_link_and_takes_it(
    openedx: Peer, registry: Registry, platform: tuple[Platform, JwksCache]
) -> None:
    launch = await _launch_13(
        openedx,
        registry,
        platform[1],
        context=CONTEXT,
        custom={},
        user={"user_id": "teacher", "role": "instructor"},
        message_type="LtiDeepLinkingRequest",
    )
    wanted = launch.deep_linking
    assert wanted is not None
    assert wanted.return_url == "https://lms.example.org/deep?x=1"
    assert "ltiResourceLink" in wanted.accepts
    assert (wanted.multiple, wanted.deployment_id, launch.role) == (True, "1", "instructor")
    item = {"type": "ltiResourceLink", "url": URL_13, "title": "Übung"}
    answer = {
        "iss": "client",
        "aud": [ISSUER],
        "nonce": "n",
        f"{v13.CLAIM}message_type": "LtiDeepLinkingResponse",
        f"{v13.CLAIM}version": "1.3.0",
        f"{v13.CLAIM}deployment_id": wanted.deployment_id,
        "https://purl.imsglobal.org/spec/lti-dl/claim/content_items": [item],
    }
    assert openedx.ask("chosen", name="edx", token=keys.sign(answer, OURS)) == [item]


async def test_open_edx_gives_us_a_token_for_its_services(openedx: Peer, platform: tuple[Platform, JwksCache]) -> None:
    """Security Framework 1.0, section 4.1: it believes what our key signs."""
    claims = {"iss": "client", "sub": "client", "aud": f"{ISSUER}/token", "jti": f"jti-{time.time()}"}
    answer = openedx.ask(
        "token",
        name="edx",
        request={
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": keys.sign(claims, OURS),
            "scope": "https://purl.imsglobal.org/spec/lti-ags/scope/score",
        },
    )
    assert answer["token_type"] == "bearer"
    assert answer["access_token"].count(".") == 2
