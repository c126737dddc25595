"""Grades by LTI 1.1, over HTTP on this machine."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from illumidesk.lti import outcomes
from illumidesk.lti.services import ServiceError
from tests.support.services_peer import Pair, paired

SOURCEDID = '{"data":{"instanceid":"1","userid":"4","typeid":null,"launchid":1},"hash":"5a\\"b/ü+%20<&>\']]>"}'
#: XML 1.0, section 2.2.
SENDABLE = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff") | st.sampled_from("\t\r\n"),
    min_size=1,
)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with paired() as pair:
        yield pair


async def replace(pair: Pair, score: float = 0.5, sourcedid: str = SOURCEDID) -> None:
    await outcomes.replace_result(pair.tool, pair.platform, pair.lms.outcomes_url, sourcedid, score)


async def read(pair: Pair, sourcedid: str = SOURCEDID) -> float | None:
    return await outcomes.read_result(pair.tool, pair.platform, pair.lms.outcomes_url, sourcedid)


async def delete(pair: Pair, sourcedid: str = SOURCEDID) -> None:
    await outcomes.delete_result(pair.tool, pair.platform, pair.lms.outcomes_url, sourcedid)


async def failed(pair: Pair, *arguments: Any, do: Any = replace) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await do(pair, *arguments)
    return caught.value


STYLES = ["plain", "openedx", "no-namespace", "other-namespace", "no-description"]


@pytest.mark.parametrize("style", STYLES)
async def test_a_score_is_sent_read_and_taken_away(pair: Pair, style: Any) -> None:
    pair.lms.style = style
    assert await read(pair) is None
    for score in (0.5, 0.0, 1.0, 1, 0, 0.925, 1 / 3):
        await replace(pair, score)
        assert await read(pair) == pytest.approx(score, abs=1e-12)
    await delete(pair)
    assert await read(pair) is None
    assert pair.lms.outcomes == {SOURCEDID: None}
    asked = pair.lms.asked[-1]
    assert asked.headers["Content-Type"] == "application/xml"
    assert asked.path == "/outcomes?x=1&y=a%2Fb"
    assert "oauth_body_hash=" in asked.headers["Authorization"]


async def test_what_is_sent(pair: Pair) -> None:
    await replace(pair, 0.25)
    root = ElementTree.fromstring(pair.lms.asked[-1].body)
    tags = [element.tag.replace(f"{{{outcomes.NAMESPACE}}}", "") for element in root.iter()]
    assert tags == [
        "imsx_POXEnvelopeRequest", "imsx_POXHeader", "imsx_POXRequestHeaderInfo", "imsx_version",
        "imsx_messageIdentifier", "imsx_POXBody", "replaceResultRequest", "resultRecord", "sourcedGUID", "sourcedId",
        "result", "resultScore", "language", "textString",
    ]  # fmt: skip
    assert b'xmlns="http://www.imsglobal.org/services/ltiv1p1/xsd/imsoms_v1p0"' in pair.lms.asked[-1].body
    assert pair.lms.accepted[-1].score == "0.25"


@given(SENDABLE)
def test_every_sourcedid_is_kept_exactly(sourcedid: str) -> None:
    root = ElementTree.fromstring(outcomes.request_xml("readResult", sourcedid, message="m"))
    assert [element.text for element in root.iter() if element.tag.endswith("sourcedId")] == [sourcedid]


@settings(max_examples=40)
@given(st.lists(SENDABLE, min_size=1, max_size=5))
async def test_every_sourcedid_arrives(sourcedids: list[str]) -> None:
    async with paired() as pair:
        for sourcedid in [*sourcedids, SOURCEDID, "a\r\nb\rc\n ", " x "]:
            await replace(pair, 1, sourcedid)
            assert pair.lms.outcomes[sourcedid] == "1.0"


@given(st.text(min_size=1))
def test_what_xml_cannot_hold_is_said(sourcedid: str) -> None:
    if re.search("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", sourcedid):
        with pytest.raises(ServiceError) as caught:
            outcomes.request_xml("readResult", sourcedid, message="m")
        assert (caught.value.code, caught.value.retry, caught.value.unsure) == ("sourcedid", False, False)
    else:
        root = ElementTree.fromstring(outcomes.request_xml("readResult", sourcedid, message="m"))
        assert [element.text for element in root.iter() if element.tag.endswith("sourcedId")] == [sourcedid]


@pytest.mark.parametrize("sourcedid", ["", "a\0b", "\ud800", "\x1b[2J", "\uffff"])
async def test_a_sourcedid_that_is_none(pair: Pair, sourcedid: str) -> None:
    for do in (lambda pair: replace(pair, 1, sourcedid), lambda pair: read(pair, sourcedid)):
        error = await failed(pair, do=do)
        assert (error.code, error.retry) == ("sourcedid", False)
    assert not pair.lms.asked


@given(st.floats(0, 1))
def test_a_score_is_plain_digits(score: float) -> None:
    text = outcomes.score_text(score)
    assert re.fullmatch(r"[01]\.\d{1,12}", text), text
    assert abs(Decimal(text) - Decimal(score)) <= Decimal("5.1e-13")


@pytest.mark.parametrize("score", [-0.1, 1.0001, float("nan"), float("inf")])
async def test_a_score_that_is_none(pair: Pair, score: float) -> None:
    error = await failed(pair, score)
    assert (error.code, error.retry) == ("score", False)
    assert not pair.lms.asked


@pytest.mark.parametrize("style", STYLES)
async def test_a_failure_is_a_failure_whatever_the_status(pair: Pair, style: Any) -> None:
    pair.lms.style = style
    pair.lms.any_sourcedid = False
    error = await failed(pair)
    if style == "no-description":
        assert (error.code, error.message) == ("refused", "the LMS does not take this grade")
    else:
        assert error.code == "user-gone"
        assert error.message.endswith("nobody who is graded: User not found for sourcedid")
    assert (error.retry, error.unsure, error.answered) == (False, False, 200)
    assert not pair.lms.accepted


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("User is no longer in course", "user-gone"),
        ("User not found.", "user-gone"),
        ("Invalid sourcedid", "gone"),
        ("SourcedId not valid", "gone"),
        ("Assignment is no longer available", "column-gone"),
        ("Course not available for student", "user-gone"),
        ("Assignment is invalid", "column-gone"),
        ("OAuth verification error: Invalid signature", "signature"),
        ("<b>Score</b> is\n odd &", "refused"),
        ("", "refused"),
    ],
)
async def test_what_failures_say(pair: Pair, words: str, code: str) -> None:
    pair.lms.fault("outcome", "failure", words=words)
    error = await failed(pair)
    assert (error.code, error.retry, error.unsure) == (code, False, False)
    assert "<" not in error.message
    assert "\n" not in error.message
    if code == "refused" and words:
        assert error.message == "the LMS does not take this grade: Score is odd &"


async def test_codes_of_other_kinds(pair: Pair) -> None:
    pair.lms.fault("outcome", "processing", words="Later")
    error = await failed(pair)
    assert (error.code, error.retry, error.unsure, error.after) == ("processing", True, True, 60)
    pair.lms.fault("outcome", "unsupported", words="No")
    error = await failed(pair, do=delete)
    assert (error.code, error.retry) == ("unsupported", False)
    assert error.message == "the LMS cannot take grades away by LTI 1.1: No"
    pair.lms.fault("outcome", "failure", words="Busy", status=503, after="9")
    error = await failed(pair)
    assert (error.code, error.retry, error.unsure, error.after) == ("platform", True, True, 9)


async def test_a_wrong_secret(pair: Pair) -> None:
    pair.platform.secret = "another"
    error = await failed(pair)
    assert (error.code, error.retry, error.answered) == ("signature", False, 401)
    pair.lms.style = "openedx"
    error = await failed(pair)
    assert (error.code, error.answered) == ("signature", 200)
    pair.lms.fault("outcome", "refuse", status=401)
    assert (await failed(pair)).code == "signature"
    assert not pair.lms.accepted
    assert not pair.lms.outcomes


@pytest.mark.parametrize(
    ("trouble", "says"),
    [("html", "it is no XML"), ("empty", "it is empty"), ("xml", "it is XML without an outcome")],
)
async def test_answers_that_are_none(pair: Pair, trouble: Any, says: str) -> None:
    pair.lms.fault("outcome", trouble)
    error = await failed(pair)
    assert (error.code, error.retry, error.unsure) == ("answer", trouble == "html", True)
    assert says in error.message
    assert "Sign in" not in error.message + error.hint + error.detail
    pair.lms.fault("outcome", trouble)
    assert not (await failed(pair, do=read)).unsure


async def test_an_answer_with_entities_is_not_expanded(pair: Pair) -> None:
    pair.lms.fault("outcome", "bomb")
    error = await failed(pair)
    assert error.code == "answer"
    assert len(error.message + error.detail) < 500


@pytest.mark.parametrize(
    ("trouble", "code", "unsure"),
    [("drop", "broken", True), ("drop-after", "broken", True), ("oversized", "too-large", True)],
)
async def test_a_connection_that_breaks(pair: Pair, trouble: Any, code: str, unsure: bool) -> None:
    pair.lms.fault("outcome", trouble)
    error = await failed(pair)
    assert (error.code, error.unsure) == (code, unsure)
    assert len(pair.lms.accepted) == (trouble == "drop-after")
    pair.lms.fault("outcome", trouble)
    assert not (await failed(pair, do=read)).unsure
    await replace(pair, 1)
    assert await read(pair) == 1


@pytest.mark.parametrize(
    ("status", "code", "retry", "unsure"),
    [(500, "platform", True, True), (502, "platform", True, True), (503, "platform", True, True),
     (429, "rate-limit", True, False), (400, "refused", False, False), (403, "forbidden", False, False),
     (404, "column-gone", False, False), (422, "refused", False, False)],
)  # fmt: skip
async def test_refusals_by_http(pair: Pair, status: int, code: str, retry: bool, unsure: bool) -> None:
    pair.lms.fault("outcome", "refuse", status=status, words="so it is", after="5")
    error = await failed(pair)
    assert (error.code, error.retry, error.unsure) == (code, retry, unsure)
    assert error.after == (5 if retry else None)


@pytest.mark.parametrize("text", ["x", "1e3", "-1", "nan", "0x1"])
async def test_a_result_that_is_none(pair: Pair, text: str) -> None:
    pair.lms.outcomes[SOURCEDID] = text
    assert (await failed(pair, do=read)).code == "answer"


async def test_no_address(pair: Pair) -> None:
    for url in ("", "https://lms.example.edu/a b", "ftp://lms.example.edu/", "http://lms.example.edu/outcomes"):
        with pytest.raises(ServiceError) as caught:
            await outcomes.replace_result(pair.tool, pair.platform, url, SOURCEDID, 1)
        assert (caught.value.code, caught.value.retry) == ("address", False)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=20))
@settings(max_examples=60)
async def test_any_query_is_signed_or_refused(query: str) -> None:
    async with paired() as pair:
        url = f"{pair.lms.base}/outcomes?{query}"
        try:
            await outcomes.replace_result(pair.tool, pair.platform, url, SOURCEDID, 1)
        except ServiceError as error:
            assert error.code == "address"  # noqa: PT017
        else:
            assert pair.lms.outcomes == {SOURCEDID: "1.0"}
