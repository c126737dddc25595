"""Dynamic Registration against platforms that answer over HTTP, and the documents that other ways begin with."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from illumidesk.lti import registration
from illumidesk.lti.addresses import Tool
from illumidesk.lti.errors import LTIError
from illumidesk.lti.registration import TOOL
from tests.support.registrar import TOKEN, Registrar

OURS = Tool("https://hub.example.edu")


@pytest.mark.parametrize("product", ["moodle", "canvas", "BlackboardLearn", "desire2learn", "sakai"])
async def test_both_sides_learn_each_others_addresses(product: str) -> None:
    async with Registrar(product).serving() as platform:
        configuration = await registration.configuration_at(platform.url, loopback=True)
        registered = await registration.register(OURS, configuration, TOKEN, loopback=True)
    assert configuration.issuer == platform.base
    assert configuration.jwks_url == f"{platform.base}/jwks"
    assert (registered.client_id, registered.deployment) == ("client-1", "7")
    (said,) = platform.registered
    assert said["initiate_login_uri"] == "https://hub.example.edu/hub/lti13/login"
    assert said["redirect_uris"] == ["https://hub.example.edu/hub/lti13/launch"]
    assert said["jwks_uri"] == "https://hub.example.edu/hub/lti13/jwks"
    assert said["token_endpoint_auth_method"] == "private_key_jwt"
    assert said["scope"] == "https://purl.imsglobal.org/spec/lti-ags/scope/score"
    assert said[TOOL]["domain"] == "hub.example.edu"
    kinds = [one["type"] for one in said[TOOL]["messages"]]
    assert kinds == ["LtiResourceLinkRequest", "LtiDeepLinkingRequest"]
    assert ("placements" in said[TOOL]["messages"][0]) is (product == "canvas")


@pytest.mark.parametrize("audience", ["https://api.brightspace.com/auth/token", "", None])
async def test_whom_requests_for_tokens_are_for(audience: str | None) -> None:
    async with Registrar(changes={"authorization_server": audience}).serving() as platform:
        configuration = await registration.configuration_at(platform.url, loopback=True)
    assert configuration.audience == (audience or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"issuer": "https://elsewhere.example"}, "may not speak for the issuer"),
        ({"issuer": ""}, "has no issuer"),
        ({"issuer": None}, "has no issuer"),
        ({"jwks_uri": None}, "has no jwks_uri"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri: it is no https address"),
        ({"token_endpoint": "https://169.254.169.254/token"}, "token_endpoint: it leads to this machine"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint: it is no https address"),
        ({"registration_endpoint": 7}, "has no registration_endpoint"),
        ({"id_token_signing_alg_values_supported": ["HS256"]}, "does not sign with RS256"),
        ({"authorization_server": "a b"}, "its authorization_server is none"),
        ({"authorization_server": 7}, "its authorization_server is none"),
    ],
)
async def test_configurations_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    async with Registrar(changes=changes).serving() as platform:
        with pytest.raises(LTIError, match=message):
            await registration.configuration_at(platform.url, loopback=True)


@pytest.mark.parametrize(
    ("misbehaviour", "message"),
    [
        ("redirect", "the answer is 302"),
        ("html", "no JSON"),
        ("large", "larger than 256 KiB"),
        ("hang", "no answer within"),
    ],
)
async def test_configurations_that_cannot_be_had(misbehaviour: str, message: str) -> None:
    async with Registrar(misbehaviour=misbehaviour).serving() as platform:
        with pytest.raises(LTIError) as caught:
            await registration.configuration_at(platform.url, loopback=True)
    assert message in caught.value.hint


async def test_nothing_of_this_machine_is_fetched() -> None:
    async with Registrar().serving() as platform:
        for url in (platform.url, platform.url.replace("http:", "https:"), "file:///etc/passwd", "", "https://[::1"):
            with pytest.raises(LTIError):
                await registration.configuration_at(url)


@pytest.mark.parametrize(
    ("issuer", "url", "good"),
    [
        ("https://canvas.instructure.com", "https://sso.canvaslms.com/api/lti/security/openid-configuration", True),
        ("https://canvas.instructure.com", "https://school.instructure.com/x", True),
        ("https://blackboard.com", "https://developer.blackboard.com/x", True),
        ("https://canvas.instructure.com", "https://evil-canvaslms.com/x", False),
        ("https://moodle.example", "https://moodle.example.evil/x", False),
        ("https://moodle.example", "https://evilmoodle.example/x", False),
    ],
)
def test_who_may_speak_for_an_issuer(issuer: str, url: str, good: bool) -> None:
    if good:
        registration._check_issuer(issuer, url)
        return
    with pytest.raises(LTIError, match="may not speak"):
        registration._check_issuer(issuer, url)


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        (Registrar(misbehaviour="400"), "no such redirect"),
        (Registrar(misbehaviour="500"), "the answer is 500"),
        (Registrar(answer={"client_id": None}), "without a client id"),
        (Registrar(answer={"client_id": "a b\n"}), "without a client id"),
    ],
)
async def test_registrations_that_are_refused(platform: Registrar, message: str) -> None:
    async with platform.serving():
        configuration = await registration.configuration_at(platform.url, loopback=True)
        with pytest.raises(LTIError) as caught:
            await registration.register(OURS, configuration, TOKEN, loopback=True)
    assert message in f"{caught.value.message} {caught.value.hint}"
    assert TOKEN not in f"{caught.value.message} {caught.value.hint} {caught.value.detail}"


async def test_a_platform_that_makes_deployments_later() -> None:
    async with Registrar(answer={TOOL: {}, "client_id": 17}).serving() as platform:
        configuration = await registration.configuration_at(platform.url, loopback=True)
        registered = await registration.register(OURS, configuration, TOKEN, loopback=True)
    assert (registered.client_id, registered.deployment) == ("17", "")


def test_canvas_gets_its_configuration() -> None:
    said = registration.canvas_configuration(OURS)
    assert said["oidc_initiation_url"] == "https://hub.example.edu/hub/lti13/login"
    assert said["public_jwk_url"] == "https://hub.example.edu/hub/lti13/jwks"
    (extension,) = said["extensions"]
    assert extension["domain"] == "hub.example.edu"
    assert {one["placement"] for one in extension["settings"]["placements"]} == {
        "course_navigation", "link_selection", "assignment_selection",
    }  # fmt: skip


def test_the_cartridge_is_one() -> None:
    root = ElementTree.fromstring(registration.cartridge(OURS))
    assert root.tag == "{http://www.imsglobal.org/xsd/imslticc_v1p0}cartridge_basiclti_link"
    blti = "{http://www.imsglobal.org/xsd/imsbasiclti_v1p0}"
    for tag in ("launch_url", "secure_launch_url"):
        assert root.findtext(blti + tag) == "https://hub.example.edu/hub/lti11/launch"
    canvas = root.find(f"{blti}extensions[@platform='canvas.instructure.com']")
    assert canvas is not None
    named = {one.get("name"): one.text for one in canvas.iter("{http://www.imsglobal.org/xsd/imslticm_v1p0}property")}
    assert named["privacy_level"] == "public"
    assert named["domain"] == "hub.example.edu"
