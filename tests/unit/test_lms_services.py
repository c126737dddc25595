"""The test LMS's services, asked with a token that this tool's own key gets."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from illumidesk.lti.keys import key_set, new_key, sign
from illumidesk.lti.registration import SCOPES
from tests.support.lms_services import ASSERTION, LINE_ITEM, SCORE, Services

MEMBERS = [
    {"user_id": "2", "roles": ["Instructor"], "status": "Active", "name": "Zoë Teacher"},
    {"user_id": "3", "roles": ["Learner"], "status": "Active"},
    {"user_id": "4", "roles": ["Learner"], "status": "Inactive", "email": "zoe@example.edu"},
]


class Tool:
    """This tool's part, with its own keys and signatures."""

    def __init__(self) -> None:
        kid, private = new_key()
        self.key = SimpleNamespace(kid=kid, private=private)
        self.services = Services("client", lambda: key_set([self.key]), members=MEMBERS)
        self.session = aiohttp.ClientSession()

    async def token(self, scope: str, **changes: Any) -> tuple[int, str]:
        claims = {
            "iss": "client", "sub": "client", "aud": self.services.token_url, "jti": secrets.token_hex(8), **changes,
        }  # fmt: skip
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION,
            "client_assertion": sign(claims, self.key),
            "scope": scope,
        }
        async with self.session.post(self.services.token_url, data=form) as answer:
            return answer.status, (await answer.json()).get("access_token", "")

    async def ask(self, method: str, url: str, token: str, kind: str = "", body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {token}", **({"Content-Type": kind} if kind else {})}
        return await self.session.request(method, url, headers=headers, json=body)


@pytest.fixture
async def tool() -> AsyncIterator[Tool]:
    tool = Tool()
    app = web.Application()
    tool.services.add_routes(app)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    tool.services.base = "http://{}:{}".format(*runner.addresses[0][:2])
    yield tool
    await tool.session.close()
    await runner.cleanup()


async def test_our_key_gets_a_token_and_nobody_elses(tool: Tool) -> None:
    assert (await tool.token(" ".join(SCOPES)))[0] == 200
    for changes in ({"iss": "other"}, {"sub": "other"}, {"aud": "https://elsewhere.example"}):
        assert (await tool.token("", **changes))[0] == 401
    assert (await tool.token("", jti="once"))[0] == 200
    assert (await tool.token("", jti="once"))[0] == 401
    kid, private = new_key()
    tool.key = SimpleNamespace(kid=kid, private=private)
    tool.services.tool_keys = lambda: {"keys": []} | key_set([])
    assert (await tool.token(""))[0] == 401


async def test_line_items_and_scores(tool: Tool) -> None:
    services = tool.services
    _, token = await tool.token(" ".join(SCOPES))
    for number in (1, 2, 3):
        item = {"label": f"ps{number}", "scoreMaximum": 10, "resourceId": f"ps{number}"}
        assert (await tool.ask("POST", services.line_items_url, token, "application/json", item)).status == 415
        made = await tool.ask("POST", services.line_items_url, token, LINE_ITEM, item)
        assert made.status == 201
    first = await tool.ask("GET", services.line_items_url, token)
    assert [one["label"] for one in await first.json(content_type=None)] == ["ps1", "ps2"]
    second = await tool.ask("GET", str(first.links["next"]["url"]), token)
    (last,) = await second.json(content_type=None)
    assert "next" not in second.links
    assert last["id"].endswith("?type_id=1")
    scores = last["id"].replace("?", "/scores?")
    score = {
        "userId": "4", "scoreGiven": 7, "scoreMaximum": 10, "timestamp": "2026-01-01T00:00:00+00:00",
        "activityProgress": "Completed", "gradingProgress": "FullyGraded",
    }  # fmt: skip
    answer = await tool.ask("POST", scores, token, SCORE, score)
    assert (answer.status, await answer.text()) == (200, "")
    assert services.scores == {3: [score]}
    assert (await tool.ask("POST", scores, token, SCORE, {**score, "userId": "9"})).status == 404
    assert (await tool.ask("POST", scores, token, SCORE, {**score, "timestamp": "2026-01-01T00:00:00"})).status == 400
    _, narrow = await tool.token(SCOPES[0])
    assert (await tool.ask("POST", scores, narrow, SCORE, score)).status == 403
    assert (await tool.ask("POST", scores, "none", SCORE, score)).status == 401


async def test_what_is_asked_for_of_line_items(tool: Tool) -> None:
    services = tool.services
    services.line_items = {
        number: {
            "label": f"ps{number}",
            "scoreMaximum": 10,
            "resourceId": f"ps{number}",
            "tag": "a" if number > 1 else "b",
        }
        for number in (1, 2, 3)
    }
    _, token = await tool.token(" ".join(SCOPES))

    async def labels(query: str) -> list[str]:
        answer = await tool.ask("GET", f"{services.line_items_url}&{query}", token)
        return [one["label"] for one in await answer.json(content_type=None)]

    assert await labels("resource_id=ps3") == ["ps3"]
    assert await labels("tag=a") == ["ps2", "ps3"]
    assert await labels("tag=a&resource_link_id=x") == []
    services.heeds_filters = False
    assert await labels("tag=a") == ["ps1", "ps2"]


async def sent(tool: Tool, token: str, when: str, points: float = 7, user: str = "4", **changes: Any) -> int:
    score = {
        "userId": user, "scoreGiven": points, "scoreMaximum": 10, "timestamp": when,
        "activityProgress": "Completed", "gradingProgress": "FullyGraded", **changes,
    }  # fmt: skip
    url = tool.services.line_item_url(1).replace("?", "/scores?")
    return int((await tool.ask("POST", url, token, SCORE, score)).status)


@pytest.mark.parametrize(
    ("brand", "statuses", "accepted"),
    [("", [200, 409, 409, 409, 200, 200], 3), ("moodle", [200, 409, 409, 409, 409, 200], 2),
     ("canvas", [200, 200, 200, 400, 200, 200], 4)],
)  # fmt: skip
async def test_a_score_is_later_than_the_last(tool: Tool, brand: Any, statuses: list[int], accepted: int) -> None:
    tool.services.brand = brand
    tool.services.line_items[1] = {"label": "ps1", "scoreMaximum": 20}
    _, token = await tool.token(" ".join(SCOPES))
    first, earlier, little, later = (
        f"2026-01-01T00:00:{second}Z" for second in ("10.000", "09.000", "10.500", "11.500")
    )
    sends = [(first, 7), (first, 7), (first, 8), (earlier, 9), (little, 10), (later, 5)]
    assert [await sent(tool, token, when, points) for when, points in sends] == statuses
    assert len(tool.services.accepted) == len(tool.services.scores[1]) == accepted
    assert tool.services.book[1]["4"]["scoreGiven"] == 5


async def test_results_are_in_the_columns_scale(tool: Tool) -> None:
    tool.services.line_items[1] = {"label": "ps1", "scoreMaximum": 20}
    _, token = await tool.token(" ".join(SCOPES))
    assert await sent(tool, token, "2026-01-01T00:00:00Z", 7, "4") == 200
    assert await sent(tool, token, "2026-01-01T00:00:00Z", 7, "3", gradingProgress="PendingManual") == 200
    url = tool.services.line_item_url(1).replace("?", "/results?")
    (one,) = await (await tool.ask("GET", f"{url}&user_id=4", token)).json(content_type=None)
    assert (one["resultScore"], one["resultMaximum"]) == (14, 20)
    (one,) = await (await tool.ask("GET", f"{url}&user_id=3", token)).json(content_type=None)
    assert "resultScore" not in one
    assert len(await (await tool.ask("GET", url, token)).json(content_type=None)) == 2


async def test_tokens_end(tool: Tool) -> None:
    tool.services.lifetime = 0
    _, token = await tool.token(" ".join(SCOPES))
    assert (await tool.ask("GET", tool.services.line_items_url, token)).status == 401
    tool.services.lifetime = 60
    _, token = await tool.token(" ".join(SCOPES))
    assert (await tool.ask("GET", tool.services.line_items_url, token)).status == 200
    tool.services.forget_tokens()
    assert (await tool.ask("GET", tool.services.line_items_url, token)).status == 401
    tool.services.offered = set()
    assert (await tool.token(SCOPES[0]))[0] == 400
    assert tool.services.token_requests == 3


async def test_faults_come_once_and_for_whom_they_are(tool: Tool) -> None:
    services = tool.services
    services.line_items[1] = {"label": "ps1", "scoreMaximum": 20}
    _, token = await tool.token(" ".join(SCOPES))
    moments = []

    async def note(kind: str, asked: Any) -> None:
        moments.append((kind, asked.when, asked.user, len(services.accepted)))

    services.on_request = note
    services.fault("score", "refuse", status=422, user="4", times=2)
    assert await sent(tool, token, "2026-01-01T00:00:00Z", user="3") == 200
    assert [await sent(tool, token, "2026-01-01T00:00:00Z") for _ in range(3)] == [422, 422, 200]
    assert moments[:2] == [("score", "before", "3", 0), ("score", "after", "3", 1)]
    assert moments[2:4] == [("score", "before", "4", 1), ("score", "before", "4", 1)], "a refusal does nothing"
    services.fault("score", "drop")
    services.fault("score", "drop-after")
    for accepted in (2, 3):
        with pytest.raises(aiohttp.ClientError):
            await sent(tool, token, "2026-01-02T00:00:00Z")
        assert len(services.accepted) == accepted
    assert await sent(tool, token, "2026-01-02T00:00:00Z") == 409
    services.fault("", "rate-limit", after="date:60")
    answer = await tool.ask("GET", services.line_items_url, token)
    assert answer.status == 429
    assert answer.headers["Retry-After"].endswith("GMT")
    assert services.faults == []


async def test_an_unsigned_outcome_is_none(tool: Tool) -> None:
    answer = await tool.ask("POST", tool.services.outcomes_url, "none", "application/xml", {})
    assert answer.status == 401
    assert "<imsx_codeMajor>failure</imsx_codeMajor>" in await answer.text()
    assert tool.services.accepted == []


async def test_memberships_come_in_pages(tool: Tool) -> None:
    _, token = await tool.token(" ".join(SCOPES))
    url, found = tool.services.memberships_url, []
    while url:
        answer = await tool.ask("GET", url, token)
        found += (await answer.json(content_type=None))["members"]
        url = str(answer.links["next"]["url"]) if "next" in answer.links else ""
    assert found == MEMBERS
