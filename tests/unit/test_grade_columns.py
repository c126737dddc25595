"""Which column is whose: told by the link, by what was made, by one title; guessed never."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from illumidesk.grades.columns import NEW, Place, decide


def place(key: str, label: str = "", **more: str) -> Place:
    return Place(key, label or key, line_item=key, **more)


@pytest.mark.parametrize(
    ("places", "wanted", "source"),
    [
        ([place("a", assignment="ps1"), place("b", "ps1")], "a", "link"),
        ([place("a", "ps1"), place("b", resource_id="ps1")], "b", "link"),
        ([place("a", "x", resource_id="ps1"), place("b", assignment="ps1")], "b", "link"),
        ([place("a", "ps1"), place("b", "x", tag="ps1")], "b", "link"),
        ([place("a", "PS 1"), place("b", "other")], "a", "title"),
        ([place("a", "ｐｓ－1!"), place("b", "other")], "a", "title"),
    ],
)
def test_a_column_is_found(places: list[Place], wanted: str, source: str) -> None:
    found, why = decide("ps1", places, may_make=True)
    assert found is not None
    assert (found.key, why) == (wanted, source)


@pytest.mark.parametrize(
    "places",
    [
        [place("a", "Homework")],
        [place("a", "ps1"), place("b", "PS1")],
        [place("a", "ps10")],
    ],
)
def test_where_it_is_not_clear_nothing_is_guessed(places: list[Place]) -> None:
    assert decide("ps1", places, may_make=True)[0] is None


def test_a_column_is_made_only_where_no_other_could_be_meant() -> None:
    others = [place("a", "x", assignment="ps2"), place("b", "ps3", resource_id="ps3"), place("c", "taken")]
    found, why = decide("ps1", others, taken=["c"], may_make=True)
    assert found is not None
    assert (found.key, found.label, why) == (NEW, "ps1", "made")
    assert decide("ps1", others, taken=["c"], may_make=False)[0] is None
    assert decide("ps1", [*others, place("d", "Homework")], taken=["c"], may_make=True)[0] is None


def test_what_another_assignment_has_is_not_taken_from_it() -> None:
    assert decide("ps1", [place("a", "ps1")], taken=["a"], may_make=False)[0] is None
    assert decide("ps1", [place("a", "ps1", assignment="ps2")], may_make=False)[0] is None


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5)), max_size=6), st.booleans())
def test_it_is_always_one_of_the_free_ones_or_a_new_one(said: list[tuple[str, str, str]], may_make: bool) -> None:
    places = [
        Place(str(index), label, assignment=assignment, resource_id=resource)
        for index, (label, assignment, resource) in enumerate(said)
    ]
    found, _ = decide("ps1", places, taken=["0"], may_make=may_make)
    if found is None:
        return
    if found.key == NEW:
        assert may_make
        return
    assert found.key != "0"
    assert found.assignment in ("", "ps1")
