"""Names from what an LMS sends: whatever it is, they are valid, readable and the same each time."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from illumidesk import names

TEXT = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=st.characters(), max_size=220),  # surrogates too
    st.from_regex(r"[A-Za-z0-9._%+-]{0,200}@[a-z]{1,5}\.[a-z]{2,3}", fullmatch=True),
    st.sampled_from(
        ["", "root@x.y", "grader-a", "illumidesk", "nbgrader-x@x", "+tag@x.y", "@", "é" * 200, "🎉", "王小明", "-", "_"]
    ),
)


@given(TEXT, TEXT, TEXT, TEXT, TEXT)
@example("", "", "", "", "")
@example("A" * 200 + "@x.y", "", "", "", "1")
def test_account_proposals_are_valid_and_stay_the_same(
    email: str, login: str, given: str, family: str, sub: str
) -> None:
    proposals = names.account_proposals(email, login, given, family, sub)
    assert proposals
    assert proposals == names.account_proposals(email, login, given, family, sub)
    for name in proposals:
        assert names.check_account(name) == name
        for number in (2, 999_999):
            assert names.check_account(names.numbered(name, number, names.MAX_ACCOUNT)).endswith(f"-{number}")


@given(TEXT, TEXT, TEXT)
@example("", "", "")
@example("illumidesk-cli", "", "1")
@example("-" * 200, "_", "1")
def test_course_proposals_are_valid_and_stay_the_same(label: str, title: str, context_id: str) -> None:
    proposals = names.course_proposals(label, title, context_id)
    assert proposals
    assert proposals == names.course_proposals(label, title, context_id)
    for course_id in proposals:
        assert names.check_course_id(course_id) == course_id
        assert not course_id.startswith("illumidesk")
        for number in (2, 999_999):
            names.check_course_id(names.numbered(course_id, number, names.MAX_COURSE_ID))


@pytest.mark.parametrize(
    ("email", "login", "given", "family", "first"),
    [
        ("Ana.Silva+lms@example.edu", "", "", "", "ana-silva"),
        ("müller_jörg@example.edu", "", "", "", "muller_jorg"),
        ("12345@example.edu", "", "", "", "u12345"),
        ("root@example.edu", "", "", "", "u-root"),
        ("admin@example.edu", "", "", "", "u-admin"),
        ("Grader-Bio101@example.edu", "", "", "", "u-grader-bio101"),
        ("", "ANA@example.edu", "", "", "ana"),
        ("", "", "Łukasz", "O’Brien-Straße", "lukasz-obrien-strasse"),
        ("王@example.edu", "", "", "", "user-6b86b2"),
        ("", "", "", "", "user-6b86b2"),
        ("a-very-long-name.of-somebody.with-many-names@example.edu", "", "", "", "a-very-long-name-of-somebody"),
    ],
)
def test_names_are_readable(email: str, login: str, given: str, family: str, first: str) -> None:
    assert names.account_proposals(email, login, given, family, "1")[0] == first


@pytest.mark.parametrize(
    ("label", "title", "course_id"),
    [
        ("CS 101: Intro (Fall)", "", "cs-101-intro-fall"),
        ("cs-101 intro  fall", "", "cs-101-intro-fall"),
        ("", "Introduction to Computer Science", "introduction-to"),
        ("数学", "Analysis I", "analysis-i"),
        ("数学", "", "course-6b86b2"),
        ("illumidesk-cli", "", "c-illumidesk-cli"),
        ("ÉCONOMIE", "x", "economie"),
    ],
)
def test_course_ids_are_readable(label: str, title: str, course_id: str) -> None:
    assert names.course_proposals(label, title, "1") == [course_id]


def test_without_words_different_people_get_different_names() -> None:
    assert len({names.account_proposals("", "", "", "", str(sub))[0] for sub in range(50)}) == 50
