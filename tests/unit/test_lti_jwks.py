"""Platforms' keys: servers that misbehave, addresses that lead to this machine, and what is kept how long."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from illumidesk.lti import fetch
from illumidesk.lti.errors import LTIError
from illumidesk.lti.fetch import FetchError, get_json
from illumidesk.lti.jwks import AFTER_FAILURE, AGAIN, FRESH, STALE, JwksCache
from tests.support.lms import LMS, Misbehaviour, SigningKey

KEY = SigningKey.new("first")
SECOND = SigningKey.new("second")
SHORT = SigningKey.new("short", bits=1024)
EC = SigningKey.new("ec", "ES256")
URL = "https://lms.example.edu/jwks"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Key sets from memory, or a failure, and how often they were asked for."""

    def __init__(self, *keys: Any) -> None:
        self.keys = list(keys)
        self.problem = ""
        self.asked = 0
        self.gate: asyncio.Event | None = None

    async def __call__(self, url: str) -> Any:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.problem:
            raise FetchError(self.problem)
        return {"keys": [one.jwk() if isinstance(one, SigningKey) else one for one in self.keys]}


# Servers that misbehave


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("hang", "no answer within"),
        ("drip", "no answer within"),
        ("redirect", "the answer is 302"),
        ("html", "no JSON"),
        ("large", "larger than 256 KiB"),
        ("gzip-bomb", "no JSON|larger than 256 KiB"),
        ("error", "the answer is 500"),
        ("deep", "no JSON"),
        ("close", "[Dd]isconnected|reset"),
    ],
)
async def test_bad_answers_are_named(how: Misbehaviour, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how in ("hang", "drip"):
        monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    async with LMS(keys=[KEY], misbehaviour=how).serving() as lms:
        with pytest.raises(FetchError, match=problem):
            await get_json(lms.jwks_url, loopback=True)
        cache = JwksCache(loopback=True)
        with pytest.raises(LTIError) as caught:
            await cache.key(lms.jwks_url, "first", "RS256")
        assert (caught.value.code, caught.value.status) == ("jwks", 502)
        assert lms.asked >= 2


@pytest.mark.parametrize("how", ["list"])
async def test_json_that_is_no_key_set(how: Misbehaviour) -> None:
    async with LMS(keys=[KEY], misbehaviour=how).serving() as lms:
        with pytest.raises(LTIError, match="cannot be had") as caught:
            await JwksCache(loopback=True).key(lms.jwks_url, "first", "RS256")
        assert "no key set" in caught.value.detail


async def test_a_good_server_over_http() -> None:
    async with LMS(keys=[KEY, EC]).serving() as lms:
        cache = JwksCache(loopback=True)
        assert (await cache.key(lms.jwks_url, "first", "RS256")).algorithm == "RS256"
        assert (await cache.key(lms.jwks_url, "ec", "ES256")).algorithm == "ES256"
        assert lms.asked == 1


async def test_a_server_that_hangs_holds_up_nobody_else() -> None:
    async with LMS(keys=[KEY], misbehaviour="hang").serving() as hanging, LMS(keys=[KEY]).serving() as good:
        cache = JwksCache(loopback=True)
        waiting = [asyncio.create_task(cache.key(hanging.jwks_url, "first", "RS256")) for _ in range(20)]
        while not hanging.asked:
            await asyncio.sleep(0)
        for _ in range(200):
            await cache.key(good.jwks_url, "first", "RS256")
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        assert (hanging.asked, good.asked) == (1, 1)
        # Who goes away does not end it for the others, who then have the keys.
        hanging.misbehaviour = None
        for task in waiting:
            task.cancel()
        assert all(
            isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*waiting, return_exceptions=True)
        )


# Addresses


@pytest.fixture
async def own_service(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A service on every loopback address; how many connections it got, and its port."""
    got: list[object] = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(writer)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield got, port
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.255.255.254",
        "0x7f000001",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[2002:7f00:1::]",
        "127。0。0。1",
        "１２７.0.0.1",
        "%31%32%37.0.0.1",
        "169.254.169.254",
        "[fe80::1]",
        "[fe80::1%25lo]",
        "[::ffff:169.254.169.254]",
        "2852039166",
        "224.0.0.1",
        "[ff02::1]",
        "255.255.255.255",
        "240.0.0.1",
        "me@127.0.0.1",
        "me:pw@lms.example.edu",
        "@127.0.0.1",
        "named.example.edu",
        "one-of-two.example.edu",
        "",
        "[",
        "a b",
    ],
)
async def test_addresses_of_this_machine_are_never_connected_to(
    host: str, own_service: tuple[list[object], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(name: Any, *rest: Any, **options: Any) -> Any:
        if name == "named.example.edu" and not options.get("flags"):
            return real("127.0.0.1", *rest, **options)
        if name == "one-of-two.example.edu" and not options.get("flags"):
            return [*real("192.0.2.1", *rest, **options), *real("127.0.0.1", *rest, **options)]
        return real(name, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    got, port = own_service
    with pytest.raises(FetchError):
        await get_json(f"https://{host}:{port}/jwks")
    assert got == []


@pytest.mark.parametrize(
    "url",
    [
        "http://lms.example.edu/jwks",
        "file:///etc/passwd",
        "ftp://lms.example.edu/",
        "unix:///run/illumidesk/supervisor.sock",
        "http+unix://%2Frun%2Fillumidesk%2Fsupervisor.sock/",
        "https://%2Frun%2Fillumidesk%2Fsupervisor.sock/",
        "/run/illumidesk/supervisor.sock",
        "data:application/json,{}",
        "https:///jwks",
        "https:lms.example.edu",
        "https://lms.example.edu:x/",
        "https://lms.example.edu:99999/",
        "",
        "\x00",
    ],
)
@pytest.mark.parametrize("loopback", [False, True])
async def test_what_is_no_https_address(url: str, loopback: bool) -> None:
    with pytest.raises(FetchError):
        await get_json(url, loopback=loopback)


@pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "[fe80::1]", "224.0.0.1"])
async def test_loopback_is_all_that_its_setting_allows(host: str) -> None:
    with pytest.raises(FetchError, match="this machine itself"):
        await get_json(f"https://{host}/", loopback=True)


@pytest.mark.parametrize(("address", "good"), [("64:ff9b::c000:201", True), ("64:ff9b::7f00:1", False)])
def test_a_network_of_ipv6_alone_reaches_its_lms(address: str, good: bool) -> None:
    if good:
        fetch.check_url(f"https://[{address}]/jwks", loopback=False)
        return
    with pytest.raises(FetchError, match="this machine itself"):
        fetch.check_url(f"https://[{address}]/jwks", loopback=False)


# What is kept


async def test_one_fetch_serves_everybody_who_waits() -> None:
    source = Source(KEY)
    source.gate = asyncio.Event()
    cache = JwksCache(get=source, clock=Clock())
    waiting = [asyncio.create_task(cache.key(URL, "first", "RS256")) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    source.gate.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert len({id(one) for one in found[1:]}) == 1
    assert source.asked == 1


async def test_a_new_key_is_looked_for_but_not_too_often() -> None:
    source, clock = Source(KEY), Clock()
    cache = JwksCache(get=source, clock=clock)
    await cache.key(URL, "first", "RS256")
    source.keys = [SECOND]
    for _ in range(100):
        with pytest.raises(LTIError) as caught:
            await cache.key(URL, "second", "RS256")
        assert caught.value.code == "kid"
    assert source.asked == 1
    clock.now += AGAIN
    assert await cache.key(URL, "second", "RS256")
    assert source.asked == 2
    # The one that the platform took back counts no more.
    with pytest.raises(LTIError, match="does not publish"):
        await cache.key(URL, "first", "RS256")
    for _ in range(10):
        clock.now += AGAIN / 10
        with pytest.raises(LTIError):
            await cache.key(URL, "strange", "RS256")
    assert source.asked == 3


async def test_keys_outlive_a_platform_that_is_down_for_a_day() -> None:
    source, clock = Source(KEY), Clock()
    cache = JwksCache(get=source, clock=clock)
    await cache.key(URL, "first", "RS256")
    source.problem = "down"
    clock.now += FRESH - 1
    await cache.key(URL, "first", "RS256")
    assert source.asked == 1
    clock.now += 1
    for _ in range(10):
        await cache.key(URL, "first", "RS256")
    assert source.asked == 2
    clock.now += AFTER_FAILURE
    await cache.key(URL, "first", "RS256")
    assert source.asked == 3
    clock.now += STALE
    with pytest.raises(LTIError) as caught:
        await cache.key(URL, "first", "RS256")
    assert caught.value.code == "jwks"
    source.problem = ""
    clock.now += AFTER_FAILURE
    await cache.key(URL, "first", "RS256")


def changed(key: SigningKey, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**key.jwk(), **changes}.items() if value is not None}


@pytest.mark.parametrize(
    "key",
    [
        SHORT,
        changed(KEY, kid=None),
        changed(KEY, kid=7),
        changed(KEY, use="enc"),
        changed(KEY, kty="oct"),
        changed(KEY, kty="EC"),
        changed(KEY, alg="HS256"),
        changed(KEY, alg="none"),
        changed(KEY, alg="RSA-OAEP"),
        changed(KEY, alg="RS512"),
        changed(KEY, alg=7),
        changed(KEY, alg=["RS256"]),
        changed(KEY, n=7),
        changed(KEY, n=""),
        changed(KEY, n="%%"),
        changed(KEY, n="_" * 20_000),
        changed(KEY, e=None),
        changed(KEY, e="AA"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "first"},
        {"kty": ["RSA"], "kid": "first"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "first"},
        {},
        [],
        None,
        7,
    ],
)
async def test_keys_that_cannot_be_used_are_passed_over(key: Any) -> None:
    cache = JwksCache(get=Source(key, SECOND), clock=Clock())
    assert await cache.key(URL, "second", "RS256")
    for kid in ("first", "short"):
        with pytest.raises(LTIError) as caught:
            await cache.key(URL, kid, "RS256")
        assert caught.value.code == "kid"


async def test_two_keys_of_one_id_are_told_apart_by_their_kind() -> None:
    same = {**EC.jwk(), "kid": "first"}
    cache = JwksCache(get=Source(same, KEY), clock=Clock())
    assert (await cache.key(URL, "first", "RS256")).algorithm == "RS256"
    assert (await cache.key(URL, "first", "ES256")).algorithm == "ES256"
    for algorithm in ("RS512", "PS256", "ES384"):
        with pytest.raises(LTIError):
            await cache.key(URL, "first", algorithm)


async def test_a_curve_serves_its_own_algorithm() -> None:
    jwk = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)
    cache = JwksCache(get=Source({**jwk, "kid": "ec"}), clock=Clock())
    assert await cache.key(URL, "ec", "ES384")
    with pytest.raises(LTIError):
        await cache.key(URL, "ec", "ES256")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda one: st.lists(one, max_size=3)
)
FIELD = st.sampled_from(["kty", "kid", "use", "alg", "n", "e", "crv", "x", "y", "d", "k"])
WORDS = st.sampled_from(["RSA", "EC", "OKP", "oct", "sig", "RS256", "ES256", "none", "HS256", "EdDSA", "P-256", "AQAB"])


@given(st.lists(st.dictionaries(FIELD, JSON | WORDS) | JSON, max_size=4) | JSON)
def test_any_set_is_answered_in_a_sentence(keys: Any) -> None:
    async def run() -> None:
        async def get(_: str) -> Any:
            return {"keys": keys}

        with pytest.raises(LTIError):
            await JwksCache(get=get).key(URL, "none of them", "RS256")

    asyncio.run(run())
