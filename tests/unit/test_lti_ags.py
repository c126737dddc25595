"""Columns, scores and results of a gradebook, over HTTP on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from illumidesk.lti import ags, services
from illumidesk.lti.ags import LineItem, Result, Score
from illumidesk.lti.services import ServiceError
from tests.support.services_peer import Pair, paired

WHEN = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)
SEVEN = Score("3", 7.5, 10, WHEN, comment="Well done — «très bien»\nNext: loops")


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with paired() as pair:
        for number in (1, 2, 3, 4, 5):
            pair.lms.line_items[number] = {
                "label": f"Übung {number}",
                "scoreMaximum": 10 * number,
                "resourceId": f"ps{number}",
                "resourceLinkId": f"link {number % 2}",
                "tag": "a&b",
            }
        yield pair


async def listed(pair: Pair, **filters: str) -> list[LineItem]:
    return await ags.line_items(pair.tool, pair.platform, pair.lms.line_items_url, **filters)


async def send(pair: Pair, score: Score = SEVEN, number: int = 1, **more: Any) -> None:
    await ags.post_score(pair.tool, pair.platform, pair.lms.line_item_url(number), score, **more)


async def refused(pair: Pair, score: Score = SEVEN, number: int = 1, **more: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await send(pair, score, number, **more)
    return caught.value


# Columns


async def test_all_pages_of_the_columns(pair: Pair) -> None:
    found = await listed(pair)
    assert [one.label for one in found] == [f"Übung {number}" for number in (1, 2, 3, 4, 5)]
    assert found[1] == LineItem(pair.lms.line_item_url(2), "Übung 2", 20, "link 0", "ps2", "a&b")
    assert [one.path for one in pair.lms.asked if one.kind == "line_items"] == [
        "/2/lineitems?type_id=1", "/2/lineitems?type_id=1&from=2", "/2/lineitems?type_id=1&from=4",
    ]  # fmt: skip
    assert {one.headers["Accept"] for one in pair.lms.asked[1:]} == {ags.LINE_ITEMS_TYPE}
    pair.lms.links = "relative"
    assert await listed(pair) == found


@pytest.mark.parametrize("heeds", [True, False])
async def test_columns_of_one_kind(pair: Pair, heeds: bool) -> None:
    pair.lms.heeds_filters = heeds
    assert [one.resource_id for one in await listed(pair, resource_id="ps4")] == ["ps4"]
    assert [one.resource_id for one in await listed(pair, resource_link_id="link 0")] == ["ps2", "ps4"]
    assert len(await listed(pair, tag="a&b", resource_link_id="link 1")) == 3
    assert await listed(pair, tag="other") == []
    assert "/2/lineitems?type_id=1&resource_id=ps4" in {one.path for one in pair.lms.asked}
    assert "/2/lineitems?type_id=1&resource_link_id=link+1&tag=a%26b" in {one.path for one in pair.lms.asked}


@pytest.mark.parametrize("links", ["loop", "endless"])
async def test_pages_without_end(pair: Pair, links: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_PAGES", 6)
    pair.lms.links = links
    with pytest.raises(ServiceError, match="its pages have no end"):
        await listed(pair)
    assert len(pair.lms.asked) <= 8


async def test_a_page_that_fails_is_no_short_list(pair: Pair) -> None:
    async def second_fails(kind: str, asked: Any) -> None:
        if asked.path.endswith("from=2") and asked.when == "before":
            pair.lms.fault("line_items", "refuse", status=503, after="3")

    pair.lms.on_request = second_fails
    with pytest.raises(ServiceError) as caught:
        await listed(pair)
    assert (caught.value.retry, caught.value.after) == (True, 3)


async def test_odd_columns(pair: Pair) -> None:
    pair.lms.line_items = {
        1: {"label": None, "scoreMaximum": "12.5", "resourceId": 7, "tag": None},
        2: {"label": "x", "id": ""},
        3: {"label": "line\r\nbreak", "scoreMaximum": None, "id": "/2/lineitems/9/lineitem?a=%2F"},
    }
    assert await listed(pair) == [
        LineItem(pair.lms.line_item_url(1), "", 12.5, "", "7", ""),
        LineItem(f"{pair.lms.base}/2/lineitems/9/lineitem?a=%2F", "line  break", 0),
    ]
    pair.lms.fault("line_items", "empty")
    with pytest.raises(ServiceError, match="no JSON"):
        await listed(pair)


async def test_a_column_is_made_and_shown(pair: Pair) -> None:
    wanted = LineItem("", "Übung 6", 12.5, "link 6", "ps6", "t")
    made = await ags.create_line_item(pair.tool, pair.platform, pair.lms.line_items_url, wanted)
    assert made == replace(wanted, id=pair.lms.line_item_url(6))
    assert await ags.line_item(pair.tool, pair.platform, made.id) == made
    bare = await ags.create_line_item(pair.tool, pair.platform, pair.lms.line_items_url, LineItem("", "b", 1))
    assert pair.lms.line_items[7] == {"label": "b", "scoreMaximum": 1}
    assert bare.resource_id == ""
    del pair.lms.line_items[6]
    with pytest.raises(ServiceError, match="this column is not there any more") as caught:
        await ags.line_item(pair.tool, pair.platform, made.id)
    assert caught.value.code == "column-gone"


@pytest.mark.parametrize(
    ("trouble", "made", "unsure"),
    [("drop-after", 1, True), ("drop", 0, True), ("html", 0, True), ("empty", 0, True), ("oversized", 0, True)],
)
async def test_a_column_of_which_one_does_not_know(pair: Pair, trouble: Any, made: int, unsure: bool) -> None:
    pair.lms.fault("create", trouble)
    with pytest.raises(ServiceError) as caught:
        await ags.create_line_item(pair.tool, pair.platform, pair.lms.line_items_url, LineItem("", "ps6", 1))
    assert caught.value.unsure == unsure
    assert len(pair.lms.line_items) == 5 + made


async def test_columns_that_may_not_be_made(pair: Pair) -> None:
    pair.lms.fault("create", "refuse", status=403, words="Only teachers")
    with pytest.raises(ServiceError) as caught:
        await ags.create_line_item(pair.tool, pair.platform, pair.lms.line_items_url, LineItem("", "ps6", 1))
    assert caught.value.message == "the LMS does not let this tool make columns in its gradebook: Only teachers"
    assert not caught.value.retry


# Scores


async def test_a_score_arrives_as_it_is(pair: Pair) -> None:
    await send(pair)
    assert pair.lms.book[1]["3"] == {
        "userId": "3", "scoreGiven": 7.5, "scoreMaximum": 10, "timestamp": "2026-01-31T12:00:00.123456Z",
        "activityProgress": "Completed", "gradingProgress": "FullyGraded",
        "comment": "Well done — «très bien»\nNext: loops",
    }  # fmt: skip
    asked = pair.lms.asked[-1]
    assert asked.path == "/2/lineitems/1/lineitem/scores?type_id=1"
    assert asked.headers["Content-Type"] == ags.SCORE_TYPE
    berlin = WHEN.astimezone(timezone(timedelta(hours=1))) + timedelta(microseconds=1)
    await send(pair, replace(SEVEN, timestamp=berlin, score_given=12, comment=""))
    assert pair.lms.book[1]["3"]["timestamp"] == "2026-01-31T12:00:00.123457Z"
    assert pair.lms.book[1]["3"]["scoreGiven"] == 12
    assert "comment" not in pair.lms.book[1]["3"]
    pending = replace(SEVEN, timestamp=WHEN + timedelta(1), score_given=None, grading_progress="PendingManual")
    await send(pair, pending)
    assert "scoreGiven" not in pair.lms.book[1]["3"]
    assert len(pair.lms.accepted) == 3


def test_a_score_that_is_none() -> None:
    with pytest.raises(ValueError, match="zone"):
        ags.score_body(replace(SEVEN, timestamp=datetime(2026, 1, 1)))
    for points, maximum in (
        (float("nan"), 1),
        (float("inf"), 1),
        (-1, 1),
        (1, 0),
        (1, float("nan")),
        (1, float("inf")),
    ):
        with pytest.raises(ServiceError) as caught:
            ags.score_body(replace(SEVEN, score_given=points, score_maximum=maximum))
        assert (caught.value.code, caught.value.retry) == ("score", False)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_a_score_may_be_answered_with_nothing(pair: Pair, status: int) -> None:
    pair.lms.fault("score", "refuse", status=status)
    await send(pair)


async def test_a_score_may_be_answered_with_much(pair: Pair) -> None:
    pair.lms.fault("score", "oversized")
    await send(pair)


async def test_a_page_instead_of_an_answer_is_no_success(pair: Pair) -> None:
    """A proxy before the LMS says that it is being mended, with 200: the score must not be lost."""
    pair.lms.fault("score", "html")
    error = await refused(pair)
    assert (error.code, error.retry, error.unsure) == ("answer", True, True)
    await send(pair)
    assert len(pair.lms.accepted) == 1


async def test_a_score_that_is_not_later(pair: Pair) -> None:
    await send(pair)
    for again in (SEVEN, replace(SEVEN, timestamp=WHEN - timedelta(seconds=1), score_given=3)):
        error = await refused(pair, again)
        assert (error.code, error.retry, error.unsure, error.answered) == ("older", False, False, 409)
    pair.lms.same_again = True
    await send(pair)
    assert (await refused(pair, replace(SEVEN, score_given=3))).code == "older"
    assert len(pair.lms.accepted) == 1


async def test_a_score_whose_answer_is_lost_is_there(pair: Pair) -> None:
    pair.lms.fault("score", "drop-after")
    error = await refused(pair)
    assert (error.code, error.retry, error.unsure) == ("broken", True, True)
    assert len(pair.lms.accepted) == 1
    assert (await refused(pair)).code == "older"
    pair.lms.fault("score", "drop")
    error = await refused(pair, number=2)
    assert (error.retry, error.unsure) == (True, True)
    await send(pair, number=2)
    assert len(pair.lms.accepted) == 2


@pytest.mark.parametrize(
    ("status", "unsure"), [(500, True), (502, True), (503, True), (504, True), (429, False), (408, False)]
)
async def test_passing_trouble_with_a_score(pair: Pair, status: int, unsure: bool) -> None:
    pair.lms.fault("score", "refuse", status=status, after="date:30", user="3")
    error = await refused(pair)
    assert (error.retry, error.unsure) == (True, unsure)
    await send(pair)


async def test_a_token_that_cannot_be_had_leaves_no_doubt(pair: Pair) -> None:
    for trouble in ("drop", "drop-after"):
        pair.lms.fault("token", trouble)
        error = await refused(pair)
        assert (error.code, error.retry, error.unsure) == ("broken", True, False)
    pair.lms.fault("token", "refuse", status=500)
    error = await refused(pair)
    assert (error.code, error.retry, error.unsure) == ("platform", True, False)
    await send(pair)


async def test_a_student_who_is_gone(pair: Pair) -> None:
    error = await refused(pair, replace(SEVEN, user_id="99"))
    assert (error.code, error.retry) == ("user-gone", False)
    assert error.message == "the LMS does not know this student any more, or as nobody who is graded"
    error = await refused(pair, replace(SEVEN, user_id="99"), offered=[ags.SCORE_SCOPE])
    assert error.code == "gone", "without columns, nobody can tell"
    assert error.message == "the LMS does not know this student or this column any more"
    words = "User not found in course or is not a student"
    for status in (400, 404, 422):
        pair.lms.fault("score", "refuse", status=status, words=words)
        error = await refused(pair)
        assert error.code == "user-gone"
        assert error.message.endswith(words)


async def test_a_column_that_is_gone(pair: Pair) -> None:
    del pair.lms.line_items[1]
    error = await refused(pair)
    assert (error.code, error.retry) == ("column-gone", False)
    assert error.message == "this column is not there any more in the LMS"
    pair.lms.fault("score", "refuse", status=404, words="Line item not found")
    assert (await refused(pair, number=2, offered=[ags.SCORE_SCOPE])).code == "column-gone"


async def test_what_moodle_says(pair: Pair) -> None:
    pair.lms.brand = "moodle"
    await send(pair)
    later = replace(SEVEN, timestamp=WHEN + timedelta(milliseconds=5))
    assert (await refused(pair, later)).code == "older", "it counts whole seconds"
    await send(pair, replace(SEVEN, timestamp=WHEN + timedelta(seconds=1)))
    error = await refused(pair, replace(SEVEN, user_id="99"))
    assert (error.code, error.answered) == ("user-gone", 400)
    del pair.lms.line_items[2]
    error = await refused(pair, number=2)
    assert (error.code, error.said) == ("column-gone", "Not Found: Grade item 2 doesn't exist")
    pair.lms.fault("score", "refuse", status=403, words="Line item does not exist.")
    assert (await refused(pair)).code == "column-gone"
    pair.lms.fault("score", "refuse", status=401, words="This resource does not support POST requests.", times=2)
    assert (await refused(pair)).code == "unauthorized"


async def test_what_canvas_says(pair: Pair) -> None:
    pair.lms.brand = "canvas"
    score = replace(SEVEN, submitted=WHEN - timedelta(1), extra=ags.CANVAS_NO_SUBMISSION)
    await send(pair, score)
    await send(pair, score)
    assert len(pair.lms.accepted) == 1
    sent = pair.lms.book[1]["3"]
    assert sent["https://canvas.instructure.com/lti/submission"] == {"new_submission": False}
    assert sent["submission"] == {"submittedAt": "2026-01-30T12:00:00.123456Z"}
    error = await refused(pair, replace(SEVEN, timestamp=WHEN - timedelta(1)))
    assert (error.code, error.answered) == ("older", 400)
    error = await refused(pair, replace(SEVEN, user_id="99"))
    assert (error.code, error.answered) == ("user-gone", 422)
    assert error.message.endswith(": User not found in course or is not a student")
    del pair.lms.line_items[1]
    assert (await refused(pair)).code == "column-gone"


async def test_grades_that_may_not_be_written(pair: Pair) -> None:
    pair.lms.fault("score", "refuse", status=403, words="The tool's user may not")
    error = await refused(pair)
    assert error.message == "the LMS does not let this tool write grades: The tool's user may not"
    assert (error.code, error.retry) == ("forbidden", False)
    error = await refused(pair, offered=[ags.LINE_ITEM_SCOPE])
    assert (error.code, error.message) == ("scope", "the LMS does not let this tool write grades")


async def test_one_students_failure_stops_nobody_else(pair: Pair) -> None:
    pair.lms.members = [{"user_id": str(number), "roles": ["Learner"]} for number in range(60)]
    pair.lms.fault("score", "refuse", status=500, user="7")
    scores = [Score(str(number), number, 60, WHEN) for number in range(61)]
    results = await asyncio.gather(*(send(pair, score) for score in scores), return_exceptions=True)
    failed = {scores[index].user_id for index, result in enumerate(results) if result is not None}
    assert failed == {"7", "60"}
    assert len(pair.lms.book[1]) == 59
    assert pair.lms.token_requests == 2, "one for scores, one to look whether the column is there"


@pytest.mark.parametrize("brand", ["", "moodle", "canvas"])
async def test_whoever_heeds_what_is_told_loses_nothing(brand: Any) -> None:
    """Sent again while `retry` says so, and taken for sent where it is `older` after an `unsure`: all arrive, once."""
    troubles = ("drop", "drop-after", "html", "rate-limit", "stall", "refuse")
    async with paired(timeout=0.5) as pair:
        pair.lms.brand = brand
        pair.lms.line_items[1] = {"label": "x", "scoreMaximum": 100}
        pair.lms.members = [{"user_id": str(number), "roles": ["Learner"]} for number in range(40)]
        for index, trouble in enumerate(troubles):
            pair.lms.fault("token", trouble, status=500)  # type: ignore[arg-type]
            for user in range(index, 40, 8):
                # Each of these has it twice, one after the other.
                pair.lms.fault("score", trouble, status=503, user=str(user), times=2)  # type: ignore[arg-type]

        async def deliver(score: Score) -> None:
            unsure = False
            while True:
                try:
                    await send(pair, score)
                except ServiceError as error:
                    if error.code == "older" and unsure:
                        return
                    if not error.retry:
                        raise
                    unsure = unsure or error.unsure
                else:
                    return

        scores = [Score(str(number), number, 100, WHEN) for number in range(40)]
        await asyncio.gather(*(deliver(score) for score in scores))
        assert {user: one["scoreGiven"] for user, one in pair.lms.book[1].items()} == {
            score.user_id: score.score_given for score in scores
        }
        assert len(pair.lms.accepted) == 40
        assert pair.lms.faults == []


# Results


async def test_what_the_gradebook_holds(pair: Pair) -> None:
    async def result(user: str, number: int = 4) -> Result | None:
        return await ags.result_of(pair.tool, pair.platform, pair.lms.line_item_url(number), user)

    assert await result("3") is None
    for user in ("2", "3", "4"):
        await send(pair, replace(SEVEN, user_id=user, comment=f"for {user}"), number=4)
    for heeds in (True, False):
        pair.lms.heeds_filters = heeds
        assert await result("4") == Result("4", 30, 40, "for 4"), "in the column's scale"
    pending = replace(SEVEN, timestamp=WHEN + timedelta(1), score_given=None, grading_progress="Pending")
    await send(pair, pending, number=4)
    pair.lms.heeds_filters = True
    assert await result("3") == Result("3", None, 1)
    asked = pair.lms.asked[-1]
    assert asked.path == "/2/lineitems/4/lineitem/results?type_id=1&user_id=3"
    assert asked.headers["Accept"] == ags.RESULTS_TYPE
    del pair.lms.line_items[4]
    with pytest.raises(ServiceError, match="this column is not there any more"):
        await result("3")


# Addresses

PIECE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#"), max_size=20)
QUERY = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=20)


@given(PIECE, st.none() | QUERY, st.sampled_from(["scores", "results"]))
def test_scores_go_before_the_query(path: str, query: str | None, name: str) -> None:
    url = f"https://lms.example.edu/x{path}" + ("" if query is None else f"?{query}")
    address = ags.service_url(url, name)
    head, mark, rest = address.partition("?")
    assert head.endswith(f"/{name}")
    assert f"{head.removesuffix(f'/{name}')}" == url.partition("?")[0].rstrip("/")
    assert (mark, rest) == url.partition("?")[1:]


@settings(max_examples=50)
@given(query=QUERY.filter(bool))
async def test_letters_arrive_as_they_are(query: str) -> None:
    async with paired() as pair:
        pair.lms.line_items[1] = {"label": "x", "scoreMaximum": 1}
        url = f"{pair.lms.base}/2/lineitems/1/lineitem?{query}"
        await ags.post_score(pair.tool, pair.platform, url, Score("3", 1, 1, WHEN))
        asked = pair.lms.asked[-1]
        assert asked.path == f"/2/lineitems/1/lineitem/scores?{query}"
        assert urlsplit(f"{pair.lms.base}{asked.path}").query == query
