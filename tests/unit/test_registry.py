"""The registry: people, courses, memberships."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from illumidesk.errors import IllumiDeskError
from illumidesk.registry import Base, Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.sqlite")


def test_the_file_is_private(registry: Registry, tmp_path: Path) -> None:
    registry.ensure_person("ana")
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_migrations_make_what_the_models_say(registry: Registry) -> None:
    with registry.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_opening_again_keeps_everything(registry: Registry, tmp_path: Path) -> None:
    registry.ensure_person("ana")
    registry.close()
    again = Registry(tmp_path / "registry.sqlite")
    assert [person.name for person in again.people()] == ["ana"]


def test_memberships(registry: Registry) -> None:
    registry.ensure_person("ana")
    registry.ensure_course("intro101", "Introduction")
    registry.ensure_course("cs-102")
    assert registry.set_membership("intro101", "ana", "student") is True
    assert registry.set_membership("intro101", "ana", "student") is False
    assert registry.highest_role("ana") == "student"
    registry.set_membership("cs-102", "ana", "ta")
    assert registry.highest_role("ana") == "ta"
    registry.set_membership("intro101", "ana", "instructor")
    assert registry.highest_role("ana") == "instructor"
    assert registry.members("intro101") == [("ana", "instructor")]
    assert registry.counts() == {"intro101": {"instructor": 1}, "cs-102": {"ta": 1}}
    registry.set_membership("intro101", "ana", None)
    assert registry.memberships("ana") == [("cs-102", "ta")]
    registry.remove_course("cs-102")
    assert registry.memberships("ana") == []
    assert registry.highest_role("ana") is None


def test_a_name_is_never_given_to_another(registry: Registry) -> None:
    registry.ensure_person("ana")
    registry.set_password_hash("ana", "hash")
    registry.retire_person("ana")
    assert not registry.is_present("ana")
    assert registry.people() == []
    with pytest.raises(IllumiDeskError, match="was removed"):
        registry.ensure_person("ana")
    assert registry.ensure_person("ana", restore=True) is True
    person = registry.person("ana")
    assert person is not None
    assert person.password_hash is None


@pytest.mark.parametrize(
    ("course_id", "name", "role", "message"),
    [
        ("none", "ana", "student", "there is no course none"),
        ("intro101", "nobody-here", "student", "there is no user nobody-here"),
        ("intro101", "ana", "teacher", "'teacher' is not a role"),
    ],
)
def test_unknown_things_are_named(registry: Registry, course_id: str, name: str, role: str, message: str) -> None:
    registry.ensure_person("ana")
    registry.ensure_course("intro101")
    with pytest.raises(IllumiDeskError, match=message):
        registry.set_membership(course_id, name, role)  # type: ignore[arg-type]


@pytest.mark.parametrize("title", ["x" * 256, "two\nlines", "\x1b[31mred"])
def test_titles_are_one_line(registry: Registry, title: str) -> None:
    with pytest.raises(IllumiDeskError, match="one line"):
        registry.ensure_course("intro101", title)


def test_a_reader_does_not_block_a_writer(registry: Registry, tmp_path: Path) -> None:
    registry.ensure_person("ana")
    reader = sqlite3.connect(tmp_path / "registry.sqlite")
    reader.execute("BEGIN")
    assert reader.execute("SELECT name FROM people").fetchall() == [("ana",)]
    registry.ensure_person("ben")
    reader.close()
