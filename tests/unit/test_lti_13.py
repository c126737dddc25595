"""LTI 1.3: 1EdTech's lists of bad and good launches, and the login before them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest

from illumidesk.lti import v13
from illumidesk.lti.errors import LTIError
from illumidesk.lti.jwks import JwksCache
from illumidesk.lti.launch import Launch
from illumidesk.registry import Platform, Registry
from illumidesk.settings import LTI_ROLES
from tests.support.lms import BRANDS, CLAIM, INSTITUTION, LMS, MEMBERSHIP, SYSTEM, Brand, SigningKey, Who, lms

OWN = "https://hub.example.edu"
NOW = 1_790_000_000.0
NONCE = "nonce-of-this-browser"
KEYS = {
    "RS256": SigningKey.new("rsa"),
    "ES256": SigningKey.new("ec", "ES256"),
    "strange": SigningKey.new("rsa"),
}
ROLE = {"teacher": "instructor", "ta": "ta", "student": "student"}

Verify = Callable[..., Awaitable[Launch]]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.sqlite")


@pytest.fixture
def platform(registry: Registry) -> LMS:
    ours = LMS(keys=[KEYS["RS256"], KEYS["ES256"]])
    ours.id = add(registry, ours).id
    return ours


def add(registry: Registry, platform: LMS, name: str = "LMS") -> Platform:
    fields = {one: getattr(platform, one) for one in ("issuer", "client_id", "auth_url", "jwks_url", "deployments")}
    return registry.add_platform(name, "1.3", **fields)[0]


def kept(registry: Registry) -> int:
    with registry.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM nonces").scalar_one())


@pytest.fixture
def verify(registry: Registry, platform: LMS) -> Verify:
    async def key_set(url: str) -> Any:
        return platform.key_set()

    cache = JwksCache(get=key_set)

    async def run(token: str, *, now: float = NOW, nonce: str = NONCE) -> Launch:
        known = registry.platform(platform.id)
        assert known is not None
        return await v13.verify(
            token, platform=known, nonce=nonce, jwks=cache, nonces=registry, roles=LTI_ROLES, own=OWN, now=now
        )

    return run


@pytest.fixture
def refused(registry: Registry, verify: Verify, caplog: pytest.LogCaptureFixture) -> Any:
    """The code with which a token is refused, where that leaves nothing and tells nothing of the person."""

    async def run(token: str, **options: Any) -> str:
        caplog.set_level(logging.DEBUG)
        before = kept(registry)
        with pytest.raises(LTIError) as caught:
            await verify(token, **options)
        error = caught.value
        assert kept(registry) == before
        assert error.message
        assert error.who
        told = f"{error.message} {error.hint} {error.detail} {caplog.text}"
        assert "zoe" not in told
        assert NONCE not in told
        assert token == "" or token not in told
        return error.code

    return run


def claims(platform: LMS, who: Who = "student", **changes: Any) -> dict[str, Any]:
    return platform.claims(who, nonce=changes.pop("nonce", NONCE), now=NOW, **changes)


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# Bad launches


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"kid": None}, "no-kid"),
        ({"kid": ""}, "no-kid"),
        ({"kid": "another"}, "kid"),
        ({"kid": "ec"}, "kid"),
        ({"kid": "x" * 5000}, "kid"),
        ({"kid": "../../etc/passwd\x00"}, "kid"),
    ],
)
async def test_the_key_must_be_known(platform: LMS, refused: Any, headers: dict[str, Any], code: str) -> None:
    assert await refused(platform.token(claims(platform), headers=headers)) == code


async def test_another_key_is_refused_whatever_the_header_says_of_it(platform: LMS, refused: Any) -> None:
    strange = KEYS["strange"]
    for headers in ({}, {"jwk": strange.jwk()}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example/"}):
        token = platform.token(claims(platform), key=strange, headers={"kid": "rsa", **headers})
        assert await refused(token) == "signature"


async def test_algorithms_without_a_private_key_are_refused(platform: LMS, refused: Any) -> None:
    body = segment(json.dumps(claims(platform)).encode())
    for algorithm in (
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        None,
        7,
        ["RS256"],
        "HS256",
        "HS384",
        "HS512",
        "EdDSA",
        "RS1",
    ):
        header = segment(json.dumps({"typ": "JWT", "alg": algorithm, "kid": "rsa"}).encode())
        signed = f"{header}.{body}"
        public = KEYS["RS256"].public_pem()
        mac = segment(hmac.new(public, signed.encode(), hashlib.sha256).digest())
        for signature in ("", mac):
            assert await refused(f"{signed}.{signature}") in ("algorithm", "malformed")


async def test_a_key_serves_its_own_algorithm_only(platform: LMS, refused: Any) -> None:
    for algorithm in ("RS384", "RS512", "PS256"):  # the key set says RS256 of it
        token = jwt.encode(claims(platform), KEYS["RS256"].private, algorithm=algorithm, headers={"kid": "rsa"})
        assert await refused(token) == "kid"
    header = {"kid": "rsa", "alg": "ES256"}
    assert await refused(platform.token(claims(platform), key=KEYS["ES256"], headers=header)) == "kid"


async def test_a_header_that_must_be_understood_and_is_not(platform: LMS, refused: Any) -> None:
    """RFC 7515, section 4.1.11."""
    token = platform.token(claims(platform), headers={"crit": ["exp"], "exp": 1})
    assert await refused(token) in ("malformed", "signature")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("iss", "missing-iss"),
        ("aud", "missing-aud"),
        ("sub", "missing-sub"),
        ("exp", "missing-exp"),
        ("iat", "missing-iat"),
        ("nonce", "missing-nonce"),
        ("message_type", "message-type"),
        ("version", "version"),
        ("deployment_id", "missing-deployment"),
        ("target_link_uri", "target"),
        ("resource_link", "resource-link"),
        ("roles", "roles"),
    ],
)
async def test_each_claim_is_needed(platform: LMS, refused: Any, name: str, code: str) -> None:
    said = claims(platform)
    long = name if name in said else CLAIM + name
    del said[long]
    assert await refused(platform.token(said)) == code
    for empty in ("", None, [], {}):
        if (name, empty) != ("roles", []):
            assert await refused(platform.token({**said, long: empty}))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": "1.3"}, "version"),
        ({"version": "1.2.0"}, "version"),
        ({"version": "LTI-1p0"}, "version"),
        ({"version": 1.3}, "version"),
        ({"message_type": "LtiSubmissionReviewRequest"}, "message-type"),
        ({"message_type": "ltiresourcelinkrequest"}, "message-type"),
        ({"message_type": ["LtiResourceLinkRequest"]}, "message-type"),
        ({"iss": "https://canvas.example.edu/"}, "issuer"),
        ({"iss": "https://CANVAS.example.edu"}, "issuer"),
        ({"iss": "http://canvas.example.edu"}, "issuer"),
        ({"iss": ["https://canvas.example.edu"]}, "issuer"),
        ({"iss": 7}, "issuer"),
        ({"aud": "another"}, "audience"),
        ({"aud": ["another"]}, "audience"),
        ({"aud": 10000000000001}, "audience"),
        ({"aud": [10000000000001]}, "audience"),
        ({"aud": {"10000000000001": 1}}, "audience"),
        ({"aud": ["10000000000001", "another"], "azp": None}, "azp"),
        ({"aud": ["10000000000001", "another"], "azp": "another"}, "azp"),
        ({"azp": "another"}, "azp"),
        ({"azp": 7}, "azp"),
        ({"nonce": "another"}, "nonce"),
        ({"nonce": f"{NONCE} "}, "nonce"),
        ({"nonce": 7}, "missing-nonce"),
        ({"nonce": "\ud800"}, "nonce"),
        ({"nonce": "é"}, "nonce"),
        ({"nonce": "n" * 256}, "missing-nonce"),
        ({"deployment_id": "another"}, "deployment"),
        ({"deployment_id": "*"}, "deployment"),
        ({"deployment_id": 1}, "missing-deployment"),
        ({"deployment_id": "d" * 256}, "missing-deployment"),
        ({"sub": 7}, "missing-sub"),
        ({"sub": " "}, "missing-sub"),
        ({"roles": "Instructor"}, "roles"),
        ({"roles": [7]}, "roles"),
        ({"roles": {"0": "Instructor"}}, "roles"),
        ({"resource_link": []}, "resource-link"),
        ({"resource_link": "x"}, "resource-link"),
        ({"resource_link": {"id": 7}}, "resource-link"),
        ({"resource_link": {"id": " "}}, "resource-link"),
        ({"resource_link": {"title": "x"}}, "resource-link"),
        ({"context": {"id": 7}}, "context"),
        ({"context": {"id": ["7"]}}, "context"),
        ({"target_link_uri": 7}, "target"),
        ({"target_link_uri": "https://evil.example/"}, "next"),
        ({"target_link_uri": "javascript:alert(1)"}, "next"),
        ({"custom": {"next": "//evil.example"}}, "next"),
        ({"custom": {"next": "/\ud800"}}, "next"),
        ({"message_type": "LtiDeepLinkingRequest"}, "return-url"),
    ],
)
async def test_each_claim_must_be_right(platform: LMS, refused: Any, changes: dict[str, Any], code: str) -> None:
    assert await refused(platform.token(claims(platform, **changes))) == code


@pytest.mark.parametrize(
    "url", ["", None, 7, [], "javascript:alert(1)", "https://[x", "https:///x", "//x", "ftp://x/y"]
)
async def test_a_selection_must_say_where_to(platform: LMS, refused: Any, url: Any) -> None:
    changes = {"message_type": "LtiDeepLinkingRequest", v13.DEEP_LINKING: {"deep_link_return_url": url}}
    assert await refused(platform.token(claims(platform, **changes))) == "return-url"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": NOW - 61}, "stale"),
        ({"exp": 1}, "stale"),
        ({"iat": NOW + 61, "exp": NOW + 600}, "future"),
        ({"iat": NOW + 86400 * 365, "exp": NOW + 86400 * 366}, "future"),
        ({"nbf": NOW + 61}, "future"),
        ({"iat": NOW - 3601, "exp": NOW + 86400}, "stale"),
        ({"iat": 1, "exp": NOW + 86400}, "stale"),
        ({"exp": "soon"}, "timestamp"),
        ({"exp": f"{NOW:.0f}"}, "timestamp"),
        ({"exp": True}, "timestamp"),
        ({"exp": float("nan")}, "timestamp"),
        ({"exp": float("inf")}, "timestamp"),
        ({"exp": NOW * 1000}, "timestamp"),
        ({"exp": -1}, "timestamp"),
        ({"iat": [NOW]}, "timestamp"),
        ({"iat": {}}, "timestamp"),
        ({"nbf": "x"}, "timestamp"),
    ],
)
async def test_the_time_must_be_ours(platform: LMS, refused: Any, changes: dict[str, Any], code: str) -> None:
    assert await refused(platform.token(claims(platform, **changes))) == code


async def test_a_token_counts_once(registry: Registry, platform: LMS, verify: Verify, refused: Any) -> None:
    token = platform.token(claims(platform))
    await verify(token)
    assert kept(registry) == 1
    assert await refused(token) == "replayed"
    assert await refused(token, now=NOW + 121) == "stale"
    # Nor may it answer another sign-in.
    assert await refused(platform.token(claims(platform, nonce="n2")), nonce="n3") == "nonce"


async def test_what_is_no_token(platform: LMS, refused: Any) -> None:
    good = platform.token(claims(platform))
    header, body, signature = good.split(".")
    deep = segment(b'{"a":' * 50_000)
    for token, code in {
        "": "no-token",
        "x": "malformed",
        "..": "malformed",
        "a.b.c": "malformed",
        "é.é.é": "malformed",
        "\x00": "malformed",
        f"{header}.{body}": "malformed",
        f"{header}.{body}.{signature}.x": "malformed",
        f"{segment(b'[]')}.{body}.{signature}": "malformed",
        f"{segment(b'{')}.{body}.{signature}": "malformed",
        f"{deep[:60_000]}.{body}.{signature}": "malformed",
        "x" * (v13.MAX_TOKEN + 1): "too-large",
        platform.token(claims(platform, custom={"x": "y" * v13.MAX_TOKEN})): "too-large",
        f"{header}.{body}.": "signature",
        good[:-5]: "signature",
        f"{header}.{body[:-9]}.{signature}": "signature",
        f"{header}.{segment(b'[]')}.{signature}": "signature",
        f"{header}.{segment(json.dumps(claims(platform, 'teacher')).encode())}.{signature}": "signature",
    }.items():
        assert await refused(token) in (code, "malformed"), token[:60]


async def test_a_signed_token_that_holds_no_claims(platform: LMS, refused: Any) -> None:
    for payload in (b"[]", b"7", b"null", b"{", b"\xff", b'{"a":' * 2000, b'{"exp": ' + b"9" * 5000 + b"}"):
        token = jwt.api_jws.encode(payload, KEYS["RS256"].private, algorithm="RS256", headers={"kid": "rsa"})
        assert await refused(token)


# Good launches


@pytest.mark.parametrize("who", ["teacher", "ta", "student"])
@pytest.mark.parametrize("brand", BRANDS)
async def test_every_platform_is_understood(brand: Brand, who: Who, registry: Registry) -> None:
    ours = lms(brand, keys=[KEYS["RS256"]])
    ours.id = add(registry, ours).id
    nonces = kept(registry)

    async def key_set(url: str) -> Any:
        return ours.key_set()

    launch = await v13.verify(
        ours.token(claims(ours, who)),
        platform=ours,
        nonce=NONCE,
        jwks=JwksCache(get=key_set),
        nonces=registry,
        roles=LTI_ROLES,
        own=OWN,
        now=NOW,
    )
    assert kept(registry) == nonces + 1
    assert launch.role == ROLE[who]
    assert launch.login == "zoe.login"
    assert (launch.name, launch.email) == (f"Zoë {who.title()}", f"zoe+{who}@example.edu")
    assert launch.context_id
    assert "\n" not in launch.context_title
    assert launch.resource_link_title == "Übung 1"
    assert launch.next_url == ""


NO_PII = {"name": None, "given_name": None, "family_name": None, "email": None, "lis": None, "custom": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"roles": ["Instructor"]}, {"role": "instructor"}),
        ({"roles": ["Learner"]}, {"role": "student"}),
        ({"roles": []}, {"role": "student"}),
        ({"roles": [""]}, {"role": "student"}),
        ({"roles": [f"{MEMBERSHIP}#Alien", "http://example.org/role#Uknown"]}, {"role": "student"}),
        ({"roles": [f"{INSTITUTION}#Instructor"]}, {"role": "instructor"}),
        ({"roles": [f"{SYSTEM}#Administrator", f"{MEMBERSHIP}#Learner"]}, {"role": "student"}),
        (NO_PII, {"name": "", "email": "", "login": "", "sub": "4"}),
        ({**NO_PII, "email": "e@x.y"}, {"name": "", "email": "e@x.y"}),
        ({**NO_PII, "email": "e@x.y", "context": None}, {"email": "e@x.y", "context_id": None, "role": None}),
        ({**NO_PII, "given_name": "Z", "family_name": "T"}, {"given_name": "Z", "family_name": "T", "email": ""}),
        ({"name": 7, "email": ["x"], "given_name": {}}, {"name": "", "email": "", "given_name": ""}),
        ({"context": []}, {"context_id": None, "role": None}),
        ({"context": {}}, {"context_id": None, "role": None}),
        ({"context": {"id": "", "label": "x"}}, {"context_id": None, "role": None}),
        ({"context": {"id": "7"}}, {"context_id": "7", "context_label": "", "role": "student"}),
        ({"custom": []}, {"custom": {}}),
        ({"custom": {"a": 7, "b": None, "c": ["x"], "d": "ü"}}, {"custom": {"a": "7", "d": "ü"}}),
        ({"lis": [], "ext": [], "launch_presentation": []}, {"return_url": ""}),
        ({"aud": ["10000000000001"], "azp": None}, {"sub": "4"}),
        ({"aud": ["another", "10000000000001"]}, {"sub": "4"}),
        ({"azp": None}, {"sub": "4"}),
        ({"jti": 7}, {"sub": "4"}),
        ({"exp": NOW - 59, "iat": NOW - 300}, {"sub": "4"}),
        ({"iat": NOW + 59, "exp": NOW + 300.5, "nbf": NOW + 59}, {"sub": "4"}),
        ({"https://www.example.com/extension": {"color": "violet"}}, {"sub": "4"}),
        (
            {"custom": {"next": "git-pull?repo=a%2Fb&app=lab"}},
            {"next_url": "/hub/user-redirect/git-pull?repo=a%2Fb&app=lab"},
        ),
        ({"target_link_uri": f"{OWN}/hub/user-redirect/lab?x=%20"}, {"next_url": "/hub/user-redirect/lab?x=%20"}),
        ({"custom": {"workspace_type": "notebook"}}, {"next_url": "/hub/workspaces/notebook"}),
    ],
)
async def test_good_launches(platform: LMS, verify: Verify, changes: dict[str, Any], said: dict[str, Any]) -> None:
    said_of = await verify(platform.token(claims(platform, **changes)))
    for name, value in said.items():
        assert getattr(said_of, name) == value
    teaching = {**changes, "roles": [*changes.get("roles", []), f"{MEMBERSHIP}#Instructor"], "nonce": "second"}
    as_teacher = await verify(platform.token(claims(platform, "teacher", **teaching)), nonce="second")
    assert as_teacher.role == ("instructor" if said_of.context_id else None)


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "ES256"])
async def test_algorithms(platform: LMS, verify: Verify, algorithm: str) -> None:
    key = KEYS["ES256" if algorithm == "ES256" else "RS256"]
    platform.keys = (
        [SigningKey(key.kid, key.private, algorithm)]
        if algorithm == "ES256"
        else [SigningKey("rsa", key.private, algorithm)]
    )
    assert (await verify(platform.token(claims(platform)))).sub == "4"


async def test_deep_linking(platform: LMS, verify: Verify) -> None:
    settings = {
        "deep_link_return_url": "https://lms.example.edu/dl?a=b&c",
        "accept_types": ["ltiResourceLink", "link", 7],
        "accept_multiple": False,
        "data": "csrf+/=&ü",
    }
    changes = {"message_type": "LtiDeepLinkingRequest", "resource_link": None, v13.DEEP_LINKING: settings}
    launch = await verify(platform.token(claims(platform, "teacher", **changes)))
    asked = launch.deep_linking
    assert asked is not None
    assert (asked.return_url, asked.data) == (settings["deep_link_return_url"], settings["data"])
    assert asked.accepts == ("ltiResourceLink", "link")
    assert not asked.multiple
    assert asked.deployment_id == platform.deployments[0]
    assert (launch.role, launch.resource_link_id, launch.next_url) == ("instructor", None, "")


# The login


@pytest.mark.parametrize("name", ["iss", "login_hint", "target_link_uri"])
def test_a_login_needs(platform: LMS, registry: Registry, name: str) -> None:
    for value in ("", None):
        with pytest.raises(LTIError, match=f"{name} is missing") as caught:
            v13.platform_of_login(platform.login_request(**{name: value}), registry.platforms_by_issuer)
        assert (caught.value.code, caught.value.status) == ("login", 400)


def test_whose_login_it_is(platform: LMS, registry: Registry) -> None:
    def of(**changes: str | None) -> int:
        return v13.platform_of_login(platform.login_request(**changes), registry.platforms_by_issuer).id

    assert of() == of(client_id=None) == of(client_id="") == platform.id
    second = add(registry, LMS(client_id="second", keys=[]), "Second").id
    assert of() == platform.id
    assert of(client_id="second") == second
    for changes, code in (
        ({"client_id": None}, "ambiguous-platform"),
        ({"client_id": "third"}, "unknown-platform"),
        ({"client_id": "second "}, "unknown-platform"),
        ({"iss": f"{platform.issuer}/"}, "unknown-platform"),
        ({"iss": "x" * 9000}, "unknown-platform"),
    ):
        with pytest.raises(LTIError) as caught:
            of(**changes)
        assert caught.value.code == code
        assert len(caught.value.message) < 400
    registry.remove_platform(second)
    assert of(client_id=None) == platform.id


@pytest.mark.parametrize("hint", ["a+b/c==&d", " blanks around ", "%2B%20", "é\u2028", "\"<>'", "\t\r\n", "0"])
def test_hints_are_kept_exactly(platform: LMS, hint: str) -> None:
    request = platform.login_request(login_hint=hint, lti_message_hint=hint)
    url = v13.login_url(request, platform, redirect_uri=f"{OWN}/hub/lti13/launch", state="s", nonce="n")
    query = parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)
    assert sorted(query) == sorted(
        {
            "scope": "openid",
            "response_type": "id_token",
            "response_mode": "form_post",
            "prompt": "none",
            "client_id": platform.client_id,
            "redirect_uri": f"{OWN}/hub/lti13/launch",
            "login_hint": hint,
            "lti_message_hint": hint,
            "state": "s",
            "nonce": "n",
        }.items()
    )


def test_an_address_with_a_query_keeps_it(platform: LMS) -> None:
    platform.auth_url = "https://lms.example/auth?mode=lti&x=%2F+a&y#part"
    url = v13.login_url(platform.login_request(lti_message_hint=None), platform, redirect_uri=OWN, state="s", nonce="n")
    assert url.startswith("https://lms.example/auth?mode=lti&x=%2F+a&y&scope=openid&")
    assert url.endswith("&nonce=n#part")
    assert "lti_message_hint" not in url
