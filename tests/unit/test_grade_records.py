"""The registry's part in grades: links, columns, and deliveries that neither get lost nor go twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.registry import Context, Registry
from illumidesk.registry.grades import NOT_OPENED, GradeRecords, Wanted

MOODLE = {"key": "moodle", "secret": "a-secret-of-some-length"}
CANVAS = {
    "issuer": "https://lms.example",
    "client_id": "client",
    "auth_url": "https://lms.example/auth",
    "jwks_url": "https://lms.example/jwks",
    "deployments": ["1"],
}
ERROR = IllumiDeskError("the LMS has trouble of its own", hint="wait")


class Class:
    """A registry with one course of one platform, two students in it."""

    def __init__(self, path: Path, version: str = "1.3") -> None:
        self.registry = Registry(path)
        self.records: GradeRecords = self.registry.grades
        fields = CANVAS if version == "1.3" else MOODLE
        self.platform, _ = self.registry.add_platform("LMS", version, **fields)  # type: ignore[arg-type]
        for sub, name in (("1", "ana"), ("2", "ben")):
            self.registry.ensure_identity(self.platform.id, sub, [name])
        self.course_id, _ = self.registry.ensure_context(self.platform.id, "c", ["algebra"])
        for name in ("ana", "ben"):
            self.registry.set_membership(self.course_id, name, "student", source="launch")

    @property
    def context(self) -> Context:
        found = self.registry.context(self.platform.id, "c")
        assert found is not None
        return found

    def learn(self, name: str = "ana", **said: object) -> bool:
        return self.records.learn(self.platform.id, "c", self.course_id, name, **said)  # type: ignore[arg-type]

    def column(self, assignment: str = "ps1", **where: object) -> int:
        where = where or {"line_item": "https://lms.example/items/1"}
        made = self.records.set_column(self.context, assignment, source="made", label=assignment, **where)  # type: ignore[arg-type]
        return made.id

    def state(self, name: str = "ana") -> str:
        return next(row.state for _, row in self.records.deliveries(self.course_id) if row.name == name)

    def due(self) -> list[int]:
        return [number for number, _ in self.records.due(100)]


@pytest.fixture
def canvas(tmp_path: Path) -> Class:
    return Class(tmp_path / "registry.sqlite")


@pytest.fixture
def moodle(tmp_path: Path) -> Class:
    return Class(tmp_path / "registry.sqlite", "1.1")


def in_(seconds: float) -> datetime:
    return datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=seconds)


# What launches say


def test_a_launch_brings_services_and_its_link_and_says_nothing_twice(canvas: Class) -> None:
    said = {
        "line_items_url": "https://lms.example/items?type_id=1",
        "ags_scopes": ("b", "a"),
        "memberships_url": "https://lms.example/members",
        "resource_link_id": "link",
        "title": "Übung 1",
        "assignment": "ps1",
        "line_item": "https://lms.example/items/1?type_id=1",
    }
    canvas.learn(**said)
    before = canvas.records.links(canvas.course_id)
    canvas.learn("ben", **said)
    (link,) = canvas.records.links(canvas.course_id)
    assert (link.title, link.assignment, link.line_item) == ("Übung 1", "ps1", "https://lms.example/items/1?type_id=1")
    assert link.id == before[0].id
    ((_, context),) = canvas.records.contexts(canvas.course_id)
    assert context.line_items_url == "https://lms.example/items?type_id=1"
    assert context.ags_scopes == ["a", "b"]
    assert context.memberships_url == "https://lms.example/members"


def test_a_launch_that_says_less_takes_nothing_away(canvas: Class) -> None:
    canvas.learn(resource_link_id="link", title="One", assignment="ps1", line_item="https://lms.example/1")
    canvas.learn(resource_link_id="link", line_items_url="https://lms.example/items")
    canvas.learn(resource_link_id=None)
    (link,) = canvas.records.links(canvas.course_id)
    assert (link.title, link.assignment, link.line_item) == ("One", "ps1", "https://lms.example/1")


def test_a_sourcedid_is_kept_letter_by_letter_and_the_last_one_counts(moodle: Class) -> None:
    first, last = '{"data":{"userid":"4"},"hash":"5a\\"b/<&>ü\r\n"}', "second' ; --"
    outcome = "https://lms.example/outcomes?a=1&b=2"
    moodle.learn(resource_link_id="link", outcome_url=outcome, sourcedid=first)
    moodle.records.want(moodle.column(link_id=moodle.records.links("algebra")[0].id), [Wanted("ana", 1, 2)])
    job = moodle.records.begin(moodle.due()[0])
    assert job is not None
    assert (job.sourcedid, job.outcome_url) == (first, outcome)
    moodle.records.recover()
    moodle.learn(resource_link_id="link", outcome_url=outcome, sourcedid=last)
    job = moodle.records.begin(moodle.due()[0])
    assert job is not None
    assert job.sourcedid == last


def test_links_are_bounded_and_those_with_grades_stay(moodle: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("illumidesk.registry.grades.MAX_LINKS", 3)
    moodle.learn(resource_link_id="graded", outcome_url="https://lms.example/o")
    kept = moodle.records.links(moodle.course_id)[0].id
    moodle.column(link_id=kept)
    for number in range(5):
        moodle.learn(resource_link_id=f"link-{number}", title=str(number))
    links = moodle.records.links(moodle.course_id)
    assert [link.resource_link_id for link in links] == ["graded", "link-3", "link-4"]


# Deliveries


def test_what_is_there_is_not_sent_again_until_it_changes(canvas: Class) -> None:
    column = canvas.column()
    assert canvas.records.want(column, [Wanted("ana", 7, 10), Wanted("ben", 5, 10)]) == ["ana", "ben"]
    assert canvas.records.want(column, [Wanted("ana", 7, 10)]) == []
    for number in canvas.due():
        job = canvas.records.begin(number)
        assert job is not None
        assert job.sub in ("1", "2")
        canvas.records.arrived(job)
    assert canvas.due() == []
    assert canvas.records.want(column, [Wanted("ana", 7, 10), Wanted("ben", 5, 10)]) == []
    assert canvas.records.want(column, [Wanted("ana", 8, 10), Wanted("ben", 5, 10)]) == ["ana"]
    # What is on its way is no second time on its way; what is there may be sent once more.
    assert canvas.records.want(column, [Wanted("ana", 8, 10), Wanted("ben", 5, 10)], again=True) == ["ben"]
    number, _ = canvas.due()
    job = canvas.records.begin(number)
    assert job is not None
    assert (job.delivery.score, job.delivery.sent_score) == (8, 7)


def test_a_grade_that_goes_back_before_it_went_is_not_sent(canvas: Class) -> None:
    column = canvas.column()
    canvas.records.want(column, [Wanted("ana", 7, 10)])
    job = canvas.records.begin(canvas.due()[0])
    assert job is not None
    canvas.records.arrived(job)
    canvas.records.want(column, [Wanted("ana", 8, 10)])
    assert canvas.state() == "waiting"
    assert canvas.records.want(column, [Wanted("ana", 7, 10)]) == []
    assert canvas.state() == "sent"
    assert canvas.due() == []


def test_a_new_grade_while_the_old_one_is_under_way_is_sent_after_it(canvas: Class) -> None:
    column = canvas.column()
    canvas.records.want(column, [Wanted("ana", 7, 10)])
    first = canvas.records.begin(canvas.due()[0])
    assert first is not None
    canvas.records.want(column, [Wanted("ana", 9, 10)])
    canvas.records.arrived(first)
    (number,) = canvas.due()
    second = canvas.records.begin(number)
    assert second is not None
    assert second.delivery.score == 9
    assert second.delivery.changed > first.delivery.changed
    assert not second.delivery.unsure
    # The old failure of the old grade says nothing of the new one.
    canvas.records.held_up(first, ERROR, code="platform", unsure=True, due=None, failed=True)
    assert canvas.state() == "sending"
    canvas.records.arrived(second)
    assert canvas.state() == "sent"


def test_what_was_cut_off_is_tried_again_with_the_same_time_and_known_to_be_unsure(canvas: Class) -> None:
    canvas.records.want(canvas.column(), [Wanted("ana", 7, 10)])
    first = canvas.records.begin(canvas.due()[0])
    assert first is not None
    assert not first.delivery.unsure
    assert canvas.due() == []
    assert canvas.records.recover() == 1
    second = canvas.records.begin(canvas.due()[0])
    assert second is not None
    assert second.delivery.unsure
    assert second.delivery.changed == first.delivery.changed
    canvas.records.arrived(second)
    assert canvas.records.recover() == 0


def test_a_failure_waits_for_its_time_and_a_refusal_for_somebody(canvas: Class) -> None:
    column = canvas.column()
    canvas.records.want(column, [Wanted("ana", 7, 10), Wanted("ben", 5, 10)])
    ana, ben = (canvas.records.begin(number) for number in canvas.due())
    assert ana is not None
    assert ben is not None
    canvas.records.held_up(ana, ERROR, code="platform", unsure=False, due=in_(60))
    canvas.records.held_up(ben, ERROR, code="user-gone", unsure=False, due=None, failed=True)
    assert canvas.due() == []
    assert 50 < (canvas.records.next_due() or 0) <= 60
    assert canvas.state("ben") == "failed"
    rows = {row.name: row for _, row in canvas.records.deliveries(canvas.course_id)}
    assert (rows["ana"].problem, rows["ana"].hint, rows["ana"].code) == (ERROR.message, ERROR.hint, "platform")
    # A plain send leaves what waits in peace, and tries again what was refused.
    assert canvas.records.want(column, [Wanted("ana", 7, 10), Wanted("ben", 5, 10)]) == ["ben"]
    before = rows["ben"].changed
    assert canvas.records.retry(canvas.course_id) == 2
    assert len(canvas.due()) == 2
    rows = {row.name: row for _, row in canvas.records.deliveries(canvas.course_id)}
    assert rows["ben"].changed > before
    assert rows["ana"].problem == ""


def test_a_grade_waits_until_the_student_opens_the_link(moodle: Class) -> None:
    moodle.learn("ben", resource_link_id="link", outcome_url="https://lms.example/o", sourcedid="ben's")
    column = moodle.column(link_id=moodle.records.links(moodle.course_id)[0].id)
    moodle.records.want(column, [Wanted("ana", 7, 10)])
    job = moodle.records.begin(moodle.due()[0])
    assert job is not None
    assert job.sourcedid == ""
    moodle.records.held_up(job, ERROR, code=NOT_OPENED, unsure=False, due=None)
    assert moodle.due() == []
    assert moodle.records.next_due() is None
    assert not moodle.learn("ben", resource_link_id="link", sourcedid="ben's new")
    assert moodle.learn("ana", resource_link_id="link", sourcedid="ana's")
    (number,) = moodle.due()
    job = moodle.records.begin(number)
    assert job is not None
    assert job.sourcedid == "ana's"


def test_a_link_that_is_opened_in_that_very_moment_is_not_missed(moodle: Class) -> None:
    moodle.learn("ben", resource_link_id="link", outcome_url="https://lms.example/o", sourcedid="ben's")
    column = moodle.column(link_id=moodle.records.links(moodle.course_id)[0].id)
    moodle.records.want(column, [Wanted("ana", 7, 10)])
    job = moodle.records.begin(moodle.due()[0])
    assert job is not None
    moodle.learn("ana", resource_link_id="link", sourcedid="ana's")
    moodle.records.held_up(job, ERROR, code=NOT_OPENED, unsure=False, due=None)
    assert len(moodle.due()) == 1


def test_another_column_has_nothing_yet(canvas: Class) -> None:
    column = canvas.column()
    canvas.records.want(column, [Wanted("ana", 7, 10)])
    job = canvas.records.begin(canvas.due()[0])
    assert job is not None
    canvas.records.arrived(job)
    assert canvas.column(line_item="https://lms.example/items/1") == column
    assert canvas.state() == "sent"
    assert canvas.column(line_item="https://lms.example/items/2") == column
    assert canvas.records.deliveries(canvas.course_id) == []
    assert canvas.records.want(column, [Wanted("ana", 7, 10)]) == ["ana"]
    # What the old attempt brings home is of no delivery that there is.
    canvas.records.arrived(job)
    assert canvas.state() == "waiting"


def test_a_removed_platform_is_asked_nothing_and_one_that_is_back_gets_it_all(canvas: Class) -> None:
    canvas.records.want(canvas.column(), [Wanted("ana", 7, 10)])
    canvas.registry.remove_platform(canvas.platform.id)
    assert canvas.due() == []
    canvas.registry.add_platform("LMS", "1.3", replace=True, **CANVAS)  # type: ignore[arg-type]
    assert len(canvas.due()) == 1


def test_a_course_that_is_removed_takes_its_deliveries_along(canvas: Class) -> None:
    canvas.learn(resource_link_id="link", sourcedid="x", outcome_url="https://lms.example/o")
    canvas.records.want(canvas.column(), [Wanted("ana", 7, 10)])
    canvas.registry.remove_course(canvas.course_id)
    assert canvas.due() == []
    assert canvas.records.links(canvas.course_id) == canvas.records.columns(canvas.course_id) == []


# Who is in the course


def test_a_roster_brings_people_and_takes_no_role_away(canvas: Class) -> None:
    canvas.registry.set_membership(canvas.course_id, "ana", "instructor", source="launch")
    assert not canvas.registry.set_membership(canvas.course_id, "ana", "student", source="roster")
    assert ("ana", "instructor") in canvas.registry.members(canvas.course_id)
    canvas.registry.ensure_identity(canvas.platform.id, "3", ["cleo"])
    assert canvas.registry.set_membership(canvas.course_id, "cleo", "student", source="roster")
    canvas.registry.set_membership(canvas.course_id, "cleo", "ta", source="roster")
    assert ("cleo", "ta") in canvas.registry.members(canvas.course_id)


def test_who_left_is_no_member_until_they_are_back_and_stays_on_record(canvas: Class) -> None:
    canvas.registry.leave(canvas.course_id, "ana")
    assert canvas.registry.members(canvas.course_id) == [("ben", "student")]
    assert canvas.registry.memberships("ana") == []
    assert canvas.registry.highest_role("ana") is None
    assert canvas.registry.counts()[canvas.course_id] == {"student": 1}
    assert [one.name for one in canvas.registry.all_members(canvas.course_id)] == ["ana", "ben"]
    assert canvas.registry.set_membership(canvas.course_id, "ana", "student", source="launch")
    assert ("ana", "student") in canvas.registry.members(canvas.course_id)
