"""`illumidesk lti` against the stand-in hub."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import click
import pytest
from aiohttp import web

from illumidesk.cli import lms, lti_checks
from illumidesk.host.hub_client import Platform
from illumidesk.paths import Paths
from illumidesk.settings import Settings
from tests.support.lms import SigningKey
from tests.unit.fake_hub import FakeHub
from tests.unit.test_cli import Run, hub, illumidesk, paths  # noqa: F401 -- fixtures

V13 = ["--client-id", "10000", "--deployment", "1:abc"]


@pytest.fixture
def public_url(paths: Paths) -> str:  # noqa: F811
    paths.config_file.write_text("public_url: https://jupyter.example.edu\n")
    return "https://jupyter.example.edu"


def test_urls_say_what_to_paste(illumidesk: Run, public_url: str) -> None:  # noqa: F811
    result = illumidesk("lti", "urls")
    assert result.code == 0
    for kind in lms.KINDS.values():
        assert f"{kind.title}, LTI 1.1" in result.out
        assert f"{kind.title}, LTI 1.3" in result.out
    assert f"{public_url}/hub/lti11/launch" in result.out
    assert "HOST" not in result.out
    assert result.err == ""
    one = illumidesk("lti", "urls", "moodle", "--lti", "1.3", "--json").json()
    assert one == {
        "moodle": {
            "1.3": {
                "Tool URL": f"{public_url}/hub/",
                "Public keyset": f"{public_url}/hub/lti13/jwks",
                "Initiate login URL": f"{public_url}/hub/lti13/login",
                "Redirection URI(s)": f"{public_url}/hub/lti13/launch",
            }
        }
    }


def test_urls_ask_for_the_address_where_it_is_not_known(illumidesk: Run) -> None:  # noqa: F811
    result = illumidesk("lti", "urls", "canvas")
    assert "https://HOST/hub/lti13/login" in result.out
    assert "public_url" in result.err


def test_a_secret_is_made_and_shown_once(illumidesk: Run, hub: FakeHub, public_url: str) -> None:  # noqa: F811
    added = illumidesk("lti", "platform", "add", "Moodle", "--lti", "1.1", "--lms", "moodle")
    assert added.code == 0
    assert "made-by-the-hub-0123456789 (is not shown again)" in added.out
    assert f"{public_url}/hub/lti11/launch" in added.out
    assert "Canvas" not in added.out
    assert hub.calls[-1][2] == {"name": "Moodle", "version": "1.1"}
    for words in (["show", "moodle"], ["show", "1"], ["list"], ["show", "1", "--json"], ["list", "--json"]):
        shown = illumidesk("lti", "platform", *words)
        assert shown.code == 0
        assert "made-by-the-hub" not in shown.out
        assert "Moodle" in shown.out


def test_secrets_come_from_a_file_or_the_terminal(
    illumidesk: Run,  # noqa: F811
    hub: FakeHub,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "secret"
    file.write_text("secret-of-the-file\n")
    add = ["lti", "platform", "add"]
    result = illumidesk(*add, "A", "--lti", "1.1", "--key", "a", "--secret-file", str(file))
    assert result.code == 0
    assert "secret-of-the-file" not in result.out
    assert hub.calls[-1][2]["secret"] == "secret-of-the-file"
    monkeypatch.setattr(click, "prompt", lambda *_, **options: "typed" if options["hide_input"] else "")
    result = illumidesk(*add, "B", "--lti", "1.1", "--key", "b", "--ask-secret")
    assert hub.calls[-1][2]["secret"] == "typed"
    assert "typed" not in result.out
    file.write_text("\n")
    assert illumidesk(*add, "C", "--lti", "1.1", "--secret-file", str(file)).code == 1


@pytest.mark.parametrize("kind", ["moodle", "brightspace"])
def test_a_kind_and_an_address_fill_in_the_rest(illumidesk: Run, hub: FakeHub, kind: str) -> None:  # noqa: F811
    result = illumidesk(
        "lti", "platform", "add", "Ours", "--lti", "1.3", "--lms", kind, "--url", "https://lms.example/", *V13
    )
    assert result.code == 0, result.err
    body = hub.calls[-1][2]
    assert body["issuer"] == "https://lms.example"
    assert body["auth_url"].startswith("https://lms.example/")
    assert body["jwks_url"].startswith("https://lms.example/")
    assert body["deployments"] == ["1:abc"]


def test_clouds_need_no_address(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    for kind in ("canvas", "blackboard"):
        assert illumidesk("lti", "platform", "add", kind, "--lti", "1.3", "--lms", kind, *V13).code == 0
    assert hub.calls[-2][2]["issuer"] == "https://canvas.instructure.com"
    assert "/10000/jwks.json" in hub.calls[-1][2]["jwks_url"]


def test_what_is_given_outranks_what_is_known(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    words = ["--lms", "canvas", "--url", "https://c.example", "--issuer", "https://c.example", *V13]
    assert illumidesk("lti", "platform", "add", "C", "--lti", "1.3", *words).code == 0
    assert hub.calls[-1][2]["issuer"] == "https://c.example"
    assert hub.calls[-1][2]["jwks_url"] == "https://c.example/api/lti/security/jwks"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lti", "1.3"], "needs --client-id, --issuer, --auth-url, --jwks-url, --deployment"),
        (["--lti", "1.3", "--lms", "moodle", "--url", "https://m.example"], "needs --client-id, --deployment"),
        (["--lti", "1.3", "--lms", "open-edx", "--url", "https://m.example", *V13], "needs --jwks-url"),
        (["--lti", "1.3", "--key", "k"], "has no --key"),
        (["--lti", "1.1", "--client-id", "k"], "has no --client-id"),
        (["--lti", "1.1", "--deployment", "1"], "has no --deployment"),
        (["--lti", "1.1", "--url", "https://m.example"], "--url goes with --lms"),
        (["--lti", "1.1", "--replace"], "needs the --key"),
        (["--lti", "1.1", "--secret", "x"], "No such option"),
        ([], "--lti"),
    ],
)
def test_wrong_usage(illumidesk: Run, hub: FakeHub, words: list[str], message: str) -> None:  # noqa: F811
    result = illumidesk("lti", "platform", "add", "X", *words)
    assert result.code == 2
    assert message in result.err
    assert hub.calls == []


def test_the_same_again_needs_replace(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    words = ["lti", "platform", "add", "Ours", "--lti", "1.1", "--key", "ours"]
    assert illumidesk(*words).code == 0
    again = illumidesk(*words)
    assert again.code == 1
    assert "--replace" in again.err
    assert "is changed, with number 1" in illumidesk(*words, "--replace").out


def test_remove_asks_for_the_name(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    illumidesk("lti", "platform", "add", "Ours", "--lti", "1.1")
    assert illumidesk("lti", "platform", "remove", "ours", typed="no\n").code == 1
    assert hub.platforms
    assert illumidesk("lti", "platform", "remove", "ours", typed="Ours\n").code == 0
    assert not hub.platforms
    missing = illumidesk("lti", "platform", "remove", "ours", "--yes")
    assert missing.code == 1
    assert "there is no platform ours" in missing.err
    assert illumidesk("lti", "platform", "show", "77").code == 1


def test_an_empty_list_says_what_is_next(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    result = illumidesk("lti", "platform", "list")
    assert (result.code, result.out) == (0, "")
    assert "illumidesk lti urls" in result.err


# Checks

KEY = SigningKey.new("of-the-lms")
SMALL = SigningKey.new("small", bits=1024)


class Site:
    """An LMS and a hub on one port. `keys` is what the LMS's key set answers, `ahead` how far its clock is back."""

    def __init__(self) -> None:
        self.keys: bytes = json.dumps({"keys": [KEY.jwk()]}).encode()
        self.status, self.ahead = 200, 0.0
        self.own: Any = {"keys": [{"kid": "ours"}]}
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        date = email.utils.formatdate(time.time() - self.ahead, usegmt=True)
        if request.path == "/hub/lti13/jwks":
            return web.json_response(self.own)
        if request.path == "/token":
            return web.Response(status=405)
        return web.Response(status=self.status, body=self.keys, headers={"Date": date})

    def platform(self, **changes: str) -> Platform:
        addresses = {name: f"{self.url}/{name.partition('_')[0]}" for name in ("auth_url", "jwks_url", "token_url")}
        platform: Any = {"version": "1.3", **addresses, **changes}
        return platform  # type: ignore[no-any-return]

    async def problems(self, platform: Platform | None = None, *, enabled: bool = True, **settings: Any) -> str:
        sign_in = {"lti": {"enabled": enabled, "loopback_platforms": True}}
        given = Settings.model_validate({"public_url": self.url, "sign_in": sign_in, **settings})
        found = await asyncio.to_thread(lti_checks.checks, platform or self.platform(), given, ["ours", "older"])
        return "; ".join(f"{name}: {problem}" for name, problem in found if problem)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.router.add_get("/{any:.*}", site.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = "http://{}:{}".format(*runner.addresses[0][:2])
    yield site
    await runner.cleanup()


#: The site has no certificate.
HTTP = "the address for people is known, and https: LMSs launch only to https"


async def test_a_good_platform_passes(site: Site) -> None:
    assert await site.problems() == HTTP
    assert await site.problems(site.platform(version="1.1")) == HTTP
    assert await site.problems(site.platform(token_url="")) == HTTP


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": b"<html>"}, "is no JSON"),
        ({"keys": b"[]"}, "no key set"),
        ({"keys": b'{"keys": [3]}'}, "none of them can be used"),
        ({"keys": b'{"keys": []}'}, "none of them can be used"),
        ({"keys": json.dumps({"keys": [SMALL.jwk()]}).encode()}, "none of them can be used"),
        ({"keys": b" " * (300 << 10)}, "larger than 256 KiB"),
        ({"status": 302}, "the answer is 302"),
        ({"ahead": 1200}, "20 minutes ahead"),
        ({"ahead": -1200}, "20 minutes behind"),
        ({"own": {"keys": [{"kid": "another"}]}}, "not this hub"),
        ({"own": []}, "not this hub"),
    ],
)
async def test_what_is_wrong_is_named(site: Site, changes: dict[str, Any], message: str) -> None:
    vars(site).update(changes)
    assert message in await site.problems()


async def test_wrong_settings_and_addresses_are_named(site: Site) -> None:
    assert "set public_url" in await site.problems(public_url="")
    assert "enabled" in await site.problems(enabled=False)
    assert "this hub answers at http://127.0.0.1:1: " in await site.problems(public_url="http://127.0.0.1:1")
    for name in ("auth_url", "jwks_url", "token_url"):
        for url in ("file:///etc/shadow", "https://169.254.169.254/"):
            assert url in await site.problems(site.platform(**{name: url}))
    assert "cannot be reached" in await site.problems(site.platform(token_url="http://127.0.0.1:1/token"))


def test_the_command_fails_where_a_check_fails(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    illumidesk("lti", "platform", "add", "Ours", "--lti", "1.1")
    result = illumidesk("lti", "platform", "test", "ours")
    assert result.code == 1
    assert "FAILED  the address for people is known" in result.out
    assert "1 of 2 checks failed" in result.err
    assert [one["ok"] for one in illumidesk("lti", "platform", "test", "ours", "--json").json()] == [True, False]


def test_an_invitation_is_an_address(illumidesk: Run, hub: FakeHub, public_url: str) -> None:  # noqa: F811
    made = illumidesk("lti", "invite", "Campus")
    assert made.code == 0
    assert f"{public_url}/hub/lti13/register?invite=made-by-the-hub-0123456789" in made.out
    assert hub.calls[-1][2] == {"name": "Campus", "days": 7}
    assert illumidesk("lti", "invite", "Other", "--days", "1", "--json").json()["url"].startswith(public_url)
    listed = illumidesk("lti", "invites")
    assert "Campus" in listed.out
    assert "made-by-the-hub" not in listed.out
    assert illumidesk("lti", "invite", "--revoke", "1").code == 0
    assert [one["name"] for one in illumidesk("lti", "invites", "--json").json()] == ["Other"]
    again = illumidesk("lti", "invite", "--revoke", "1")
    assert again.code == 1
    assert "no invitation 1" in again.err


def test_an_invitation_needs_a_name_and_an_address(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    assert illumidesk("lti", "invite").code == 2
    refused = illumidesk("lti", "invite", "Campus")
    assert refused.code == 1
    assert "public_url" in refused.err
    assert hub.invites == {}


def test_keys_are_listed_and_rotated(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    assert [one["kid"] for one in illumidesk("lti", "keys", "--json").json()] == ["key-1"]
    rotated = illumidesk("lti", "keys", "--rotate")
    assert rotated.code == 0
    assert rotated.out.index("key-2") < rotated.out.index("key-1")


def test_whom_tokens_are_meant_for(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    base = ["lti", "platform", "add", "--lti", "1.3", "--lms", "brightspace", "--url", "https://d2l.example.edu"]
    base += ["--client-id", "id-1", "--deployment", "1", "--replace"]
    assert illumidesk(*base, "D2L").code == 0
    assert hub.platforms[1]["token_audience"] == "https://api.brightspace.com/auth/token"
    assert illumidesk(*base, "D2L", "--token-audience", "urn:other").code == 0
    assert "urn:other" in illumidesk("lti", "platform", "show", "1").out
