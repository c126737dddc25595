"""Names: what is taken is safe as an account, a group, a folder and a unit; everything else is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from illumidesk import names
from illumidesk.errors import IllumiDeskError

ANYTHING = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"[a-z0-9_-]{0,40}", fullmatch=True),
    st.sampled_from(["root", "grader-x", "nbgrader-x", "illumidesk", "jupyter-a", "..", "a/b", "a\n", "ａ", "²"]),
    st.integers(),
    st.none(),
)


def outcome(check: Callable[[str], str], name: str) -> tuple[str | None, IllumiDeskError | None]:
    try:
        return check(name), None
    except IllumiDeskError as error:
        return None, error


@given(ANYTHING)
@example("a" * 33)
@example("alice\n")
@example("Alice")
@example("ａlice")
def test_an_account_name_that_is_taken_is_safe(name: str) -> None:
    taken, error = outcome(names.check_account, name)
    if error is not None:
        assert error.hint
        assert len(error.message) < 120
        return
    assert taken == name
    assert re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name, re.ASCII)
    assert not name.startswith(("grader-", "nbgrader-", "formgrade-", "illumidesk", "jupyter-", "systemd-"))
    assert names.server_unit(name) == f"jupyter-{name}.service"


@given(ANYTHING)
@example("a" * 24)
@example("-a")
@example("a-")
@example("a.b")
def test_a_course_id_that_is_taken_is_safe(course_id: str) -> None:
    _, error = outcome(names.check_course_id, course_id)
    if error is not None:
        assert error.hint
        return
    for made in (names.grader_account, names.members_group, names.formgrade_group):
        assert re.fullmatch(r"[a-z][a-z0-9_-]*", made(course_id), re.ASCII)
    assert len(names.members_group(course_id)) <= names.MAX_ACCOUNT
    assert len(names.grader_account(course_id)) <= names.MAX_ACCOUNT
    assert names.grader_unit(course_id) == f"illumidesk-grader@{course_id}.service"


@given(ANYTHING)
@example("..")
@example("a/../b")
def test_an_environment_name_stays_in_its_folder(name: str) -> None:
    try:
        names.check_environment(name)
    except IllumiDeskError:
        return
    assert "/" not in name
    assert ".." not in name
    assert not name.startswith(".")


@pytest.mark.parametrize("name", ["a", "alice", "a1", "a_b-c", "a" * 32])
def test_ordinary_names_are_taken(name: str) -> None:
    assert names.check_account(name) == name


@pytest.mark.parametrize("course_id", ["a", "1", "bio101", "cs-101_fall", "a" * 23])
def test_ordinary_course_ids_are_taken(course_id: str) -> None:
    assert names.check_course_id(course_id) == course_id


@given(st.from_regex(r"[a-z0-9](?:[a-z0-9_-]{0,21}[a-z0-9])?", fullmatch=True))
def test_no_person_may_have_a_graders_account(course_id: str) -> None:
    with pytest.raises(IllumiDeskError):
        names.check_account(names.grader_account(course_id))


@pytest.mark.parametrize("name", ["ps1", "Übung 1", "problem_set-3.1", "x" * 100, "a  b"])
def test_ordinary_assignment_names_are_taken(name: str) -> None:
    assert names.check_assignment(name) == name


_NO_ASSIGNMENTS = ["", ".", "..", ".x", "a/b", "../a", "/a", "a+b", "a\\b", " a", "a\n", "x" * 101, None]


@pytest.mark.parametrize("name", _NO_ASSIGNMENTS)
def test_an_assignment_name_is_one_folder(name: Any) -> None:
    with pytest.raises(IllumiDeskError, match="not a valid assignment name"):
        names.check_assignment(name)
