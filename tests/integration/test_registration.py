"""A platform registers itself by an invitation, and then launches."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import jwt
import pytest
import requests

from tests.integration.conftest import Stack
from tests.support.lms import lms
from tests.support.lms_thread import Browser, form_of, served
from tests.support.registrar import TOKEN, Registrar


@pytest.fixture(scope="module")
def stack_settings() -> dict[str, Any]:
    return {"sign_in": {"lti": {"loopback_platforms": True}}}


def opened(stack: Stack, token: str, platform: Registrar) -> requests.Response:
    """What the LMS's administrator sees after pasting the address."""
    parameters = {"invite": token, "openid_configuration": platform.url, "registration_token": TOKEN}
    return requests.get(f"{stack.url}/hub/lti13/register", params=parameters, timeout=60)


def test_from_an_invitation_to_a_launch(stack: Stack) -> None:
    campus = lms("moodle", 1, tool=stack.url)
    with served(campus), served(Registrar()) as platform:
        platform.changes = {"jwks_uri": campus.jwks_url, "authorization_endpoint": campus.auth_url}
        token = stack.expect(201, "POST", "invites", {"name": "Campus"})["token"]
        page = opened(stack, token, platform)
        assert page.status_code == 200
        assert f" {platform.base}" in page.headers["Content-Security-Policy"]
        assert f"come in from {urlsplit(platform.base).netloc}" in page.text
        assert platform.registered == []
        action, fields = form_of(page.text)
        # The platform refuses once: the invitation is still good.
        platform.misbehaviour = "400"
        refused = requests.post(f"{stack.url}{action}", data=fields, timeout=60)
        assert refused.status_code == 502
        assert "no such redirect" in refused.text
        platform.misbehaviour = ""
        done = requests.post(f"{stack.url}{action}", data=fields, timeout=60)
        assert done.status_code == 200, done.text
        assert "Campus is registered" in done.text
        assert "org.imsglobal.lti.close" in done.text
        for again in (opened(stack, token, platform), requests.post(f"{stack.url}{action}", data=fields, timeout=60)):
            assert again.status_code == 403
            assert "used already" in again.text
        (added,) = [one for one in stack.expect(200, "GET", "platforms")["platforms"] if one["name"] == "Campus"]
        assert (added["client_id"], added["deployments"]) == ("client-1", ["7"])
        campus.issuer, campus.client_id, campus.deployments = platform.base, "client-1", ["7"]
        browser = Browser(stack.url)
        assert browser.launch_13(campus, aud="client-1", iss=platform.base).status_code == 302
        assert browser.name()
    assert TOKEN not in (stack.logs / "hub.log").read_text()
    assert token not in (stack.logs / "hub.log").read_text()


def test_a_name_that_is_taken_is_said_before_the_platform_registers_us(stack: Stack) -> None:
    stack.expect(201, "POST", "platforms", {"name": "Taken", "version": "1.1"})
    with served(Registrar()) as platform:
        token = stack.expect(201, "POST", "invites", {"name": "taken"})["token"]
        page = opened(stack, token, platform)
        assert page.status_code == 409
        assert "already a platform taken" in page.text
        assert platform.registered == []


def test_invitations_that_are_not_good(stack: Stack) -> None:
    with served(Registrar()) as platform:
        assert opened(stack, "wrong", platform).status_code == 403
        made = stack.expect(201, "POST", "invites", {"name": "Other", "days": 1})
        assert made["id"] in [one["id"] for one in stack.expect(200, "GET", "invites")["invites"]]
        stack.expect(200, "DELETE", f"invites/{made['id']}")
        assert opened(stack, made["token"], platform).status_code == 403
        assert stack.manage("DELETE", f"invites/{made['id']}")[0] == 404
        assert stack.manage("POST", "invites", {"name": "Other", "days": 1000})[0] == 400
        assert platform.registered == []
    token = stack.expect(201, "POST", "invites", {"name": "Other"})["token"]
    page = requests.get(f"{stack.url}/hub/lti13/register", params={"invite": token}, timeout=60)
    assert page.status_code == 400
    assert "pasted into a learning management system" in page.text


def test_the_documents_hold_this_hosts_addresses(stack: Stack) -> None:
    document = requests.get(f"{stack.url}/hub/lti13/config.json", timeout=60).json()
    assert document["target_link_uri"] == f"{stack.url}/hub/lti13/launch"
    answer = requests.get(f"{stack.url}/hub/lti11/config.xml", timeout=60)
    assert answer.headers["Content-Type"].startswith("application/xml")
    root = ElementTree.fromstring(answer.content)
    assert root.findtext("{http://www.imsglobal.org/xsd/imsbasiclti_v1p0}launch_url") == f"{stack.url}/hub/lti11/launch"


def test_keys_are_rotated_and_the_old_one_is_still_shown(stack: Stack) -> None:
    def shown() -> list[str]:
        answer = requests.get(f"{stack.url}/hub/lti13/jwks", timeout=60)
        keys = answer.json()["keys"]
        for key in keys:
            jwt.PyJWK(key)
            assert not {"d", "p", "q"} & set(key)
        return [key["kid"] for key in keys]

    (first,) = shown()
    second = stack.expect(201, "POST", "tool-keys")["kid"]
    third = stack.expect(201, "POST", "tool-keys")["kid"]
    assert len({first, second, third}) == 3
    assert shown()[0] == third
    assert set(shown()) == {first, second, third}
    assert [one["kid"] for one in stack.expect(200, "GET", "tool-keys")["keys"]] == shown()
