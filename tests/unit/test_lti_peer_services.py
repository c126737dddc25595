"""Grades and rosters with a gradebook of others: Open edX's own `lti_consumer`, served by a process of its own.

What its database holds is read from its file.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from illumidesk.lti import ags, nrps, outcomes
from illumidesk.lti.keys import key_set, new_key
from illumidesk.lti.launch import role_of
from illumidesk.lti.services import Purpose, ServiceError, Services
from illumidesk.settings import LTI_ROLES
from tests.support.openedx import Peer

ENDPOINT = "https://purl.imsglobal.org/spec/lti-ags/claim/endpoint"
MEMBERSHIPS = "https://purl.imsglobal.org/spec/lti-nrps/claim/namesroleservice"
TIME = datetime(2026, 1, 1, 0, 30, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
ANY = Purpose("ask", "refused", "gone", "gone")


def _key() -> SimpleNamespace:
    kid, private = new_key()
    return SimpleNamespace(kid=kid, private=private)


class OpenEdx:
    """The peer, this tool's key set as the peer can fetch it, and the peer's tables."""

    def __init__(self, python: Path, database: Path) -> None:
        self.keys = [_key()]
        outer = self

        class KeySet(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(key_set(outer.keys)).encode())

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), KeySet)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._database = database
        self._peer = Peer(python, "openedx_services.py", database)
        self._numbers = count()
        self.ask = self._peer.ask

    def close(self) -> None:
        self._peer.close()
        self._server.shutdown()
        self._server.server_close()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()

    def name(self) -> str:
        """A new one for a component."""
        return f"block{next(self._numbers)}"

    def component(self, **fields: Any) -> SimpleNamespace:
        """A new component of LTI 1.3, 20 points: what its launches say, as a platform."""
        port = self._server.server_port
        location = self.ask(
            "add_block",
            name=self.name(),
            display_name="Übung 1",
            lti_version="lti_1p3",
            lti_1p3_tool_key_mode="keyset_url",
            lti_1p3_tool_keyset_url=f"http://127.0.0.1:{port}/jwks",
            **{"has_score": True, "weight": 20.0, "lti_1p3_enable_nrps": True, **fields},
        )
        offer = self.ask("offer", location=location)
        claim = offer["claims"].get(ENDPOINT, {})
        return SimpleNamespace(
            id=next(self._numbers),
            client_id=offer["client_id"],
            token_url=offer["token_url"],
            token_audience="",
            location=location,
            offered=claim.get("scope", []),
            line_items=claim.get("lineitems", ""),
            line_item=claim.get("lineitem", ""),
            memberships=offer["claims"][MEMBERSHIPS]["context_memberships_url"],
        )

    def scores(self, line_item: str) -> list[tuple[Any, ...]]:
        return self.rows(
            "select user_id, score_given, score_maximum, timestamp, comment, activity_progress, grading_progress "
            "from lti_consumer_ltiagsscore where line_item_id = ?",
            line_item.rpartition("/")[2],
        )

    def grades(self, location: str) -> dict[int, tuple[float | None, float | None]]:
        """The course's own gradebook: points and their maximum of a component, by the people's numbers."""
        query = "select student_id, grade, max_grade from courseware_studentmodule where module_state_key = ?"
        return {student: (grade, maximum) for student, grade, maximum in self.rows(query, location)}


@pytest.fixture(scope="module")
def edx(openedx_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenEdx]:
    edx = OpenEdx(openedx_python, tmp_path_factory.mktemp("edx") / "edx.sqlite")
    yield edx
    edx.close()


@pytest.fixture(scope="module")
def people(edx: OpenEdx) -> dict[str, Any]:
    return {
        "zoe": edx.ask("add_person", username="zoe", name="Zoë Ü", email="zoe+x@example.edu"),
        "ana": edx.ask("add_person", username="ana", name="Ana", email="ana@example.edu"),
        "tim": edx.ask("add_person", username="tim", name="Tim", email="tim@example.edu", forum_role="Community TA"),
        "lee": edx.ask("add_person", username="lee", name="Lee", email="lee@example.edu", role="instructor"),
    }


@pytest.fixture
async def services(edx: OpenEdx) -> AsyncIterator[Services]:
    async def keys() -> list[Any]:
        return edx.keys

    services = Services(keys, loopback=True)
    yield services
    await services.close()


# Tokens


async def test_it_fetches_our_key_set_and_takes_the_key_that_is_new_in_it(edx: OpenEdx) -> None:
    platform = edx.component()
    for _ in range(2):
        services = Services(_always(edx.keys), loopback=True)
        assert await ags.line_items(services, platform, platform.line_items, offered=platform.offered)
        await services.close()
        edx.keys.insert(0, _key())


async def test_it_gives_no_token_to_a_key_that_is_not_ours(edx: OpenEdx) -> None:
    platform = edx.component()
    stranger = Services(_always([_key()]), loopback=True)
    with pytest.raises(ServiceError, match="no access token: invalid_client") as error:
        await ags.line_items(stranger, platform, platform.line_items)
    assert (error.value.code, error.value.retry) == ("token", False)
    await stranger.close()


def _always(keys: list[Any]) -> Any:
    async def have() -> list[Any]:
        return keys

    return have


async def test_a_token_that_is_worth_nothing_any_more_is_replaced(edx: OpenEdx, services: Services) -> None:
    """Open edX answers 403, as it does where a token may not do what is asked; only the words differ."""
    platform = edx.component()
    edx.ask("token_clock", behind=7200)
    with pytest.raises(ServiceError, match="Invalid token signature"):
        await ags.line_items(services, platform, platform.line_items)
    edx.ask("token_clock", behind=0)
    assert await ags.line_items(services, platform, platform.line_items)
    edx.ask("new_keys")
    assert await ags.line_items(services, platform, platform.line_items)


async def test_a_token_is_for_one_thing(edx: OpenEdx, services: Services) -> None:
    platform = edx.component()
    with pytest.raises(ServiceError, match="does not let this tool ask: You do not have permission") as error:
        await services.request(platform, "GET", platform.line_items, scopes=[ags.SCORE_SCOPE], purpose=ANY)
    assert (error.value.code, error.value.retry) == ("forbidden", False)


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", ags.SCORE_TYPE])
async def test_other_media_types_are_refused(edx: OpenEdx, services: Services, kind: str) -> None:
    platform = edx.component(lti_advantage_ags_mode="programmatic")
    body = {"label": "ps1", "scoreMaximum": 1, "resourceId": "ps1"}
    with pytest.raises(ServiceError, match="Unsupported media type") as error:
        await services.request(
            platform, "POST", platform.line_items, scopes=[ags.LINE_ITEM_SCOPE], purpose=ANY, kind=kind, body=body
        )
    assert (error.value.code, error.value.retry, error.value.unsure) == ("refused", False, False)
    with pytest.raises(ServiceError, match="Accept"):
        await services.request(
            platform, "GET", platform.line_items, scopes=[ags.LINE_ITEM_SCOPE], purpose=ANY, accept="application/json"
        )


# Columns


async def test_the_column_that_a_component_has_is_found(edx: OpenEdx, services: Services) -> None:
    platform = edx.component()
    assert platform.line_item.startswith(f"{platform.line_items}/")
    item = await ags.line_item(services, platform, platform.line_item, offered=platform.offered)
    assert item == ags.LineItem(
        id=platform.line_item,
        label="Übung 1",
        score_maximum=20.0,
        resource_link_id=platform.location,
        resource_id=platform.location,
    )
    for wanted in ({}, {"resource_link_id": platform.location}, {"resource_id": platform.location}):
        assert await ags.line_items(services, platform, platform.line_items, **wanted) == [item]
    for other in ({"resource_id": "ps1"}, {"tag": "grade"}):
        assert await ags.line_items(services, platform, platform.line_items, **other) == []
    with pytest.raises(ServiceError, match="not there any more") as error:
        await ags.line_item(services, platform, f"{platform.line_items}/999", offered=platform.offered)
    assert error.value.code == "column-gone"
    with pytest.raises(ServiceError, match="does not let this tool make columns") as error:
        await ags.create_line_item(services, platform, platform.line_items, item, offered=platform.offered)
    assert error.value.code == "scope"


async def test_columns_are_made_where_a_component_lets_the_tool(edx: OpenEdx, services: Services) -> None:
    platform = edx.component(lti_advantage_ags_mode="programmatic")
    assert platform.line_item == ""
    assert await ags.line_items(services, platform, platform.line_items, offered=platform.offered) == []
    wanted = ags.LineItem(
        id="", label="Übung 2 & <b>", score_maximum=12.0, resource_id="ps2/ü", tag="grade",
        resource_link_id=platform.location,
    )  # fmt: skip
    made = await ags.create_line_item(services, platform, platform.line_items, wanted, offered=platform.offered)
    assert made.id.startswith(f"{platform.line_items}/")
    assert await ags.line_item(services, platform, made.id) == made
    assert (made.label, made.resource_id, made.score_maximum) == (wanted.label, wanted.resource_id, 12.0)
    for one in ({"resource_id": "ps2/ü"}, {"tag": "grade"}, {"resource_link_id": platform.location}):
        assert await ags.line_items(services, platform, platform.line_items, **one) == [made]
    long = ags.LineItem(id="", label="x" * 101, score_maximum=1.0, resource_id="ps3")
    with pytest.raises(ServiceError, match="no more than 100 characters") as error:
        await ags.create_line_item(services, platform, platform.line_items, long)
    assert (error.value.code, error.value.retry) == ("refused", False)


async def test_a_column_of_half_points(edx: OpenEdx, services: Services) -> None:
    """Open edX has whole points alone; a score says of how many it is."""
    platform = edx.component(lti_advantage_ags_mode="programmatic")
    wanted = ags.LineItem(id="", label="ps1", score_maximum=12.5, resource_id="ps1")
    made = await ags.create_line_item(services, platform, platform.line_items, wanted)
    assert made.score_maximum == 13.0


# Scores


def _score(user: str, given: float | None = 7.5, **changes: Any) -> ags.Score:
    return ags.Score(
        **{
            "user_id": user,
            "score_given": given,
            "score_maximum": 12.5,
            "timestamp": TIME,
            "comment": "Gut gemacht, Zoë\n2 Punkte ab & <b>",
            **changes,
        }
    )


async def test_a_score_arrives_with_scale_time_and_comment(
    edx: OpenEdx, services: Services, people: dict[str, Any]
) -> None:
    platform, zoe = edx.component(), people["zoe"]

    async def send(score: ags.Score) -> None:
        await ags.post_score(services, platform, platform.line_item, score, offered=platform.offered)

    async def held() -> ags.Result | None:
        return await ags.result_of(services, platform, platform.line_item, zoe["external_id"], offered=platform.offered)

    assert await held() is None
    # What is for other LMSs does no harm.
    first = _score(zoe["external_id"], submitted=TIME, extra=ags.CANVAS_NO_SUBMISSION)
    await send(first)
    row = (
        zoe["external_id"], 7.5, 12.5, "2025-12-31 22:30:00.250000", first.comment, "Completed", "FullyGraded",
    )  # fmt: skip
    assert edx.scores(platform.line_item) == [row]
    # 7.5 of 12.5 are 12 of the component's 20.
    assert edx.grades(platform.location) == {zoe["id"]: (12.0, 20.0)}
    assert await held() == ags.Result(zoe["external_id"], 7.5, 12.5, first.comment)

    # It lists everybody's results, whatever is asked for.
    other = edx.component()
    for user, given in (("zoe", 1.0), ("ana", 2.0), ("tim", 3.0)):
        await ags.post_score(services, other, other.line_item, _score(people[user]["external_id"], given))
    for user, given in (("zoe", 1.0), ("ana", 2.0), ("tim", 3.0)):
        result = await ags.result_of(services, other, other.line_item, people[user]["external_id"])
        assert result is not None
        assert (result.user_id, result.score) == (people[user]["external_id"], given)

    # The same once more, other points of the same time, and what is from before: refused, and nothing changes.
    before = TIME - timedelta(microseconds=1)
    for again in (first, _score(zoe["external_id"], 1.0), _score(zoe["external_id"], 1.0, timestamp=before)):
        with pytest.raises(ServiceError) as error:
            await send(again)
        assert (error.value.code, error.value.retry) == ("older", False)
    assert edx.scores(platform.line_item) == [row]

    # A regrade; without a comment the old one stays. More than all points are all points there.
    await send(_score(zoe["external_id"], 15.0, timestamp=TIME + timedelta(microseconds=1), comment=""))
    assert edx.grades(platform.location) == {zoe["id"]: (20.0, 20.0)}
    assert await held() == ags.Result(zoe["external_id"], 15.0, 12.5, first.comment)

    # Something is left to grade by hand: kept, but not shown in the gradebook.
    await send(_score(zoe["external_id"], 0.0, timestamp=datetime.now(UTC), grading_progress="PendingManual"))
    assert edx.grades(platform.location) == {zoe["id"]: (20.0, 20.0)}
    assert edx.scores(platform.line_item)[0][-1] == "PendingManual"
    await send(_score(zoe["external_id"], 0.0, timestamp=datetime.now(UTC)))
    assert edx.grades(platform.location) == {zoe["id"]: (0.0, 20.0)}


@pytest.mark.parametrize("user", ["nobody", "00000000-0000-4000-8000-000000000000"])
async def test_somebody_whom_it_does_not_know(
    edx: OpenEdx, services: Services, people: dict[str, Any], user: str
) -> None:
    """Open edX answers 500, keeps nothing, and goes on with the others."""
    platform = edx.component()
    with pytest.raises(ServiceError, match="answer 500") as error:
        await ags.post_score(services, platform, platform.line_item, _score(user))
    assert (error.value.code, error.value.retry, error.value.unsure) == ("platform", True, True)
    assert edx.scores(platform.line_item) == []
    await ags.post_score(services, platform, platform.line_item, _score(people["ana"]["external_id"]))
    assert edx.grades(platform.location) == {people["ana"]["id"]: (12.0, 20.0)}


async def test_a_column_without_the_links_id_never_reaches_the_gradebook(
    edx: OpenEdx, services: Services, people: dict[str, Any]
) -> None:
    """It takes the scores all the same, whosever they are."""
    platform, ana = edx.component(lti_advantage_ags_mode="programmatic"), people["ana"]
    items = [
        await ags.create_line_item(
            services, platform, platform.line_items,
            ags.LineItem(id="", label="ps1", score_maximum=5.0, resource_id="ps1", resource_link_id=link),
        )
        for link in ("", platform.location)
    ]  # fmt: skip
    await ags.post_score(services, platform, items[0].id, _score("nobody"))
    await ags.post_score(services, platform, items[0].id, _score(ana["external_id"]))
    assert edx.grades(platform.location) == {}
    await ags.post_score(services, platform, items[1].id, _score(ana["external_id"]))
    assert edx.grades(platform.location) == {ana["id"]: (12.0, 20.0)}


async def test_a_component_that_is_not_graded_takes_scores_for_nothing(
    edx: OpenEdx, services: Services, people: dict[str, Any]
) -> None:
    platform = edx.component(has_score=False)
    await ags.post_score(services, platform, platform.line_item, _score(people["ana"]["external_id"]))
    assert edx.grades(platform.location) == {}
    with pytest.raises(ServiceError) as error:
        await ags.post_score(services, platform, f"{platform.line_items}/999", _score(people["ana"]["external_id"]))
    assert error.value.code == "column-gone"


# People


async def test_people_of_the_course(edx: OpenEdx, services: Services, people: dict[str, Any]) -> None:
    platform = edx.component()
    edx.ask("choose", pii=False)
    everybody = await nrps.members(services, platform, platform.memberships)
    assert {one.user_id for one in everybody} == {one["external_id"] for one in people.values()}
    assert {(one.name, one.email, one.status) for one in everybody} == {("", "", "Active")}

    edx.ask("choose", pii=True)
    listed = await nrps.members(services, platform, platform.memberships)
    found = {one.user_id: (one.name, one.email, role_of(one.roles, LTI_ROLES)) for one in listed}
    assert found == {
        people["zoe"]["external_id"]: ("Zoë Ü", "zoe+x@example.edu", "student"),
        people["ana"]["external_id"]: ("Ana", "ana@example.edu", "student"),
        people["tim"]["external_id"]: ("Tim", "tim@example.edu", "ta"),
        people["lee"]["external_id"]: ("Lee", "lee@example.edu", "instructor"),
    }
    # It has pages for whoever asks for them.
    for limit in (1, 3, 4):
        assert await nrps.members(services, platform, f"{platform.memberships}?limit={limit}") == listed


async def test_a_course_that_does_not_tell(edx: OpenEdx, services: Services, people: dict[str, Any]) -> None:
    platform = edx.component()
    edx.ask("choose", member_limit=len(people) - 1)
    try:
        with pytest.raises(ServiceError, match="the LMS does not let this tool read who is in the course") as error:
            await nrps.members(services, platform, platform.memberships)
    finally:
        edx.ask("choose", member_limit=len(people))
    assert (error.value.code, error.value.said, error.value.retry) == ("forbidden", "above_response_limit", False)
    assert len(await nrps.members(services, platform, platform.memberships)) == len(people)
    edx.ask("add_block", name=platform.location.rpartition("@")[2], lti_1p3_enable_nrps=False)
    with pytest.raises(ServiceError, match="does not let this tool read who is in the course") as error:
        await nrps.members(services, platform, platform.memberships)
    assert error.value.code == "forbidden"


# LTI 1.1

CONSUMER = SimpleNamespace(key="the key", secret="a secret & more +%")


@pytest.fixture
def link(edx: OpenEdx) -> Any:
    """A component of LTI 1.1, 20 points: makes what a launch of somebody says of their result."""
    edx.ask("choose", lti_passports=[f"illumidesk:{CONSUMER.key}:{CONSUMER.secret}"])
    name = edx.name()
    location = edx.ask("add_block", name=name, lti_version="lti_1p1", lti_id="illumidesk", has_score=True, weight=20.0)

    def launched(viewer: int) -> tuple[str, str]:
        said = edx.ask("result", location=location, viewer=viewer)
        return said["url"], said["sourcedid"]

    return SimpleNamespace(name=name, location=location, launched=launched)


@pytest.mark.parametrize(("score", "points"), [(0.75, 15.0), (1 / 3, 20 / 3), (0, 0.0), (1, 20.0), (1e-7, 2e-6)])
async def test_an_outcome_arrives(
    edx: OpenEdx, services: Services, people: dict[str, Any], link: Any, score: float, points: float
) -> None:
    url, sourcedid = link.launched(people["zoe"]["id"])
    assert sourcedid.startswith("course-v1%3ADemoX%2BCS101%2B2026:block-v1:DemoX+CS101")
    for _ in range(2):
        await outcomes.replace_result(services, CONSUMER, url, sourcedid, score)
    assert edx.grades(link.location) == {people["zoe"]["id"]: (pytest.approx(points), 20.0)}
    _, other = link.launched(people["ana"]["id"])
    await outcomes.replace_result(services, CONSUMER, url, other, 0.5)
    assert edx.grades(link.location)[people["ana"]["id"]] == (10.0, 20.0)


async def test_outcomes_are_neither_read_nor_taken_back(
    edx: OpenEdx, services: Services, people: dict[str, Any], link: Any
) -> None:
    url, sourcedid = link.launched(people["zoe"]["id"])
    await outcomes.replace_result(services, CONSUMER, url, sourcedid, 0.75)
    with pytest.raises(ServiceError, match=r"the LMS cannot read grades by LTI 1\.1$") as error:
        await outcomes.read_result(services, CONSUMER, url, sourcedid)
    assert (error.value.code, error.value.retry) == ("unsupported", False)
    with pytest.raises(ServiceError, match=r"the LMS cannot take grades away by LTI 1\.1$") as error:
        await outcomes.delete_result(services, CONSUMER, url, sourcedid)
    assert (error.value.code, error.value.retry) == ("unsupported", False)
    assert edx.grades(link.location) == {people["zoe"]["id"]: (15.0, 20.0)}


async def test_outcomes_that_are_refused(edx: OpenEdx, services: Services, people: dict[str, Any], link: Any) -> None:
    """All with 200."""
    url, sourcedid = link.launched(people["zoe"]["id"])

    async def refused(consumer: Any = CONSUMER, name: str = sourcedid) -> tuple[str, int | None, bool]:
        with pytest.raises(ServiceError) as error:
            await outcomes.replace_result(services, consumer, url, name, 0.5)
        return error.value.code, error.value.answered, error.value.retry

    assert await refused(SimpleNamespace(key=CONSUMER.key, secret="other")) == ("signature", 200, False)
    assert await refused(name=sourcedid[:-1]) == ("user-gone", 200, False)
    assert await refused(name='<a href="x">&amp;:nobody') == ("user-gone", 200, False)
    edx.ask("add_block", name=link.name, due="2020-01-01T00:00:00Z", accept_grades_past_due=False)
    with pytest.raises(ServiceError, match=r"does not take this grade: Grade is past due$"):
        await outcomes.replace_result(services, CONSUMER, url, sourcedid, 0.5)
    assert edx.grades(link.location) == {}
    edx.ask("add_block", name=link.name, accept_grades_past_due=True)
    await outcomes.replace_result(services, CONSUMER, url, sourcedid, 0.5)
    assert edx.grades(link.location) == {people["zoe"]["id"]: (10.0, 20.0)}
