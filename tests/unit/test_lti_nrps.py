"""Who is in a course, over HTTP on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from illumidesk.lti import nrps, services
from illumidesk.lti.launch import role_of
from illumidesk.lti.nrps import Member
from illumidesk.lti.services import ServiceError
from illumidesk.settings import Settings
from tests.support.services_peer import Pair, paired

MEMBERSHIP = "http://purl.imsglobal.org/vocab/lis/v2/membership"


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with paired() as pair:
        yield pair


async def listed(pair: Pair) -> list[Member]:
    return await nrps.members(pair.tool, pair.platform, pair.lms.memberships_url)


async def failed(pair: Pair) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await listed(pair)
    return caught.value


async def test_everybody_on_all_pages(pair: Pair) -> None:
    pair.lms.members = [{"user_id": str(number), "roles": ["Learner"]} for number in range(301)]
    for links in ("full", "relative"):
        pair.lms.links = links
        assert [one.user_id for one in await listed(pair)] == [str(number) for number in range(301)]
    asked = [one for one in pair.lms.asked if one.kind == "members"]
    assert len(asked) == 2 * 151
    assert {one.headers["Accept"] for one in asked} == {nrps.MEMBERS_TYPE}
    assert pair.lms.token_requests == 1
    pair.lms.members = []
    assert await listed(pair) == []


async def test_what_is_known_of_somebody(pair: Pair) -> None:
    pair.lms.members = [
        {
            "user_id": "5", "roles": ["Learner", "TeachingAssistant"], "status": "Active", "name": "Zoë\tStudent",
            "given_name": "Zoë", "family_name": "Student", "email": "zoe@example.edu", "lis_person_sourcedid": "zoe",
            "picture": None, "message": [{"odd": True}], "group_enrollments": [],
        },
        {"user_id": 6, "roles": None, "status": None, "name": None, "email": 7, "lis_person_sourcedid": ""},
        {"user_id": "7", "roles": "Instructor,Mentor", "status": "inactive", "ext_user_username": "seven",
         "lis_person_sourcedid": "$Person.sourcedId"},
        {"user_id": "8", "roles": ["Learner", 3], "status": "Pending", "lis_person_sourcedid": "$Person.sourcedId"},
    ]  # fmt: skip
    assert await listed(pair) == [
        Member(
            "5",
            ("Learner", "TeachingAssistant"),
            "Active",
            "Zoë Student",
            "Zoë",
            "Student",
            "zoe@example.edu",
            "zoe",
        ),
        Member("6"),
        Member("7", ("Instructor,Mentor",), "Inactive", login="seven"),
        Member("8", ("Learner",), "Active"),
    ]


async def test_roles_are_those_of_launches(pair: Pair) -> None:
    pair.lms.members = [
        {"user_id": "1", "roles": ["Instructor"]},
        {"user_id": "2", "roles": [f"{MEMBERSHIP}#Instructor"]},
        {"user_id": "3", "roles": ["Learner", "TeachingAssistant"]},
        {"user_id": "4", "roles": [f"{MEMBERSHIP}/Instructor#TeachingAssistant", f"{MEMBERSHIP}#Instructor"]},
        {"user_id": "5", "roles": ["Learner"]},
        {"user_id": "6", "roles": []},
    ]
    table = Settings().sign_in.lti.roles
    roles = [role_of(one.roles, table) for one in await listed(pair)]
    assert roles == ["instructor", "instructor", "ta", "ta", "student", "student"]


async def test_nobody_is_there_twice(pair: Pair) -> None:
    pair.lms.members = [
        {"user_id": "1", "roles": ["Learner"], "status": "Inactive", "email": "one@example.edu"},
        {"user_id": "2", "roles": ["Instructor"], "status": "Deleted"},
        {"user_id": "1", "roles": ["TeachingAssistant"], "status": "Active", "name": "One"},
        {"user_id": "2", "roles": ["Learner"], "status": "Active"},
        {"user_id": "3", "roles": ["Learner"]},
        {"user_id": "3", "roles": ["Mentor", "Learner"]},
    ]
    assert await listed(pair) == [
        Member("1", ("TeachingAssistant",), "Active", "One", email="one@example.edu"),
        Member("2", ("Learner",), "Active"),
        Member("3", ("Learner", "Mentor"), "Active"),
    ]


@pytest.mark.parametrize("member", [{"roles": ["Learner"]}, {"user_id": " "}, {"user_id": None}, "3", None])
async def test_somebody_without_an_id_is_not_left_out_in_silence(pair: Pair, member: Any) -> None:
    pair.lms.members.append(member)
    error = await failed(pair)
    assert (error.code, error.retry) == ("answer", False)
    assert "has no user_id" in error.message


@pytest.mark.parametrize("trouble", ["drop", "drop-after", "html", "empty", "oversized", "rate-limit", "redirect"])
async def test_a_page_that_fails_is_no_short_list(pair: Pair, trouble: Any) -> None:
    async def second_fails(kind: str, asked: Any) -> None:
        if asked.path.endswith("from=2") and asked.when == "before":
            pair.lms.fault("members", trouble, times=1)

    pair.lms.on_request = second_fails
    error = await failed(pair)
    assert not error.unsure
    pair.lms.on_request = None
    assert len(await listed(pair)) == 3


async def test_pages_without_end(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "MAX_PAGES", 9)
    for links in ("loop", "endless"):
        pair.lms.links = links
        assert "no end" in (await failed(pair)).message
    pair.lms.links = "full"
    monkeypatch.setattr(nrps, "MAX_ENTRIES", 2)
    assert "more than 2 people" in (await failed(pair)).message


async def test_what_may_not_be_read(pair: Pair) -> None:
    pair.lms.fault("members", "refuse", status=403)
    error = await failed(pair)
    assert (error.code, error.message) == ("forbidden", "the LMS does not let this tool read who is in the course")
    pair.lms.fault("members", "refuse", status=404)
    error = await failed(pair)
    assert (error.code, error.message) == ("course-gone", "the LMS does not know this course any more")
    pair.lms.offered = set()
    await pair.tool.close()
    async with paired() as other:
        other.lms.offered = set()
        assert (await failed(other)).code == "scope"
