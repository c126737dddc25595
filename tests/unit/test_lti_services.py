"""Tokens, connections and what is told when a platform does not answer as it should, over HTTP on this machine."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from illumidesk.lti import ags, services
from illumidesk.lti.services import ServiceError, with_query
from tests.support import certificates
from tests.support.services_peer import Pair, Platform, paired


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with paired() as pair:
        pair.lms.line_items[1] = {"label": "ps1", "scoreMaximum": 10}
        yield pair


async def show(pair: Pair, platform: Platform | None = None) -> ags.LineItem:
    return await ags.line_item(pair.tool, platform or pair.platform, pair.lms.line_item_url(1))


async def problem(pair: Pair, platform: Platform | None = None) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await show(pair, platform)
    return caught.value


# Tokens


async def test_a_token_is_fetched_once_for_all_who_wait_and_kept(pair: Pair) -> None:
    assert {one.label for one in await asyncio.gather(*(show(pair) for _ in range(20)))} == {"ps1"}
    await show(pair)
    assert pair.lms.token_requests == 1
    await ags.line_items(pair.tool, pair.platform, pair.lms.line_items_url)
    assert pair.lms.token_requests == 1, "the same scope"
    await ags.result_of(pair.tool, pair.platform, pair.lms.line_item_url(1), "3")
    assert pair.lms.token_requests == 2, "another scope"
    await show(pair, Platform(pair.lms.token_url, id=2))
    assert pair.lms.token_requests == 3, "another platform"


async def test_a_token_asks_for_no_more_than_is_needed(pair: Pair) -> None:
    await show(pair)
    form = dict(parse_qsl(pair.lms.asked[0].body.decode()))
    assert form["scope"] == ags.LINE_ITEM_SCOPE
    pair.lms.offered = {ags.LINE_ITEM_READ_SCOPE}
    await ags.line_item(
        pair.tool, pair.platform, pair.lms.line_item_url(1), offered=[ags.LINE_ITEM_READ_SCOPE, ags.SCORE_SCOPE]
    )
    form = dict(parse_qsl(pair.lms.asked[-2].body.decode()))
    assert form["scope"] == ags.LINE_ITEM_READ_SCOPE
    with pytest.raises(ServiceError, match="does not let this tool make columns") as caught:
        await ags.create_line_item(
            pair.tool, pair.platform, pair.lms.line_items_url, ags.LineItem("", "ps2", 1), offered=[ags.SCORE_SCOPE]
        )
    assert (caught.value.code, caught.value.retry) == ("scope", False)


async def test_a_token_is_renewed_before_it_ends() -> None:
    now = [1000.0]
    async with paired(clock=lambda: now[0]) as pair:
        pair.lms.line_items[1] = {"label": "ps1", "scoreMaximum": 10}
        for passed, fetched in ((0.0, 1), (3539.0, 1), (1.0, 2)):
            now[0] += passed
            await show(pair)
            assert pair.lms.token_requests == fetched
        pair.lms.lifetime = 8
        now[0] += 3600
        for passed, fetched in ((0, 3), (5.9, 3), (0.2, 4)):
            now[0] += passed
            await show(pair)
            assert pair.lms.token_requests == fetched


async def test_a_token_that_the_platform_forgot_is_fetched_anew_once(pair: Pair) -> None:
    await show(pair)
    pair.lms.forget_tokens()
    await asyncio.gather(*(show(pair) for _ in range(10)))
    assert pair.lms.token_requests == 2
    pair.lms.fault("line_item", "refuse", status=401, words="no such app", times=2)
    error = await problem(pair)
    assert error.code == "unauthorized"
    assert error.message.endswith("gave this tool: no such app")
    assert not error.retry
    assert pair.lms.token_requests == 3


async def test_whoever_waits_no_more_does_not_end_the_fetch(pair: Pair) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def hold(kind: str, asked: Any) -> None:
        if kind == "token" and asked.when == "before":
            entered.set()
            await go.wait()

    pair.lms.on_request = hold
    first, second = asyncio.create_task(show(pair)), asyncio.create_task(show(pair))
    await entered.wait()
    first.cancel()
    go.set()
    assert (await second).label == "ps1"
    assert first.cancelled()
    assert pair.lms.token_requests == 1


async def test_whom_the_assertion_is_for(pair: Pair) -> None:
    pair.lms.audience = "https://api.brightspace.com/auth/token"
    error = await problem(pair)
    assert (error.code, error.retry, error.answered) == ("token", False, 401)
    assert "gives this tool no access token: " in error.message
    pair.platform.token_audience = pair.lms.audience
    assert (await show(pair)).label == "ps1"


async def test_a_platform_without_token_address(pair: Pair) -> None:
    error = await problem(pair, Platform(""))
    assert error.code == "token-url"
    assert "`illumidesk lti platform add … --replace --token-url" in error.hint
    assert not pair.lms.asked


async def test_a_scope_that_is_not_given(pair: Pair) -> None:
    pair.lms.offered = set()
    error = await problem(pair)
    assert (error.code, error.retry) == ("scope", False)


@pytest.mark.parametrize("trouble", ["html", "empty", "oversized"])
async def test_a_token_that_is_none(pair: Pair, trouble: Any) -> None:
    pair.lms.fault("token", trouble)
    error = await problem(pair)
    assert error.code in ("answer", "too-large")
    assert not error.unsure
    assert "<" not in error.message + error.hint + error.detail
    assert (await show(pair)).label == "ps1", "it is asked again next time"


# What goes wrong


@pytest.mark.parametrize("kind", ["token", "line_item"])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
async def test_passing_trouble(pair: Pair, kind: Any, status: int) -> None:
    pair.lms.fault(kind, "refuse", status=status, after="7")
    error = await problem(pair)
    assert (error.retry, error.unsure, error.answered) == (True, False, status)
    assert error.after in (7, None if status == 408 else 7)
    assert (await show(pair)).label == "ps1"


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (400, "refused", "the LMS does not show this column of its gradebook: ask your admin"),
        (403, "forbidden", "the LMS does not let this tool read the columns of its gradebook: ask your admin"),
        (404, "column-gone", "this column is not there any more in the LMS: ask your admin"),
        (410, "column-gone", "this column is not there any more in the LMS: ask your admin"),
        (422, "refused", "the LMS does not show this column of its gradebook: ask your admin"),
        (501, "refused", "the LMS does not show this column of its gradebook: ask your admin"),
    ],
)
async def test_lasting_refusals(pair: Pair, status: int, code: str, says: str) -> None:
    pair.lms.fault("line_item", "refuse", status=status, words="<p>ask\n your <b>admin</b></p>.")
    error = await problem(pair)
    assert (error.code, error.message, error.retry, error.unsure) == (code, says, False, False)


async def test_a_refusal_without_words(pair: Pair) -> None:
    pair.lms.fault("line_item", "refuse", status=422)
    assert (await problem(pair)).message == "the LMS does not show this column of its gradebook (answer 422)"


async def test_a_rate_limit_that_canvas_says_with_403(pair: Pair) -> None:
    pair.lms.fault("line_item", "refuse", status=403, words="403 Forbidden (Rate Limit Exceeded)")
    error = await problem(pair)
    assert (error.code, error.retry) == ("rate-limit", True)


@pytest.mark.parametrize(
    ("after", "least", "most"), [("120", 120, 120), ("date:120", 110, 121), ("999999999", 86400, 86400), ("x", None, 0)]
)
async def test_retry_after(pair: Pair, after: str, least: float | None, most: float) -> None:
    pair.lms.fault("line_item", "rate-limit", after=after)
    error = await problem(pair)
    assert error.code == "rate-limit"
    assert error.retry
    if least is None:
        assert error.after is None
    else:
        assert error.after is not None
        assert least <= error.after <= most


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", None), ("0", 0), ("-3", None), ("1.5", 1.5), ("nan", None), ("inf", None), ("1e9", None), ("9" * 12, 86400),
     ("Thu, 01 Jan 1970 00:16:50 GMT", 10), ("Thu, 01 Jan 1970 00:16:50", 10), ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
     ("Thu, 99 Jan 1970 00:00:00 GMT", None), (formatdate(1e9, usegmt=True), 86400), ("²", None)],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert services.retry_after(text, now=1000.0) == seconds


@given(st.text(max_size=60))
def test_retry_after_takes_anything(text: str) -> None:
    seconds = services.retry_after(text)
    assert seconds is None or 0 <= seconds <= services.MAX_AFTER


async def test_nobody_there(pair: Pair) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = await problem(pair, Platform(f"http://127.0.0.1:{taken.getsockname()[1]}/token"))
    assert (error.code, error.retry, error.unsure) == ("unreachable", True, False)
    assert error.message == "the LMS cannot be reached"


async def test_a_host_of_no_name(pair: Pair) -> None:
    error = await problem(pair, Platform("https://nowhere.invalid/token"))
    assert (error.code, error.retry, error.unsure) == ("unreachable", True, False)


async def test_a_certificate_that_nobody_vouches_for(pair: Pair, tmp_path: Path) -> None:
    key = certificates.make_key()
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificates.pem_of_key(key) + certificates.pem(certificates.make_certificate(key, "localhost")))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pytest.fail("the connection is had")

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    async with server:
        error = await problem(pair, Platform(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"))
    assert (error.code, error.retry, error.unsure) == ("certificate", True, False)
    assert "CERTIFICATE_VERIFY_FAILED" in error.detail


async def test_no_answer_in_time() -> None:
    async with paired(timeout=0.3) as pair:
        pair.lms.line_items[1] = {"label": "ps1", "scoreMaximum": 10}
        await show(pair)
        pair.lms.fault("line_item", "stall")
        error = await problem(pair)
        assert (error.code, error.retry, error.unsure) == ("timeout", True, False)
        pair.lms.fault("create", "stall")
        with pytest.raises(ServiceError) as caught:
            await ags.create_line_item(pair.tool, pair.platform, pair.lms.line_items_url, ags.LineItem("", "ps2", 10))
        assert (caught.value.code, caught.value.retry, caught.value.unsure) == ("timeout", True, True)


async def test_waiting_for_a_turn_is_not_waiting_for_an_answer() -> None:
    """More requests than go at a time: those behind do not run out of time while they wait."""
    async with paired(timeout=1.0) as pair:
        pair.lms.line_items[1] = {"label": "ps1", "scoreMaximum": 10}
        await show(pair)

        async def slow(kind: str, asked: Any) -> None:
            if asked.when == "before":
                await asyncio.sleep(0.2)

        pair.lms.on_request = slow
        shown = await asyncio.gather(*(show(pair) for _ in range(8 * services.PER_HOST)))
        assert len(shown) == 8 * services.PER_HOST


async def test_one_platform_that_stalls_stops_no_other(pair: Pair) -> None:
    async with paired(timeout=60) as other:
        other.lms.fault("", "stall", times=100)
        stuck = [
            asyncio.create_task(
                ags.line_item(pair.tool, other.platform, other.lms.line_item_url(1)),
            )
            for _ in range(20)
        ]
        while not other.lms.asked:
            await asyncio.sleep(0.01)
        assert (await show(pair, Platform(pair.lms.token_url, id=2))).label == "ps1"
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


@pytest.mark.parametrize("kind", ["token", "line_item"])
async def test_a_connection_that_breaks(pair: Pair, kind: Any) -> None:
    # aiohttp asks once more by itself where only something is read.
    pair.lms.fault(kind, "drop", times=3)
    error = await problem(pair)
    assert (error.code, error.retry, error.unsure) == ("broken", True, False)
    pair.lms.faults.clear()
    assert (await show(pair)).label == "ps1"


async def test_a_redirect_is_not_followed(pair: Pair) -> None:
    pair.lms.fault("line_item", "redirect")
    error = await problem(pair)
    assert (error.code, error.retry) == ("redirect", False)
    assert len(pair.lms.asked) == 2


@pytest.mark.parametrize("trouble", ["html", "empty", "oversized"])
async def test_an_answer_that_is_none(pair: Pair, trouble: Any) -> None:
    pair.lms.fault("line_item", trouble)
    error = await problem(pair)
    assert error.code == ("too-large" if trouble == "oversized" else "answer")
    assert (error.retry, error.unsure) == (trouble == "html", False)
    assert "Sign in" not in error.message + error.hint + error.detail
    assert (await show(pair)).label == "ps1"


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/x", "http://example.edu/x", "https://169.254.169.254/x", "https://user@example.edu/x",
     "file:///etc/passwd", "/x", "", "https://example.edu/a b", "https://example.edu/\r\nX: y", "https://exämple.edu/"],
)  # fmt: skip
async def test_where_nothing_is_sent(url: str) -> None:
    async with paired(loopback=False) as pair:
        pair.platform.token_url = url or " "
        error = await problem(pair)
        assert (error.code, error.retry, error.unsure) == ("address", False, False)
        assert "\n" not in str(error.hint)
        assert not pair.lms.asked


async def test_a_name_that_leads_to_this_machine() -> None:
    async with paired(loopback=False) as pair:
        error = await problem(pair, Platform("https://localhost/token"))
        assert error.code == "address"
        assert "this machine itself" in error.message


async def test_the_token_is_in_no_error(pair: Pair) -> None:
    await show(pair)
    (token,) = pair.lms._tokens
    pair.lms.fault("line_item", "refuse", status=403, words=f"Bearer {token} is not allowed")
    error = await problem(pair)
    assert token not in error.message + error.hint + error.detail + error.said
    assert "is not allowed" in error.message


async def test_after_the_end(pair: Pair) -> None:
    await show(pair)
    await pair.tool.close()
    error = await problem(pair)
    assert (error.code, error.retry, error.unsure) == ("closed", True, False)


async def test_the_end_while_somebody_waits(pair: Pair) -> None:
    entered = asyncio.Event()

    async def hold(kind: str, asked: Any) -> None:
        entered.set()
        await asyncio.sleep(60)

    pair.lms.on_request = hold
    waiting = asyncio.create_task(show(pair))
    await entered.wait()
    await pair.tool.close()
    with pytest.raises(ServiceError) as caught:
        await waiting
    assert caught.value.retry


async def test_connections_are_used_again(pair: Pair) -> None:
    ports = set()

    async def note(kind: str, asked: Any) -> None:
        ports.add(asked.peer)

    pair.lms.on_request = note
    began = time.monotonic()
    await asyncio.gather(*(show(pair) for _ in range(50)))
    assert len(ports) <= services.PER_HOST or time.monotonic() - began > services.KEEP


# Addresses


@pytest.mark.parametrize(
    ("header", "url"),
    [
        ('<https://b.example/?p=2>; rel="next"', "https://b.example/?p=2"),
        ("<https://b.example/x,y;z?p=2>;rel=next", "https://b.example/x,y;z?p=2"),
        ('<https://b.example/1>; rel="first", <https://b.example/3%2f>; title="a, b"; rel="last Next"',
         "https://b.example/3%2f"),
        ('<?page=2>; REL="next"', "https://a.example/list/all?page=2"),
        ("</p2>; rel=next", "https://a.example/p2"),
        ("<//c.example/p2>; rel=next", "https://c.example/p2"),
        ('<https://b.example/>; rel="prev"', None),
        ('<https://b.example/>; rel="nextpage"', None),
        ("https://b.example/; rel=next", None),
        ("", None),
    ],
)  # fmt: skip
def test_where_the_next_page_is(header: str, url: str | None) -> None:
    assert next(services._next_links("https://a.example/list/all?x=1", [header]), None) == url


@given(st.lists(st.text(max_size=60)))
def test_any_link_is_read(headers: list[str]) -> None:
    assert all(isinstance(url, str) for url in services._next_links("https://a.example/", headers))


@example(b"!\0\0!", "text/plain")
@given(st.binary(max_size=200), st.sampled_from(["", "text/plain", "text/html", "application/json; charset=x"]))
def test_a_reason_is_a_line_without_html(body: bytes, kind: str) -> None:
    answer = services.Answer("https://a.example/", 400, "Bad Request", {"Content-Type": kind}, (), body)
    said = services.reason_of(answer)
    assert said == " ".join(said.split())
    assert said.isprintable()
    assert len(said) <= 200


PIECE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=20)


@given(PIECE.filter(lambda text: "?" not in text), st.none() | PIECE, st.text(max_size=10))
def test_a_query_grows_and_keeps_its_letters(path: str, query: str | None, value: str) -> None:
    url = f"https://lms.example.edu/{path}" + ("" if query is None else f"?{query}")
    grown = with_query(url, {"user_id": value, "none": ""})
    assert grown.startswith(url)
    assert with_query(url, {"none": ""}) == url
    if value:
        added = parse_qsl(urlsplit(grown).query, keep_blank_values=True)
        assert added[-1] == ("user_id", value)
