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


async def test_memberships_come_in_pages(tool: Tool) -> None:
    _, token = await tool.token(" ".join(SCOPES))
    url, found = tool.services.memberships_url, []
    while url:
        answer = await tool.ask("GET", url, token)
        found += (await answer.json(content_type=None))["members"]
        url = str(answer.links["next"]["url"]) if "next" in answer.links else ""
    assert found == MEMBERS
