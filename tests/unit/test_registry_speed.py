"""What makes a class's launches cheap: one look for what is known, one transaction, one wait for the disk."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from illumidesk.errors import IllumiDeskError
from illumidesk.registry import Platform, Recognised, Registry
from illumidesk.registry.disk import Disk

PERSON = {"email": "ana@example.edu", "full_name": "Ana B", "given_name": "Ana", "family_name": "B"}
SERVICES = {"line_items_url": "https://lms.example/items", "ags_scopes": ["a", "b"], "memberships_url": ""}
COURSE = {"label": "CS 101", "title": "Intro", **SERVICES}
LINK = {"title": "Week 1", "assignment": "", "line_item": "https://lms.example/items/1", "outcome_url": ""}
LAUNCH: dict[str, Any] = {
    "person": PERSON, "context_id": "2", "course": COURSE, "role": "student", "link_id": "l1", "link": LINK,
    "sourcedid": "s1",
}  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.sqlite")


@pytest.fixture
def platform(registry: Registry) -> Platform:
    """A platform of whose one person and course everything is known."""
    platform, _ = registry.add_platform("Moodle", "1.1", key="moodle", secret="a-secret-of-some-length")
    learn(registry, platform.id)
    return platform


def learn(registry: Registry, platform_id: int) -> None:
    with registry.together():
        registry.ensure_identity(platform_id, "4", ["ana"], **PERSON)
        registry.ensure_context(platform_id, "2", ["cs101"], label="CS 101", title="Intro")
        registry.set_membership("cs101", "ana", "student", source="launch")
        registry.grades.learn(
            platform_id, "2", "cs101", "ana", resource_link_id="l1", title="Week 1", line_item=LINK["line_item"],
            sourcedid="s1", **SERVICES,
        )  # fmt: skip


def test_what_is_known_is_recognised(registry: Registry, platform: Platform) -> None:
    ana = Recognised("ana", "cs101", 1)
    assert registry.recognised(platform.id, "4", **LAUNCH) == ana
    assert registry.recognised(platform.id, "4", person=PERSON) == Recognised("ana", None, None)
    assert registry.recognised(platform.id + 1, "4", **LAUNCH) is None
    # What a launch does not say stays as it is.
    empty = {"person": dict.fromkeys(PERSON, ""), "course": dict.fromkeys(COURSE, ""), "sourcedid": ""}
    assert registry.recognised(platform.id, "4", **LAUNCH | empty) == ana
    # It is compared as it would be kept.
    assert registry.recognised(platform.id, "4", person=PERSON | {"full_name": " Ana\nB "}) == Recognised(
        "ana", None, None
    )


@pytest.mark.parametrize(
    "change",
    [
        *({"person": PERSON | {field: "other"}} for field in PERSON),
        *({"course": COURSE | {field: "other"}} for field in ("label", "title", "line_items_url", "memberships_url")),
        {"course": COURSE | {"ags_scopes": ["a"]}},
        *({"link": LINK | {field: "other"}} for field in LINK),
        {"context_id": "3"},
        {"role": "instructor"},
        {"link_id": "l2"},
        {"sourcedid": "s2"},
    ],
)
def test_anything_new_is_not(registry: Registry, platform: Platform, change: dict[str, Any]) -> None:
    assert registry.recognised(platform.id, "4", **LAUNCH | change) is None


def test_somebody_new_where_all_else_is_known_is_welcome(registry: Registry, platform: Platform) -> None:
    bob = PERSON | {"email": "bob@example.edu", "full_name": "Bob\nC"}
    launch = LAUNCH | {"person": bob, "sourcedid": "s5"}
    known = registry.recognised(platform.id, "5", **launch)
    assert known == Recognised(None, "cs101", 1)
    for change in ({"context_id": "3"}, {"course": COURSE | {"title": "other"}}, {"link_id": "l2"}):
        assert registry.recognised(platform.id, "5", **launch | change) is None
    welcome = partial(registry.welcome, person=bob, course_id="cs101", role="student", link=1, sourcedid="s5")
    # `ana` is somebody's, `bob` is the machine's.
    assert welcome(platform.id, "5", ["ana", "bob", "bob-c"], taken=lambda name: name == "bob") == "bob-c"
    assert registry.recognised(platform.id, "5", **launch) == Recognised("bob-c", "cs101", 1)
    assert registry.grades.sourcedid_names(1) == {"ana", "bob-c"}
    found = registry.identity(platform.id, "5")
    assert found is not None
    assert (found.email, found.full_name) == ("bob@example.edu", "Bob C")
    assert registry.standing(["ana", "bob-c", "nobody"]) == {"ana": {"cs101": "student"}, "bob-c": {"cs101": "student"}}
    # All or nothing.
    with pytest.raises(IntegrityError):
        welcome(platform.id, "6", ["cleo"], course_id="nowhere")
    with pytest.raises(IllumiDeskError, match="unusable"):
        welcome(platform.id, "", ["cleo"])
    assert registry.person("cleo") is None
    registry.leave("cs101", "bob-c")
    registry.retire_person("ana")
    assert registry.standing(["ana", "bob-c"]) == {"bob-c": {}}


@pytest.mark.parametrize("change", ["retired", "withdrawn", "left", "role", "roster", "course"])
def test_what_changed_here_is_not(registry: Registry, platform: Platform, change: str) -> None:
    if change == "retired":
        registry.retire_person("ana")
        assert registry.recognised(platform.id, "4", person=PERSON) is None
    elif change == "withdrawn":
        registry.set_membership("cs101", "ana", None)
    elif change == "left":
        registry.leave("cs101", "ana")
    elif change == "role":
        registry.set_membership("cs101", "ana", "ta")
    elif change == "roster":
        registry.set_membership("cs101", "ana", None)
        registry.set_membership("cs101", "ana", "student", source="roster")
    else:
        registry.remove_course("cs101")
    assert registry.recognised(platform.id, "4", **LAUNCH) is None


def test_together_is_all_or_nothing(registry: Registry, platform: Platform) -> None:
    def enrol() -> None:
        with registry.together():
            registry.ensure_identity(platform.id, "5", ["bob"])
            registry.set_membership("cs101", "bob", "student")
            registry.set_membership("nowhere", "bob", "student")

    with pytest.raises(IllumiDeskError):
        enrol()
    assert registry.person("bob") is None
    # The next call is a transaction of its own again.
    registry.ensure_person("bob")
    assert Registry(Path(str(registry.engine.url.database))).is_present("bob")


def test_platforms_are_as_they_are_now(registry: Registry, platform: Platform) -> None:
    assert registry.platform_by_key("moodle") is not None
    registry.learn_origins(platform.id, {"https://lms.example"})
    assert [one.origins for one in registry.platforms()] == [["https://lms.example"]]
    registry.add_platform("Moodle", "1.1", key="moodle", secret="another-of-some-length", replace=True)
    found = registry.platform_by_key("moodle")
    assert found is not None
    assert found.secret == "another-of-some-length"
    registry.remove_platform(platform.id)
    assert registry.platform_by_key("moodle") is None
    with pytest.raises(IllumiDeskError, match="no platform"):
        registry.use_nonce(platform.id, "n", time.time() + 60)


def test_a_nonce_survives_a_hub_that_is_killed(registry: Registry, platform: Platform) -> None:
    assert registry.use_nonce(platform.id, "n", time.time() + 60)
    # Nothing was closed: what the next process finds is what was committed.
    again = Registry(Path(str(registry.engine.url.database)))
    assert not again.use_nonce(platform.id, "n", time.time() + 60)


# The disk


class _Slow(Disk):
    """Flushes when it is let."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
        self.let = threading.Semaphore(0)
        self.flushed = 0

    def _flush(self) -> None:
        self.let.acquire()
        self.flushed += 1


async def test_many_wait_for_one_flush_that_began_after_they_came() -> None:
    disk = _Slow()
    first = asyncio.create_task(disk.settled())
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(disk.settled()) for _ in range(50)]
    await asyncio.sleep(0.05)
    # Somebody closes the page meanwhile.
    others.pop().cancel()
    disk.let.release()
    await first
    assert not any(one.done() for one in others), "the flush that was under way may have missed their commits"
    disk.let.release()
    await asyncio.gather(*others)
    assert disk.flushed == 2


async def test_what_was_written_is_flushed(
    registry: Registry, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr("os.fdatasync", lambda fd: flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    registry.use_nonce(platform.id, "n", time.time() + 60)
    assert flushed == []
    await registry.settled()
    assert flushed == [f"{registry.engine.url.database}-wal"]
    registry.close()  # the log is gone: all of it is in the database
    await registry.settled()


async def test_a_disk_that_fails_is_told_to_everybody_who_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "x-wal"
    log.touch()

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fdatasync", fail)
    disk = Disk(log)
    results = await asyncio.gather(*(disk.settled() for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in results] == [OSError] * 3
    monkeypatch.undo()
    await disk.settled()
