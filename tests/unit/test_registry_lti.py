"""The registry's part in launches: platforms, whom and which courses they mean, nonces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.registry import Platform, Registry, store

SECRET = "a-secret-of-some-length"
V13: dict[str, Any] = {
    "issuer": "https://lms.example",
    "client_id": "client",
    "auth_url": "https://lms.example/auth",
    "jwks_url": "https://lms.example/jwks",
    "deployments": ["1"],
}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.sqlite")


@pytest.fixture
def moodle(registry: Registry) -> Platform:
    return registry.add_platform("Moodle", "1.1", key="moodle", secret=SECRET)[0]


@pytest.fixture
def canvas(registry: Registry) -> Platform:
    return registry.add_platform("Canvas", "1.3", **V13)[0]


def test_the_migration_keeps_what_is_there_and_can_be_undone(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(store.__file__).parent / "migrations"))

    def go(step: Callable[..., None], revision: str) -> None:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            step(config, revision)

    go(command.upgrade, "0001")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO people (name, created) VALUES ('ana', '2026-01-01 00:00:00')")
    registry = Registry(path)
    assert registry.is_present("ana")
    assert not registry.is_from_platform("ana")
    registry.add_platform("Moodle", "1.1", key="moodle", secret=SECRET)
    registry.close()
    go(command.downgrade, "0001")
    assert set(inspect(engine).get_table_names()) == {"alembic_version", "people", "courses", "memberships"}
    engine.dispose()


# Platforms


def test_platforms_are_found_by_what_a_launch_says(registry: Registry, moodle: Platform, canvas: Platform) -> None:
    other, _ = registry.add_platform("Canvas 2", "1.3", **V13 | {"client_id": "other", "deployments": ["*"]})
    assert [one.name for one in registry.platforms()] == ["Moodle", "Canvas", "Canvas 2"]
    found = registry.platform_by_key("moodle")
    assert found is not None
    assert (found.id, found.secret, found.version) == (moodle.id, SECRET, "1.1")
    assert registry.platform_by_key("Moodle") is None
    assert registry.platform_by_key("") is None
    assert registry.platforms_by_issuer("") == []
    assert registry.platforms_by_issuer("https://lms.example/") == []
    assert [one.id for one in registry.platforms_by_issuer("https://lms.example")] == [canvas.id, other.id]
    assert [one.id for one in registry.platforms_by_issuer("https://lms.example", "other")] == [other.id]
    assert registry.platforms_by_issuer("https://lms.example", "") == []
    assert canvas.allows_deployment("1")
    assert not canvas.allows_deployment("2")
    assert not canvas.allows_deployment("*")
    assert other.allows_deployment("2")


def test_a_platform_that_is_removed_is_not_believed_and_comes_back_only_on_request(
    registry: Registry, moodle: Platform, canvas: Platform
) -> None:
    name, _ = registry.ensure_identity(canvas.id, "1", ["ana"])
    registry.ensure_identity(moodle.id, "1", ["ben"])
    for one in (moodle, canvas):
        registry.remove_platform(one.id)
        assert registry.platform(one.id) is None
        with pytest.raises(IllumiDeskError, match="there is no platform"):
            registry.remove_platform(one.id)
        with pytest.raises(IllumiDeskError, match="there is no platform"):
            registry.ensure_identity(one.id, "2", ["carl"])
        with pytest.raises(IllumiDeskError, match="there is no platform"):
            registry.use_nonce(one.id, "n", time.time() + 60)
    assert registry.platforms() == []
    assert registry.platform_by_key("moodle") is None
    assert registry.platforms_by_issuer("https://lms.example", "client") == []
    with registry.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT secret FROM platforms").scalars().all() == ["", ""]
    with pytest.raises(IllumiDeskError, match="was removed, and its people are kept"):
        registry.add_platform("Canvas", "1.3", **V13)
    with pytest.raises(IllumiDeskError, match="was removed, and its people are kept"):
        registry.add_platform("Moodle", "1.1", key="moodle", secret=SECRET)
    back, new = registry.add_platform("Our Canvas", "1.3", **V13, replace=True)
    assert (back.id, back.name, new) == (canvas.id, "Our Canvas", True)
    assert registry.ensure_identity(canvas.id, "1", ["zoe"]) == (name, False)
    fresh, _ = registry.add_platform("Moodle", "1.1", key="another", secret=SECRET)
    assert fresh.id not in (moodle.id, canvas.id)
    assert registry.ensure_identity(fresh.id, "1", ["ben"]) == ("ben-2", True)


def test_replace_changes_a_platform_in_place(registry: Registry, moodle: Platform) -> None:
    with pytest.raises(IllumiDeskError, match="is there already"):
        registry.add_platform("Moodle", "1.1", key="moodle", secret=SECRET)
    changed, new = registry.add_platform("Moodle", "1.1", key="moodle", secret="another-secret-0", replace=True)
    assert (changed.id, changed.secret, new) == (moodle.id, "another-secret-0", False)


def test_two_platforms_have_two_names(registry: Registry, moodle: Platform) -> None:
    with pytest.raises(IllumiDeskError, match="there is already a platform Moodle"):
        registry.add_platform("moodle", "1.1", key="k2", secret=SECRET)
    registry.remove_platform(moodle.id)
    registry.add_platform("moodle", "1.1", key="k2", secret=SECRET)


@pytest.mark.parametrize(
    ("version", "change", "message"),
    [
        ("1.1", {"key": ""}, "needs the platform's key"),
        ("1.1", {"secret": "short"}, "secret is too short"),
        ("1.1", {"key": "a b"}, "key cannot be that"),
        ("1.1", {"key": "x" * 256}, "key cannot be that"),
        ("1.1", {"issuer": "https://x.y"}, "has no issuer"),
        ("1.1", {"deployments": ["1"]}, "has no deployments"),
        ("1.3", {"issuer": ""}, "needs the platform's issuer"),
        ("1.3", {"client_id": ""}, "needs the platform's client id"),
        ("1.3", {"auth_url": ""}, "needs the platform's authorization URL"),
        ("1.3", {"jwks_url": "http://lms.example/jwks"}, "key set URL cannot be"),
        ("1.3", {"jwks_url": "file:///etc/passwd"}, "key set URL cannot be"),
        ("1.3", {"jwks_url": "https://me:pw@lms.example/"}, "key set URL cannot be"),
        ("1.3", {"auth_url": "https://[::1"}, "authorization URL cannot be"),
        ("1.3", {"auth_url": "javascript:alert(1)"}, "authorization URL cannot be"),
        ("1.3", {"secret": SECRET}, "has no secret"),
        ("1.3", {"deployments": []}, "deployments that may launch"),
        ("1.3", {"deployments": [7]}, "deployment id"),
        ("2.0", {}, "not a version of LTI"),
    ],
)
def test_wrong_platforms_are_named(registry: Registry, version: Any, change: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"key": "k", "secret": SECRET} if version == "1.1" else dict(V13)
    with pytest.raises(IllumiDeskError, match=message) as caught:
        registry.add_platform("A", version, **fields | change)
    assert SECRET not in str(caught.value)
    assert registry.platforms() == []


@pytest.mark.parametrize("name", ["", " ", "12", "x" * 65, "a\nb", "\x1b[31m"])
def test_wrong_names_of_platforms_are_refused(registry: Registry, name: str) -> None:
    with pytest.raises(IllumiDeskError, match="not a valid name"):
        registry.add_platform(name, "1.1", key="k", secret=SECRET)


# People


def test_one_person_of_a_platform_is_one_for_ever(registry: Registry, moodle: Platform, canvas: Platform) -> None:
    first = registry.ensure_identity(moodle.id, "7", ["ana"], email="ana@x.y", full_name="Ana\nSilva")
    assert first == ("ana", True)
    assert registry.ensure_identity(moodle.id, "7", ["other"], email="new@x.y") == ("ana", False)
    assert registry.ensure_identity(moodle.id, "7", ["ana"]) == ("ana", False)
    identity = registry.identity(moodle.id, "7")
    assert identity is not None
    assert (identity.email, identity.full_name) == ("new@x.y", "Ana Silva")
    assert registry.ensure_identity(canvas.id, "7", ["ana"], email="new@x.y") == ("ana-2", True)
    assert registry.ensure_identity(moodle.id, "8", ["ana", "ana-silva"]) == ("ana-silva", True)
    assert registry.is_from_platform("ana-2")
    other = registry.identity(canvas.id, "7")
    assert other is not None
    assert other.name == "ana-2"
    assert registry.platform_counts() == {moodle.id: (2, 0), canvas.id: (1, 0)}


def test_nobody_gets_a_name_that_was_ever_anybodys(registry: Registry, moodle: Platform) -> None:
    registry.ensure_person("ana")
    registry.ensure_person("ana-2")
    registry.retire_person("ana-2")
    registry.ensure_person("ana-3x")
    on_machine = {"ana-3", "daemon"}
    assert registry.ensure_identity(moodle.id, "1", ["ana"], taken=on_machine.__contains__) == ("ana-4", True)
    assert registry.ensure_identity(moodle.id, "2", ["daemon"], taken=on_machine.__contains__) == ("daemon-2", True)
    assert not registry.is_from_platform("ana")


def test_who_was_removed_does_not_come_back_by_a_launch(registry: Registry, moodle: Platform) -> None:
    registry.ensure_identity(moodle.id, "1", ["ana"])
    registry.retire_person("ana")
    for email in ("", "ana@x.y"):
        with pytest.raises(IllumiDeskError, match="ana was removed") as caught:
            registry.ensure_identity(moodle.id, "1", ["ana"], email=email)
        assert caught.value.status == 403
    registry.ensure_person("ana", restore=True)
    assert registry.ensure_identity(moodle.id, "1", ["ana"]) == ("ana", False)


@pytest.mark.parametrize("value", ["", "x" * 1025, "a\x00b", "\ud800"])
def test_unusable_ids_leave_nothing(registry: Registry, moodle: Platform, value: str) -> None:
    with pytest.raises(IllumiDeskError, match="unusable id"):
        registry.ensure_identity(moodle.id, value, ["ana"])
    with pytest.raises(IllumiDeskError, match="unusable id"):
        registry.ensure_context(moodle.id, value, ["cs"])
    assert registry.people() == []
    assert registry.courses() == []


def test_a_name_that_fails_leaves_nothing(registry: Registry, moodle: Platform) -> None:
    for propose in (["root"], ["Ana"]):
        with pytest.raises(IllumiDeskError):
            registry.ensure_identity(moodle.id, "1", propose)
    assert registry.people() == []
    assert registry.identity(moodle.id, "1") is None


def test_numbers_keep_names_valid_and_stay_quick(registry: Registry, moodle: Platform) -> None:
    long = "a" * names.MAX_ACCOUNT
    for sub in range(12):
        name, _ = registry.ensure_identity(moodle.id, str(sub), [long])
        assert names.check_account(name) == name
    assert len(registry.people()) == 12
    assert registry.is_present("a" * 29 + "-12")


# Courses


def test_two_courses_with_one_label_stay_two(registry: Registry, moodle: Platform, canvas: Platform) -> None:
    one = names.course_proposals("CS 101: Intro (Fall)", "", "1")
    two = names.course_proposals("cs-101 intro  fall", "", "2")
    assert registry.ensure_context(moodle.id, "1", one, label="CS 101", title="Introduction") == (one[0], True)
    assert registry.ensure_context(moodle.id, "2", two) == (f"{one[0]}-2", True)
    assert registry.ensure_context(canvas.id, "1", one) == (f"{one[0]}-3", True)
    assert registry.ensure_context(moodle.id, "1", ["renamed"], label="New", title="New") == (one[0], False)
    context = registry.context(moodle.id, "1")
    assert context is not None
    assert (context.label, context.title) == ("New", "New")
    course = registry.course(one[0])
    assert course is not None
    assert course.title == "Introduction"


def test_a_course_that_is_there_already_is_not_taken_over(registry: Registry, moodle: Platform) -> None:
    registry.ensure_course("cs101")
    assert registry.ensure_context(moodle.id, "1", ["cs101"], taken={"cs101-2"}.__contains__) == ("cs101-3", True)


def test_a_course_that_was_removed_is_made_anew(registry: Registry, moodle: Platform) -> None:
    registry.ensure_context(moodle.id, "1", ["cs101"])
    registry.remove_course("cs101")
    assert registry.context(moodle.id, "1") is None
    assert registry.ensure_context(moodle.id, "1", ["cs101"]) == ("cs101", True)


# Many at once


def test_fifty_first_launches_at_once_make_one_course_and_fifty_people(registry: Registry, moodle: Platform) -> None:
    def launch(sub: int) -> tuple[str, bool, str, bool]:
        name, new = registry.ensure_identity(moodle.id, str(sub), ["student"], email="s@x.y")
        course_id, new_course = registry.ensure_context(moodle.id, "1", ["cs101"])
        return name, new, course_id, new_course

    async def on_one_loop() -> list[tuple[str, bool, str, bool]]:
        async def later(sub: int) -> tuple[str, bool, str, bool]:
            await asyncio.sleep(0)
            return launch(sub)

        return await asyncio.gather(*(later(sub) for sub in range(50)))

    results = asyncio.run(on_one_loop())
    assert len({name for name, *_ in results}) == 50
    assert sum(new_course for *_, new_course in results) == 1
    # Nor do threads get between, though nothing here uses any.
    with ThreadPoolExecutor(16) as pool:
        more = list(pool.map(launch, [sub % 40 + 30 for sub in range(80)]))
    assert sum(new for _, new, *_ in more) == 20
    assert len(registry.people()) == 70
    assert [course.course_id for course in registry.courses()] == ["cs101"]
    with ThreadPoolExecutor(16) as pool:
        used = list(pool.map(lambda _: registry.use_nonce(moodle.id, "once", time.time() + 60), range(32)))
    assert used.count(True) == 1


# Nonces


def test_a_nonce_counts_once_for_its_platform(registry: Registry, moodle: Platform, canvas: Platform) -> None:
    later = time.time() + 600
    assert registry.use_nonce(moodle.id, "n", later)
    assert not registry.use_nonce(moodle.id, "n", later)
    assert registry.use_nonce(canvas.id, "n", later)
    assert registry.use_nonce(moodle.id, "x" * 100_000 + "\ud800", later)


def nonces(registry: Registry) -> int:
    with registry.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM nonces").scalar_one())


def test_nonces_go_when_they_are_too_old_to_matter(registry: Registry, moodle: Platform) -> None:
    for number in range(20):
        registry.use_nonce(moodle.id, str(number), time.time() - 1)
    assert nonces(registry) == 20, "once in a while, not at each launch"
    registry._swept -= store.NONCE_SWEEP
    registry.use_nonce(moodle.id, "new", time.time() + 60)
    assert nonces(registry) == 1


def test_nonces_are_bounded(
    registry: Registry, moodle: Platform, canvas: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_NONCES", 3)
    later = time.time() + 60
    assert all(registry.use_nonce(moodle.id, str(number), later) for number in range(3))
    with pytest.raises(IllumiDeskError, match="too many"):
        registry.use_nonce(moodle.id, "3", later)
    assert not registry.use_nonce(moodle.id, "0", later)
    assert registry.use_nonce(canvas.id, "3", later)


# Keys of this tool


def test_the_key_before_is_shown_for_a_week_however_old_it_is(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = store.now()

    def after(days: int) -> None:
        monkeypatch.setattr(store, "now", lambda: start + timedelta(days=days))

    def shown() -> list[str]:
        return [key.kid for key in registry.tool_keys()]

    def add(kid: str) -> None:
        registry.add_tool_key(kid, "pem")
        with registry.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE tool_keys SET created = ? WHERE kid = ?", (str(store.now()), kid))

    add("first")
    after(100)
    add("second")
    assert shown() == ["second", "first"]
    after(108)
    assert shown() == ["second"]
    add("third")
    assert shown() == ["third", "second"]


# Invitations


def test_an_invitation_brings_one_platform_unless_it_was_taken_back(registry: Registry) -> None:
    used, token = registry.add_invite("One", timedelta(days=1))
    platform, _ = registry.add_platform("One", "1.3", **V13, invite_id=used.id)
    assert registry.invite(token) is None
    back, token = registry.add_invite("Two", timedelta(days=1))
    registry.revoke_invite(back.id)
    assert registry.invite(token) is None
    other = {**V13, "client_id": "other"}
    for number in (used.id, back.id):
        with pytest.raises(IllumiDeskError, match="no invitation"):
            registry.add_platform("Two", "1.3", **other, invite_id=number)
    assert [one.id for one in registry.platforms()] == [platform.id]


def test_an_invitation_ends(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token = registry.add_invite("One", timedelta(days=1))
    start = store.now()
    assert registry.invite(token) is not None
    monkeypatch.setattr(store, "now", lambda: start + timedelta(days=2))
    assert registry.invite(token) is None
    assert registry.invites() == []


def test_whom_tokens_are_meant_for(registry: Registry) -> None:
    fields = {
        "issuer": "https://a.example.edu", "client_id": "audience", "auth_url": "https://a.example.edu/auth",
        "jwks_url": "https://a.example.edu/jwks", "deployments": ["1"],
    }  # fmt: skip
    for wrong in ("no uri", "word", "https://" + "a" * 1024):
        with pytest.raises(IllumiDeskError):
            registry.add_platform("Audience", "1.3", token_audience=wrong, **fields)
    for good in ("https://api.brightspace.com/auth/token", "urn:x"):
        platform, _ = registry.add_platform("Audience", "1.3", token_audience=good, replace=True, **fields)
        assert platform.token_audience == good
