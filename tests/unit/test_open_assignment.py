"""A link in the LMS fetches its assignment and opens it; real nbgrader, real exchange."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.grader.open_assignment import ensure_fetched, page_of
from tests.support.notebook_server import NotebookServer, notebook_server, write_config

NOTEBOOK = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def release(exchange: Path, course: str, name: str, *notebooks: str) -> Path:
    folder = exchange / course / "outbound" / name
    folder.mkdir(parents=True)
    for notebook in notebooks:
        (folder / f"{notebook}.ipynb").write_text(NOTEBOOK)
    (folder / "data").mkdir()
    (folder / "data/values.csv").write_text("1,2\n")
    return folder


def entries(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


@pytest.fixture
def exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exchange with an assignment, which nbgrader's configuration names."""
    exchange = tmp_path / "exchange"
    release(exchange, "bio101", "ps1", "problem")
    exchange.chmod(0o777)
    write_config(tmp_path / "config", ("assignment-list",), exchange)
    for name, value in {"HOME": "home", "JUPYTER_CONFIG_DIR": "home/.jupyter", "JUPYTER_CONFIG_PATH": "config"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return exchange


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_it_is_fetched_once(exchange: Path, home: Path) -> None:
    folder = ensure_fetched(home, "bio101", "ps1")
    assert folder == home / "bio101/ps1"
    assert entries(home) == [
        "bio101", "bio101/ps1", "bio101/ps1/data", "bio101/ps1/data/values.csv", "bio101/ps1/problem.ipynb"
    ]  # fmt: skip
    (folder / "problem.ipynb").write_text("my work")
    (folder / "data/values.csv").unlink()
    shutil.rmtree(exchange)
    assert ensure_fetched(home, "bio101", "ps1") == folder
    assert (folder / "problem.ipynb").read_text() == "my work"
    assert not (folder / "data/values.csv").exists()


def test_what_is_there_stays_whatever_it_is(exchange: Path, home: Path) -> None:
    (home / "bio101").mkdir()
    (home / "bio101/ps1").symlink_to("nowhere")
    ensure_fetched(home, "bio101", "ps1")
    assert entries(home) == ["bio101", "bio101/ps1"]


def test_clicks_at_the_same_time_fetch_it_whole(exchange: Path, home: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(lambda _: ensure_fetched(home, "bio101", "ps1"), range(8)))
    assert set(folders) == {home / "bio101/ps1"}
    assert entries(home / "bio101") == ["ps1", "ps1/data", "ps1/data/values.csv", "ps1/problem.ipynb"]


def test_a_home_without_courses_folders(exchange: Path, home: Path) -> None:
    (home / "nbgrader_config.py").write_text("c = get_config()\nc.Exchange.path_includes_course = False\n")
    assert ensure_fetched(home, "bio101", "ps1") == home / "ps1"
    assert (home / "ps1/problem.ipynb").is_file()


@pytest.mark.parametrize(
    ("course", "name", "status", "says"),
    [
        ("bio101", "ps2", 404, "not released"),
        ("chem", "ps1", 403, "not a member"),
        ("../bio101", "ps1", 400, "not a valid course id"),
        ("bio101", "../../etc", 400, "not a valid assignment name"),
        ("bio101", "", 400, "not a valid assignment name"),
        ("", "ps1", 400, "not a valid course id"),
        ("bio101", "*", 404, "not released"),
    ],
)
def test_why_not(exchange: Path, home: Path, course: str, name: str, status: int, says: str) -> None:
    with pytest.raises(IllumiDeskError, match=says) as refused:
        ensure_fetched(home, course, name)
    assert refused.value.status == status
    assert entries(home) == []


def test_an_exchange_that_is_missing(exchange: Path, home: Path) -> None:
    shutil.rmtree(exchange)
    with pytest.raises(IllumiDeskError, match="exchange for assignments is missing"):
        ensure_fetched(home, "bio101", "ps1")


def test_a_configuration_that_is_wrong_ends_nothing(exchange: Path, home: Path) -> None:
    (home / "nbgrader_config.py").write_text("c = get_config()\nc.NbGrader.log_level = 'no such level'\n")
    with pytest.raises(IllumiDeskError, match="configuration"):
        ensure_fetched(home, "bio101", "ps1")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "disk is full"),
        # As shutil tells it after it went on with other files.
        (shutil.Error([("a", "b", f"[Errno 122] {os.strerror(errno.EDQUOT)}: 'b'")]), "disk is full"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "could not be fetched"),
    ],
)
def test_half_an_assignment_is_none(
    exchange: Path, home: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, says: str
) -> None:
    copytree: Callable[..., Any] = shutil.copytree

    def fails_at_the_end(*args: Any, **options: Any) -> None:
        copytree(*args, **options)
        raise error

    monkeypatch.setattr(shutil, "copytree", fails_at_the_end)
    with pytest.raises(IllumiDeskError, match=says):
        ensure_fetched(home, "bio101", "ps1")
    assert entries(home) == []
    monkeypatch.setattr(shutil, "copytree", copytree)
    ensure_fetched(home, "bio101", "ps1")
    assert (home / "bio101/ps1/problem.ipynb").is_file()


def test_the_page_that_shows_it(tmp_path: Path) -> None:
    folder = tmp_path / "bio101/Übung <2>"
    folder.mkdir(parents=True)
    assert page_of(folder, tmp_path) == "lab/tree/bio101/%C3%9Cbung%20%3C2%3E"
    (folder / "a b.ipynb").touch()
    (folder / ".hidden.ipynb").touch()
    assert page_of(folder, tmp_path) == "lab/tree/bio101/%C3%9Cbung%20%3C2%3E/a%20b.ipynb"
    (folder / "c.ipynb").touch()
    assert page_of(folder, tmp_path) == "lab/tree/bio101/%C3%9Cbung%20%3C2%3E"
    assert page_of(tmp_path, folder) == "lab"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookServer]:
    folder = tmp_path_factory.mktemp("server")
    release(folder / "exchange", "bio101", "Übung <2>", "a b")
    (folder / "exchange").chmod(0o777)
    with notebook_server(folder, ()) as running:
        yield running


def test_a_server_goes_there(server: NotebookServer) -> None:
    link = f"illumidesk/assignment?{urlencode({'course': 'bio101', 'name': 'Übung <2>'})}"
    assert server.get(link, token="wrong")[0] == 302  # to sign in
    assert entries(server.home / "bio101") == []
    for _ in range(2):
        status, headers, _ = server.get(link)
        assert status == 302
        assert headers["Location"] == "/user/ana/lab/tree/bio101/%C3%9Cbung%20%3C2%3E/a%20b.ipynb"
    assert (server.home / "bio101/Übung <2>/a b.ipynb").is_file()


def test_a_server_says_why_not(server: NotebookServer) -> None:
    status, headers, page = server.get(
        f"illumidesk/assignment?{urlencode({'course': 'bio101', 'name': '<script>alert(1)<'})}"
    )
    assert status == 404
    assert headers["Content-Type"].startswith("text/html")
    assert "The assignment &lt;script&gt;alert(1)&lt; is not released yet: ask your teacher" in page
    assert 'href="/user/ana/lab"' in page
    assert "Traceback" not in page
    assert "<script" not in page
    assert server.get("illumidesk/assignment")[0] == 400
