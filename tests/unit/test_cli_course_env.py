"""`illumidesk course env` and `illumidesk env requests`, as far as nothing is built."""

from __future__ import annotations

import pytest

from illumidesk.host import users_environments
from illumidesk.paths import Paths
from tests.unit.fake_hub import FakeHub
from tests.unit.test_cli import Run, hub, illumidesk, paths  # noqa: F401 -- fixtures


@pytest.fixture
def course(hub: FakeHub) -> FakeHub:  # noqa: F811
    hub.add_course("bio101", "Biology", maria="instructor")
    return hub


def test_what_is_asked_for(illumidesk: Run, course: FakeHub) -> None:  # noqa: F811
    result = illumidesk("env", "requests")
    assert (result.code, result.out, result.err) == (0, "", "Nobody asks for a package.\n")
    course.ask("bio101", "pandas")
    course.ask("bio101", "rdkit")
    result = illumidesk("env", "requests")
    assert "pandas" in result.out
    assert "Next: illumidesk course env bio101 add --requested" in result.out
    assert [one["requirement"] for one in illumidesk("env", "requests", "--json").json()] == ["pandas", "rdkit"]
    assert "2 packages are asked for by instructors: illumidesk env requests" in illumidesk("status").out
    assert illumidesk("course", "env", "bio101", "decline", "RDKit", "--reason", "too big").out == "Declined: rdkit\n"
    assert course.requests[1]["reason"] == "too big"
    result = illumidesk("course", "env", "bio101", "decline", "rdkit")
    assert (result.code, "nobody asks for rdkit in bio101" in result.err) == (1, True)


def test_shown(illumidesk: Run, course: FakeHub, paths: Paths) -> None:  # noqa: F811
    course.ask("bio101", "pandas")
    result = illumidesk("course", "env", "bio101", "show")
    assert ["Environment:", "default"] in [line.split() for line in result.out.splitlines()]
    assert "pandas" in result.out
    file = users_environments.description_file("course-bio101", paths)
    file.parent.mkdir()
    file.write_text("name: course-bio101\nbased_on: ml\ndependencies: [r-base, {pip: [numpy]}]\n")
    report = illumidesk("course", "env", "bio101", "show", "--json").json()
    assert (report["own"], report["based_on"], report["packages"]) == ("course-bio101", "ml", ["r-base", "numpy"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("none", "show"), "there is no course none"),
        (("Bio 101", "show"), "'Bio 101' is not a valid course id"),
        (("bio101", "lst"), "There is no command illumidesk course env lst"),
        (("bio101", "decline", "-e."), "o such option"),
        (("bio101", "decline", "git+https://x/y"), "is an address or a path"),
        (("bio101", "reset", "--yes"), "bio101 has no environment of its own"),
        (("bio101", "remove", "pandas"), "bio101 has no environment of its own"),
        (("bio101", "add"), "no package is named"),
        (("bio101", "add", "--requested"), "nobody asks for a package in bio101"),
        (("none", "add", "pandas"), "there is no course none"),
    ],
)
def test_what_is_wrong_is_said(
    illumidesk: Run,  # noqa: F811
    course: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    sentence: str,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    result = illumidesk("course", "env", *words)
    assert result.code in (1, 2)
    assert sentence in result.err
