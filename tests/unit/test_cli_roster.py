"""`illumidesk roster` against a stand-in for the hub."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from tests.unit.fake_hub import CREATED, FakeHub
from tests.unit.test_cli import Run, hub, illumidesk, paths  # noqa: F401 -- fixtures

API = "/hub/api/illumidesk/courses/bio101"


def fetch(**fields: Any) -> tuple[int, dict[str, Any]]:
    state: dict[str, Any] = {
        "asked_by": "root", "started": CREATED, "step": "people", "done": 0, "total": 0, "ended": None,
        "problem": "", "hint": "", "change": None,
    }  # fmt: skip
    return 200, {**state, **fields}


CHANGE = {
    "joined": ["ana"],
    "changed": [],
    "left": ["ben"],
    "unchanged": [],
    "skipped": {"Eve": "the account eve was removed from this classroom"},
    "gradebook": "",
    "sentence": "1 joined, 1 left, 0 unchanged, 1 left out",
}


def test_show(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    hub.add_course("bio101", ana="student", tom="instructor")
    hub.left = {"ana"}
    result = illumidesk("roster", "show", "bio101")
    assert (result.code, result.err) == (0, "")
    assert "LMS" in result.out
    assert [one["name"] for one in illumidesk("roster", "show", "bio101", "--json").json()["people"]] == ["ana", "tom"]
    assert illumidesk("roster", "show", "nothing").code == 1


def test_fetch_waits_and_says_what_came_of_it(illumidesk: Run, hub: FakeHub) -> None:  # noqa: F811
    hub.add_course("bio101")
    hub.fetches = [fetch(step="reading"), fetch(done=1, total=2), fetch(ended=CREATED, change=CHANGE)]
    result = illumidesk("roster", "fetch", "bio101")
    assert result.code == 0
    assert "1 joined, 1 left" in result.out
    assert "joined: ana" in result.out
    assert "left: ben" in result.out
    assert "Eve: the account eve was removed" in result.err
    hub.fetches = [fetch(ended=CREATED, problem="the LMS has trouble of its own", hint="try later")]
    refused = illumidesk("roster", "fetch", "bio101")
    assert (refused.code, "Hint: try later" in refused.err) == (1, True)


def test_an_export_can_be_imported(illumidesk: Run, hub: FakeHub, tmp_path: Path) -> None:  # noqa: F811
    hub.add_course("bio101", ana="student", ben="ta", carl="student")
    hub.left = {"carl"}
    file = tmp_path / "roster.csv"
    assert illumidesk("roster", "export", "bio101", "--output", str(file)).code == 0
    text = illumidesk("roster", "export", "bio101").out
    assert file.read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0] == {
        "account": "ana",
        "full_name": "'=Ana",  # no formula
        "email": "ana@example.edu",
        "role": "student",
        "lms_user_id": "id-ana",
        "left": "",
    }
    hub.calls.clear()
    for _ in range(2):
        result = illumidesk("roster", "import", "bio101", str(file))
        assert (result.code, result.out) == (0, "2 of 2 are in bio101, 0 of them new\n")
    puts = [(path, body) for method, path, body in hub.calls if method == "PUT"]
    assert puts[:2] == [
        (f"{API}/members/ana", {"role": "student", "create": True, "keep": True}),
        (f"{API}/members/ben", {"role": "ta", "create": True, "keep": True}),
    ]


def test_an_import_is_checked_as_a_whole_and_can_be_tried(illumidesk: Run, hub: FakeHub, tmp_path: Path) -> None:  # noqa: F811
    hub.add_course("bio101", ana="student", ben="ta")
    file = tmp_path / "class.csv"
    file.write_text("account;role\nana;\nben;student\nnew1;instructor\n")
    result = illumidesk("roster", "import", "bio101", str(file), "--dry-run")
    assert result.out.splitlines() == [
        "ana is student already",
        "ben would be student instead of ta",
        "new1 would join as instructor",
    ]
    assert not [one for one in hub.calls if one[0] == "PUT"]
    file.write_text("account,role,course\nana,boss,\nBig Name,,\nben,,\nben,,\ncarl,,chem\n")
    result = illumidesk("roster", "import", "bio101", str(file))
    assert result.code == 1
    for word in ("line 2: there is no role boss", "line 3:", "line 5: ben is in line 4", "line 6: it is of the course"):
        assert word in result.err
    assert not [one for one in hub.calls if one[0] == "PUT"]
    file.write_text("who,what\nana,student\n")
    assert "no column account" in illumidesk("roster", "import", "bio101", str(file)).err
