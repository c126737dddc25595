"""When assignments are due, as a person's server tells it."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from illumidesk.grader.duedates import MAX_FILE, due_dates
from tests.support.notebook_server import NotebookServer, notebook_server

FIRST = "2026-12-01T22:00:00Z"
SECOND = "2026-12-08T22:00:00Z"


@pytest.fixture
def course(tmp_path: Path) -> Path:
    folder = tmp_path / "bio101"
    folder.mkdir()
    return folder


def write(file: Path, assignments: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"assignments": assignments}), "utf-8")


def test_a_students_own_dates_go_before_the_courses(tmp_path: Path, course: Path) -> None:
    write(course / "duedates.json", {"ps1": FIRST, "Übung <2>": FIRST})
    write(course / "duedates/ana.json", {"ps1": SECOND, "ps3": SECOND})
    # Students may not list whose dates there are.
    (course / "duedates").chmod(0o711)
    assert due_dates(tmp_path, "ana") == {
        "bio101": {"assignments": {"ps1": SECOND, "Übung <2>": FIRST, "ps3": SECOND}, "own": ["ps1", "ps3"]}
    }
    assert due_dates(tmp_path, "ben")["bio101"] == {"assignments": {"ps1": FIRST, "Übung <2>": FIRST}, "own": []}


def test_all_courses_or_one(tmp_path: Path) -> None:
    for name in ("bio101", "chem", "Not A Course", ".hidden"):
        write(tmp_path / name / "duedates.json", {"ps1": FIRST})
    (tmp_path / "a-file").write_text("")
    (tmp_path / "empty").mkdir()
    assert list(due_dates(tmp_path, "ana")) == ["bio101", "chem"]
    assert list(due_dates(tmp_path, "ana", "chem")) == ["chem"]
    for none in ("physics", "empty", "a-file", "../bio101", "bio101/", "Not A Course", "\0"):
        assert due_dates(tmp_path, "ana", none) == {}
    assert due_dates(tmp_path / "absent", "ana") == {}


def test_no_link_is_followed(tmp_path: Path, course: Path) -> None:
    exchange = tmp_path / "exchange"
    elsewhere = course / "duedates.json"
    write(elsewhere, {"ps1": FIRST})
    (exchange / "chem").mkdir(parents=True)
    (exchange / "chem/duedates.json").symlink_to(elsewhere)
    (exchange / "bio101").symlink_to(course)
    (exchange / "physics").mkdir()
    (exchange / "physics/duedates").symlink_to(course)
    assert due_dates(exchange, "duedates") == {}


def test_what_somebody_else_put_there_is_not_told(tmp_path: Path, course: Path) -> None:
    write(course / "duedates.json", {"ps1": FIRST})
    assert due_dates(tmp_path, "ana")
    if os.geteuid() == 0:  # only root can give a file away
        os.chown(course / "duedates.json", 4242, 4242)
        assert due_dates(tmp_path, "ana") == {}


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, course: Path) -> None:
    os.mkfifo(course / "duedates.json")
    (course / "duedates/ana.json").mkdir(parents=True)
    assert due_dates(tmp_path, "ana") == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "{}",
        '{"assignments": []}',
        '{"assignments": "ps1"}',
        "[" * 100_000,
        '{"assignments": {"ps1": "2026-12-01T22:00:00Z"}}'.ljust(MAX_FILE + 1),
        b"\xff\xfe",
    ],
    ids=range(10),
)
def test_a_file_that_says_something_else_is_as_none(tmp_path: Path, course: Path, text: str | bytes) -> None:
    (course / "duedates.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    write(course / "duedates/ana.json", {"ps2": SECOND})
    assert due_dates(tmp_path, "ana") == {"bio101": {"assignments": {"ps2": SECOND}, "own": ["ps2"]}}


def test_only_times_are_told(tmp_path: Path, course: Path) -> None:
    times: dict[str, Any] = {
        "ours": FIRST,
        "offset": "2026-12-01T23:00:00.5+01:00",
        "no zone": "2026-12-01T22:00:00",
        "word": "tomorrow",
        "number": 5,
        "nothing": None,
        "too early": "0001-01-01T00:00:00+14:00",
    }
    write(course / "duedates.json", times)
    assert due_dates(tmp_path, "ana")["bio101"]["assignments"] == {"ours": FIRST, "offset": FIRST}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookServer]:
    with notebook_server(tmp_path_factory.mktemp("server"), ("assignment-list",)) as running:
        yield running


def test_a_server_tells_them(server: NotebookServer) -> None:
    write_course = server.exchange / "bio101"
    write_course.mkdir()
    write(write_course / "duedates.json", {"ps1": FIRST})
    write(write_course / f"duedates/{pwd.getpwuid(os.geteuid()).pw_name}.json", {"ps1": SECOND})
    told = {"courses": {"bio101": {"assignments": {"ps1": SECOND}, "own": ["ps1"]}}}
    assert server.json("illumidesk/duedates") == told
    assert server.json("illumidesk/duedates?course=bio101") == told
    assert server.json("illumidesk/duedates?course=../bio101") == {"courses": {}}
    status, _, text = server.get("illumidesk/duedates", token="wrong")
    assert status == 403
    assert "bio101" not in text


def test_jupyterlab_finds_our_extension(server: NotebookServer) -> None:
    status, _, page = server.get("lab")
    assert status == 200
    config = json.loads(page.partition('<script id="jupyter-config-data" type="application/json">')[2].split("<")[0])
    (ours,) = [one for one in config["federated_extensions"] if one["name"] == "illumidesk"]
    assert "illumidesk:duedates" not in config["disabledExtensions"]
    status, headers, script = server.get(f"lab/extensions/illumidesk/{ours['load']}")
    assert status == 200
    assert "javascript" in headers["Content-Type"]
    assert "_JUPYTERLAB.illumidesk" in script


def test_a_role_without_the_formgrader_has_none_of_its_links(server: NotebookServer) -> None:
    assert server.get("illumidesk/formgrader/links.js")[0] == 404
